"""Options that several commands share, and what a shell completes them to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def strategy_names(incomplete: str) -> list[str]:
    """Names of strategies that begin so, ours and installed ones."""
    from strategies.registry import strategy_names as known

    return [name for name in known() if name.lower().startswith(incomplete.lower())]


def source_names(incomplete: str) -> list[str]:
    """Sources of data that begin so: built-in and installed ones, and files."""
    from data_loaders.plugins import SOURCES, installed

    files = [str(path) for path in Path().glob(f"{incomplete}*") if path.suffix in TABLES]
    named = ["sp500", "synthetic:", "yahoo:", *installed(SOURCES)]
    return [name for name in named if name.startswith(incomplete)] + sorted(files)


def log_names(incomplete: str) -> list[str]:
    """Names of logs that begin so."""
    from engine.training.callbacks import LOGS

    return [name for name in LOGS if name.startswith(incomplete)]


TABLES = (".csv", ".gz", ".parquet")
DATA = (
    '"sp500" (bundled), "yahoo:SPY,TLT", "synthetic:planted", a file (.csv, .parquet) with one '
    "row a date and one column an asset, or your own as module:function."
)
STRATEGY = "A name of deqfolio strategies, or your own: module:Class, file.py:Class."

Seed = Annotated[int, typer.Option(min=0, help="Seed of all training.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Train in so many processes.")]
Cluster = Annotated[
    str | None, typer.Option(help="Address of a Dask cluster, like tcp://10.0.0.1:8786.")
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Tell every epoch of training: csv (RUN/epochs.csv), tensorboard (RUN/tensorboard), "
        "mlflow, or your own Callback as module:Class. Repeat for several.",
        autocompletion=log_names,
    ),
]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever is there.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of a database, like postgresql://user@host/name; by default DEQFOLIO_STORAGE, "
        "or a file of SQLite in ~/.local/share/deqfolio."
    ),
]
Factors = Annotated[
    Path | None,
    typer.Option(help="CSV of factor returns: dates in the first column, one column a factor."),
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV of two columns: asset and group, with a heading.")
]
FinishedRun = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]

PLAN, COSTS = "The plan", "Costs"
Start = Annotated[str | None, typer.Option(help="First date, like 2000-01-31.")]
End = Annotated[str | None, typer.Option(help="Last date.")]
Train = Annotated[
    str,
    typer.Option(
        help="History before the first refit: 5Y, 18M, or rows: 1260.", rich_help_panel=PLAN
    ),
]
Refit = Annotated[str, typer.Option(help="Time between refits, likewise.", rich_help_panel=PLAN)]
Rebalance = Annotated[
    str,
    typer.Option(
        help="Decisions: W-FRI, ME, QE, D, or every so many rows: 5.", rich_help_panel=PLAN
    ),
]
Window = Annotated[
    str,
    typer.Option(
        help="Train on all history, expanding, or on the last span, rolling.",
        rich_help_panel=PLAN,
    ),
]
Purge = Annotated[
    int,
    typer.Option(
        min=0,
        help="Rows more between the last training label and the refit.",
        rich_help_panel=PLAN,
    ),
]
Embargo = Annotated[
    int,
    typer.Option(
        min=0, help="Rows left out after test rows (cross-validate).", rich_help_panel=PLAN
    ),
]
Lag = Annotated[
    int, typer.Option(min=0, help="Sessions from decision to fill.", rich_help_panel=PLAN)
]
CostBp = Annotated[
    float, typer.Option(help="Basis points of the value traded.", rich_help_panel=COSTS)
]
SpreadBp = Annotated[
    float, typer.Option(help="Bid-ask spread, basis points.", rich_help_panel=COSTS)
]
Impact = Annotated[
    float,
    typer.Option(
        help="Daily volatilities that trading a day's volume moves a price.",
        rich_help_panel=COSTS,
    ),
]
FixedFee = Annotated[float, typer.Option(help="Money for each order.", rich_help_panel=COSTS)]
MinimumFee = Annotated[
    float, typer.Option(help="Money, least for an order.", rich_help_panel=COSTS)
]
Borrow = Annotated[
    float,
    typer.Option(help="A year, on short positions: 0.02 = 2%.", rich_help_panel=COSTS),
]
Financing = Annotated[float, typer.Option(help="A year, on cash owed.", rich_help_panel=COSTS)]
CashRate = Annotated[float, typer.Option(help="A year, earned on cash.", rich_help_panel=COSTS)]
Capital = Annotated[
    float | None,
    typer.Option(help="Money at the start; 1,000,000 where it matters.", rich_help_panel=COSTS),
]
WholeShares = Annotated[
    bool,
    typer.Option("--whole-shares", help="Trade no fractions of shares.", rich_help_panel=COSTS),
]
Ensemble = Annotated[int, typer.Option(min=1, help="Seeds in each fold; their mean is held.")]
