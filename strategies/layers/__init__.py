"""Implicit layers: fixed points, deep equilibrium encoders, the mean-variance layer.

Mathematics only, no finance data. Read ``fixed_point.py`` (then ``solvers.py``, ``iteration.py``),
``cells.py``, ``deq.py``, and ``mean_variance.py`` (then ``problem.py``, ``active_set.py``).
"""

from strategies.layers.equilibrium.encoder import DEQEncoder
from strategies.layers.equilibrium.fixed_point import (
    Anderson,
    Broyden,
    ConvergenceError,
    Implicit,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)
from strategies.layers.optimisation.cross_check import cross_check
from strategies.layers.optimisation.mean_variance import (
    ActiveSet,
    FactorRisk,
    InfeasibleError,
    MeanVarianceLayer,
    Qpth,
    SolveError,
)
from strategies.layers.solve_record import record_solves

__all__ = [
    "ActiveSet",
    "Anderson",
    "Broyden",
    "ConvergenceError",
    "DEQEncoder",
    "FactorRisk",
    "Implicit",
    "InfeasibleError",
    "MeanVarianceLayer",
    "Phantom",
    "Picard",
    "Qpth",
    "SolveError",
    "Unrolled",
    "cross_check",
    "fixed_point",
    "record_solves",
]
