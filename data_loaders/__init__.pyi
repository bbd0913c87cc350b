from data_loaders.panel import Panel as Panel
from data_loaders.sources import load as load
from data_loaders.validation import DataError as DataError
