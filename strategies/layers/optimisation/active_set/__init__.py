"""The mean-variance problem by an active-set method: exact, and fast because few weights are free.

A compact primal-dual active-set method (a semismooth Newton method; Hintermueller, Ito & Kunisch
2002): guess what pins each weight, solve the equations that follow for the free ones, correct every
guess that the result contradicts, and stop when there is none. In a capped portfolio 10 to 20 of
500 weights are free, so no n^3 work is needed, and the result is exact to rounding.

``reference.py``, one folder up, is a short solver of the same problem. Then read here:
``solver.py`` (from Python), ``arrays.py`` (what the kernels work on), ``kernels.py`` (a batch, one
sample after the other), ``rounds.py`` (one round), ``linear_algebra.py``, ``gradient.py``. Rounds
may cycle where constraints are degenerate; ``dual.py`` takes over there.
"""

from strategies.layers.optimisation.active_set.solver import ActiveSet

__all__ = ["ActiveSet"]
