"""The commands, in the order in which a user meets them, and how errors are told."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from data_loaders.commands import app as data_commands
from deqfolio import backtests, choosing, plugging_in, results

EXIT_CODES = (
    "Exit codes: 0 done; 1 an error, or a check that failed, in one line (--debug gives the "
    "trace); 2 wrong options; 130 stopped by Ctrl-C (what is finished is kept: deqfolio resume)."
)
PACKAGES = ("data_loaders", "strategies", "engine", "reports")
app = typer.Typer(
    help="Backtesting for strategies in which the portfolio is a layer of the network.\n\n"
    "Start with deqfolio demo; then deqfolio backtest --data prices.csv --strategy EqualWeight.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # paragraphs as wide as the terminal; [x] is no style
)

for panel, commands in {
    "Backtest": (backtests.demo, backtests.backtest, backtests.resume),
    "Read": (results.report, results.compare),
    "Plug in": (plugging_in.strategies, plugging_in.new, plugging_in.check),
    "Choose": (choosing.cross_validate, choosing.sweep, choosing.trials),
    "Trade": (results.orders,),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data_commands, name="data", rich_help_panel="Data")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"deqfolio {version('deqfolio')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error; anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    """Options of all commands; ``main`` takes --debug out before this is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line, --debug gives the trace."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    for path in hidden():
        typer.echo(
            f"warning: {path} has the name of a package of deqfolio, so it cannot be imported "
            f"beside it; rename it, or name a strategy in it by its file: {path.name}/x.py:Class",
            err=True,
        )
    if not sys.stderr.isatty():
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        logging.getLogger("deqfolio").setLevel(logging.INFO)
    kept, warnings.formatwarning = warnings.formatwarning, _one_warning
    try:
        app([word for word in words if word != "--debug"])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {one_line(error)}", err=True)
        return 1
    finally:
        warnings.formatwarning = kept
    return 0


def _one_warning(message: Warning | str, *where: object, **more: object) -> str:
    """A line, without the place in the code that a warning was raised at."""
    return f"warning: {message}\n"


def hidden() -> list[Path]:
    """What in the working directory has the name of one of our packages, and holds code."""
    here, ours = Path.cwd(), Path(__file__).resolve().parent.parent
    if here == ours:
        return []
    files = [here / f"{name}.py" for name in PACKAGES if (here / f"{name}.py").is_file()]
    return files + [here / name for name in PACKAGES if next((here / name).glob("*.py"), None)]


def one_line(error: Exception) -> str:
    """The message; of an error that nobody foresaw, as in a user's strategy, where it arose."""
    if str(error) and isinstance(error, ValueError | RuntimeError | OSError | ImportError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"memory ran out ({error}): take fewer assets, rows or workers"
    last = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    return f"{kind}: {error} ({last.filename}, line {last.lineno}; --debug gives the trace)"
