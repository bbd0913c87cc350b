"""Check a panel for errors in its data, asset by asset. Nothing is repaired."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from data_loaders.calendars import YEAR, bars_per_day, elapsed_years
from data_loaders.panel import Panel
from data_loaders.suggestions import listed as named
from data_loaders.suspicious_moves import looks_like_returns, suspicious_moves
from data_loaders.validation import DataError, day, days

STALE = 5  # rows with one and the same price, from which on it is stale; or a quarter of a day
ZEROS = 0.2  # share of returns that are zero, above which an asset is hardly traded
ZEROS_WITHIN_A_DAY = 0.5  # likewise of bars: a price moves in steps of a tick
WINDOWS = 0.05  # share of an asset's windows of a year that miss a price, above which it is said
SPARSE = 0.5  # share of the listed assets that trade, below which a date is odd
BREAK = {252: 5, 365: 2, 52: 14, 12: 45}  # days between rows, by rows per year, that are a hole
BARS = 5  # typical steps between bars within a day, above which there is a hole
HALT = 5  # rows without a price in a row, from which on they are a halt
YEARS = 3.0  # of history in which some asset of a fair universe is delisted
FEW = 3  # assets that a message names


@dataclass(frozen=True)
class Quality:
    """What was found.

    Attributes:
        assets: one row an asset: first and last (dates of prices), coverage (share of rows with a
            price between them), gaps (runs of rows without one), longest_gap, longest_stale
            (rows of one price), zero_returns (share), jumps (suspicious moves).
        problems: one row a finding: problem, where (asset or "all"), detail; the most serious
            kinds first.
    """

    assets: pd.DataFrame
    problems: pd.DataFrame

    @cached_property
    def plain(self) -> dict[str, Any]:
        """Everything as JSON can hold it, for a run's settings and the report."""
        table = self.assets.reset_index().astype(object)
        return {
            "assets": table.where(table.notna(), None).to_dict("records"),
            "problems": self.problems.to_dict("records"),
        }


_found: WeakKeyDictionary[Panel, Quality] = WeakKeyDictionary()


def check(panel: Panel) -> Quality:
    """Look for what should not be in a panel, or should at least be known; once for each panel."""
    if panel in _found:
        return _found[panel]
    values = panel.prices.to_numpy()
    known = ~np.isnan(values)
    rows = np.arange(len(values))[:, None]
    first = known.argmax(axis=0)
    last = len(values) - 1 - known[::-1].argmax(axis=0)
    listed = (rows >= first) & (rows <= last)
    same = np.zeros_like(known)
    same[1:] = values[1:] == values[:-1]
    moves = known[1:] & known[:-1]
    gaps = listed & ~known
    moves_found = suspicious_moves(panel)
    jumps = Counter(move.asset for move in moves_found)
    assets = pd.DataFrame(
        {
            "first": [str(date.date()) for date in panel.dates[first]],
            "last": [str(date.date()) for date in panel.dates[last]],
            "coverage": known.sum(axis=0) / (last - first + 1),
            "gaps": (gaps[1:] & ~gaps[:-1]).sum(axis=0),
            "longest_gap": _longest(gaps),
            "longest_stale": _longest(same) + 1,
            "zero_returns": same[1:].sum(axis=0) / np.maximum(1, moves.sum(axis=0)),
            "jumps": [jumps[name] for name in panel.assets],
        },
        index=pd.Index(panel.assets, name="asset"),
    )
    bars, found = bars_per_day(panel.dates), []
    try:
        year = panel.periods_per_year
    except DataError as error:  # the dates have no such number
        year = len(panel) / elapsed_years(panel.dates).sum()
        found.append(("two frequencies", "all", str(error)))
    found += [
        *([("not prices", "all", doubt)] if (doubt := looks_like_returns(panel, year)) else []),
        *_survivorship(panel),
        *moves_found,
        *_twins(panel, values),
        *_unfinished(panel, values, known),
        *_calendars(panel, known, listed),
        *_calendar(panel, known, listed, year, bars),
    ]
    broken, causes = _broken(gaps, listed, round(year)), _gap_causes(gaps, known, listed)
    for (asset, row), share, cause in zip(assets.iterrows(), broken, causes, strict=True):
        if share > WINDOWS:
            count = f"{row['gaps']} gap{'s' * (row['gaps'] != 1)}"
            detail = (
                f"{count}, {1 - row['coverage']:.1%} of rows without a price: {share:.0%} of the "
                "windows of a year miss one, and a strategy that looks back as far does not hold "
                f"it then; {cause}"
            )
            found.append(("gaps", asset, detail))
        if row["longest_stale"] >= max(STALE, bars // 4):
            detail = f"one price for {row['longest_stale']} rows, to {_stale_until(panel, asset)}"
            found.append(("stale price", asset, detail))
        if row["zero_returns"] > (ZEROS if bars == 1 else ZEROS_WITHIN_A_DAY):
            found.append(("hardly traded", asset, f"{row['zero_returns']:.0%} of returns are zero"))
    problems = pd.DataFrame(found, columns=["problem", "where", "detail"])
    return _found.setdefault(panel, Quality(assets, problems))


def _twins(panel: Panel, values: np.ndarray) -> list[tuple[str, str, str]]:
    """Assets with the same prices, or the same returns, throughout: one asset under two names."""
    found = []
    prices: dict[bytes, str] = {}
    moves: dict[bytes, str] = {}
    returns = np.round(panel.returns.to_numpy()[1:], 9)
    for name, column, steps in zip(panel.assets, values.T, returns.T, strict=True):
        content, changes = np.ascontiguousarray(column).tobytes(), steps.tobytes()
        if content in prices:
            found.append(("duplicate", name, f"the same prices as {prices[content]} on every date"))
        elif changes in moves and np.count_nonzero(np.nan_to_num(steps)) > 5:
            found.append(("duplicate", name, f"the same returns as {moves[changes]} on every date"))
        prices.setdefault(content, name)
        moves.setdefault(changes, name)
    return found


def _unfinished(panel: Panel, values: np.ndarray, known: np.ndarray) -> list[tuple[str, str, str]]:
    """A last row that is not a whole session: few prices, old ones, or little volume."""
    if len(panel) < 20:
        return []
    date = panel.dates[-1]
    before = known[-2]
    here = known[-1] & before
    reasons = []
    clock = panel.dates - panel.dates.normalize()
    if clock[-1] > pd.Timedelta(0) and (clock[:-1] == pd.Timedelta(0)).all():
        reasons.append("it has a time of day")
    if before.sum() > 4 and here.sum() < SPARSE * before.sum():
        reasons.append(f"{here.sum()} of {before.sum()} assets have a price")
    elif here.sum() > 4 and (values[-1] == values[-2])[here].mean() > SPARSE:
        usual = (values[-20:-1] == values[-21:-2]).mean() if len(values) > 20 else 0.0
        if usual < ZEROS:
            reasons.append("most prices are those of the row before")
    volume = panel.asset_features.get("volume")
    if volume is not None:
        amounts = volume.to_numpy()
        typical = np.nanmedian(amounts[-21:-1], axis=0)
        low = (amounts[-1] < 0.1 * typical)[~np.isnan(amounts[-1])]
        if len(low) and low.mean() > SPARSE:
            reasons.append("its volume is below a tenth of the usual one")
    detail = f"the last row, {day(date)}, may be unfinished: {'; '.join(reasons)}"
    return [("unfinished session", "all", detail)] if reasons else []


def _calendars(panel: Panel, known: np.ndarray, listed: np.ndarray) -> list[tuple[str, str, str]]:
    """Assets that trade on other dates than the rest, as stocks beside crypto do."""
    lacking = listed & ~known
    often = lacking.sum(axis=0) > np.maximum(10, 0.02 * listed.sum(axis=0))
    if not often.any() or often.all():
        return []
    full = np.flatnonzero(~lacking.any(axis=0) & listed.any(axis=0))
    if not len(full):
        return []
    groups: dict[bytes, list[int]] = {}
    for column in np.flatnonzero(often):
        groups.setdefault(np.packbits(lacking[:, column]).tobytes(), []).append(int(column))
    found = []
    for columns in groups.values():
        rows = np.flatnonzero(lacking[:, columns[0]])
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        if len(runs) < 10 or max(map(len, runs)) > 5:
            continue  # one halt, not another calendar
        mine = listed[:, columns[0]].sum() - len(rows)
        some, others = (named(panel.assets[each], most=FEW) for each in (columns, full))
        detail = (
            f"{some} trade on {mine} dates, {others} on {len(panel)}: {mine} in common. On the "
            "other dates the first are valued at their last price and not traded; prices.dropna() "
            "keeps the common dates"
        )
        found.append(("two calendars", "all", detail))
    return found


def _calendar(
    panel: Panel, known: np.ndarray, listed: np.ndarray, year: float, bars: int
) -> list[tuple[str, str, str]]:
    """Dates on which most listed assets do not trade, and holes between dates."""
    found = []
    share = known.sum(axis=1) / np.maximum(1, listed.sum(axis=1))
    sparse = panel.dates[(share < SPARSE) & (listed.sum(axis=1) > 1)]
    if len(sparse):
        detail = f"{len(sparse)} dates on which most assets have no price: {days(sparse)}"
        found.append(("calendar mismatch", "all", detail))
    if year == 252 * bars:
        weekend = panel.dates[panel.dates.day_of_week >= 5]
        if len(weekend):
            detail = f"{len(weekend)} dates on a weekend: {days(weekend)}"
            found.append(("calendar mismatch", "all", detail))
    steps = np.diff(panel.dates.values) / np.timedelta64(1, "D")  # days
    largest: np.ndarray | float  # above which dates are missing
    largest = BREAK.get(round(year / bars), 5 if year > 52 else 1.5 * 365 / year)
    if bars > 1 and len(steps):
        within = BARS * float(np.median(steps))
        nights = panel.dates.normalize().values[1:] > panel.dates.normalize().values[:-1]
        never_closed = year >= 365 * bars
        largest = np.where(nights & (not never_closed), max(largest, within), within)
    holes = steps > largest
    if holes.any():
        longest = steps[holes].max()
        size = f"{longest:.0f} days" if longest >= 2 else f"{24 * longest:.3g} hours"
        count = "1 hole of" if holes.sum() == 1 else f"{holes.sum()} holes of up to"
        detail = f"{count} {size}, before {days(panel.dates[1:][holes])}"
        if longest > YEAR / 4:
            detail += (
                "; holdings earn what happens in it on one row, and figures per year do not count "
                "its time: start= or end= leaves it out"
            )
        found.append(("missing dates", "all", detail))
    return found


def _survivorship(panel: Panel) -> list[tuple[str, str, str]]:
    years = float(elapsed_years(panel.dates).sum())
    if len(panel.delistings[1]) or years < YEARS:
        return []
    detail = (
        f"none of {len(panel.assets)} assets stops trading in {years:.0f} years: chosen with "
        "hindsight, they make long-only strategies look better than they could have been"
    )
    return [("survivorship", "all", detail)]


def _gap_causes(gaps: np.ndarray, known: np.ndarray, listed: np.ndarray) -> list[str]:
    """Of each asset, how many rows without a price are holidays, halts and single rows."""
    common = known.sum(axis=1) < SPARSE * listed.sum(axis=1)  # most do not trade
    found = []
    for own in gaps.T:
        shared = int((own & common).sum())
        rows = np.flatnonzero(own & ~common)
        runs = [len(run) for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)]
        halts = [run for run in runs if run >= HALT]
        short = len(rows) - sum(halts)
        parts = [f"{shared} rows on which most assets do not trade"] * bool(shared)
        parts += [f"{sum(halts)} rows in {len(halts)} halts"] * bool(halts)
        parts += [f"{short} rows in shorter gaps of its own"] * bool(short)
        found.append(", ".join(parts))
    return found


def _longest(flags: np.ndarray) -> np.ndarray:
    """Longest run of true (T, N) in each column, (N,)."""
    rows = np.arange(len(flags))[:, None]
    before = np.maximum.accumulate(np.where(flags, -1, rows), axis=0)  # the last row that is false
    return (rows - before).max(axis=0)


def _broken(gaps: np.ndarray, listed: np.ndarray, year: int) -> np.ndarray:
    """Share of the windows of ``year`` rows, or of a shorter listing, that have a gap, (N,)."""
    if not gaps.any():
        return np.zeros(gaps.shape[1])
    rows = np.arange(1, len(gaps) + 1)[:, None]
    since = rows - np.maximum.accumulate(np.where(gaps, rows, 0), axis=0)  # since the last gap
    age = listed.cumsum(axis=0)
    whole = listed & (age >= np.minimum(year, age[-1]))
    return (whole & (since < year) & (since < age)).sum(axis=0) / np.maximum(1, whole.sum(axis=0))


def _stale_until(panel: Panel, asset: str) -> str:
    """The last date of the longest run of one price."""
    prices = panel.prices[asset]
    block = prices.ne(prices.shift()).cumsum()
    sizes = block.groupby(block).transform("size").where(prices.notna())
    longest = block[sizes == sizes.max()].iloc[0]
    return day(block.index[block == longest][-1])
