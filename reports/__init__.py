"""The report: what the strategies did after costs, and how much of it could be luck.

Read in this order: ``metrics`` and its neighbours (each number from its definition),
``catalogue`` (the list of them), ``statistics`` and ``selection`` (luck), ``facts`` (all numbers
of a run), ``ticks``, ``axes``, ``svg``, ``figures`` and ``sections`` (the pictures), ``html`` (the
page), ``export`` (the numbers beside it), ``compare`` (several runs), ``commands`` (from the
terminal).
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
