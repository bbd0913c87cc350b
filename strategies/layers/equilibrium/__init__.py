"""Deep equilibrium: fixed points as layers, and an encoder of assets that is one.

Read ``fixed_point.py`` (the layer and its gradients), ``fixed_point_solvers.py`` (what a solver
does between two evaluations), ``fixed_point_loop.py`` (the loop around it), then
``encoder_cells.py`` and ``deq_encoder.py``. ``compiled_mean_field.py`` and
``mean_field_kernels.py`` do the same as these for the encoder's default cell, faster.
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
