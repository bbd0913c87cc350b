"""The mean-variance layer: problem, exact solvers, robust layer, cross-checks."""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
