"""deqfolio warm-up: compile the kernels once, so that no run waits for it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import typer


def warm_up() -> None:
    """Compile the kernels that a backtest needs, and say where they are kept.

    Half a minute after an installation or an update, a second or two later. They are kept in
    $NUMBA_CACHE_DIR, beside the packages, or in the user's cache folder; where none of these can be
    written, in a temporary folder.
    """
    from data_loaders import load
    from data_loaders.kernel_cache import VARIABLE, writable_cache
    from engine import Costs, Training, WalkForward, backtest
    from reports import write_report
    from strategies import DEQMeanVariance, EqualWeight, MinimumVariance

    start, place = time.monotonic(), writable_cache()
    panel = load("synthetic:planted?rows=200&assets=5")
    plan = WalkForward(train=100, refit=100, rebalance=5)
    strategies = [DEQMeanVariance(20, hidden=4, cap=0.5), EqualWeight(), MinimumVariance(20, 0.5)]
    for whole in (False, True):
        results = backtest(
            strategies[whole:], panel, plan, Costs(), Training(epochs=1),
            ledger=False, progress=False, whole_shares=whole,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_report(results, Path(folder) / "report.html")
    shown = place or f"the packages' folders, or the user's cache ({VARIABLE} names another place)"
    typer.echo(f"compiled in {time.monotonic() - start:.0f} s; kept in {shown}")
