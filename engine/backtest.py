"""backtest(): walk every strategy forward through a panel. The main flow, top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from data_loaders import Panel
from engine.planning.walk_forward import WalkForward, check_folds
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult
from engine.runs.result_views import Results
from engine.runs.run_directory import save_run, warn_of_damage
from engine.runs.run_files import written
from strategies.base import Strategy

if TYPE_CHECKING:  # what needs torch is imported where it is used: torch takes a second
    from engine.accounting.costs import Costs
    from engine.accounting.risk_free import Rates
    from engine.training.callbacks import Callback
    from engine.training.settings import Training


def backtest(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    run_dir: str | Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    threads: int = 1,
    whole_shares: bool = False,
    risk_free: Rates | None = None,
    ledger: TrialLedger | bool = True,
    callbacks: Sequence[Callback] = (),
) -> Results[BacktestResult]:
    """Walk the strategies forward through the panel, on the same dates, at the same costs.

    Args:
        strategies: one, several, or a mapping from the names to show. They are cloned; the
            ones passed in are left as they are.
        plan: refits, decisions and fills; default ``WalkForward()``.
        costs: charged in training and simulation alike; default 10 bp on value traded.
        training: how learned strategies are trained; default ``Training()``, seed 0.
        run_dir: keep each finished fit here, and the results at the end. A backtest that was
            interrupted resumes from there; its result is bitwise identical.
        restart: start again, whatever ``run_dir`` holds, instead of resuming or refusing.
        workers: train and decide in so many processes of this machine.
        executor: likewise on this ``concurrent.futures.Executor``, such as a Dask client's.
        progress: show a progress bar; by default where there is a terminal.
        threads: of torch and BLAS in each process. The problems are many and small: below some
            hundred assets one is the fastest, and never waits for a core that is busy.
        whole_shares: trade no fractions of shares; the result shows what that changes.
        risk_free: yearly rate, 0.02 = 2%, or a Series of such rates by date, each of which holds
            until the next; default the costs' ``cash_rate``. Ratios, the report's tests and the
            losses of training are of returns in excess of it.
        ledger: where to record that this was tried; by default the user's (``ledger.py``).
            False keeps no record: for tests of software, not for research.
        callbacks: every epoch of training is reported to them, see ``training/callbacks.py``.

    Returns:
        {name: BacktestResult}, in the order given; it is shown as a table. A strategy that fails or
        is ruined does not stop the others: its result says when and why (``failure``), and holds
        what was decided and earned before. With ``run_dir``, the same call tries it again, and
        repeats no finished fit.

    Warns:
        RuntimeWarning: strategies failed or were ruined; one sentence says which, when and why.

    Raises:
        ValueError: too short a history for the plan, or risk-free rates that do not cover it;
            RunMismatch: ``run_dir`` holds another run; RunInUse: another process is writing there.
        Where every strategy failed, the error of the first, with the results in its ``finished``.
        AllocationError: weights that are NaN, negative, above 1 in sum (see ``Strategy.short``,
            ``Strategy.leverage``), of unknown assets, or in assets that do not trade, or a fit
            that failed; TrainingError: training that cannot continue.
    """
    from engine.walking.session import Session

    session = Session(
        strategies, panel, plan, costs, training, workers=workers, executor=executor,
        progress=progress, threads=threads, callbacks=callbacks, risk_free=risk_free,
    )  # fmt: skip
    folds = session.plan.folds(panel.dates, session.lookback)
    check_folds(folds, panel.dates)
    settings = {**session.settings, "whole_shares": whole_shares}
    results: dict[str, BacktestResult] = {}

    def in_order() -> Results[BacktestResult]:
        return Results({name: results[name] for name in session.named if name in results})

    with session.open(folds, run_dir, restart):
        if session.run is not None:
            warn_of_damage(session.run.path)
        try:
            for name, (decided,) in session.decisions([folds]):  # trained on the way
                results[name] = session.result(name, decided, settings)  # simulated
        finally:
            keep_record(in_order(), ledger)
            if session.run is not None and results:
                with written(session.run.path):
                    save_run(in_order(), session.run.path)
    session.check_some_finished(in_order())
    return in_order()
