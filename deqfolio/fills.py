"""deqfolio fills: what became of the orders of a daily job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fills(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="Ledger of orders --job.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="CSV file of what was traded: asset, shares (negative: sold), price, fees.",
        ),
    ] = None,
    as_planned: Annotated[
        bool, typer.Option("--as-planned", help="All was filled at the planned prices and costs.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison to CSV.")] = None,
) -> None:
    """Note what became of the last orders of a job, and compare planned with realised.

    Example: deqfolio fills state/job.sqlite3 fills.csv

    Without a file it only compares. What was ordered and is not in the file was missed: the account
    continues without it.
    """
    from data_loaders.writing import safe_csv, write_text
    from engine.trading.job import Job, compared, read_fills

    if file is not None and as_planned:
        raise typer.BadParameter("give a file, or --as-planned")
    if not job.is_file():
        raise ValueError(f"there is no ledger {job}: deqfolio orders --job {job} begins one")
    with Job(job).day() as ledger:
        if file is not None or as_planned:
            ledger.fill(None if file is None else read_fills(file))
        orders, periods = compared(ledger)
    if out is not None:
        write_text(out, safe_csv(orders, index=False))
    if orders.empty:
        typer.echo("no orders yet")
        return
    typer.echo(orders.to_string(index=False, float_format=lambda x: f"{x:,.2f}", na_rep="-"))
    traded = orders["filled"] * orders["planned"]
    missed = orders[orders["filled"].abs() < orders["ordered"].abs() - 1e-9]
    typer.echo(
        f"slippage {orders['slippage'].sum():,.2f}, fees {orders['fees'].sum():,.2f} (expected "
        f"{orders['expected'].sum():,.2f}) on {traded.abs().sum():,.2f} traded; "
        f"{len(missed)} of {len(orders)} orders missed, in whole or in part"
    )
    if len(periods):
        apart = periods["realised"] - periods["paper"]
        typer.echo(
            f"realised less paper portfolio: {apart.sum():+.4%} over "
            f"{len(periods)} period{'s' * (len(periods) > 1)}, at most "
            f"{apart.abs().max():.4%} in one"
        )
