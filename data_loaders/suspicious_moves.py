"""Moves of prices that are more likely errors of the data: spikes, splits, unit changes, swaps.

A move is judged by the asset's own usual moves (1.4826 times their median size) and by what the
other assets do on the same date. Nothing is repaired.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_loaders.panel import Panel
from data_loaders.validation import day

USUAL = 8.0  # usual moves of the asset, below which nothing is suspect
LEAST_SPIKE = 0.15  # log size below which a spike is not suspected
BACK = 0.2  # of a spike's size: how near the price comes back to where it was
LONGEST = 5  # rows that a spike lasts at most
LEAST_SPLIT = 0.3
LEAST_JUMP = 1.1  # a factor of 3
AROUND = 30  # rows before and after a move by which its time is judged
FAR = 25.0  # usual moves, above which a jump is suspect
SHARED = 0.5  # of a move's size: a median move of the others that explains it
RATIOS = (1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50)
UNITS = (100, 1000, 10_000, 1_000_000)
NEAR, NEAREST = 0.03, 0.011  # relative distance to a ratio, and to the first where it moves much
CALM = 0.02  # usual move of an asset that does not fall by a third of itself
COLUMNS = ("problem", "asset", "detail")


class Move(NamedTuple):
    """A suspicious move: what it looks like, of which asset, in words."""

    problem: str
    asset: str
    detail: str


def suspicious_moves(panel: Panel) -> list[Move]:
    """Spikes that revert, swapped columns, unit changes, missed splits and jumps, in this order."""
    values = panel.prices.to_numpy()
    if len(values) < 3:
        return []
    logs = np.log(pd.DataFrame(values).ffill().to_numpy())  # a move may fall into a gap
    moves = np.diff(logs, axis=0)
    moves[np.isnan(values[1:])] = np.nan
    with np.errstate(all="ignore"):
        usual = 1.4826 * _median(np.abs(moves), axis=0)
    usual = np.nan_to_num(usual)
    big = np.abs(moves) > np.maximum(USUAL * usual, LEAST_SPIKE)
    for row, column in np.argwhere(big):
        big[row, column] = _is_unusual(moves, row, column)
    if not big.any():
        return []
    explained = np.zeros_like(big)
    found = list(_swaps(panel, logs, moves, usual, big, explained))
    found += _spikes(panel, logs, moves, big, explained)
    return found + list(_shifts(panel, moves, usual, big & ~explained))


def _is_unusual(moves: np.ndarray, row: int, column: int) -> bool:
    """Whether a move is large for its own time, and beside what the other assets do that day."""
    size = abs(moves[row, column])
    own = np.abs(moves[max(0, row - AROUND) : row + AROUND + 1, column])
    own = own[~np.isnan(own)]
    if len(own) > 4 and size < USUAL * 1.4826 * np.median(own):
        return False
    others = np.delete(moves[row], column)
    others = others[~np.isnan(others)]
    return len(others) < 4 or bool(abs(moves[row, column] - np.median(others)) > SHARED * size)


def _swaps(
    panel: Panel, logs: np.ndarray, moves: np.ndarray, usual: np.ndarray, big: np.ndarray,
    explained: np.ndarray,
) -> Iterator[Move]:  # fmt: skip
    """Two assets of which each moves to where the other was."""
    for row in np.flatnonzero(big.sum(axis=1) > 1):
        places = np.flatnonzero(big[row])
        if len(places) > 50:
            continue
        for i, a in enumerate(places):
            for b in places[i + 1 :]:
                distance = abs(logs[row, a] - logs[row, b])
                near = np.maximum(4 * np.array([usual[a], usual[b]]), 0.02)
                if (
                    abs(logs[row + 1, a] - logs[row, b]) < near[1]
                    and abs(logs[row + 1, b] - logs[row, a]) < near[0]
                    and distance > 2 * near.max()
                    and moves[row, a] * moves[row, b] < 0
                    and not explained[row, [a, b]].any()
                ):
                    explained[row, [a, b]] = True
                    again = np.flatnonzero(big[row + 1 :, a] & big[row + 1 :, b])
                    until = "on"
                    if len(again):
                        explained[row + 1 + again[0], [a, b]] = True
                        until = f"to {day(panel.dates[row + 1 + again[0]])}"
                    detail = (
                        f"from {day(panel.dates[row + 1])} {until}, its prices are those of "
                        f"{panel.assets[b]}"
                    )
                    yield Move("swapped columns", str(panel.assets[a]), detail)


def _spikes(
    panel: Panel, logs: np.ndarray, moves: np.ndarray, big: np.ndarray, explained: np.ndarray
) -> Iterator[Move]:
    """Moves after which the price comes back within a few rows."""
    for row, column in np.argwhere(big & ~explained):
        if explained[row, column]:
            continue
        size = abs(moves[row, column])
        before = logs[row, column]
        for last in range(row + 2, min(row + 2 + LONGEST, len(logs))):
            back = abs(logs[last, column] - before) < BACK * size
            if back and big[last - 1, column]:
                explained[row, column] = explained[last - 1, column] = True
                rows = last - row - 1
                span = day(panel.dates[row + 1]) + (f" for {rows} rows" if rows > 1 else "")
                factor = np.exp(moves[row, column])
                shown = f"{factor - 1:+.1%}" if factor < 3 else f"times {factor:.3g}"
                yield Move("spike", str(panel.assets[column]), f"{shown} on {span}, and back")
                break


def _shifts(panel: Panel, moves: np.ndarray, usual: np.ndarray, big: np.ndarray) -> Iterator[Move]:
    """Moves to another level: by a split's ratio, by a change of units, or too far."""
    for row, column in np.argwhere(big):
        move = moves[row, column]
        if abs(move) < LEAST_SPLIT:
            continue
        ratio = float(np.exp(abs(move)))
        date, change = day(panel.dates[row + 1]), np.expm1(move)
        split, unit = (_nearest(ratio, known, usual[column]) for known in (RATIOS, UNITS))
        asset = str(panel.assets[column])
        if split:
            said = f"1 for {split:g}" if move > 0 else f"{split:g} for 1"
            detail = f"{change:+.1%} on {date}, like a missed {said} split"
            yield Move("possible split", asset, detail)
        elif unit:
            word = "times" if move > 0 else "divided by"
            detail = f"{word} {unit:,} from {date} on, like pence for pounds or a missed split"
            yield Move("unit change", asset, detail)
        elif abs(move) > max(LEAST_JUMP, FAR * usual[column]):
            shown = f"times {np.exp(move):.3g}"
            detail = (
                f"{shown} from {date} on, {abs(move) / max(usual[column], 1e-12):.0f} times its "
                "usual move, while the others move little"
            )
            yield Move("jump", asset, detail)


def _nearest(ratio: float, known: tuple[float, ...], usual: float) -> float | None:
    nearest = min(known, key=lambda each: abs(ratio / each - 1))
    near = NEAREST if nearest == RATIOS[0] and usual > CALM else NEAR  # stocks fall by a third
    return nearest if abs(ratio / nearest - 1) <= near else None


def looks_like_returns(panel: Panel, periods_per_year: float) -> str:
    """Why prices look like returns, or returns like another unit; "" if they do not.

    Prices keep their level: the variance of their log from one row to the next is small beside
    that of its level. Where it is larger, the values are returns.
    """
    values = panel.prices.to_numpy()
    if len(values) < 40:
        return ""
    with np.errstate(all="ignore"):
        logs = np.log(values)
        steps = _spread(np.diff(logs, axis=0))
        level = _spread(logs)
        noisy = float(_median(steps / np.where(level > 0, level, np.nan)))
        centre = float(_median(values))
        moves = panel.returns.to_numpy()[1:]
        typical = 1.4826 * float(_median(np.abs(moves)))
    yearly = typical * np.sqrt(periods_per_year)
    if noisy > 1:
        unit = "1 + return (kind='returns', unit='gross')" if 0.5 < centre < 2 else "returns"
        return f"values jump around {centre:.3g} without keeping a level, like {unit}"
    if yearly > 5:
        return (
            f"a usual move of {typical:.0%} from row to row: returns in percent or 1 + return, "
            "read as fractions?"
        )
    return ""


def _spread(values: np.ndarray) -> np.ndarray:
    """A variance (N,) of values (T, N) that single errors do not move."""
    return _median(np.abs(values - _median(values, axis=0)), axis=0) ** 2


def _median(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """``np.nanmedian``, which is NaN without a warning where there are no values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice|Mean of empty slice", RuntimeWarning)
        return np.nanmedian(values, axis=axis)
