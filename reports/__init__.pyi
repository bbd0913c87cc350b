from reports.catalogue import summary_table as summary_table
from reports.folds import write_plan as write_plan
from reports.html import check_report_path as check_report_path
from reports.html import write_report as write_report
