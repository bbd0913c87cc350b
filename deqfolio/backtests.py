"""deqfolio demo, backtest, resume: run walk-forward backtests and write the report; and warm-up."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from deqfolio import options
from deqfolio.experiments import run, where_it_ran
from deqfolio.trust import check_trust

# Options with the names of settings.
DATA = ("start", "end", "periods_per_year")
PLAN = (
    "train", "refit", "rebalance", "holiday", "window", "purge", "embargo", "fill", "unpriced",
)  # fmt: skip
COSTS = ("impact", "borrow", "financing", "cash_rate", "capital")
# Options that change no result, and so may be given beside an experiment file.
BESIDE_A_FILE = {"experiment", "report", "out", "workers", "cluster", "restart", "log"}


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    solver: Annotated[
        str, typer.Option(help="Solver of the mean-variance layer: active_set or qpth.")
    ] = "active_set",
    seed: options.Seed = 0,
    workers: options.Workers = None,
) -> None:
    """Backtest DEQMeanVariance and its baselines on 20 US stocks since 2000, net of 10 bp.

    Runs offline, on prices that come with skfolio, in less than a minute. Then open
    runs/demo/report.html.
    """
    experiment = {
        "data": {"source": "sp500", "start": "2000-01-01"},
        "strategies": [
            {"class": "DEQMeanVariance", "solver": solver},
            {"class": "EqualWeight"},
            {"class": "InverseVolatility"},
            {"class": "MinimumVariance"},
            {"class": "VolatilityManaged", "strategy": {"class": "EqualWeight"}},
            {"class": "VolatilityManaged", "strategy": {"class": "MinimumVariance"}},
            {"class": "Untrained", "strategy": {"class": "DEQMeanVariance", "solver": solver}},
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
            help="Settings in a file, instead of options. Every run writes one to its folder.",
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
            help="A strategy's parameter, like DEQMeanVariance.hidden=32, or a setting of data, "
            "plan, costs or training, like costs.borrow=0.02. Repeat for several.",
        ),
    ] = None,
    start: options.Start = None,
    end: options.End = None,
    periods_per_year: options.PeriodsPerYear = None,
    train: options.Train = "5Y",
    refit: options.Refit = "1Y",
    rebalance: options.Rebalance = "W-FRI",
    holiday: options.Holiday = None,
    fill: options.Fill = "close",
    unpriced: options.Unpriced = "wait",
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
    risk_free: options.RiskFree = None,
    whole_shares: options.WholeShares = False,
    seed: options.Seed = 0,
    ensemble: options.Ensemble = 1,
    out: Annotated[
        Path, typer.Option(help="Folder of the run. An interrupted run is resumed from it.")
    ] = Path("runs/backtest"),
    report: Annotated[
        Path | None,
        typer.Option(help="File of the HTML report. [default: report.html in the folder]"),
    ] = None,
    benchmark: options.Benchmark = None,
    about: options.About = None,
    log: options.Log = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    restart: options.Restart = False,
) -> None:
    """Backtest strategies walk-forward on a price history and write the report.

    Example: deqfolio backtest --data prices.csv --strategy DEQMeanVariance --strategy EqualWeight

    The report is about the first strategy and compares it with EqualWeight (1/N), which is added
    where it is missing; --about and --benchmark choose others. The folder of the run contains
    experiment.toml; deqfolio backtest with that file repeats the run.
    """
    from engine.runs.experiment import enter, read_experiment

    if experiment is not None:
        for name in set(context.params) - BESIDE_A_FILE:
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                option = "--" + name.rstrip("_").replace("_", "-")
                raise typer.BadParameter(f"{option} is set in {experiment}; change it there")
        settings = read_experiment(experiment)
    else:
        if not data or not strategy:
            raise typer.BadParameter("give --data and --strategy, or an experiment file")
        settings = _settings(context.params)
    for text in set_ or []:
        try:
            enter(settings, text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if log:
        settings["training"] |= {"log": log}
    run(settings, out, report, workers, cluster, restart)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The experiment that the options describe; what is not given has the default of the engine."""
    from data_loaders.files import is_file_name
    from engine.runs.experiment import short_name

    def known(names: Iterable[str]) -> dict[str, Any]:
        return {name: given[name] for name in names if given[name] is not None}

    rates = {"spread": given["spread_bp"] / 1e4, "fixed": given["fixed_fee"]}
    rates |= {"minimum": given["minimum_fee"], **known(COSTS)}
    rate = known(["risk_free"])
    with suppress(ValueError, KeyError):  # text that is no number names a file
        rate["risk_free"] = float(rate["risk_free"])
    settings: dict[str, Any] = {
        "data": {"source": given["data"], **known(DATA)},
        "strategies": [{"class": name} for name in given["strategy"]],
        "plan": {name: _rows(value) for name, value in known(PLAN).items()}
        | {"execution_lag": given["lag"]},
        "costs": {"commission": given["cost_bp"] / 1e4, **{k: x for k, x in rates.items() if x}},
        "simulation": {"whole_shares": given["whole_shares"], **rate},
        "training": {"seed": given["seed"], "ensemble": given["ensemble"]},
        "report": known(("benchmark", "about")),
    }
    benchmark, names = given["benchmark"], [short_name(each) for each in given["strategy"]]
    strategy = re.sub(r" \d+$", "", benchmark or "") in names  # "Momentum 2" of several
    if benchmark and not (strategy or is_file_name(benchmark)):  # a column
        settings["data"]["benchmark"] = benchmark
    return settings


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    trust: options.Trust = False,
) -> None:
    """Resume an interrupted run.

    Fits that were finished are kept in its folder and are not repeated. The result is bitwise
    identical to that of a run without an interruption. Code that the folder names is run if it is
    what the run was made with, and not in the folder itself.
    """
    from engine.runs.experiment import experiment_of

    experiment = experiment_of(folder)
    with where_it_ran(folder, experiment) as place:
        check_trust(place(folder), experiment, trust, place(Path()))
        run(experiment, place(folder), None, workers, cluster, complete=True)


def _rows(value: str | int) -> str | int | list[str]:
    """A setting of the plan; a plain number counts rows, and commas stand between dates."""
    if "," in str(value):
        return [date.strip() for date in str(value).split(",")]
    return int(value) if str(value).isdecimal() else value


def warm_up() -> None:
    """Compile the kernels that a backtest needs, and say where they are kept.

    Half a minute on two cores after an installation or an update, a few seconds later. They are
    kept in $NUMBA_CACHE_DIR, beside the packages, or in the user's cache folder; where none of
    these can be written, in a temporary folder.
    """
    start = time.monotonic()
    half = [sys.executable, "-c", "from deqfolio.backtests import beside; beside()"]
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
