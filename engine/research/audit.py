"""check_strategy(): does a strategy look ahead, and does it do what it declares?

In the spirit of scikit-learn's ``check_estimator``: the strategy is run on the panel and on altered
copies of it. What must not matter (the future, the calendar, the unit of prices, earlier runs) must
not change its weights; each failed check says what that means in trading.
"""

from __future__ import annotations

import pandas as pd

from data_loaders import Panel
from data_loaders.calendars import bars_per_day
from engine.accounting.costs import Costs
from engine.planning.walk_forward import WalkForward
from engine.research.strategy_checks import Audit, Declared
from engine.training.callbacks import progress_bar
from engine.training.settings import Training
from strategies.base import Strategy


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
    plan = plan or _trial_plan(strategy, panel)
    audit = Audit(strategy, panel, plan, costs or Costs(), training or Training(epochs=2, block=24))
    rows = []
    checks = [*audit.first, *audit.later]
    with progress_bar("check", len(checks), "check", progress) as bar:
        for check in checks:
            if audit.base.empty and check in audit.later:
                break
            verdict, found = "passed", ""
            try:
                check()
            except Declared as declared:
                verdict, found = "declared", str(declared)
            except Exception as error:
                verdict = "warning" if check in audit.warnings else "failed"
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


def _trial_plan(strategy: Strategy, panel: Panel) -> WalkForward:
    """Monthly decisions after the lookback and two years; as many rows of bars within a day."""
    if bars_per_day(panel.dates) > 1:
        return WalkForward(train=strategy.lookback + 504, refit=252, rebalance=21)
    span = f"{round(strategy.lookback * 365.25 / 252 + 730)}D"
    return WalkForward(train=span, refit="1Y", rebalance="ME")
