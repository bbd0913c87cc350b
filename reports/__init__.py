"""The report: what the strategies did after costs, and how much of it could be luck.

Read in this order: ``metrics`` (each number from its definition, and the list of them),
``statistics`` (luck), ``benchmark`` (who is compared with what; ``return_series`` of results that
are returns alone), ``learning`` (training and solves), ``report_data`` (all numbers of a run),
``figures``, ``wording`` (sentences), ``report`` (the page, laid out by the templates in ``page/``),
``export`` (the numbers beside it) and ``compare`` (several runs).
"""

from data_loaders.package_imports import import_on_use

import_on_use(__name__)
