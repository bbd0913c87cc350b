"""Check a panel for errors in its data, asset by asset. Nothing is repaired."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from data_loaders.panel import Panel

STALE = 5  # rows with one and the same price, from which on it is stale
ZEROS = 0.2  # share of returns that are zero, above which an asset is hardly traded
WINDOWS = 0.05  # share of an asset's windows of a year that miss a price, above which it is said
JUMP = 8.0  # typical moves, above which a return by a split's ratio is suspect
LEAST_JUMP = 0.3  # size of a log return below which no split is suspected
RATIOS = (1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100)
NEAR = 0.03  # relative distance to a split's ratio
SPARSE = 0.5  # share of the listed assets that trade, below which a date is odd
BREAK = {252: 5, 365: 2, 52: 14, 12: 45}  # days between rows, by rows a year, that are a gap
YEARS = 3.0  # of history in which some asset of a fair universe is delisted
FEW = 3  # places that a message names


@dataclass(frozen=True)
class Quality:
    """What was found.

    Attributes:
        assets: one row an asset: first and last (dates of prices), coverage (share of rows with a
            price between them), gaps (runs of rows without one), longest_gap, longest_stale
            (rows of one price), zero_returns (share), jumps (suspected splits).
        problems: one row a finding: problem, where (asset or "all"), detail; the most serious
            kinds first.
        summary: the counts of the problems, JSON-ready.
    """

    assets: pd.DataFrame
    problems: pd.DataFrame

    @property
    def summary(self) -> dict[str, int]:
        return {
            str(k): int(v) for k, v in self.problems["problem"].value_counts(sort=False).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it, for a run's settings and the report."""
        return self._plain

    @cached_property
    def _plain(self) -> dict[str, Any]:
        table = self.assets.reset_index().astype(object)
        return {
            "assets": table.where(table.notna(), None).to_dict("records"),
            "problems": self.problems.to_dict("records"),
        }


_found: WeakKeyDictionary[Panel, Quality] = WeakKeyDictionary()


def check(panel: Panel) -> Quality:
    """Look for what should not be in a panel, or should at least be known.

    A panel never changes, so it is looked at once.
    """
    if panel not in _found:
        _found[panel] = _look(panel)
    return _found[panel]


def _look(panel: Panel) -> Quality:
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
    jumps = _jumps(panel, values)
    assets = pd.DataFrame(
        {
            "first": [str(date.date()) for date in panel.dates[first]],
            "last": [str(date.date()) for date in panel.dates[last]],
            "coverage": known.sum(axis=0) / (last - first + 1),
            "gaps": (gaps[1:] & ~gaps[:-1]).sum(axis=0),
            "longest_gap": _longest(gaps),
            "longest_stale": _longest(same) + 1,
            "zero_returns": same[1:].sum(axis=0) / np.maximum(1, moves.sum(axis=0)),
            "jumps": jumps.groupby("asset").size().reindex(panel.assets, fill_value=0).to_numpy(),
        },
        index=pd.Index(panel.assets, name="asset"),
    )
    found = [
        *_survivorship(panel, last),
        *(("possible split", row.asset, row.detail) for row in jumps.itertuples()),
        *_twins(panel, values),
        *_calendar(panel, known, listed),
    ]
    broken = dict(zip(panel.assets, _broken(gaps, listed, panel.periods_per_year), strict=True))
    for asset, row in assets.iterrows():
        if (share := broken[asset]) > WINDOWS:
            count = f"{row['gaps']} gap{'s' * (row['gaps'] != 1)}"
            detail = (
                f"{count}, {1 - row['coverage']:.1%} of rows without a price: {share:.0%} of the "
                "windows of a year miss one, and a strategy that looks back as far does not hold "
                "it then"
            )
            found.append(("gaps", asset, detail))
        if row["longest_stale"] >= STALE:
            detail = f"one price for {row['longest_stale']} rows, to {_stale_until(panel, asset)}"
            found.append(("stale price", asset, detail))
        if row["zero_returns"] > ZEROS:
            found.append(("hardly traded", asset, f"{row['zero_returns']:.0%} of returns are zero"))
    return Quality(assets, pd.DataFrame(found, columns=["problem", "where", "detail"]))


def _jumps(panel: Panel, values: np.ndarray) -> pd.DataFrame:
    """Moves that have a split's ratio and are far outside what the asset usually does."""
    frame = pd.DataFrame(values).ffill()  # a split may fall into a gap
    logs = np.diff(np.log(frame.to_numpy()), axis=0)
    logs[np.isnan(values[1:])] = np.nan
    typical = pd.DataFrame(np.abs(logs)).median().to_numpy() * 1.4826
    big = np.abs(logs) > np.maximum(JUMP * typical, LEAST_JUMP)
    table = []
    for row, column in np.argwhere(big):
        ratio = float(np.exp(abs(logs[row, column])))
        nearest = min(RATIOS, key=lambda known: abs(ratio / known - 1))
        if abs(ratio / nearest - 1) <= NEAR:
            up = logs[row, column] > 0
            split = f"1 for {nearest:g}" if up else f"{nearest:g} for 1"
            change = np.expm1(logs[row, column])
            detail = f"{change:+.1%} on {panel.dates[row + 1].date()}, like a missed {split} split"
            table.append((panel.assets[column], detail))
    return pd.DataFrame(table, columns=["asset", "detail"])


def _twins(panel: Panel, values: np.ndarray) -> list[tuple[str, str, str]]:
    """Assets whose prices are the same throughout: one asset under two names."""
    seen: dict[bytes, str] = {}
    found = []
    for name, column in zip(panel.assets, values.T, strict=True):
        content = np.ascontiguousarray(column).tobytes()
        if content in seen:
            found.append(("duplicate", name, f"the same prices as {seen[content]} on every date"))
        seen.setdefault(content, name)
    return found


def _calendar(panel: Panel, known: np.ndarray, listed: np.ndarray) -> list[tuple[str, str, str]]:
    """Dates on which most listed assets do not trade, and holes between dates."""
    found = []
    share = known.sum(axis=1) / np.maximum(1, listed.sum(axis=1))
    sparse = panel.dates[(share < SPARSE) & (listed.sum(axis=1) > 1)]
    if len(sparse):
        detail = f"{len(sparse)} dates on which most assets have no price: {_some(sparse)}"
        found.append(("calendar mismatch", "all", detail))
    if panel.periods_per_year == 252:
        weekend = panel.dates[panel.dates.day_of_week >= 5]
        if len(weekend):
            detail = f"{len(weekend)} dates on a weekend: {_some(weekend)}"
            found.append(("calendar mismatch", "all", detail))
    days = np.diff(panel.dates.values).astype("timedelta64[D]").astype(int)
    holes = panel.dates[1:][days > BREAK[panel.periods_per_year]]
    if len(holes):
        detail = f"{len(holes)} holes of up to {days.max()} days, before {_some(holes)}"
        found.append(("missing dates", "all", detail))
    return found


def _survivorship(panel: Panel, last: np.ndarray) -> list[tuple[str, str, str]]:
    years = len(panel) / panel.periods_per_year
    gone = len(panel.delistings[1])
    if gone or years < YEARS:
        return []
    detail = (
        f"none of {len(panel.assets)} assets stops trading in {years:.0f} years: chosen with "
        "hindsight, they make long-only strategies look better than they could have been"
    )
    return [("survivorship", "all", detail)]


def _longest(flags: np.ndarray) -> np.ndarray:
    """Longest run of true (T, N) in each column, (N,)."""
    rows = np.arange(len(flags))[:, None]
    before = np.maximum.accumulate(np.where(flags, -1, rows), axis=0)  # the last row that is false
    return (rows - before).max(axis=0)


def _broken(gaps: np.ndarray, listed: np.ndarray, year: int) -> np.ndarray:
    """Share of the windows of ``year`` rows, all within an asset's listing, with a gap, (N,).

    Of a listing that is shorter, the whole of it is the one window.
    """
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
    return str(block.index[block == longest][-1].date())


def _some(dates: pd.Index) -> str:
    more = f" and {len(dates) - FEW} more" if len(dates) > FEW else ""
    return ", ".join(str(date.date()) for date in dates[:FEW]) + more
