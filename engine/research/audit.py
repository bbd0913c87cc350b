"""check_strategy(): does a strategy keep its hands off the future, and its promises?

In the spirit of scikit-learn's ``check_estimator``: the strategy is run on the panel and on
changed copies of it. What must not matter (the future, the calendar, the unit of prices, what
was run before) must not change its weights; each failed check says what that means in trading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.backtest import backtest
from engine.planning.walk_forward import WalkForward
from engine.training.settings import Training
from engine.walking.weight_checks import BrokenLimits
from strategies.base import LearnedStrategy, Strategy

CALENDAR = pd.Timedelta(days=28 * 365 + 7)  # after 28 years the weekdays fall on the same dates
SAME = 1e-6  # difference of a weight that rounding may make, where the arithmetic is another


class StrategyCheckError(AssertionError):
    """A strategy failed checks; ``outcomes`` is the table of all of them."""

    def __init__(self, message: str, outcomes: pd.DataFrame):
        super().__init__(message)
        self.outcomes = outcomes


@dataclass(frozen=True)
class Audit:
    """The strategy, and the small walk-forward on which it is checked."""

    strategy: Strategy
    panel: Panel
    plan: WalkForward
    costs: Costs
    training: Training

    def targets(self, panel: Panel, strategy: Strategy | None = None) -> pd.DataFrame:
        """Target weights (K, N) of a whole walk-forward through a panel."""
        (result,) = backtest(
            strategy or self.strategy,
            panel,
            self.plan,
            self.costs,
            self.training,
            progress=False,
            ledger=False,  # no strategy is judged by these
        ).values()
        return result.targets


def check_strategy(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
) -> pd.DataFrame:
    """Check that a strategy is honest, and that what it claims holds.

    Args:
        strategy: the strategy, with its parameters.
        panel: prices to try it on; at least its lookback and four years.
        plan, costs, training: of the trial; by default monthly decisions, two years of training,
            10 bp and two epochs, which is quick.

    Returns:
        One row a check: passed (bool), meaning (of a failure, in trading terms), found.

    Raises:
        StrategyCheckError: at least one check failed; the message says which and what it means.
    """
    plan = plan or WalkForward(train=_train_span(strategy), refit="1Y", rebalance="ME")
    audit = Audit(strategy, panel, plan, costs or Costs(), training or Training(epochs=2, block=24))
    rows = []
    for check in _checks(audit):
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


def _checks(audit: Audit) -> Iterator[Callable[[], None]]:
    """The checks, in the order in which they must run: earlier runs are bait for later ones."""
    strategy, panel = audit.strategy, audit.panel

    def parameters_are_settings() -> None:
        """It carries data among its parameters, which may hold the future; it must learn from
        the history it is handed."""
        for name, value in strategy.get_params().items():
            if isinstance(value, Panel | pd.DataFrame | pd.Series | np.ndarray | torch.Tensor):
                raise AssertionError(f"parameter {name!r} is a {type(value).__name__}")

    def parameters_round_trip() -> None:
        """Sweeps and refits copy it by its parameters, and the copy would be another strategy."""
        copy = clone(strategy)
        for name, value in strategy.get_params().items():
            assert repr(copy.get_params()[name]) == repr(value), f"{name} is lost in a clone"

    yield parameters_are_settings
    yield parameters_round_trip

    # Whoever keeps what it saw will take this other market, on the same dates, for the real one.
    bait = _noise(panel, 0, seed=1)

    base: list[pd.DataFrame] = []
    broken: list[BrokenLimits] = []

    def other_markets_are_accepted() -> None:
        """It cannot be run on other prices than the ones it was made on."""
        with _noting(broken):
            audit.targets(bait)

    def weights_are_valid() -> None:
        """Its weights cannot be held: the backtest and a broker would refuse them."""
        with _noting(broken):
            base.append(audit.targets(panel))

    def its_limits_hold() -> None:
        """It breaks a limit that it declares itself: whoever relies on it holds more of an asset,
        a group or a risk than was agreed."""
        if broken:
            raise broken[-1]

    yield other_markets_are_accepted
    yield weights_are_valid
    yield its_limits_hold
    if not base:
        return
    targets = base[0]

    def the_future_does_not_matter() -> None:
        """Its weights change when prices after the decision do: it peeks, and would not have
        earned what its backtest says."""
        cut = panel.dates.get_loc(targets.index[len(targets) // 2])
        seen = audit.targets(_noise(panel, cut + 1, seed=2))
        kept = targets.loc[: panel.dates[cut]]
        _same(seen.loc[kept.index], kept, exactly=True)

    def the_calendar_does_not_matter() -> None:
        """On the same prices 28 years later it decides otherwise: it looks things up by date,
        outside of the history it is handed."""
        moved = Panel(
            panel.prices.set_axis(panel.dates + CALENDAR),
            {k: v.set_axis(panel.dates + CALENDAR) for k, v in panel.asset_features.items()},
            panel.market_features.set_axis(panel.dates + CALENDAR),
        )
        _same(audit.targets(moved).set_axis(targets.index), targets, exactly=True)

    def runs_do_not_remember() -> None:
        """Run again, it decides otherwise: something is kept from run to run (a global, a cache,
        an unseeded draw), and no result can be reproduced."""
        _same(audit.targets(panel), targets, exactly=True)

    def folds_do_not_remember() -> None:
        """Fitted a second time, it is not what a fresh copy would be: what it learned in one fold
        leaks into the next."""
        folds = audit.plan.folds(panel.dates, strategy.lookback)
        early, late = (panel.until(panel.dates[fold.refit]) for fold in (folds[0], folds[-1]))
        again = clone(strategy).fit(early).fit(late)
        fresh = clone(strategy).fit(late)
        none = pd.Series(0.0, index=panel.assets)
        seen = late.last(strategy.lookback)
        found, expected = (s.allocate(seen, none).to_frame().T for s in (again, fresh))
        _same(found, expected, exactly=True)

    def the_unit_of_prices_does_not_matter() -> None:
        """Prices in another currency or after a split change its weights: it reads something into
        the level of a price, which says nothing."""
        factors = np.geomspace(0.1, 30, len(panel.assets))
        scaled = Panel(panel.prices * factors, panel.asset_features, panel.market_features)
        _same(audit.targets(scaled), targets)

    def what_does_not_trade_is_not_held() -> None:
        """It wants to hold an asset that does not trade, or breaks where one stops to."""
        prices = panel.prices.copy()
        stop = panel.dates.get_loc(targets.index[len(targets) // 2]) - 5
        prices.iloc[stop:, 0] = np.nan
        gone = audit.targets(Panel(prices, panel.asset_features, panel.market_features))
        held = gone.loc[panel.dates[stop] :].iloc[:, 0]
        assert (held == 0).all(), f"{held.max():.3f} in {panel.assets[0]} after its last price"

    def permuting_assets_permutes_weights() -> None:
        """It claims to treat all assets alike (``equivariant``), but the order in which they
        stand changes what it holds."""
        order = list(panel.assets[::-1])
        turned = Panel(
            panel.prices[order],
            {name: frame[order] for name, frame in panel.asset_features.items()},
            panel.market_features,
        )
        _same(audit.targets(turned)[list(panel.assets)], targets, tolerance=1e-4)

    yield the_future_does_not_matter
    yield the_calendar_does_not_matter
    yield runs_do_not_remember
    if not isinstance(strategy, LearnedStrategy):  # whose module the engine builds anew
        yield folds_do_not_remember
    yield the_unit_of_prices_does_not_matter
    yield what_does_not_trade_is_not_held
    if strategy.equivariant:
        yield permuting_assets_permutes_weights


@contextmanager
def _noting(broken: list[BrokenLimits]) -> Iterator[None]:
    """Broken limits go to the list; they are a check of their own."""
    try:
        yield
    except BrokenLimits as error:
        broken.append(error)


def _noise(panel: Panel, start: int, seed: int) -> Panel:
    """The panel with every price and feature from row ``start`` on replaced by noise."""
    rng = np.random.default_rng(seed)

    def random(frame: pd.DataFrame) -> pd.DataFrame:
        drawn = frame.copy()
        walk = rng.normal(0, 0.02, drawn.iloc[start:].shape).cumsum(axis=0)
        drawn.iloc[start:] = np.where(drawn.iloc[start:].isna(), np.nan, 50 * np.exp(walk))
        return drawn

    features = {name: random(frame) for name, frame in panel.asset_features.items()}
    return Panel(random(panel.prices), features, random(panel.market_features))


def _same(
    found: pd.DataFrame, expected: pd.DataFrame, exactly: bool = False, tolerance: float = SAME
) -> None:
    """AssertionError with the first date and asset where weights differ."""
    gap = np.abs(found.to_numpy() - expected.to_numpy())
    wrong = gap > (0 if exactly else tolerance)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise AssertionError(
            f"first on {expected.index[row]!s:.10} in {expected.columns[column]}: "
            f"{found.iat[row, column]:.6f} instead of {expected.iat[row, column]:.6f}; "
            f"largest difference {gap.max():.2e}"
        )


def _train_span(strategy: Strategy) -> str:
    """Two years after the lookback, in calendar days."""
    return f"{round(strategy.lookback * 365.25 / 252 + 730)}D"
