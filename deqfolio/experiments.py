"""From an experiment, the tables of a TOML file, to a run with its report."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from deqfolio.interrupts import Interruptible
from deqfolio.results import write_and_summarise
from deqfolio.trust import keep_hashes

if TYPE_CHECKING:
    from data_loaders import Panel
    from engine import Costs, Training, WalkForward
    from strategies import Strategy

SOME_FAILED = 3  # exit code: the report is written, without some of the strategies
ELSEWHERE = "On the command line: --out FOLDER, or --restart"


class Prepared(NamedTuple):
    """The objects that an experiment describes."""

    strategies: list[Strategy]
    panel: Panel
    plan: WalkForward
    costs: Costs
    training: Training


def prepare(experiment: dict[str, Any]) -> Prepared:
    """The objects that an experiment describes; the panel last, since loading it takes longest."""
    from data_loaders import load
    from data_loaders.files import is_file_name
    from data_loaders.suggestions import known_names
    from engine.runs.experiment import read_costs, read_plan, read_training

    made = [make_strategy(described) for described in experiment["strategies"]]
    plan, costs = read_plan(experiment["plan"]), read_costs(experiment["costs"])
    training = read_training(experiment["training"])
    taken = list(inspect.signature(load).parameters)
    for key in experiment["data"]:
        if key not in taken:
            raise ValueError(f"data: unknown setting {key!r}{known_names(key, taken)}")
    panel = load(**experiment["data"])
    typer.echo(f"{panel}, {panel.periods_per_year:g} rows per year", err=True)
    if panel.caveats and is_file_name(str(experiment["data"]["source"])):
        typer.echo(panel.caveats[0], err=True)  # what was taken from the file
    return Prepared(made, panel, plan, costs, training)


@contextmanager
def where_it_ran(run: Path, experiment: dict[str, Any]) -> Iterator[Callable[[Path], Path]]:
    """Work in the folder that a run was started in, from which its files and modules are named.

    It is known by its place beside the run's folder, so that both may be moved together. Yields
    what gives the place of a path that was meant from the folder of before.
    """
    here, own = Path.cwd(), run.resolve()
    start = (own / experiment.get("folder", ".")).resolve()
    if start == here or start.is_relative_to(own) or not start.is_dir():
        yield lambda path: path
        return
    with chdir(start):
        yield lambda path: here / path


def make_strategy(described: dict[str, Any]) -> Strategy:
    """The strategy of an experiment's entry, which has its class and its parameters."""
    from strategies import create_strategy

    parameters = {name: value for name, value in described.items() if name != "class"}
    return create_strategy(described["class"], parameters)


def run(
    experiment: dict[str, Any],
    out: Path,
    report: Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    restart: bool = False,
    complete: bool = False,
) -> None:
    """Run an experiment in the folder ``out``, write the report and print the summary.

    ``complete`` says that it lists all strategies; else 1/N is added where the report compares with
    it. Exit code 3, where some strategies failed; the report says which and why.
    """
    if workers:
        import_for_workers()
    import tomli_w

    from data_loaders.writing import write_text
    from engine import backtest
    from engine.accounting.risk_free import read_risk_free
    from engine.compute.executors import on_cluster
    from engine.runs.experiment import read_logs, read_report, read_simulation, short_name
    from engine.runs.run_directory import holds_work
    from engine.runs.run_files import EXPERIMENT, locked, written
    from engine.training.callbacks import named_callbacks
    from engine.walking.argument_checks import named_strategies
    from reports import check_report_path
    from reports.benchmark import check_comparison

    page = report or out / "report.html"
    check_report_path(page)  # before the hours of work, not after
    simulation = read_simulation(experiment.get("simulation", {}))
    risk_free = simulation.rates
    callbacks = named_callbacks(read_logs(experiment["training"]), out)
    asked = read_report(experiment.get("report", {}))
    by_default = asked.benchmark is None and "benchmark" not in experiment["data"]
    listed = experiment["strategies"]
    known = "EqualWeight" in [short_name(each["class"]) for each in listed]
    if not complete and not known and (by_default or asked.benchmark == "EqualWeight"):
        experiment = experiment | {"strategies": [*listed, {"class": "EqualWeight"}]}
    made = prepare(experiment)
    read_risk_free(risk_free, made.costs.cash_rate, made.panel.dates)
    folds = made.plan.folds(made.panel.dates, max(each.lookback for each in made.strategies))
    first = int(folds[0].test[0]) + made.plan.execution_lag
    names = named_strategies(made.strategies, made.panel)
    check_comparison(names, made.panel.rows(first, len(made.panel)), asked.about, asked.benchmark)

    with stoppable(f"deqfolio resume {out}"), locked(out):
        replaced = restart and (out / "plan.json").exists()
        if replaced:
            (out / "epochs.csv").unlink(missing_ok=True)
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        if replaced or not holds_work(out):
            with written(out):
                here = os.path.relpath(Path.cwd(), out.resolve())
                write_text(out / EXPERIMENT, tomli_w.dumps(experiment | {"folder": here}))
                keep_hashes(out, experiment)
        with on_cluster(cluster) as executor:
            results = backtest(
                *made,
                run_dir=out,
                restart=restart,
                workers=workers,
                executor=executor,
                whole_shares=simulation.whole_shares,
                risk_free=risk_free,
                callbacks=callbacks,
            )
        typer.echo(write_and_summarise(results, page, benchmark=asked.benchmark, about=asked.about))
    if not all(result.complete for result in results.values()):
        raise typer.Exit(SOME_FAILED)


@contextmanager
def stoppable(command: str) -> Iterator[None]:
    """Work that Ctrl-C may end: one line says which command resumes it."""
    from engine.runs.run_directory import RunMismatch

    try:
        with Interruptible(f"stopped; resume with: {command}"):
            yield
    except RunMismatch as error:  # the folder of another run
        raise RunMismatch(f"{error}. {ELSEWHERE}") from None


def import_for_workers() -> None:
    """Let the server of worker processes import now, while this process does."""
    from engine.compute.worker_pool import start_server

    start_server("strategies.registry")
