"""The command line, and the only package that sees the other four.

Read ``command_line.py`` (the list of commands, and how errors are told), then ``experiments.py``
(from an experiment to a run), then the commands: ``backtests.py``, ``choosing.py``, ``results.py``,
``plugging_in.py``; those of ``deqfolio data`` are in ``data_loaders/commands.py``.
"""

from deqfolio.command_line import app, main

__all__ = ["app", "main"]
