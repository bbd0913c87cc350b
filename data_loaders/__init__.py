"""Price histories as panels: what was known at each close.

The way of the data: ``data_loaders -> strategies -> engine -> reports``. This package comes
first and imports none of the others. Read ``panel.py``, then ``sources.py``.
"""

from data_loaders.panel import DataError, Panel
from data_loaders.sources import load

__all__ = ["DataError", "Panel", "load"]
