"""The engine: walk forward, train, decide, simulate.

Read ``backtest.py`` (the main flow), then ``walk_forward.py``, ``training.py``, ``decisions.py``,
``costs.py``, ``bookkeeping.py``, ``simulation.py``. The engine knows strategies by their contract
alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.backtest import backtest
from engine.result import BacktestResult, load_run, save_run
from engine.run_directory import RunMismatch
from engine.walk_forward import WalkForward

if TYPE_CHECKING:
    from engine.audit import StrategyCheckError, check_strategy
    from engine.callbacks import Callback, CsvLog, MLflow, TensorBoard
    from engine.costs import Costs
    from engine.losses import (
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
    from engine.portfolio_losses import (
        Concentration,
        NegativeInformationRatio,
        PredictionError,
        RiskParity,
        TrackingError,
        Turnover,
    )
    from engine.seeds import backtest_seeds
    from engine.selection import cross_validate
    from engine.sweep import cost_sweep
    from engine.training import Training, TrainingError, train
    from engine.weights import AllocationError

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
    "AllocationError": "weights",
    "CVaR": "losses",
    "Callback": "callbacks",
    "Concentration": "portfolio_losses",
    "Costs": "costs",
    "CsvLog": "callbacks",
    "MLflow": "callbacks",
    "Loss": "losses",
    "MaxDrawdown": "losses",
    "NegativeCalmar": "losses",
    "NegativeInformationRatio": "portfolio_losses",
    "NegativeLogGrowth": "losses",
    "NegativeMeanVariance": "losses",
    "NegativeOmega": "losses",
    "NegativeSharpe": "losses",
    "NegativeSortino": "losses",
    "PredictionError": "portfolio_losses",
    "RiskParity": "portfolio_losses",
    "StrategyCheckError": "audit",
    "TensorBoard": "callbacks",
    "TrackingError": "portfolio_losses",
    "Training": "training",
    "TrainingError": "training",
    "Turnover": "portfolio_losses",
    "backtest_seeds": "seeds",
    "check_strategy": "audit",
    "cost_sweep": "sweep",
    "cross_validate": "selection",
    "train": "training",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"engine.{PLACES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # what a prompt completes to
