"""Which assets cannot be traded as they stand: stale, suspended, delisted, split, rewritten."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.panel import DELISTED_AFTER
from data_loaders.quality import HALT
from data_loaders.suspicious_moves import suspicious_moves
from data_loaders.validation import day
from engine.runs.result import BacktestResult
from engine.trading.account import OrderError
from engine.trading.todays_decision import RECENT, USUAL, sessions_after

LEVEL = 0.3  # log change of a known price that is no dividend: a split, another unit or currency
REWRITTEN = 1e-4  # of a known return, beyond the rounding of adjusted prices
LOOK = 300  # rows by which a new move is judged


def check_sessions(
    dates: pd.DatetimeIndex,
    today: pd.Timestamp,
    closed: Sequence[str],
    max_age: pd.Timedelta | None,
) -> None:
    """Refuse prices (T,) that miss the session before the day of trading.

    Raises:
        OrderError: they end before it, or more than ``max_age`` ago.
    """
    last = dates[-1]
    if max_age is not None:
        if today - last > max_age:
            raise OrderError(
                f"prices end on {day(last)}, which is stale on {day(today)}: give newer ones, a "
                "larger --max-age, or another day of trading (--as-of)"
            )
        return
    coming = sessions_after(dates, today.normalize() - pd.Timedelta("1D"), closed)
    coming = coming[coming.normalize() > last.normalize()]
    if len(coming):
        raise OrderError(
            f"prices end on {day(last)}, which is stale on {day(today)}: the session of "
            f"{day(coming[-1])} is missing. Give newer ones; if there was none, name the holiday "
            "(--holidays) or allow an age (--max-age 5D); to decide as of the last one: "
            f"--as-of {day(last)}"
        )


def check_assets(
    panel: Panel,
    result: BacktestResult,
    held: pd.Series,
    allowed: Collection[str],
    max_age: pd.Timedelta | None,
) -> dict[str, str]:
    """Why assets whose prices are not of the last session may not be traded.

    Assets that had stopped trading before the run ended, and are not held, are left alone.

    Args:
        held: (N,) shares.
        allowed: assets that are to be kept as they are.

    Returns:
        {asset: reason} of those allowed.

    Raises:
        OrderError: it names all that are neither fresh nor allowed.
    """
    odd = [each for each in allowed if each not in panel.assets]
    if odd:
        raise OrderError(f"--allow-stale names assets the run does not know: {', '.join(odd)}")
    known = panel.prices.notna().to_numpy()
    rows, ended = len(panel), pd.Timestamp(result.settings["panel"]["end"])
    found: dict[str, str] = {}
    for column, asset in enumerate(map(str, panel.assets)):
        priced = np.flatnonzero(known[:, column])
        if not len(priced):
            if held.iloc[column]:
                found[asset] = "has no price at all"
            continue
        last = int(priced[-1])
        expected = _last_session(panel.dates, known[:, column])
        if max_age is None and last >= expected:
            continue
        if max_age is not None and panel.dates[-1] - panel.dates[last] <= max_age:
            continue
        date, missing = panel.dates[last], rows - 1 - last
        if not held.iloc[column] and date < ended - pd.Timedelta("1D"):
            continue  # it did not trade at the end of the run either
        ago = f"{missing} session{'s' * (missing != 1)} ago"
        if missing >= HALT:
            gone = missing >= DELISTED_AFTER
            ago += ": delisted, or its source has ended" if gone else ": suspended"
        found[asset] = f"has its last price on {day(date)}, {ago}"
    if refused := [f"{name} {why}" for name, why in found.items() if name not in allowed]:
        raise OrderError(
            f"prices are not of {day(panel.dates[-1])}: {'; '.join(refused)}. Nothing is ordered: "
            "give newer prices, or keep these positions as they are (--allow-stale TICKER)"
        )
    return {name: why for name, why in found.items() if name in allowed}


def changes_since(
    panel: Panel, result: BacktestResult, prices: Mapping[str, Any], since: pd.Timestamp
) -> list[str]:
    """What of the prices was changed since the run, or since the last orders, by asset in words.

    Args:
        prices: {asset: (price, date)} at the last orders, where there are any.
        since: the date up to which moves were looked at before.
    """
    found = []
    orders = result.orders.drop_duplicates("asset", keep="last").set_index("asset")
    at_close = result.settings["plan"].get("fill", "close") == "close"
    for asset in map(str, panel.assets):
        before = prices.get(asset)
        if before is None and at_close and asset in orders.index:
            before = orders.at[asset, "price"], orders.at[asset, "date"]
        if before is None or (when := pd.Timestamp(before[1])) not in panel.dates:
            continue
        now = panel.prices.at[when, asset]
        if now > 0 and abs(np.log(now / before[0])) > LEVEL:
            found.append(
                f"{asset} on {day(when)} was {before[0]:.6g} and is {now:.6g} now, times "
                f"{now / before[0]:.4g}: a split, another currency or another unit since then"
            )
    found += _rewritten(panel, result, {line.split(" on ")[0] for line in found})
    for problem, asset, detail in suspicious_moves(panel.last(LOOK)):
        dates = re.findall(r"\d{4}-\d\d-\d\d", detail)
        if dates and pd.Timestamp(dates[-1]) > since and problem != "spike":
            found.append(f"{asset}: {problem}, {detail}")
    return found


def _rewritten(panel: Panel, result: BacktestResult, named: Collection[str]) -> list[str]:
    """Assets of which a return that the run used is another one now."""
    before = result.asset_returns.iloc[1:]
    dates = before.index.intersection(panel.dates)
    if not len(dates):
        return []
    prices = panel.prices.ffill()
    now = (prices / prices.shift() - 1).loc[dates, before.columns]
    gaps = (now.fillna(0.0) - before.loc[dates]).abs()
    found = []
    for asset in gaps.columns[(gaps > REWRITTEN).any()]:
        if asset in named:
            continue
        first = gaps.index[gaps[asset] > REWRITTEN][0]
        found.append(
            f"{asset}: the return of {day(first)} was {before.at[first, asset]:.4%} in the run and "
            f"is {now.at[first, asset]:.4%} now"
        )
    return found


def _last_session(dates: pd.DatetimeIndex, known: np.ndarray) -> int:
    """The last row on a weekday on which an asset usually trades: crypto trades on Sundays."""
    rows = np.arange(len(dates))[-RECENT:]
    weekdays, priced = dates.day_of_week.to_numpy()[rows], known[rows]
    of_day = weekdays == np.arange(7)[:, None]
    usual = (of_day & priced).sum(axis=1) >= USUAL * np.maximum(1, of_day.sum(axis=1))
    expected = rows[usual[weekdays]]
    return int(expected[-1]) if len(expected) else len(dates) - 1


def describe_changes(result: BacktestResult, strategy: Mapping, versions: Mapping) -> list[str]:
    """What of the code and of the packages is not as it was in the run, in words."""
    found = []
    if result.strategy.get("code") != strategy.get("code"):
        found.append(f"the code of {result.name}")
    before = result.settings.get("versions", {})
    for name in sorted({*before, *versions}):
        if before.get(name) != versions.get(name):
            found.append(f"{name} {before.get(name, 'absent')}, now {versions.get(name, 'absent')}")
    return found
