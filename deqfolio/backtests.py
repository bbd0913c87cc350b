"""deqfolio demo, backtest, resume: walk strategies forward and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deqfolio import options
from deqfolio.experiments import run

EVERYWHERE = {
    "experiment",
    "report",
    "out",
    "workers",
    "cluster",
    "restart",
    "log",
}  # change no result


def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/demo"),
    solver: Annotated[
        str, typer.Option(help="Of the mean-variance layer: active_set or qpth.")
    ] = "active_set",
    seed: options.Seed = 0,
    workers: options.Workers = None,
) -> None:
    """Walk DEQMeanVariance and three baselines through 20 US stocks from 2000, net of 10 bp.

    Offline, on prices that come with skfolio, within a minute. Open runs/demo/report.html.
    """
    experiment = {
        "data": {"source": "sp500", "start": "2000-01-01"},
        "strategies": [
            {"class": "DEQMeanVariance", "solver": solver},
            {"class": "EqualWeight"},
            {"class": "InverseVolatility"},
            {"class": "MinimumVariance"},
        ],
        "plan": {"train": "5Y", "refit": "3Y", "rebalance": "W-FRI"},
        "costs": {"commission": 0.001},
        "training": {"seed": seed},
    }
    run(experiment, out, workers=workers, restart=True)


def backtest(
    context: typer.Context,
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT.toml",
            help="In place of the options that change a result; every run's folder holds one.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help=options.DATA, autocompletion=options.source_names)] = "",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{options.STRATEGY} Repeat for several.", autocompletion=options.strategy_names
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.KEY=VALUE",
            help="A parameter: DEQMeanVariance.hidden=32; or a setting of data, plan, costs or "
            "training: training.epochs=20, costs.borrow=0.02. Repeat for several.",
        ),
    ] = None,
    start: options.Start = None,
    end: options.End = None,
    train: options.Train = "5Y",
    refit: options.Refit = "1Y",
    rebalance: options.Rebalance = "W-FRI",
    window: options.Window = "expanding",
    purge: options.Purge = 0,
    embargo: options.Embargo = 0,
    lag: options.Lag = 1,
    cost_bp: options.CostBp = 10.0,
    spread_bp: options.SpreadBp = 0.0,
    impact: options.Impact = 0.0,
    fixed_fee: options.FixedFee = 0.0,
    minimum_fee: options.MinimumFee = 0.0,
    borrow: options.Borrow = 0.0,
    financing: options.Financing = 0.0,
    cash_rate: options.CashRate = 0.0,
    capital: options.Capital = None,
    whole_shares: options.WholeShares = False,
    seed: options.Seed = 0,
    ensemble: options.Ensemble = 1,
    out: Annotated[
        Path, typer.Option(help="The run's folder. An interrupted run goes on from it.")
    ] = Path("runs/backtest"),
    report: Annotated[
        Path | None,
        typer.Option(help="The HTML report; by default in the run's folder."),
    ] = None,
    log: options.Log = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    restart: options.Restart = False,
) -> None:
    """Walk strategies forward through a price history and write the report.

    Example: deqfolio backtest --data prices.csv --strategy DEQMeanVariance --strategy EqualWeight

    The first strategy is the one that the report is about; it is compared with 1/N, EqualWeight.
    The folder that is left holds experiment.toml; deqfolio backtest on that repeats the run.
    """
    from engine.runs.experiment import enter, read_experiment

    if experiment is not None:
        for name in set(context.params) - EVERYWHERE:
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                option = "--" + name.rstrip("_").replace("_", "-")
                raise typer.BadParameter(f"{option}: {experiment} settles it; change it there")
        said = read_experiment(experiment)
        if log:
            said["training"] = said["training"] | {"log": log}
        run(said, out, report, workers, cluster, restart)
        return
    if not data or not strategy:
        raise typer.BadParameter("give --data and --strategy, or an experiment file")
    costs = {
        "commission": cost_bp / 1e4,
        "spread": spread_bp / 1e4,
        "impact": impact,
        "fixed": fixed_fee,
        "minimum": minimum_fee,
        "borrow": borrow,
        "financing": financing,
        "cash_rate": cash_rate,
        "capital": capital,
    }
    asked: dict[str, Any] = {
        "data": {"source": data}
        | ({"start": start} if start else {})
        | ({"end": end} if end else {}),
        "strategies": [{"class": name} for name in strategy],
        "plan": {
            "train": _rows(train),
            "refit": _rows(refit),
            "rebalance": _rows(rebalance),
            "window": window,
            "purge": purge,
            "embargo": embargo,
            "execution_lag": lag,
        },
        "costs": {name: value for name, value in costs.items() if value or name == "commission"},
        "simulation": {"whole_shares": whole_shares},
        "training": {"seed": seed, "ensemble": ensemble} | ({"log": log} if log else {}),
    }
    for text in set_ or []:
        try:
            enter(asked, text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    run(asked, out, report, workers, cluster, restart)


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    workers: options.Workers = None,
    cluster: options.Cluster = None,
) -> None:
    """Go on with an interrupted run, to the result it would have had.

    Fits that were finished are in its folder and are not made again; not a bit of the result
    depends on where it was stopped.
    """
    from engine.runs.experiment import read_experiment
    from engine.runs.run_directory import EXPERIMENT

    if not (folder / EXPERIMENT).is_file():
        raise FileNotFoundError(f"{folder} holds no {EXPERIMENT}: it is no run of the command line")
    run(read_experiment(folder / EXPERIMENT), folder, workers=workers, cluster=cluster)


def _rows(span: str) -> str | int:
    """A span of the command line: a number is one of rows."""
    return int(span) if span.isdecimal() else span
