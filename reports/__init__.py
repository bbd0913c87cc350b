"""The report: what the strategies did after costs, and how much of it could be luck.

Read in this order: ``metrics`` and its neighbours (each number from its definition),
``catalogue`` (the list of them), ``statistics`` and ``selection`` (luck), ``facts`` (all numbers
of a run), ``ticks``, ``axes``, ``svg``, ``figures`` and ``sections`` (the pictures), ``html`` (the
page), ``export`` (the numbers beside it), ``compare`` (several runs), ``commands`` (from the
terminal).
"""

from reports.catalogue import summary_table
from reports.folds import write_plan
from reports.html import check_report_path, write_report

__all__ = ["check_report_path", "summary_table", "write_plan", "write_report"]
