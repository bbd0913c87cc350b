"""check_strategy(): does a strategy look ahead, and does it do what it declares?

In the spirit of scikit-learn's ``check_estimator``: the strategy is run on the panel and on
changed copies of it. What must not matter (the future, the calendar, the unit of prices, earlier
runs) must not change its weights; each failed check says what that means in trading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.calendars import bars_per_day
from engine.accounting.costs import Costs
from engine.accounting.protective_orders import Levels
from engine.backtest import backtest
from engine.planning.walk_forward import WalkForward
from engine.training.settings import Training
from engine.walking.weight_checks import BrokenLimits
from strategies.base import (
    Book,
    Bracket,
    Strategy,
    asks_for_book,
    fit_to_plan,
    learned_inside,
)

CALENDAR = pd.Timedelta(days=28 * 365 + 7)  # after 28 years the weekdays fall on the same dates
BARS = ("open", "high", "low", "vwap")  # asset features that are prices, if they are there
SAME = 1e-6  # difference of a weight that rounding may make, if the arithmetic differs


class StrategyCheckError(AssertionError):
    """A strategy failed checks; ``outcomes`` is the table of all of them."""

    def __init__(self, message: str, outcomes: pd.DataFrame):
        super().__init__(message)
        self.outcomes = outcomes


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

    def checks(self) -> Iterator[Callable[[], None]]:
        """The checks, in the order in which they must run: each run may leave traces for later."""
        yield self.parameters_are_settings
        yield self.parameters_round_trip
        yield self.other_markets_are_accepted
        yield self.weights_are_valid
        yield self.its_limits_hold
        if self.base.empty:
            return
        yield self.the_future_does_not_matter
        yield self.the_calendar_does_not_matter
        yield self.runs_do_not_remember
        if learned_inside(self.strategy) is None:  # the engine builds its module again
            yield self.folds_do_not_remember
        yield self.the_unit_of_prices_does_not_matter
        yield self.what_does_not_trade_is_not_held
        if self.strategy.equivariant:
            yield self.permuting_assets_permutes_weights

    def targets(self, panel: Panel) -> pd.DataFrame:
        """Target weights (K, N) of a whole walk-forward through a panel.

        Where there are protective orders, columns for them follow: (K, 5 N) in all, prices as
        fractions of the close.
        """
        results = backtest(
            self.strategy, panel, self.plan, self.costs, self.training, progress=False,
            ledger=False,  # these runs are no evidence about the strategy
        )  # fmt: skip
        result = next(iter(results.values()))
        if result.levels.empty:
            return result.targets
        parts = [result.targets]
        for name in Levels._fields:
            table = result.levels.pivot(index="date", columns="asset", values=name)
            dates, names = result.targets.index, list(map(str, result.targets.columns))
            closes = panel.prices.ffill().loc[dates, list(result.targets)].set_axis(names, axis=1)
            table = table.reindex(index=dates, columns=names)
            table = table if name == "trailing" else table / closes
            parts.append(table.add_suffix(f", {name}"))
        return pd.concat(parts, axis=1)

    @property
    def middle(self) -> int:
        """The row of the panel at which the middle one of all decisions is made."""
        return self.panel.dates.get_loc(self.base.index[len(self.base) // 2])

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
        # A strategy that keeps what it saw will later mistake this market, which has the same
        # dates, for the real one.
        try:
            self.targets(_noise(self.panel, 0, seed=1))
        except BrokenLimits as error:
            self.broken = error

    def weights_are_valid(self) -> None:
        """Its weights cannot be held: the backtest and a broker would refuse them."""
        try:
            self.base = self.targets(self.panel)
        except BrokenLimits as error:
            self.broken = error

    def its_limits_hold(self) -> None:
        """It breaks a limit that it declares itself: whoever relies on it holds more of an asset,
        a group or a risk than was agreed."""
        if self.broken is not None:
            raise self.broken

    def the_future_does_not_matter(self) -> None:
        """Its weights change when prices after the decision do: it peeks, and would not have
        earned what its backtest says."""
        changed = self.targets(_noise(self.panel, self.middle + 1, seed=2))
        before = self.base.loc[: self.panel.dates[self.middle]]
        _same(changed.loc[before.index], before, exactly=True)

    def the_calendar_does_not_matter(self) -> None:
        """On the same prices 28 years later it decides otherwise: it looks things up by date,
        outside of the history it is handed."""
        panel, dates = self.panel, self.panel.dates + CALENDAR
        moved = Panel(
            panel.prices.set_axis(dates),
            {name: frame.set_axis(dates) for name, frame in panel.asset_features.items()},
            panel.market_features.set_axis(dates),
            periods_per_year=panel.periods_per_year,
        )
        _same(self.targets(moved).set_axis(self.base.index), self.base, exactly=True)

    def runs_do_not_remember(self) -> None:
        """Run again, it decides otherwise: something is kept from run to run (a global, a cache,
        an unseeded draw), and no result can be reproduced."""
        _same(self.targets(self.panel), self.base, exactly=True)

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
        the level of a price, which says nothing."""
        factors = np.geomspace(0.1, 30, len(self.panel.assets))
        _same(self.targets(_with_prices(self.panel, self.panel.prices * factors)), self.base)

    def what_does_not_trade_is_not_held(self) -> None:
        """It wants to buy an asset that does not trade, or breaks where one stops to."""
        prices, stop = self.panel.prices.copy(), self.middle - 5
        prices.iloc[stop:, 0] = np.nan
        self.targets(_with_prices(self.panel, prices))  # the engine refuses to buy it

    def permuting_assets_permutes_weights(self) -> None:
        """It claims to treat all assets alike (``equivariant``), but the order in which they
        stand changes what it holds."""
        panel, order = self.panel, list(self.panel.assets[::-1])
        turned = Panel(
            panel.prices[order],
            {name: frame[order] for name, frame in panel.asset_features.items()},
            panel.market_features,
            periods_per_year=panel.periods_per_year,
        )
        _same(self.targets(turned), self.base, tolerance=1e-4)


def check_strategy(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
) -> pd.DataFrame:
    """Check that a strategy does not look ahead, and that it does what it declares.

    Args:
        strategy: the strategy, with its parameters.
        panel: prices to try it on; at least its lookback and four years, or 1,000 bars.
        plan, costs, training: of the trial run; by default monthly decisions, two years of
            training (of bars within a day as many rows), 10 bp and two epochs, which is quick.

    Returns:
        One row per check: passed (bool), meaning (of a failure, in trading terms), found.

    Raises:
        StrategyCheckError: at least one check failed; the message says which and what it means.
    """
    plan = plan or _trial_plan(strategy, panel)
    audit = Audit(strategy, panel, plan, costs or Costs(), training or Training(epochs=2, block=24))
    rows = []
    for check in audit.checks():
        meaning = " ".join((check.__doc__ or "").split())
        try:
            check()
        except Exception as error:
            rows.append((check.__name__, False, meaning, f"{type(error).__name__}: {error}"))
        else:
            rows.append((check.__name__, True, meaning, ""))
    outcomes = pd.DataFrame(rows, columns=["check", "passed", "meaning", "found"])
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


def _noise(panel: Panel, start: int, seed: int) -> Panel:
    """The panel with every price and feature from row ``start`` on replaced by noise."""
    rng = np.random.default_rng(seed)

    def random(frame: pd.DataFrame) -> pd.DataFrame:
        drawn = frame.copy()
        walk = rng.normal(0, 0.02, drawn.iloc[start:].shape).cumsum(axis=0)
        drawn.iloc[start:] = np.where(drawn.iloc[start:].isna(), np.nan, 50 * np.exp(walk))
        return drawn

    prices = random(panel.prices)
    features = {
        name: _moved(frame, panel.prices, prices) if name in BARS else random(frame)
        for name, frame in panel.asset_features.items()
    }
    return panel.replaced(
        prices=prices,
        asset_features=features,
        market_features=random(panel.market_features),
        members=None,
    )


def _with_prices(panel: Panel, prices: pd.DataFrame) -> Panel:
    features = {
        name: _moved(frame, panel.prices, prices) if name in BARS else frame
        for name, frame in panel.asset_features.items()
    }
    return panel.replaced(prices=prices, asset_features=features, members=None)


def _moved(bars: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Open, high or low prices that lie to the closes as they did before these changed."""
    return (bars / before * after).where(before.ne(after), bars)


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


def _trial_plan(strategy: Strategy, panel: Panel) -> WalkForward:
    """Monthly decisions after the lookback and two years; as many rows of bars within a day."""
    if bars_per_day(panel.dates) > 1:
        return WalkForward(train=strategy.lookback + 504, refit=252, rebalance=21)
    span = f"{round(strategy.lookback * 365.25 / 252 + 730)}D"
    return WalkForward(train=span, refit="1Y", rebalance="ME")
