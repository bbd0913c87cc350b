"""The front door: every public name, imported when it is used; and the command line.

``from deqfolio import load, backtest, DEQMeanVariance, write_report``: ``__init__.pyi`` lists the
names. Of the command line read ``command_line.py`` (the list of commands, and how errors are
reported), then ``experiments.py`` (from an experiment to a run), then the commands:
``backtests.py``, ``results.py``, ``strategy_commands.py``, ``trading.py``; those of
``deqfolio data`` are in ``data_loaders/commands.py``.
"""

import sys


def __getattr__(name: str) -> object:
    _open()
    return getattr(sys.modules[__name__], name)


def __dir__() -> list[str]:
    _open()
    return dir(sys.modules[__name__])


def _open() -> None:
    """On first use: the command line must hear Ctrl-C before anything else is imported."""
    import data_loaders

    try:
        from data_loaders.package_imports import import_on_use
    except ModuleNotFoundError as error:
        where = data_loaders.__file__ or next(iter(data_loaders.__path__))
        raise ImportError(
            f"{where} hides deqfolio's package 'data_loaders': rename it, or run from another "
            "folder"
        ) from error
    global __getattr__, __dir__
    del __getattr__, __dir__
    import_on_use(__name__)
