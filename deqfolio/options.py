"""Options of the commands, and their completion in a shell."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from data_loaders.commands import End as End
from data_loaders.commands import PeriodsPerYear as PeriodsPerYear
from data_loaders.commands import Start as Start


def strategy_names(incomplete: str) -> list[str]:
    """Names of built-in and installed strategies that begin with ``incomplete``."""
    from strategies.registry import strategy_names as known

    return [name for name in known() if name.lower().startswith(incomplete.lower())]


def source_names(incomplete: str) -> list[str]:
    """Sources of data that begin with ``incomplete``: built-in and installed ones, and files."""
    from data_loaders.plugins import SOURCES, installed

    files = [str(path) for path in Path().glob(f"{incomplete}*") if path.suffix in TABLES]
    named = ["sp500", "synthetic:", "yahoo:", *installed(SOURCES)]
    return [name for name in named if name.startswith(incomplete)] + sorted(files)


def log_names(incomplete: str) -> list[str]:
    """Names of training logs that begin with ``incomplete``."""
    from engine.training.callbacks import LOGS

    return [name for name in LOGS if name.startswith(incomplete)]


Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code and open the files that the folder names, such as a strategy's file. It "
        "can do anything: only for folders of people you trust.",
    ),
]
TABLES = (".csv", ".gz", ".parquet", ".feather", ".txt", ".tsv", ".zip")
DATA = (
    '"sp500" (bundled), "yahoo:SPY,TLT", "synthetic:planted", a file (.csv, .parquet), a folder '
    'or a pattern like "data/*.csv", or your own source as module:function.'
)
STRATEGY = "A name that deqfolio strategies lists, or your own as module:Class or file.py:Class."

Seed = Annotated[int, typer.Option(min=0, help="Random seed of the training.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of worker processes that train.")]
Cluster = Annotated[
    str | None,
    typer.Option(help="Address of a Dask cluster that trains, like tcp://10.0.0.1:8786."),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Log every epoch of training: csv (RUN/epochs.csv), tensorboard (RUN/tensorboard), "
        "mlflow, or your own Callback as module:Class. Repeat for several.",
        autocompletion=log_names,
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Start from the beginning and replace what is in the folder."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of the database of trials, like postgresql://user@host/name. [default: "
        "$DEQFOLIO_STORAGE, or an SQLite file in ~/.local/share/deqfolio]"
    ),
]
Factors = Annotated[
    Path | None,
    typer.Option(
        help="CSV file of factor returns: dates in the first column, then a column for each factor."
    ),
]
Groups = Annotated[Path | None, typer.Option(help="CSV file with the columns asset and group.")]
Benchmark = Annotated[
    str | None,
    typer.Option(
        help="What to compare with: the name of a strategy, a column of the data that no strategy "
        "may then hold, or a file of prices or returns. [default: the benchmark of the data, else "
        "1/N]"
    ),
]
About = Annotated[
    str | None,
    typer.Option(help="The strategy that the report is about. [default: the first]"),
]
FinishedRun = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]


def in_panel(panel: str, text: str, *names: str, **rest: Any) -> Any:
    """An option that the help lists in a panel of its own."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **rest)


_plan, _costs = partial(in_panel, "The plan"), partial(in_panel, "Costs")
Train = Annotated[
    str, _plan("Training history before the first fit: 5Y, 18M, or a number of rows.")
]
Refit = Annotated[str, _plan("Time between fits: 1Y, 6M, or a number of rows.")]
Rebalance = Annotated[
    str,
    _plan(
        'When to decide: W-FRI, ME, MS, WOM-3FRI, D, "W-FRI 16:00", "last session of month", a '
        "number of rows, dates with commas between them, or file.py:function."
    ),
]
Holiday = Annotated[
    str | None,
    _plan("Where a decision goes that falls on a day without a session: previous or next."),
]
Fill = Annotated[
    str, _plan("Price of fills: close, open, or an asset feature of the panel, such as vwap.")
]
Unpriced = Annotated[
    str, _plan("What becomes of an order that finds no price at its fill: wait or cancel.")
]
Window = Annotated[
    str, _plan("Training history: expanding (all of it) or rolling (as long as --train).")
]
Purge = Annotated[
    int, _plan("Additional rows left out between the last training label and the fit.", min=0)
]
Embargo = Annotated[int, _plan("Rows left out after test rows (in cross-validate).", min=0)]
Lag = Annotated[int, _plan("Rows between a decision and its fill.", min=0)]
CostBp = Annotated[float, _costs("Commission, in basis points of the value traded.")]
SpreadBp = Annotated[float, _costs("Bid-ask spread, in basis points.")]
Impact = Annotated[
    float, _costs("Price impact of trading one day's volume, in daily volatilities.")
]
FixedFee = Annotated[float, _costs("Fee for each order, in money.")]
MinimumFee = Annotated[float, _costs("Lowest fee of an order, in money.")]
Borrow = Annotated[float, _costs("Yearly rate on short positions: 0.02 = 2%.")]
Financing = Annotated[float, _costs("Yearly rate on negative cash.")]
CashRate = Annotated[float, _costs("Yearly rate earned on cash.")]
Capital = Annotated[
    float | None, _costs("Money at the start, where it matters. [default: 1,000,000]")
]
RiskFree = Annotated[
    str | None,
    _costs(
        "Yearly risk-free rate, 0.02 = 2%, or a CSV file of such rates: dates in the first column, "
        "rates in the second. Ratios are of returns in excess of it. [default: --cash-rate]"
    ),
]
WholeShares = Annotated[bool, _costs("Trade whole shares only.", "--whole-shares")]
Ensemble = Annotated[
    int,
    typer.Option(min=1, help="Number of seeds trained in each fold; their mean weights are held."),
]
