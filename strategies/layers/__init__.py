"""Implicit layers: fixed points, deep equilibrium encoders, the mean-variance layer.

Mathematics only, no finance data, in two rooms: ``equilibrium`` (fixed points and the encoder) and
``optimisation`` (the mean-variance layer). Beside them is what both use.
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
