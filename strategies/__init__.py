"""Strategies: rules and networks that turn what is known into weights.

Read ``base.py`` (the contract), ``baselines.py`` (rules), ``deq.py`` (the flagship), then
``layers`` (the mathematics, no finance).
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
