"""Price histories as panels: what was known at each close.

The way of the data: ``data_loaders -> strategies -> engine -> reports``. This package comes
first and imports none of the others. Read ``panel.py``, then ``sources.py``, which finds the
source: ``files.py`` (``csv_tables.py`` and ``parquet_tables.py`` read a ``tables.py`` table),
``history.py`` (``yahoo.py`` asks, ``store.py`` keeps), ``synthetic.py``, ``plugins.py`` (anyone's).
``quality.py`` looks at what came.
"""

from data_loaders.neighbours import check_neighbours
from data_loaders.panel import Panel
from data_loaders.sources import load
from data_loaders.validation import DataError

__all__ = ["DataError", "Panel", "load"]

check_neighbours()  # the first of our packages to be imported, whichever is asked for
