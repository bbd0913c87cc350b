"""deqfolio cross-validate, sweep, trials: choose, and count what was tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqfolio.experiments import import_for_workers, prepare, stoppable
from deqfolio.options import Cluster, Restart, Storage, Workers

if TYPE_CHECKING:
    import pandas as pd


def cross_validate(
    experiment: Annotated[
        Path,
        typer.Argument(
            metavar="EXPERIMENT", help="A TOML file, or the folder of a run, which holds one."
        ),
    ],
    folds: Annotated[int, typer.Option(min=2, help="Blocks that history is cut into.")] = 6,
    test_folds: Annotated[int, typer.Option(min=2, help="Blocks in each test.")] = 2,
    out: Annotated[Path, typer.Option(help="Where finished fits and paths.csv go.")] = Path(
        "runs/cross-validation"
    ),
    workers: Workers = None,
    cluster: Cluster = None,
    restart: Restart = False,
) -> None:
    """Test the strategies of an experiment on many paths through history, to choose among them.

    Combinatorial purged cross-validation (Lopez de Prado 2018): it trains on what lies after a
    test, too, so it is no backtest. Of the plan, rebalance, execution_lag, purge and embargo count.
    """
    if workers:
        import_for_workers()
    from engine import cross_validate as validate
    from engine.compute.cluster import on_cluster
    from engine.runs.experiment import read_experiment
    from engine.runs.run_directory import EXPERIMENT

    made = prepare(read_experiment(experiment / EXPERIMENT if experiment.is_dir() else experiment))
    with stoppable("the same command"), on_cluster(cluster) as executor:
        table = validate(
            *made,
            folds,
            test_folds,
            run_dir=out,
            restart=restart,
            workers=workers,
            executor=executor,
        )
    paths = len(table.loc[table.index[0][0]])
    typer.echo(f"{paths} paths through {len(made.panel)} dates; over these:")
    typer.echo(table.groupby("strategy", sort=False)["sharpe"].describe().round(3).to_string())
    alike = [name for name, own in table.groupby("strategy", sort=False) if _constant(own)]
    if alike:
        typer.echo(
            f"\nno fit, so all paths are the same: {', '.join(alike)}; only what is trained tells "
            "paths apart"
        )
    typer.echo(f"\npaths: {out / 'paths.csv'}")


def _constant(paths: pd.DataFrame) -> bool:
    """Whether these paths are one and the same, as of a rule that is not fitted."""
    return len(paths) > 1 and bool((paths.nunique() <= 1).all())


def sweep(
    experiment: Annotated[
        Path,
        typer.Argument(metavar="EXPERIMENT.toml", help="A TOML file with a table [sweep]."),
    ],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations to try; else as the file says.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where best.toml and trials.csv go.")] = Path(
        "runs/sweep"
    ),
    storage: Storage = None,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Search for a strategy's best parameters on history that ends before the first test.

    The table [sweep] says what to try; strategy (else the first), trials, folds, seed and
    pruning are optional:

        [sweep.ranges]
        hidden = {low = 8, high = 64, log = true}
        cell = ["mean_field", "graph"]
        "training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}

    A sweep that was stopped goes on when it is called again; several machines share one
    through --storage. best.toml is the experiment with the winner's parameters.
    """
    import tomli_w

    from data_loaders.atomic import write_text
    from engine.compute.cluster import on_cluster
    from engine.research.search import Search, search
    from engine.runs.experiment import read_experiment, with_parameters
    from engine.runs.run_directory import written
    from engine.runs.settings import read_settings

    if workers:
        import_for_workers()
    asked = read_experiment(experiment)
    table = dict(asked.pop("sweep", {}))
    names = [each["class"].rpartition(":")[2] for each in asked["strategies"]]
    name = table.pop("strategy", names[0])
    if name not in names:
        raise ValueError(f"{experiment}: sweep.strategy is {name!r}, not among {', '.join(names)}")
    if trials is not None:
        table["trials"] = trials
    ranges = read_settings(Search, {"ranges": {}, **table}, "sweep")
    number = names.index(name)
    made = prepare(asked)
    with written(out):  # now, and not after hours
        out.mkdir(parents=True, exist_ok=True)
    with stoppable("the same command"), on_cluster(cluster) as executor:
        found = search(
            made.strategies[number],
            *made[1:],
            ranges=ranges,
            storage=storage,
            workers=workers,
            executor=executor,
        )
    best = with_parameters(asked, number, found.best)
    with written(out):
        write_text(out / "best.toml", tomli_w.dumps(best))
        write_text(out / "trials.csv", found.trials.to_csv())
    typer.echo(found.summary())
    typer.echo(f"\nall of them: {out / 'trials.csv'}; the test of the best:")
    typer.echo(f"    deqfolio backtest {out / 'best.toml'} --out {out / 'test'}")


def trials(
    export: Annotated[Path | None, typer.Option(help="Write all columns to a CSV file.")] = None,
    storage: Storage = None,
) -> None:
    """List every configuration that was ever backtested, and how it did.

    Reports take the number of trials from here. Nothing is taken out when a run is deleted.
    """
    from data_loaders.atomic import write_text
    from engine.runs.ledger import TrialLedger
    from engine.runs.run_directory import written

    ledger = TrialLedger(storage)
    if export is not None:
        with written(export):
            write_text(export, ledger.trials().to_csv(index=False))
    typer.echo(ledger.summary())
