"""deqfolio warm-up: compile the kernels once, so that no run waits for it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer


def warm_up() -> None:
    """Compile the kernels that a backtest needs, and say where they are kept.

    Half a minute on two cores after an installation or an update, a few seconds later. They are
    kept in $NUMBA_CACHE_DIR, beside the packages, or in the user's cache folder; where none of
    these can be written, in a temporary folder.
    """
    start = time.monotonic()
    half = [sys.executable, "-c", "from deqfolio.installation import beside; beside()"]
    with subprocess.Popen(half):  # on another core, while the backtests compile the rest
        place = _backtests()
    from data_loaders.machine import VARIABLE

    shown = place or f"the packages' folders, or the user's cache ({VARIABLE} names another place)"
    typer.echo(f"compiled in {time.monotonic() - start:.0f} s; kept in {shown}")


def beside() -> None:
    """The kernels of the equilibrium, and of the gradients of the portfolio."""
    import torch

    from strategies.layers.equilibrium.deq_encoder import DEQEncoder
    from strategies.layers.optimisation.active_set.solver import compile_gradients

    DEQEncoder(1, 2).double()(torch.zeros(1, 2, 1, dtype=torch.float64)).sum().backward()
    compile_gradients()


def _backtests() -> str:
    """Short ones, rules before networks; the place of the kernels, empty where Numba chooses."""
    from data_loaders import load
    from data_loaders.machine import writable_cache
    from engine import Costs, Training, WalkForward, backtest
    from reports import write_report
    from strategies import DEQMeanVariance, EqualWeight, MinimumVariance

    place = writable_cache()
    panel = load("synthetic:planted?rows=200&assets=5")
    plan = WalkForward(train=100, refit=100, rebalance=5)
    rules, learned = [EqualWeight(), MinimumVariance(20, 0.5)], [DEQMeanVariance(20, 4, 0.5)]
    for strategies, whole in (rules, True), ([*learned, *rules], False):
        results = backtest(
            strategies, panel, plan, Costs(), Training(epochs=1),
            ledger=False, progress=False, whole_shares=whole,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_report(results, Path(folder) / "report.html")
    return place
