"""deqfolio strategies, new, check: list strategies, start your own, test it for look-ahead;
cross-validate, sweep, trials: choose one, and count what was tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deqfolio.experiments import import_for_workers, make_strategy, prepare, stoppable
from deqfolio.options import (
    DATA,
    STRATEGY,
    Cluster,
    PeriodsPerYear,
    Restart,
    Storage,
    Trust,
    Workers,
    source_names,
    strategy_names,
)
from deqfolio.trust import check_trust

VERDICTS = {"passed": "ok", "failed": "FAILED", "warning": "warning", "declared": "declared"}


def strategies(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"One strategy, to be described in full. {STRATEGY}", autocompletion=strategy_names
        ),
    ] = None,
) -> None:
    """List built-in and installed strategies: what they do, their parameters and ranges."""
    from strategies.registry import description, listing

    typer.echo(listing() if name is None else description(name))


def new(
    name: Annotated[str, typer.Argument(help="Name of the file to write, like my_alpha.")],
) -> None:
    """Write a strategy to start from, and its test; both can be run as they are."""
    if not name.isidentifier():
        raise typer.BadParameter(f"{name!r} cannot be the name of a Python module; try my_alpha")
    from strategies.registry import write_new

    typer.echo(f"wrote {' and '.join(map(str, write_new(name)))}; now:")
    typer.echo(f"    deqfolio check {name}:Alpha")
    typer.echo(f"    deqfolio backtest --data sp500 --strategy {name}:Alpha --strategy EqualWeight")


def check(
    strategy: Annotated[str, typer.Argument(help=STRATEGY, autocompletion=strategy_names)],
    data: Annotated[str, typer.Option(help=DATA, autocompletion=source_names)] = "sp500",
    start: Annotated[str | None, typer.Option(help="First date of the data.")] = "2014-01-01",
    periods_per_year: PeriodsPerYear = None,
) -> None:
    """Test a strategy for look-ahead and other errors, on altered copies of the data.

    Its weights must not depend on the future, on the order of the assets or on the currency. What
    an honest strategy may do as well, such as reading a file, is a warning.
    """
    from data_loaders import load
    from engine import StrategyCheckError, check_strategy

    chosen = make_strategy({"class": strategy})
    panel = load(data, start=start, periods_per_year=periods_per_year)
    try:
        outcomes = check_strategy(chosen, panel)
    except StrategyCheckError as failure:
        outcomes = failure.outcomes
    for row in outcomes.itertuples():
        typer.echo(f"{VERDICTS[row.verdict]:8} {row.Index.replace('_', ' ')}")
        if row.verdict == "declared":
            typer.echo(f"         {row.found}")
        elif row.verdict != "passed":
            typer.echo(f"         {row.meaning}\n         {row.found}")
    if not outcomes["passed"].all():
        raise typer.Exit(1)


def cross_validate(
    experiment: Annotated[
        Path,
        typer.Argument(
            metavar="EXPERIMENT", help="A TOML file, or the folder of a run, which contains one."
        ),
    ],
    folds: Annotated[
        int, typer.Option(min=2, help="Number of blocks that history is divided into.")
    ] = 6,
    test_folds: Annotated[int, typer.Option(min=2, help="Number of blocks in each test.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of finished fits and of paths.csv.")] = Path(
        "runs/cross-validation"
    ),
    workers: Workers = None,
    cluster: Cluster = None,
    restart: Restart = False,
    trust: Trust = False,
) -> None:
    """Compare the strategies of an experiment on many test paths through history.

    Combinatorial purged cross-validation (Lopez de Prado 2018). It also trains on data after a
    test, so it is not a backtest. Of the plan it uses rebalance, execution_lag, purge and embargo.
    """
    if workers:
        import_for_workers()
    from engine import cross_validate as validate
    from engine.compute.executors import on_cluster
    from engine.runs.experiment import experiment_of, read_experiment, read_simulation

    asked = experiment_of(experiment) if experiment.is_dir() else read_experiment(experiment)
    if experiment.is_dir():
        check_trust(experiment, asked, trust, Path())
    risk_free = read_simulation(asked["simulation"]).rates
    made = prepare(asked)
    with stoppable("the same command"), on_cluster(cluster) as executor:
        table = validate(
            *made,
            folds,
            test_folds,
            risk_free=risk_free,
            run_dir=out,
            restart=restart,
            workers=workers,
            executor=executor,
        )
    paths = len(table.loc[table.index[0][0]])
    typer.echo(f"Sharpe ratio over {paths} paths through {len(made.panel)} dates:")
    by_strategy = table.groupby("strategy", sort=False)
    typer.echo(by_strategy["sharpe"].describe().round(3).to_string())
    alike = [name for name, own in by_strategy if len(own) > 1 and (own.nunique() <= 1).all()]
    if alike:
        typer.echo(
            f"\nall paths are the same: {', '.join(alike)}; only strategies that are fitted differ "
            "between paths"
        )
    typer.echo(f"\npaths: {out / 'paths.csv'}")


def sweep(
    experiment: Annotated[
        Path,
        typer.Argument(metavar="EXPERIMENT.toml", help="A TOML file with a table [sweep]."),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Number of configurations to try. [default: as in the file]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of best.toml and trials.csv.")] = Path(
        "runs/sweep"
    ),
    storage: Storage = None,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Search for a strategy's best parameters on history before the first test.

    The table [sweep] gives the ranges. Optional are strategy (by default the first), trials,
    folds, seed and pruning:

        [sweep.ranges]
        hidden = {low = 8, high = 64, log = true}
        cell = ["mean_field", "graph"]
        "training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}

    The same command resumes a sweep that was stopped. Several machines can share a sweep
    through --storage. best.toml is the experiment with the best parameters.
    """
    import tomli_w

    from data_loaders.writing import safe_csv, write_text
    from engine.compute.executors import on_cluster
    from engine.research.search import Search, search, trials_of
    from engine.runs.experiment import (
        read_experiment,
        read_settings,
        read_simulation,
        short_name,
        with_parameters,
    )
    from engine.runs.run_files import locked, written

    if workers:
        import_for_workers()
    asked = read_experiment(experiment)
    table = dict(asked.pop("sweep", {}))
    names = [short_name(each["class"]) for each in asked["strategies"]]
    name = table.pop("strategy", names[0])
    if name not in names:
        raise ValueError(
            f"{experiment}: sweep.strategy is {name!r}; expected one of {', '.join(names)}"
        )
    if trials is not None:
        table["trials"] = trials
    ranges = read_settings(Search, {"ranges": {}, **table}, "sweep")
    number = names.index(name)
    risk_free = read_simulation(asked["simulation"]).rates
    made = prepare(asked)
    what = (made.strategies[number], *made[1:])
    how: dict[str, Any] = {"ranges": ranges, "risk_free": risk_free, "storage": storage}
    with stoppable("the same command"):
        with locked(out):  # fails now rather than after hours
            _check_sweep_folder(out, trials_of(*what, **how).name)
        with on_cluster(cluster) as executor:
            found = search(*what, **how, workers=workers, executor=executor)
        best = with_parameters(asked, number, found.best)
        with locked(out), written(out):  # not all the time: several processes may share a sweep
            _check_sweep_folder(out, found.name)
            write_text(out / "best.toml", tomli_w.dumps(best))
            write_text(out / "trials.csv", safe_csv(found.trials))
    typer.echo(found.summary())
    typer.echo(f"\nall trials: {out / 'trials.csv'}; to test the best one:")
    typer.echo(f"    deqfolio backtest {out / 'best.toml'} --out {out / 'test'}")


def _check_sweep_folder(out: Path, name: str) -> None:
    """Refuse a folder that holds another sweep; the file ``study`` says which one it holds."""
    from data_loaders.writing import write_text
    from engine.runs.run_files import written

    file = out / "study"
    before = file.read_text().strip() if file.is_file() else ""
    if before != name and any((out / each).exists() for each in ("best.toml", "trials.csv")):
        raise FileExistsError(
            f"{out} holds {f'another sweep ({before})' if before else 'files of another sweep'}, "
            "which is not overwritten: choose another folder with --out"
        )
    with written(out):
        write_text(file, f"{name}\n")


def trials(
    export: Annotated[
        Path | None, typer.Option(help="Also write all columns to a CSV file.")
    ] = None,
    storage: Storage = None,
) -> None:
    """List every configuration that was ever backtested, and its result.

    Reports take the number of trials from this list. Deleting a run does not remove its trials.
    """
    from data_loaders.writing import safe_csv, write_text
    from engine.runs.ledger import TrialLedger
    from engine.runs.run_files import written

    ledger = TrialLedger(storage)
    if export is not None:
        with written(export):
            write_text(export, safe_csv(ledger.trials(), index=False))
    typer.echo(ledger.summary())
