"""check_strategy(): does a strategy look ahead, and does it do what it declares?

In the spirit of scikit-learn's ``check_estimator``: the strategy is run on the panel and on altered
copies of it. What must not matter (the future, the calendar, the unit of prices, earlier runs) must
not change its weights; each failed check says what that means in trading.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.calendars import bars_per_day
from engine.accounting.costs import Costs
from engine.planning.walk_forward import WalkForward
from engine.research.altered_markets import (
    Futures,
    another_market,
    in_another_time,
    reshaped,
    targets_on,
    with_prices,
)
from engine.research.outside_knowledge import (
    CodeMemory,
    KnownPrices,
    Watch,
    captured_models,
    captured_prices,
    check_features,
    own_classes,
    watched,
)
from engine.training.callbacks import Bar
from engine.training.settings import Training
from engine.walking.weight_checks import BrokenLimits
from strategies.base import Strategy, asks_for_book, fit_to_plan, learned_inside, with_inner
from strategies.contract_types import Book, Bracket

SAME = 1e-6  # difference of a weight that rounding may make, if the arithmetic differs
MOVED = 1e-4  # difference of a weight that matters
FIRST = 5  # checks that need no decision
WARNINGS = (  # of checks that an honest strategy may fail: to be looked at, and no verdict
    "rounding_does_not_matter", "names_do_not_matter", "no_models_are_captured",
    "nothing_is_opened", "markets_are_not_confused",
)  # fmt: skip
DECISIONS = 64  # with altered futures, over all turns: each sees market timing half of the time


class StrategyCheckError(AssertionError):
    """A strategy failed checks; ``outcomes`` is the table of all of them."""

    def __init__(self, message: str, outcomes: pd.DataFrame):
        super().__init__(message)
        self.outcomes = outcomes


def check_strategy(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Check that a strategy does not look ahead, and that it does what it declares.

    Args:
        strategy: the strategy, with its parameters.
        panel: prices to try it on; at least its lookback and four years, or 1,000 bars.
        plan, costs, training: of the trial run; by default monthly decisions, two years of
            training (of bars within a day as many rows), 10 bp and two epochs, which is quick.
        progress: show a progress bar; by default where there is a terminal.

    Returns:
        One row per check: passed (bool), verdict ("passed", "failed", "warning" or "declared"; a
        warning has passed), meaning (of a failure, in trading terms), found.

    Raises:
        StrategyCheckError: at least one check failed; the message says which and what it means.
    """
    if plan is None and bars_per_day(panel.dates) > 1:
        plan = WalkForward(train=strategy.lookback + 504, refit=252, rebalance=21)
    elif plan is None:
        span = f"{round(strategy.lookback * 365.25 / 252 + 730)}D"
        plan = WalkForward(train=span, refit="1Y", rebalance="ME")
    audit = Audit(strategy, panel, plan, costs or Costs(), training or Training(epochs=2, block=24))
    rows = []
    checks = audit.checks
    with Bar("check", len(checks), "check", progress) as bar:
        for number, check in enumerate(checks):
            if audit.base.empty and number >= FIRST:
                break
            verdict, found = "passed", ""
            try:
                check()
            except Declared as declared:
                verdict, found = "declared", str(declared)
            except Exception as error:
                verdict = "warning" if check.__name__ in WARNINGS else "failed"
                found = f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")
            meaning = " ".join((check.__doc__ or "").split())
            rows.append((check.__name__, verdict != "failed", verdict, meaning, found))
            bar.update()
    audit.memory.restore()
    outcomes = pd.DataFrame(rows, columns=["check", "passed", "verdict", "meaning", "found"])
    outcomes = outcomes.set_index("check")
    failed = outcomes[~outcomes["passed"]]
    if len(failed):
        lines = [f"- {row.Index}: {row.meaning} ({row.found})" for row in failed.itertuples()]
        raise StrategyCheckError(
            f"{type(strategy).__name__} failed {len(failed)} of {len(outcomes)} checks:\n"
            + "\n".join(lines),
            outcomes,
        )
    return outcomes


class Declared(Exception):
    """The strategy declares that it does what a check looks for, so the check is not made."""


@dataclass
class Audit:
    """The strategy, and the small walk-forward on which it is checked.

    Each check is a method: it raises an error if the check fails, and its docstring is the meaning
    of that in trading terms.
    """

    strategy: Strategy
    panel: Panel
    plan: WalkForward
    costs: Costs
    training: Training
    base: pd.DataFrame = field(default_factory=pd.DataFrame)  # (K, M) targets on the panel itself
    broken: BrokenLimits | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        # A copy of its own: a strategy may write into the memory of what it is given.
        self.panel = pickle.loads(pickle.dumps(self.panel.without_benchmark()))
        self.memory = CodeMemory(self.strategy)
        self.learned = learned_inside(self.strategy) is not None

    @property
    def checks(self) -> list[Callable[[], None]]:
        """In the order in which they must run, as each may leave traces. Where the first five leave
        no decision, there are no others."""
        own = own_classes(self.strategy) and not self.learned
        return [
            self.parameters_are_settings,
            self.parameters_round_trip,
            self.other_markets_are_accepted,
            self.weights_are_valid,
            self.its_limits_hold,
            self.features_do_not_know_the_future,
            self.runs_do_not_remember,
            self.the_future_does_not_matter,
            self.no_prices_are_captured,
            self.the_engine_is_left_alone,
            self.the_calendar_does_not_matter,
            # of what is learned, the engine builds the module again
            *([] if self.learned else [self.folds_do_not_remember]),
            self.the_unit_of_prices_does_not_matter,
            self.what_does_not_trade_is_not_held,
            *([self.permuting_assets_permutes_weights] if self.strategy.equivariant else []),
            self.rounding_does_not_matter,
            self.names_do_not_matter,
            self.no_models_are_captured,
            self.nothing_is_opened,
            *([self.markets_are_not_confused] if own else []),
        ]

    def targets(
        self, panel: Panel, futures: Futures | None = None, turn: int = 0, fresh: bool = True
    ) -> pd.DataFrame:
        """``targets_on`` a panel.

        Args:
            fresh: as after an import, without what earlier runs left in globals and caches.
        """
        if fresh:
            self.memory.restore()
        return targets_on(panel, self.strategy, self.plan, self.costs, self.training, futures, turn)

    @cached_property
    def known(self) -> KnownPrices:
        return KnownPrices(self.panel, self.base.index[0])

    def parameters_are_settings(self) -> None:
        """It carries data among its parameters, which may hold the future; it must learn from
        the history it is handed."""
        for name, value in self.strategy.get_params().items():
            if isinstance(value, Panel | pd.DataFrame | pd.Series | np.ndarray | torch.Tensor):
                raise AssertionError(f"parameter {name!r} is a {type(value).__name__}")

    def parameters_round_trip(self) -> None:
        """Sweeps and refits copy it by its parameters, and the copy would be another strategy."""
        copy = clone(self.strategy)
        for name, value in self.strategy.get_params().items():
            assert repr(copy.get_params()[name]) == repr(value), f"{name} is lost in a clone"

    def other_markets_are_accepted(self) -> None:
        """It cannot be run on other prices than the ones it was made on."""
        try:
            self.targets(another_market(self.panel, seed=1))
        except BrokenLimits as error:
            self.broken = error

    def weights_are_valid(self) -> None:
        """Its weights cannot be held: the backtest and a broker would refuse them."""
        try:
            with watched(self.strategy) as self.watch:
                self.base = self.targets(self.panel)
        except BrokenLimits as error:
            self.broken = error

    def its_limits_hold(self) -> None:
        """It breaks a limit that it declares itself: whoever relies on it holds more of an asset,
        a group or a risk than was agreed."""
        if self.broken is not None:
            raise self.broken

    def features_do_not_know_the_future(self) -> None:
        """A feature of the panel tells the next return, or what another feature will be: it is
        shifted the wrong way, and every strategy that reads it looks ahead."""
        check_features(self.panel)

    def runs_do_not_remember(self) -> None:
        """Run again, it decides otherwise: something is kept from run to run (a global, a cache,
        an unseeded draw), and no result can be reproduced."""
        _same(self.targets(self.panel, fresh=False), self.base, exactly=True)

    def the_future_does_not_matter(self) -> None:
        """Its weights change when only what comes after a decision does (prices, volumes, features,
        who trades and who is a member): it peeks, and would not have earned what its backtest
        says."""
        turns = 2 if self.learned else max(2, -(-DECISIONS // len(self.base)))
        for turn in range(turns):
            futures = Futures(self.panel, seed=turn)
            _same(self.targets(self.panel, futures, turn), self.base, exactly=True)

    def no_prices_are_captured(self) -> None:
        """It holds the very prices that it is judged on, in memory or in a file that it opens:
        with them it can look up what comes next."""
        found = captured_prices(self.strategy, self.known)
        assert self.watch is not None
        found += [file for file in self.watch.opened if self.known.in_file(Path(file))]
        if found:
            raise AssertionError(", ".join(dict.fromkeys(found)))

    def the_engine_is_left_alone(self) -> None:
        """It looks into the engine that runs it, or through all objects in memory, where the whole
        history is."""
        assert self.watch is not None
        if self.watch.reached:
            raise AssertionError(f"it calls {', '.join(self.watch.reached)}")

    def the_calendar_does_not_matter(self) -> None:
        """On the same prices 28 years later, when weekdays fall on the same dates, it decides
        otherwise: it looks something up by date. If that is a rule of the calendar (Easter, a date
        of law), declare ``uses_calendar = True``."""
        self._unless_declared("uses_calendar")
        found = self.targets(in_another_time(self.panel))
        _same(found.set_axis(self.base.index), self.base, exactly=True)

    def folds_do_not_remember(self) -> None:
        """Fitted a second time, it is not what a fresh copy would be: what it learned in one fold
        leaks into the next."""
        # A rule without ``fit`` keeps what it remembers, and passes: nothing is learned in a fold.
        panel, strategy = self.panel.without_benchmark(), self.strategy
        folds = self.plan.folds(panel.dates, strategy.lookback)
        early, late = (panel.until(panel.dates[fold.refit]) for fold in (folds[0], folds[-1]))
        history, none = late.last(strategy.lookback), pd.Series(0.0, index=panel.assets)
        rows = []
        twice = fit_to_plan(fit_to_plan(clone(strategy), early, self.plan), late, self.plan)
        for fitted in (twice, fit_to_plan(clone(strategy), late, self.plan)):
            given = {"book": Book.empty(history)} if asks_for_book(fitted) else {}
            answer = fitted.allocate(history, none, **given)
            answer = answer.weights if isinstance(answer, Bracket) else answer
            rows.append((none * np.nan if answer is None else answer).to_frame().T)
        _same(rows[0], rows[1], exactly=True)

    def the_unit_of_prices_does_not_matter(self) -> None:
        """Prices in another currency or after a split change its weights: it reads something into
        the level of a price. If that is meant (no stock below 5 dollars), declare
        ``uses_price_level = True``."""
        self._unless_declared("uses_price_level")
        factors = np.geomspace(0.1, 30, len(self.panel.assets))
        _same(self.targets(with_prices(self.panel, self.panel.prices * factors)), self.base)

    def what_does_not_trade_is_not_held(self) -> None:
        """It wants to buy an asset that does not trade, or breaks where one stops to."""
        date = self.base.index[len(self.base) // 2]
        prices, stop = self.panel.prices.copy(), self.panel.dates.get_loc(date) - 5
        prices.iloc[stop:, 0] = np.nan
        if prices.iloc[:, 0].notna().any():
            self.targets(with_prices(self.panel, prices))  # the engine refuses to buy it

    def permuting_assets_permutes_weights(self) -> None:
        """It claims to treat all assets alike (``equivariant``), but the order in which they
        stand changes what it holds."""
        order = list(self.panel.assets[::-1])
        turned = reshaped(self.panel, lambda frame: frame[order])
        _same(self.targets(turned), self.base, tolerance=MOVED)

    def rounding_does_not_matter(self) -> None:
        """A change of prices by a billionth moves its weights: it compares prices exactly, as a
        rule with ties does, or one that recognises a date by its prices."""
        if not self._same_when_both:
            assert self._same_when(jittered=True, renamed=False), "weights move"

    def names_do_not_matter(self) -> None:
        """With other names of the assets it decides otherwise: it knows something about them that
        is not in the history, such as who survived."""
        if not self._same_when_both:
            assert self._same_when(jittered=False, renamed=True), "weights depend on names"

    def no_models_are_captured(self) -> None:
        """Its code holds a model that is fitted already, or a table with later dates. If they were
        not made from earlier data alone, it looks ahead; nothing here can tell."""
        found = captured_models(self.strategy, self.known)
        assert not found, "; ".join(found)

    def nothing_is_opened(self) -> None:
        """It opens files or connections while it fits or decides; what is in them may be from
        later dates."""
        assert self.watch is not None
        assert not self.watch.opened, ", ".join(self.watch.opened)

    def markets_are_not_confused(self) -> None:
        """Run on another market of the same dates first, it decides otherwise on this one: it keeps
        something by date. Empty that before a backtest of other data in the same process."""
        self.targets(another_market(self.panel, seed=3))
        _same(self.targets(self.panel, fresh=False), self.base, exactly=True)

    def _unless_declared(self, attribute: str) -> None:
        if any(getattr(each, attribute, False) for each in with_inner(self.strategy)):
            raise Declared(f"not checked: it declares {attribute} = True")

    @cached_property
    def _same_when_both(self) -> bool:
        return self._same_when(jittered=True, renamed=True)

    def _same_when(self, jittered: bool, renamed: bool) -> bool:
        """Whether prices that differ by rounding, or other names, leave all weights as they are."""
        panel = self.panel
        if jittered:
            noise = np.random.default_rng(5).normal(0, 1e-9, panel.prices.shape)
            panel = with_prices(panel, panel.prices * (1 + noise))
        if renamed:
            names = [f"X{number:05d}" for number in range(len(panel.assets))]
            panel = reshaped(panel, lambda frame: frame.set_axis(names, axis=1))
        try:
            found = self.targets(panel)
            if renamed:
                found.columns = self.base.columns[: found.shape[1]]
            _same(found, self.base, tolerance=MOVED)
        except Exception:
            return False
        return True


def _same(
    found: pd.DataFrame, expected: pd.DataFrame, exactly: bool = False, tolerance: float = SAME
) -> None:
    """AssertionError with the first date and asset where weights, or protective orders, differ."""
    columns = expected.columns.union(found.columns, sort=False)
    found, expected = found.reindex(columns=columns), expected.reindex(columns=columns)
    orders = found.notna().to_numpy() & expected.notna().to_numpy()
    gap = np.where(orders, np.abs(found.to_numpy() - expected.to_numpy()), np.inf)
    gap[found.isna().to_numpy() & expected.isna().to_numpy()] = 0  # no order in either
    wrong = gap > (0 if exactly else tolerance)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise AssertionError(
            f"first on {expected.index[row]!s:.10} in {expected.columns[column]}: "
            f"{found.iat[row, column]:.6f} instead of {expected.iat[row, column]:.6f}; "
            f"largest difference {gap.max():.2e}"
        )
