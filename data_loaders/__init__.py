"""Price histories as panels: what was known at each close.

The way of the data: ``data_loaders -> strategies -> engine -> reports``. This package comes
first and imports none of the others. Read ``panel.py``, then ``sources.py``.
"""

from data_loaders.panel import Panel
from data_loaders.sources import load
from data_loaders.validation import DataError

__all__ = ["DataError", "Panel", "load"]
