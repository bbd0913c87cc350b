"""The engine: walk forward, train, decide, simulate.

Read ``backtest.py`` (the main flow), then ``walk_forward.py``, ``training.py``, ``decisions.py``,
``costs.py``, ``bookkeeping.py``, ``simulation.py``. The engine knows strategies by their contract
alone.
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
