"""Checks of what a strategy does: the weights that it gives, the prices in a ``Bracket``, and that
it leaves the market's memory alone. What cannot be held, and what no order could mean, is an error
that says why."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.suggestions import listed
from data_loaders.validation import day
from engine.accounting.market import Levels
from engine.accounting.positions import SAME
from strategies.base import Strategy
from strategies.contract_types import Book, Bracket

DUST = 1e-9  # a weight that no order fills exactly
ROUNDING = 1e-6  # of weights computed in single precision, or by another optimiser
NAMED = 5  # assets that a message names


class AllocationError(ValueError):
    """A strategy gave weights that cannot be held; the message names strategy, date, assets.

    ``failure`` is that of a ``BacktestResult``, and ``finished`` holds the results of all
    strategies of the run, by name.
    """

    failure: dict | None = None
    finished: Mapping = MappingProxyType({})

    @classmethod
    def at(cls, stage: str, name: str, when: pd.Timestamp, reason: str) -> Self:
        """The error of a strategy in a stage ("fit" or "decision"), with its ``failure``."""
        error = cls(f"{name}{', fitted' * (stage == 'fit')} on {day(when)}: {reason}")
        error.failure = {"date": day(when), "stage": stage, "reason": reason}
        return error


class BrokenLimits(AllocationError):
    """The weights could be held, but break limits that the strategy itself declares."""


class Answer(NamedTuple):
    """What a strategy decided, checked."""

    weights: np.ndarray  # (N,) the holding, or NaN, where nothing is ordered
    levels: Levels | None = None  # of protective orders


def checked_answer(
    name: str,
    strategy: Strategy,
    history: Panel,
    holdings: pd.Series,
    asked: Callable[[], np.ndarray] | None = None,
    book: Book | None = None,
) -> Answer:
    """The strategy's weights (N,), zero where they are dust, and its protective orders.

    Where they sum to more than may be held by rounding alone, they are scaled back to it. What the
    strategy leaves alone may be more than it would be allowed to order: drift is not its doing.

    Args:
        asked: gives a network's weights, where its inputs are prepared already.
        book: of the portfolio, for a strategy that asks for it.

    Raises:
        AllocationError: they cannot be held, or the prices of protective orders mean nothing.
        BrokenLimits: they break limits that the strategy itself declares.
    """
    kind = AllocationError
    try:
        given = {} if book is None else {"book": book}
        answer = strategy.allocate(history, holdings, **given) if asked is None else asked()
        bracket = answer if isinstance(answer, Bracket) else None
        answer = bracket.weights if bracket is not None else answer
        held = holdings.to_numpy()
        if asked is not None:
            answer = pd.Series(answer, history.assets)
        weights, broken = _held(strategy, answer, history, holdings)
        if broken:
            kind = BrokenLimits
            raise ValueError(f"breaks its own limits: {listed(broken, '; ')}")
        if bracket is None:
            return Answer(weights)
        return Answer(weights, checked_levels(bracket, weights, held, history))
    except MemoryError:
        raise
    except Exception as error:
        raise kind.at("decision", name, history.dates[-1], reason_of(error)) from error


def _held(
    strategy: Strategy, answer: object, history: Panel, holdings: pd.Series
) -> tuple[np.ndarray, Sequence[str]]:
    """Weights (N,) as they can be held, NaN where none is given, and the limits they break.

    Raises:
        ValueError: they cannot be held.
    """
    if answer is None:
        return np.full(len(history.assets), np.nan), ()
    values, held = _values(answer, history.assets), holdings.to_numpy()
    silent = np.isnan(values)
    alone = silent | (np.abs(values - held) <= SAME)
    if alone.all():
        return np.where(silent, np.nan, held), ()
    values = np.where(alone, held, values) if alone.any() else values
    short, leverage = strategy.room()
    most = max(leverage, np.abs(held).sum()) if alone.any() else leverage
    if why := _why_refused(values, held, alone, history, short, most):
        raise ValueError(why)
    weights = pd.Series(values, history.assets) if silent.any() else answer
    broken = strategy.broken_limits(weights, history, holdings)
    values = np.where((np.abs(values) > DUST) & (short | (values > 0)), values, 0.0)
    gross = np.abs(values).sum()
    values = values / (gross / most) if gross > most else values
    return np.where(silent, np.nan, np.where(alone, held, values)), broken


def _values(weights: object, assets: pd.Index) -> np.ndarray:
    """The weights (N,) as numbers, or a ValueError: not one for each asset, in that order."""
    if not isinstance(weights, pd.Series):
        raise ValueError(
            f"allocate must return a Series by asset, a Bracket, or None for no order, got "
            f"{type(weights).__name__}; pd.Series(weights, history.assets) makes one"
        )
    if weights.index is not assets and not weights.index.equals(assets):
        odd = weights.index.symmetric_difference(assets)
        raise ValueError(
            "weights are not indexed by the assets: "
            f"{listed(odd) or 'they are in another order, or one is there twice'}"
        )
    if weights.dtype == np.float64:
        return weights.to_numpy()
    if weights.dtype.kind not in "fiubO":
        raise ValueError(f"weights should be numbers, got {weights.dtype}")
    values = pd.to_numeric(weights, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if (text := np.isnan(values) & weights.notna().to_numpy()).any():  # NaN would be no order
        raise ValueError(f"weights of {listed(assets[text])} are not numbers")
    return values


def _why_refused(
    values: np.ndarray,
    held: np.ndarray,
    alone: np.ndarray,
    history: Panel,
    short: bool,
    most: float,
) -> str:
    """Why the weights (N,) cannot be held, in words; empty where they can."""
    assets, size = history.assets, np.abs(values)
    gross = size.sum()
    if not gross < np.inf:
        return f"weights of {listed(assets[~np.isfinite(values)])} are not finite"
    if not short and (negative := ~alone & (values < -ROUNDING)).any():
        return (
            f"negative weights of {listed(assets[negative])}; a strategy that sells "
            "short says so with short = True"
        )
    if gross > most + ROUNDING:
        return (
            f"{'absolute ' * short}weights sum to {gross:.10g}, the most is "
            f"{most:g}; a strategy with leverage says so with leverage = ..."
        )
    untraded = ~alone & (size > DUST) & ~history.last_members
    reduces = (size <= np.abs(held)) & (values * held >= 0)  # nearer to zero, on the same side
    if (more := untraded & ~reduces).any():
        return (
            f"weights in {listed(assets[more])}, which do not trade that day or are not in the "
            "universe; they may be left as they are (NaN, or the holding) or reduced"
        )
    return ""


def reason_of(error: Exception) -> str:
    """What went wrong; of an unexpected error, also where in the strategy."""
    if str(error) and isinstance(error, ValueError | RuntimeError):
        return str(error)
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if "site-packages" not in place.filename]
    last = (own or places)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def checked_levels(
    bracket: Bracket, targets: np.ndarray, holdings: np.ndarray, history: Panel
) -> Levels | None:
    """The prices of a bracket by asset, or None where it names none.

    They are compared with the last known close; those of an asset that has none in ``history``, or
    in which there will be no position, are not.

    Args:
        targets: (N,) weights that are wanted; NaN, or the holding, where there is no order.
        holdings: (N,) weights at the close of the decision.

    Raises:
        ValueError: an unknown asset, something else than numbers, a price that is not positive,
            ``trailing`` outside of (0, 1), or a price on the wrong side.
    """
    assets = history.assets
    levels = Levels(*(bracket.level(name, assets) for name in Levels._fields))
    if np.isnan(levels).all():
        return None
    for name, values in zip(Levels._fields, levels, strict=True):
        low, high, words = (
            (0, 1, "between 0 and 1") if name == "trailing" else (0, np.inf, "above 0")
        )
        odd = ~np.isnan(values) & ~((values > low) & (values < high))
        if odd.any():
            raise ValueError(
                f"{name} of {listed(assets[odd])} should be {words}, got {values[odd][0]:g}"
            )
    after = np.where(np.isnan(targets), holdings, targets)  # (N,) once the order is filled
    side = np.sign(after)
    last = history.prices.ffill().iloc[-1].to_numpy(np.float64)
    bought = np.sign(after - holdings) == side
    limited = np.where(bought, levels.limit, np.nan)  # limits at which positions are opened
    start = side * np.fmin(side * last, side * limited)  # the price that others lie around
    for name, wrong, right in (
        ("stop", side * levels.stop >= side * start, ("below", "above")),
        ("take_profit", side * levels.take_profit <= side * start, ("above", "below")),
    ):
        if (wrong := wrong & (side != 0)).any():
            first = int(np.flatnonzero(wrong)[0])
            long = side[first] > 0
            where = "limit" if start[first] != last[first] else "close"
            raise ValueError(
                f"{name} of {listed(assets[wrong])} is on the wrong side: of a "
                f"{'long' if long else 'short'} position it is {right[0 if long else 1]} the "
                f"{where} of {start[first]:g}, got {getattr(levels, name)[first]:g}"
            )
    return levels


class MarketChanged(RuntimeError):
    """A strategy wrote into the memory of the market; nothing of the run can be trusted."""


@contextmanager
def unchanged_market(panel: Panel, name: str) -> Iterator[None]:
    """A block in which the code of a strategy runs.

    Strategies are handed views of one history. Arrays of numpy can be made writable again, and a
    strategy that writes prices trades at prices that never were.

    Raises:
        MarketChanged: at its end, if the content of the panel is not what it was.
    """
    before = panel.fingerprint
    yield
    values, returns = panel.prices.to_numpy(), panel.returns.to_numpy()
    with np.errstate(all="ignore"):
        moves = values[1:] / values[:-1] - 1
    same = np.array_equal(moves, returns[1:], equal_nan=True)
    if not (same and panel.content_hash() == before):
        raise MarketChanged(
            f"{name} wrote into the memory of the market: prices, features or members are not what "
            "they were, so no result of this run can be trusted. Let it write to copies, like "
            "history.prices.copy(), and load the data again"
        )
