"""Checks of the arguments of ``backtest`` and its like, before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from data_loaders import Panel
from data_loaders.validation import day
from engine.accounting.costs import Costs
from engine.losses.returns import Loss
from engine.planning.walk_forward import Fold, WalkForward
from engine.training.callbacks import Callback
from engine.training.settings import Training
from strategies.base import LearnedStrategy, Strategy, with_inner


def check_arguments(
    panel: Panel,
    plan: WalkForward,
    costs: Costs,
    training: Training,
    counts: Mapping[str, object],
    callbacks: object = (),
) -> None:
    """TypeError or ValueError, with what was expected, where one of them is something else.

    Args:
        counts: what should be a whole number from 1 on, or None, by name.
    """
    expected: tuple[tuple[str, object, type], ...] = (
        ("panel", panel, Panel),
        ("plan", plan, WalkForward),
        ("costs", costs, Costs),
        ("training", training, Training),
    )
    for name, given, cls in expected:
        if not isinstance(given, cls):
            raise TypeError(f"{name} should be a {cls.__name__}, got a {type(given).__name__}")
    if not isinstance(training.loss, Loss):
        raise TypeError(
            f"training: loss should be a Loss, like NegativeSharpe(), got {training.loss!r}"
        )
    if not isinstance(training.first, Loss | None):
        raise TypeError(
            "training: first should be a Loss, like RealizedVariance(log=True), or None, "
            f"got {training.first!r}"
        )
    if not len(panel):
        raise ValueError("the panel has no rows")
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise ValueError(f"{name} is a whole number from 1 on, got {count!r}")
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is a list of them, got {callbacks!r}")
    for each in callbacks:
        if not isinstance(each, Callback):
            raise TypeError(f"callbacks holds {each!r}, expected an instance of Callback")


def named_strategies(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
) -> dict[str, Strategy]:
    """Strategies by the names to show: their own, numbered, or those of the mapping.

    Raises:
        ValueError: there is none, or one with parameters that cannot be, or with constraints on
            what is not an asset of the panel; TypeError: one is not a strategy.
    """
    if isinstance(strategies, Strategy | str | type):
        strategies = [strategies]  # a name or a class is refused below
    if isinstance(strategies, Mapping):
        named = dict(strategies)
    else:
        named = {}
        for strategy in strategies:
            base = type(strategy).__name__
            base = strategy.shown_name() if isinstance(strategy, Strategy) else base
            name = base
            number = 2
            while name in named:
                name, number = f"{base} {number}", number + 1
            named[name] = strategy
    if not named:
        raise ValueError("there is no strategy to test")
    for name, strategy in named.items():
        if not isinstance(strategy, Strategy):
            hint = f"; write {strategy.__name__}()" if isinstance(strategy, type) else ""
            raise TypeError(f"{name!r} is {strategy!r}, expected an instance of Strategy{hint}")
        strategy.check_parameters()  # first: a lookback may follow from them
        rows = strategy.lookback
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise ValueError(f"{name}: lookback is a whole number of rows from 1 on, got {rows!r}")
        for each in with_inner(strategy):
            if (constraints := each.declared_constraints()) is not None:
                try:
                    constraints.check_names(list(panel.assets))
                except ValueError as error:
                    raise ValueError(f"{name}: constraints: {error}") from None
    return named


def check_financing(named: Mapping[str, Strategy], costs: Costs) -> None:
    """ValueError where an exposure above 1 borrows money that costs nothing."""
    for name, strategy in named.items():
        most = max(getattr(each, "max_exposure", 1.0) for each in with_inner(strategy))
        if most > 1 and not costs.financing:
            raise ValueError(
                f"{name}: an exposure of {most:g} borrows money, and the costs name no interest on "
                "it: give financing, a year, such as Costs(financing=0.05), or 1e-9 if it is free"
            )


def check_unseen(
    learned: Mapping[str, LearnedStrategy], folds: Iterable[Fold], dates: pd.DatetimeIndex
) -> None:
    """ValueError where a fold is tested on what a strategy has learned from before the run.

    A decision has to be of a later day: on the same one another market may close after it.
    """
    first = dates[min(int(fold.test[0]) for fold in folds)]
    for name, strategy in learned.items():
        until = strategy.learned_until
        if until is not None and first.normalize() <= until.normalize():
            raise ValueError(
                f"{name} has seen prices up to {day(until)}, and its test begins on {day(first)}: "
                "pretrain with an earlier until, or give the plan a longer train span"
            )
