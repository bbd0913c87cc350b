"""The engine: walk forward, train, decide, simulate.

Read ``backtest.py`` (the main flow), then ``planning/walk_forward.py``, ``walking/session.py``,
``walking/fitting.py``, ``training/trainer.py``, ``walking/decisions.py``, ``accounting/costs.py``
and ``accounting/simulation.py``. The engine knows strategies by their contract alone.
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
