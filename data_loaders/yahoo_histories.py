"""A panel of Yahoo's prices: each ticker from the store, and what is not in it from Yahoo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from data_loaders import yahoo_requests as yahoo
from data_loaders.panel import DateLike, Panel
from data_loaders.store import DamagedSnapshot, Snapshot, Store
from data_loaders.suggestions import listed
from data_loaders.validation import DataError
from data_loaders.yahoo_requests import Answer, Policy

OVERLAP = 10  # stored sessions that an update requests again, to notice a rewritten history
SAME = 1e-4  # relative difference up to which two prices of one day count as equal
REMEMBERED = pd.Timedelta("7D")  # how long a ticker without data is not requested again
ENDED = pd.Timedelta("14D")  # without a price up to the last session: the ticker has ended
POLICY = Policy()


@dataclass(frozen=True)
class History:
    """The prices of one ticker, or the reason there are none.

    The status is "ok"; "ended" (prices, but none in the last two weeks); "stale" (stored prices,
    the update failed); "delisted", "empty", "failed" (no price; see ``Answer``).
    """

    ticker: str
    status: str
    message: str  # the reason, if not "ok", and what an update changed
    snapshot: Snapshot | None  # of the table in the store; None without prices
    table: pd.DataFrame  # see ``Answer``


def fetch(
    tickers: Sequence[str],
    store: Store,
    update: bool = False,
    end: pd.Timestamp | None = None,
    full: bool = False,
    policy: Policy | None = None,
) -> list[History]:
    """The histories of the tickers; each is stored as soon as Yahoo has sent it.

    Args:
        update: request what is newer than the store; by default only tickers that are not in it.
        end: the last date that is needed; what the store holds up to it is not requested.
        full: of an update: request whole histories, to notice a rewriting of any day.
    """
    policy = policy or POLICY
    deadline = time.monotonic() + policy.deadline
    found = []
    for ticker in tqdm(tickers, desc="yahoo", unit="ticker", disable=None, leave=False):
        with store.locked(f"yahoo/{ticker}"):
            found.append(_history(ticker, store, update, end, full, policy, deadline))
    return found


def _history(
    ticker: str,
    store: Store,
    update: bool,
    end: pd.Timestamp | None,
    full: bool,
    policy: Policy,
    deadline: float,
) -> History:
    name = f"yahoo/{ticker}"
    old, damage = _stored(store, name)
    if old is not None and not update:
        yesterday = yahoo.now().tz_localize(None).normalize() - pd.Timedelta("1D")
        if end is None or pd.Timestamp(old[0].manifest["through"]) >= min(end, yesterday):
            return _known(ticker, *old)
    note = store.note(name)
    remembered = note is not None and yahoo.now() - pd.Timestamp(note["asked_at"]) <= REMEMBERED
    if old is None and not update and note is not None and remembered:
        return History(ticker, note["status"], note["message"], None, yahoo.nothing())
    answer = _asked(ticker, None if full or damage else old, policy, deadline)
    if answer.status != "ok":
        return _without(ticker, store, old, answer)
    fresh = answer.table
    assert answer.through is not None
    through = str(answer.through.date())
    if old is not None and fresh.equals(old[1]) and through == old[0].manifest["through"]:
        return _known(ticker, *old, damage)
    changed = None if old is None else rewritten(old[1], fresh)
    snapshot = store.write(
        name,
        fresh,
        source=f"Yahoo Finance, daily history of {ticker}, through yfinance",
        parameters={"auto_adjust": False, "repair": False, "interval": "1d"},
        through=through,
        replaces=None if old is None else old[0].identity,
        changed=changed,
    )
    store.write_note(name, None)
    return _known(ticker, snapshot, fresh, damage)


def _asked(
    ticker: str, old: tuple[Snapshot, pd.DataFrame] | None, policy: Policy, deadline: float
) -> Answer:
    """Yahoo's answer, with the stored history before it where Yahoo has not rewritten that."""
    if old is None:
        return yahoo.ask(ticker, None, policy, deadline)
    known = old[1]
    since = known.index[-min(OVERLAP, len(known))]
    answer = yahoo.ask(ticker, since, policy, deadline)
    if answer.status != "ok":
        return answer
    if rewritten(known.loc[since:], answer.table, shared=False)["days"]:
        return yahoo.ask(ticker, None, policy, deadline)
    later = answer.table[answer.table.index > known.index[-1]]
    return replace(answer, table=pd.concat([known, later]))


def _known(ticker: str, snapshot: Snapshot, table: pd.DataFrame, message: str = "") -> History:
    """A history with prices, "ended" if the last one is old."""
    last = table["close"].last_valid_index()
    ended = last < pd.Timestamp(snapshot.manifest["through"]) - ENDED
    notes = [message] if message else []
    notes += [f"no price after {last.date()}"] if ended else []
    changed = snapshot.manifest["changed"]
    if changed and changed["days"]:
        notes.append(f"Yahoo rewrote {listed(changed['days'], most=3)}")
    return History(ticker, "ended" if ended else "ok", "; ".join(notes), snapshot, table)


def _without(
    ticker: str, store: Store, old: tuple[Snapshot, pd.DataFrame] | None, answer: Answer
) -> History:
    """The history where Yahoo sent no prices: what is stored, if anything, and a message."""
    if old is not None:
        status = "stale" if answer.status == "failed" else "ended"
        message = f"stored prices to {old[1].index[-1].date()}; Yahoo: {answer.message}"
        return History(ticker, status, message, *old)
    if answer.status != "failed":
        when = yahoo.now().isoformat()
        note = {"status": answer.status, "message": answer.message, "asked_at": when}
        store.write_note(f"yahoo/{ticker}", note)
    return History(ticker, answer.status, answer.message, None, answer.table)


def _stored(store: Store, name: str) -> tuple[tuple[Snapshot, pd.DataFrame] | None, str]:
    """The newest intact snapshot with its table, and a message if a newer one was damaged."""
    damage = ""
    while True:
        try:
            snapshot = store.latest(name)
            return (None if snapshot is None else (snapshot, store.read(snapshot))), damage
        except DamagedSnapshot as error:
            damage = str(error)


def rewritten(old: pd.DataFrame, new: pd.DataFrame, shared: bool = True) -> dict[str, Any]:
    """The days of ``old`` that differ in ``new``.

    A dividend or split after ``old`` rescales all of its prices alike: that is not a rewriting,
    and is reported as ``scale``. With ``shared`` false, such a factor counts as a change too.

    Returns:
        days: dates as text, where prices differ by more than 1e-4 beyond the common factor,
            dividends or splits differ, or a session was added or removed; scale: {column: factor}.
    """
    dates = old.index.union(new.index[new.index <= old.index[-1]])
    before, after = old.reindex(dates), new.reindex(dates)
    changed = ~(dates.isin(old.index) & dates.isin(new.index))
    scale = {}
    for column in ("close", "adjusted_close"):
        a, b = before[column].to_numpy(), after[column].to_numpy()
        ratio = b / a
        factor = float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else 1.0
        if abs(factor - 1) > SAME:
            scale[column] = factor
        if not shared:
            factor = 1.0
        changed |= np.isnan(a) != np.isnan(b)
        changed |= np.abs(np.nan_to_num(ratio / factor, nan=1.0) - 1) > SAME
    splits = scale.get("close", 1.0)
    for column, factor in (("dividends", splits), ("splits", 1.0)):
        a, b = before[column].to_numpy(), after[column].to_numpy()
        changed |= np.abs(np.nan_to_num(b - a * factor)) > SAME * np.maximum(1e-2, np.abs(a))
    return {"days": [str(date.date()) for date in dates[changed]], "scale": scale}


def status_table(histories: Sequence[History]) -> pd.DataFrame:
    """One row per ticker: status, rows, first, last, snapshot, message."""
    rows = [
        {
            "ticker": each.ticker,
            "status": each.status,
            "rows": len(each.table),
            "first": str(each.table.index[0].date()) if len(each.table) else "",
            "last": str(each.table.index[-1].date()) if len(each.table) else "",
            "snapshot": each.snapshot.identity if each.snapshot else "",
            "message": each.message,
        }
        for each in histories
    ]
    return pd.DataFrame(rows).set_index("ticker")


def load_panel(
    tickers: Sequence[str],
    store: str | Path | None = None,
    update: bool = False,
    as_of: DateLike | None = None,
    end: pd.Timestamp | None = None,
    allow_missing: bool = False,
) -> Panel:
    """Adjusted closes of the tickers; see ``sources.load`` for the arguments.

    The asset features are ``close`` as it was traded (not adjusted for later splits), ``volume``
    likewise, ``dividends`` per share and ``splits``.
    """
    tickers = check_tickers(tickers)
    opened = Store(store)
    if as_of is None:
        histories = fetch(tickers, opened, update=update, end=end)
    elif update:
        raise ValueError("as_of reads what the store held then, update fetches: pass one of them")
    else:
        histories = [_as_of(ticker, opened, pd.Timestamp(as_of)) for ticker in tickers]
    priced = [history for history in histories if history.snapshot is not None]
    missing = [history for history in histories if history.snapshot is None]
    if missing and (not allow_missing or not priced):
        raise DataError(
            f"{len(missing)} of {len(tickers)} tickers have no prices: "
            + "; ".join(f"{h.ticker} {h.status} ({h.message})" for h in missing[:10])
            + (f"; and {len(missing) - 10} more" if len(missing) > 10 else "")
            + ". Leave them out, or pass allow_missing=True",
            assets=[history.ticker for history in missing],
        )
    caveats = [
        "The tickers were chosen knowing which exist today; Yahoo drops most delisted ones.",
        "Adjusted closes are restated after every dividend: their returns are right, their levels "
        "contain hindsight.",
    ]
    if missing:
        listed = ", ".join(f"{history.ticker} ({history.status})" for history in missing)
        caveats.append(f"Missing, without prices: {listed}.")
    caveats += [f"{h.ticker}: {h.message}." for h in priced if h.message]
    return _panel(priced, caveats)


def _panel(histories: Sequence[History], caveats: Sequence[str]) -> Panel:
    snapshots = [history.snapshot for history in histories if history.snapshot is not None]
    fetched = sorted(f"{snapshot.fetched_at:%Y-%m-%d}" for snapshot in snapshots)
    span = fetched[0] if fetched[0] == fetched[-1] else f"{fetched[0]} to {fetched[-1]}"
    by_ticker = {}
    for history in histories:  # as traded: not adjusted by the splits after each day
        table = history.table
        factors = table["splits"].where(table["splits"] > 0, 1.0)
        later = factors[::-1].cumprod()[::-1] / factors
        by_ticker[history.ticker] = table.assign(
            close=table["close"] * later,
            volume=table["volume"] / later,
            dividends=table["dividends"] * later,
        )
    tables = pd.concat(by_ticker, axis=1, sort=True).swaplevel(axis=1)
    prices = tables["adjusted_close"]
    prices = prices[prices.notna().any(axis=1)].rename_axis("date")
    names = ("close", "volume", "dividends", "splits")
    return Panel(
        prices,
        {name: tables[name].reindex(prices.index) for name in names},
        source=f"Yahoo adjusted daily closes, fetched {span}",
        caveats=caveats,
        snapshots={snapshot.name: snapshot.identity for snapshot in snapshots},
    )


def _as_of(ticker: str, store: Store, date: pd.Timestamp) -> History:
    until = date if date.tz is None else date.tz_convert("UTC").tz_localize(None)
    if until == until.normalize():
        until += pd.Timedelta("1D") - pd.Timedelta("1ns")  # a day includes its evening
    snapshot = store.latest(f"yahoo/{ticker}", as_of=until)
    if snapshot is None:
        message = f"the store {store.folder} held nothing of it on {date}"
        return History(ticker, "empty", message, None, yahoo.nothing())
    return _known(ticker, snapshot, store.read(snapshot))


def check_tickers(tickers: Sequence[str]) -> list[str]:
    """The tickers in capitals, as Yahoo writes them."""
    plain = [ticker.strip().upper() for ticker in tickers]
    if not plain or not all(plain):
        raise DataError(f"expected tickers, as in yahoo:SPY,TLT, got yahoo:{','.join(tickers)}")
    twice = sorted({ticker for ticker in plain if plain.count(ticker) > 1})
    if twice:
        raise DataError(f"tickers occur more than once: {', '.join(twice)}", assets=twice)
    return plain
