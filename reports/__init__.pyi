from reports.figures.charts import write_plan as write_plan
from reports.metrics.catalogue import summary_table as summary_table
from reports.report import check_report_path as check_report_path
from reports.report import write_report as write_report
