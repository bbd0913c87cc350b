"""The report: what the strategies did after costs, and how much of it could be luck.

Read in this order: ``metrics`` (each number from its definition, and the list of them),
``statistics`` (luck), ``learning`` (training and solves), ``report_data`` (all numbers of a
run), ``figures``, ``wording`` (sentences), ``report`` (the page, laid out by the templates in
``page/``), ``export`` (the numbers beside it), ``compare`` (several runs), ``terminal`` and
``commands``.
"""

from reports.figures.timeline import write_plan
from reports.metrics.catalogue import summary_table
from reports.report import check_report_path, write_report

__all__ = ["check_report_path", "summary_table", "write_plan", "write_report"]
