"""The list of commands, and how errors and warnings are reported."""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from data_loaders.commands import app as data_commands
from data_loaders.package_imports import PACKAGES
from deqfolio import backtests, results, strategy_commands, trading

EXIT_CODES = (
    "Exit codes: 0 success; 1 an error or a failed check, in one line (--debug shows the "
    "traceback); 2 wrong options; 3 some strategies of a run failed, or no day to trade; 130 "
    "stopped by Ctrl-C, 143 by SIGTERM (deqfolio resume continues the run)."
)
app = typer.Typer(
    help="Backtesting for strategies in which the portfolio is a layer of the network.\n\n"
    "Start with deqfolio demo; then deqfolio backtest --data prices.csv --strategy EqualWeight.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # paragraphs as wide as the terminal; [x] is no style
)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Backtest": (backtests.demo, backtests.backtest, backtests.resume),
    "Read": (results.report, results.compare, results.verify),
    "Plug in": (strategy_commands.strategies, strategy_commands.new, strategy_commands.check),
    "Choose": (strategy_commands.cross_validate, strategy_commands.sweep, strategy_commands.trials),
    "Trade": (trading.orders, trading.fills, trading.refit),
    "Install": (backtests.warm_up,),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data_commands, name="data", rich_help_panel="Data")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"deqfolio {version('deqfolio')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    log_format: Annotated[
        str, typer.Option(help="Of errors, warnings and progress: text, or json, an object a line.")
    ] = "text",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of all commands; ``main`` takes --debug and --log-format out before."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line, and with --debug a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, in_json = "--debug" in words, _taken(words)
    if "" not in sys.path:  # module:Class in the working directory, after all installed packages
        sys.path.append("")
    for path in hidden():
        typer.echo(
            f"warning: {path} has the name of a package of deqfolio and cannot be imported; "
            f"rename it, or refer to a strategy in it by its file: {path.name}/x.py:Class",
            err=True,
        )
    if in_json:
        handler = _json_handler()
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        logging.getLogger("deqfolio").setLevel(logging.INFO)
    elif not sys.stderr.isatty():
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        logging.getLogger("deqfolio").setLevel(logging.INFO)
    kept = warnings.formatwarning  # which names the file and the line that raised the warning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app([word for word in words if word != "--debug"])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        if in_json:
            logging.getLogger("deqfolio").error(one_line(error))
        else:
            typer.echo(f"error: {one_line(error)}", err=True)
        return 1
    finally:
        if in_json:
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(handler)
        warnings.formatwarning = kept
    return 0


def _taken(words: list[str]) -> bool:
    """Take ``--log-format`` out of the words; whether it is json."""
    place = next((n for n, word in enumerate(words) if word.startswith("--log-format")), None)
    if place is None:
        return False
    _, equals, value = words.pop(place).partition("=")
    if not equals:
        value = words.pop(place) if place < len(words) else ""
    if value not in ("json", "text"):
        raise SystemExit(f"--log-format is json or text, got {value!r}")
    return value == "json"


def _json_handler() -> logging.Handler:
    """Lines of a log as JSON: time (UTC), level, message."""

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds")
            text = record.getMessage().removeprefix("warning: ").strip()
            return json.dumps({"time": when, "level": record.levelname.lower(), "message": text})

    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    return handler


def hidden() -> list[Path]:
    """Files and folders of code in the working directory with the name of one of our packages."""
    here, ours = Path.cwd(), Path(__file__).resolve().parent.parent
    if here == ours:
        return []
    files = [here / f"{name}.py" for name in PACKAGES if (here / f"{name}.py").is_file()]
    return files + [here / name for name in PACKAGES if next((here / name).glob("*.py"), None)]


def one_line(error: Exception) -> str:
    """The message; for an unexpected error, as in a user's strategy, also where it was raised."""
    if str(error) and isinstance(error, ValueError | RuntimeError | OSError | ImportError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}): use fewer assets, rows or workers"
    last = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    return f"{kind}: {error} ({last.filename}, line {last.lineno}; --debug shows the traceback)"
