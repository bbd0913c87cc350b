"""Price histories as panels: what was known at each close.

Data flows ``data_loaders -> strategies -> engine -> reports``: this package comes first and
imports none of the others. Read ``panel.py``, then ``sources.py``, where ``load`` dispatches to
``files.py`` (with ``csv_tables.py``, ``parquet_tables.py`` and ``tables.py``),
``yahoo_histories.py`` (with ``yahoo_requests.py`` and ``store.py``), ``synthetic.py`` and
``plugins.py``. ``quality.py`` checks a panel.
"""

from data_loaders.neighbours import check_neighbours
from data_loaders.panel import Panel
from data_loaders.sources import load
from data_loaders.validation import DataError

__all__ = ["DataError", "Panel", "load"]

check_neighbours()  # the other packages import this one first
