"""The engine: walk forward, train, decide, simulate.

Read ``backtest.py`` (the main flow), then ``walk_forward.py``, ``training.py``, ``decisions.py``,
``costs.py``, ``bookkeeping.py``, ``simulation.py``. The engine knows strategies by their contract
alone.
"""

from engine.audit import StrategyCheckError, check_strategy
from engine.backtest import backtest
from engine.costs import Costs
from engine.decisions import AllocationError
from engine.losses import Loss, NegativeLogGrowth, NegativeMeanVariance, NegativeSharpe
from engine.result import BacktestResult, load_run, save_run
from engine.run_directory import RunMismatch
from engine.selection import cross_validate
from engine.sweep import cost_sweep
from engine.training import Training, TrainingError, train
from engine.walk_forward import WalkForward

__all__ = [
    "AllocationError",
    "BacktestResult",
    "Costs",
    "Loss",
    "NegativeLogGrowth",
    "NegativeMeanVariance",
    "NegativeSharpe",
    "RunMismatch",
    "StrategyCheckError",
    "Training",
    "TrainingError",
    "WalkForward",
    "backtest",
    "check_strategy",
    "cost_sweep",
    "cross_validate",
    "load_run",
    "save_run",
    "train",
]
