"""The report: what the strategies did after costs, and how much of it could be luck.

Read in this order: ``metrics`` (each number from its definition), ``statistics`` (luck),
``figures`` (SVG that follows the page), ``html`` and ``template.html`` (the page).
"""

from reports.html import check_report_path, write_report
from reports.metrics import summary_table

__all__ = ["check_report_path", "summary_table", "write_report"]
