"""Strategies: rules and networks that turn what is known into weights.

Read ``base.py`` (the contract), ``baselines.py`` (rules), ``deq.py`` (the flagship), then
``layers`` (the mathematics, no finance).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from strategies.base import LearnedStrategy, Strategy
from strategies.parameters import above, at_least, one_of

if TYPE_CHECKING:
    from strategies.allocation import (
        HierarchicalRiskParity,
        MaximumDiversification,
        Momentum,
        RiskParity,
    )
    from strategies.baselines import EqualWeight, InverseVolatility, MinimumVariance
    from strategies.constraints import Constraints, Exposure, Group
    from strategies.deq import DEQMeanVariance
    from strategies.estimators import EstimatorStrategy
    from strategies.linear import LinearMeanVariance
    from strategies.predict import MeanVariance, PredictThenOptimize
    from strategies.registry import create_strategy, known_strategies, load_strategy
    from strategies.siblings import (
        ExplicitMeanVariance,
        SoftmaxAllocation,
        UnrolledMeanVariance,
    )

__all__ = [
    "Constraints",
    "DEQMeanVariance",
    "EqualWeight",
    "EstimatorStrategy",
    "ExplicitMeanVariance",
    "Exposure",
    "Group",
    "HierarchicalRiskParity",
    "InverseVolatility",
    "LearnedStrategy",
    "LinearMeanVariance",
    "MaximumDiversification",
    "MeanVariance",
    "MinimumVariance",
    "Momentum",
    "PredictThenOptimize",
    "RiskParity",
    "SoftmaxAllocation",
    "Strategy",
    "UnrolledMeanVariance",
    "above",
    "at_least",
    "create_strategy",
    "known_strategies",
    "load_strategy",
    "one_of",
]

PLACES = {  # imported on use, as torch is with them
    "Constraints": "constraints",
    "DEQMeanVariance": "deq",
    "EqualWeight": "baselines",
    "EstimatorStrategy": "estimators",
    "ExplicitMeanVariance": "siblings",
    "Exposure": "constraints",
    "Group": "constraints",
    "HierarchicalRiskParity": "allocation",
    "InverseVolatility": "baselines",
    "LinearMeanVariance": "linear",
    "MaximumDiversification": "allocation",
    "MeanVariance": "predict",
    "MinimumVariance": "baselines",
    "Momentum": "allocation",
    "PredictThenOptimize": "predict",
    "RiskParity": "allocation",
    "SoftmaxAllocation": "siblings",
    "UnrolledMeanVariance": "siblings",
    "create_strategy": "registry",
    "known_strategies": "registry",
    "load_strategy": "registry",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"strategies.{PLACES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})  # what a prompt completes to
