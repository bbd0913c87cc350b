"""The engine: walk forward, train, decide, simulate.

Read ``backtest.py`` (the main flow), then ``walk_forward.py``, ``training.py``, ``decisions.py``,
``costs.py``, ``bookkeeping.py``, ``simulation.py``. The engine knows strategies by their contract
alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.backtest import backtest
from engine.planning.walk_forward import WalkForward
from engine.runs.result import BacktestResult, load_run, save_run
from engine.runs.run_directory import RunMismatch

if TYPE_CHECKING:
    from engine.accounting.costs import Costs
    from engine.losses.portfolio import (
        Concentration,
        NegativeInformationRatio,
        PredictionError,
        RiskParity,
        TrackingError,
        Turnover,
    )
    from engine.losses.returns import (
        CVaR,
        Loss,
        MaxDrawdown,
        NegativeCalmar,
        NegativeLogGrowth,
        NegativeMeanVariance,
        NegativeOmega,
        NegativeSharpe,
        NegativeSortino,
    )
    from engine.research.audit import StrategyCheckError, check_strategy
    from engine.research.cost_sweep import cost_sweep
    from engine.research.cross_validation import cross_validate
    from engine.research.seeds import backtest_seeds
    from engine.training.callbacks import Callback, CsvLog, MLflow, TensorBoard
    from engine.training.trainer import Training, TrainingError, train
    from engine.walking.weight_checks import AllocationError

__all__ = [
    "AllocationError",
    "BacktestResult",
    "CVaR",
    "Callback",
    "Concentration",
    "Costs",
    "CsvLog",
    "Loss",
    "MLflow",
    "MaxDrawdown",
    "NegativeCalmar",
    "NegativeInformationRatio",
    "NegativeLogGrowth",
    "NegativeMeanVariance",
    "NegativeOmega",
    "NegativeSharpe",
    "NegativeSortino",
    "PredictionError",
    "RiskParity",
    "RunMismatch",
    "StrategyCheckError",
    "TensorBoard",
    "TrackingError",
    "Training",
    "TrainingError",
    "Turnover",
    "WalkForward",
    "backtest",
    "backtest_seeds",
    "check_strategy",
    "cost_sweep",
    "cross_validate",
    "load_run",
    "save_run",
    "train",
]

PLACES = {  # imported on use, as torch is with them
    "AllocationError": "walking.weight_checks",
    "CVaR": "losses.returns",
    "Callback": "training.callbacks",
    "Concentration": "losses.portfolio",
    "Costs": "accounting.costs",
    "CsvLog": "training.callbacks",
    "MLflow": "training.callbacks",
    "Loss": "losses.returns",
    "MaxDrawdown": "losses.returns",
    "NegativeCalmar": "losses.returns",
    "NegativeInformationRatio": "losses.portfolio",
    "NegativeLogGrowth": "losses.returns",
    "NegativeMeanVariance": "losses.returns",
    "NegativeOmega": "losses.returns",
    "NegativeSharpe": "losses.returns",
    "NegativeSortino": "losses.returns",
    "PredictionError": "losses.portfolio",
    "RiskParity": "losses.portfolio",
    "StrategyCheckError": "research.audit",
    "TensorBoard": "training.callbacks",
    "TrackingError": "losses.portfolio",
    "Training": "training.trainer",
    "TrainingError": "training.trainer",
    "Turnover": "losses.portfolio",
    "backtest_seeds": "research.seeds",
    "check_strategy": "research.audit",
    "cost_sweep": "research.cost_sweep",
    "cross_validate": "research.cross_validation",
    "train": "training.trainer",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"engine.{PLACES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # what a prompt completes to
