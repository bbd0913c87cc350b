"""Implicit layers: fixed points, deep equilibrium encoders, the mean-variance layer.

Mathematics only, no finance data. Read ``fixed_point.py`` (then ``solvers.py``, ``iteration.py``),
``cells.py``, ``deq.py``, and ``mean_variance.py`` (then ``problem.py``, ``active_set.py``).
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
