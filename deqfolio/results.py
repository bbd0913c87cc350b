"""deqfolio report, compare, orders: use finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deqfolio.experiments import make_strategy
from deqfolio.options import About, Benchmark, Factors, FinishedRun, Groups


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|RETURNS",
            help="The folder of a finished run, or a file of returns: dates in the first column, "
            "then a column of simple returns or of values (prices, a net asset value) for each "
            "strategy.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of the report. [default: report.html in the run, or NAME.html of a file]"
        ),
    ] = None,
    benchmark: Benchmark = None,
    about: About = None,
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write the report of a finished run, or of returns from anywhere, and print its summary.

    Without --benchmark and --about the report of a run is about what it was asked to compare.

    Examples: deqfolio report runs/backtest; deqfolio report returns.csv --benchmark spy.csv
    """
    from engine import load_run
    from engine.runs.experiment import read_experiment
    from engine.runs.result import unfinished
    from engine.runs.run_directory import EXPERIMENT
    from engine.runs.settings import read_report
    from reports.benchmark_series import results_of
    from reports.commands import write_and_summarise

    if not run.exists():
        raise FileNotFoundError(f"there is no folder of a run, and no file of returns, {run}")
    if run.is_file():
        page = out or Path(f"{run.name.split('.')[0]}.html")
        typer.echo(write_and_summarise(results_of(run), page, factors, groups, benchmark, about))
        return
    results = load_run(run)
    if missing := unfinished(run):
        typer.echo(
            f"not finished, so not in the report: {', '.join(missing)}; resume with: deqfolio "
            f"resume {run}",
            err=True,
        )
    asked = read_experiment(run / EXPERIMENT) if (run / EXPERIMENT).is_file() else {}
    chosen = read_report(asked.get("report", {}))
    page, benchmark = out or run / "report.html", benchmark or chosen.benchmark
    typer.echo(
        write_and_summarise(results, page, factors, groups, benchmark, about or chosen.about)
    )


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, two or more.")],
    out: Annotated[Path, typer.Option(help="File of the report.")] = Path("compare.html"),
    benchmark: Benchmark = None,
    about: About = None,
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write one report of several runs, over the dates that they share."""
    from reports.commands import write_and_summarise
    from reports.compare import read_runs

    if len(runs) < 2:
        raise typer.BadParameter(
            f"expected two or more runs, got {len(runs)}; for one run see deqfolio report"
        )
    typer.echo(write_and_summarise(read_runs(runs), out, factors, groups, benchmark, about))


def orders(
    run: FinishedRun,
    capital: Annotated[
        float, typer.Option(help="Total money, including the value of the shares held.")
    ],
    prices: Annotated[
        str | None,
        typer.Option(
            help="Source of prices up to the last close. [default: that of the run, updated]"
        ),
    ] = None,
    holdings: Annotated[
        Path | None,
        typer.Option(help="CSV file of current holdings, with the columns asset and shares."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="A strategy of the run. [default: the first]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the orders to a CSV file.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Day of trading. [default: today]")] = None,
    fractions: Annotated[
        bool, typer.Option("--fractions", help="Trade fractions of shares.")
    ] = False,
) -> None:
    """List the orders that bring the current holdings to a strategy's weights at the last close.

    Example: deqfolio orders runs/backtest --capital 100000 --holdings holdings.csv

    It is an error if prices are older than five days, if holdings are not assets of the run, or
    if a learned strategy is due for a new fit. No order is sent anywhere.
    """
    import pandas as pd

    from data_loaders import load
    from engine import load_run
    from engine.research.orders import read_holdings, todays_orders
    from engine.runs.experiment import read_experiment
    from engine.runs.run_directory import EXPERIMENT
    from strategies.strategy_constraints import binding

    results = load_run(run)
    name = strategy or next(iter(results))
    if name not in results:
        raise ValueError(f"{run} has no strategy {name!r}; expected one of {', '.join(results)}")
    asked = read_experiment(run / EXPERIMENT)
    chosen = make_strategy(asked["strategies"][list(results).index(name)])
    data = {key: value for key, value in asked["data"].items() if key not in ("end", "as_of")}
    data["source"] = prices or data["source"]
    if data["source"].startswith("yahoo:"):
        data["update"] = True
    shares = read_holdings(holdings) if holdings is not None else pd.Series(dtype=float)
    today = pd.Timestamp(as_of) if as_of else pd.Timestamp.now().normalize()
    found = todays_orders(chosen, results[name], load(**data), shares, capital, today, fractions)
    table = found.table
    protective = table.reindex(columns=["stop", "trailing", "take_profit", "limit"])
    traded = table[(table["order"] != 0) | protective.notna().any(axis=1)]
    if out is not None:
        table.to_csv(out)
    typer.echo(f"{name}, decided at the close of {found.date.date()}")
    typer.echo(
        traded.to_string(
            float_format=lambda x: f"{x:,.2f}", formatters={"trailing": "{:.6g}".format}
        )
        if len(traded)
        else "no orders"
    )
    typer.echo(f"costs {traded['cost'].sum():,.2f}, cash left {found.cash:,.2f}")
    before = table["held"] * table["price"] / capital
    for line in binding(chosen, table["weight"], before.fillna(0.0), found.date):
        typer.echo(f"binds: {line}")
