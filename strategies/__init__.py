"""Strategies: rules and networks that turn what is known into weights.

Read ``base.py`` (the contract), ``baselines.py`` (rules), ``deq.py`` (the flagship), then
``layers`` (the mathematics, no finance).
"""

from strategies.base import LearnedStrategy, Strategy
from strategies.baselines import EqualWeight, InverseVolatility, MinimumVariance
from strategies.constraints import Constraints, Exposure, Group
from strategies.deq import DEQMeanVariance
from strategies.registry import create_strategy, known_strategies, load_strategy

__all__ = [
    "Constraints",
    "DEQMeanVariance",
    "EqualWeight",
    "Exposure",
    "Group",
    "InverseVolatility",
    "LearnedStrategy",
    "MinimumVariance",
    "Strategy",
    "create_strategy",
    "known_strategies",
    "load_strategy",
]
