"""Price histories as panels: what was known at each close.

Data flows ``data_loaders -> strategies -> engine -> reports``: this package comes first and
imports none of the others. Read ``panel.py``, then ``sources.py``, where ``load`` dispatches to
``files.py`` (and the room ``reading``, which matches columns to fields),
``yahoo_histories.py`` (with ``yahoo_requests.py`` and ``store.py``), ``synthetic.py`` and
``plugins.py``. ``quality.py`` checks a panel.
"""

from data_loaders.package_imports import import_on_use, refuse_hidden_packages

refuse_hidden_packages()  # the other packages import this one first
import_on_use(__name__)
