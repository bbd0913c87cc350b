"""The command line, and the only module that sees all four packages.

deqfolio demo         the flagship beside three baselines on bundled real data, offline
deqfolio backtest     your data, your strategies, a report
deqfolio cross-validate  which of the strategies, over many paths through history
deqfolio resume       go on with a run that was interrupted
deqfolio report       the report of a saved run
deqfolio compare      one report of several runs
deqfolio check        does a strategy keep its hands off the future?
deqfolio sweep        the best parameters, chosen without a look at the test periods
deqfolio trials       everything that was ever tried: what luck is counted by
deqfolio strategies   what there is, and its parameters
deqfolio new          a file to start your own from, with its test
deqfolio orders       what to trade today
deqfolio data         the store of price snapshots: list, show, update, verify, export, check
"""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_loaders.commands import app as data_commands

if TYPE_CHECKING:
    from data_loaders import Panel
    from engine import Costs, Training, WalkForward
    from strategies import Strategy

EXIT_CODES = (
    "Exit codes: 0 done; 1 an error, or a check that failed, in one line (--debug gives the "
    "trace); 2 wrong options; 130 stopped by Ctrl-C (what is finished is kept: deqfolio resume)."
)
app = typer.Typer(
    help="Backtesting for strategies in which the portfolio is a layer of the network.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_commands, name="data")

PACKAGES = ("data_loaders", "strategies", "engine", "reports")
Seed = Annotated[int, typer.Option(min=0, help="Seed of all training.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Train in so many processes.")]
Cluster = Annotated[
    str | None, typer.Option(help="Address of a Dask cluster, like tcp://10.0.0.1:8786.")
]
WHERE = ("workers", "cluster", "restart")  # options that change no result
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever is there.")]
SAMPLES = (
    '"sp500", "yahoo:SPY,TLT", "synthetic:planted", a file (.csv, .parquet) with one row a date '
    "and one column an asset, or your own as module:function."
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/demo"),
    solver: Annotated[
        str, typer.Option(help="Of the mean-variance layer: active_set or qpth.")
    ] = "active_set",
    seed: Seed = 0,
    workers: Workers = None,
) -> None:
    """Walk DEQMeanVariance and three baselines through 20 US stocks from 2000, net of 10 bp."""
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
    _run(experiment, out, out / "report.html", workers, restart=True)


@app.command()
def backtest(
    context: typer.Context,
    experiment: Annotated[
        Path | None, typer.Argument(help="An experiment.toml, as every run's folder holds one.")
    ] = None,
    data: Annotated[str, typer.Option(help=SAMPLES)] = "",
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="A strategy, or your own as module:Class. Repeat for several."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A parameter: DEQMeanVariance.hidden=32; or a setting of data, plan, costs or "
            "training: training.epochs=20, costs.borrow=0.02. Repeat for several.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The HTML report; by default in the run's folder.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The run's folder. An interrupted run goes on from it.")
    ] = Path("runs/backtest"),
    start: Annotated[str | None, typer.Option(help="First date, like 2000-01-31.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date.")] = None,
    train: Annotated[
        str, typer.Option(help="History before the first refit: 5Y, 18M, or rows: 1260.")
    ] = "5Y",
    refit: Annotated[str, typer.Option(help="Time between refits, likewise.")] = "1Y",
    rebalance: Annotated[
        str, typer.Option(help="Decisions: W-FRI, ME, QE, D, or every so many rows: 5.")
    ] = "W-FRI",
    window: Annotated[
        str, typer.Option(help="Train on all history, expanding, or on the last span, rolling.")
    ] = "expanding",
    purge: Annotated[
        int, typer.Option(min=0, help="Rows more between the last training label and the refit.")
    ] = 0,
    embargo: Annotated[
        int, typer.Option(min=0, help="Rows left out after test rows (cross-validate).")
    ] = 0,
    lag: Annotated[int, typer.Option(min=0, help="Sessions from decision to fill.")] = 1,
    cost_bp: Annotated[float, typer.Option(help="Basis points of the value traded.")] = 10.0,
    spread_bp: Annotated[float, typer.Option(help="Bid-ask spread, basis points.")] = 0.0,
    impact: Annotated[
        float, typer.Option(help="Daily volatilities that trading a day's volume moves a price.")
    ] = 0.0,
    fixed_fee: Annotated[float, typer.Option(help="Money for each order.")] = 0.0,
    minimum_fee: Annotated[float, typer.Option(help="Money, least for an order.")] = 0.0,
    borrow: Annotated[float, typer.Option(help="A year, on short positions: 0.02 = 2%.")] = 0.0,
    financing: Annotated[float, typer.Option(help="A year, on cash owed.")] = 0.0,
    cash_rate: Annotated[float, typer.Option(help="A year, earned on cash.")] = 0.0,
    capital: Annotated[
        float | None, typer.Option(help="Money at the start; 1,000,000 where it matters.")
    ] = None,
    whole_shares: Annotated[
        bool, typer.Option("--whole-shares", help="Trade no fractions of shares.")
    ] = False,
    seed: Seed = 0,
    ensemble: Annotated[
        int, typer.Option(min=1, help="Seeds in each fold; their mean is held.")
    ] = 1,
    workers: Workers = None,
    cluster: Cluster = None,
    restart: Restart = False,
) -> None:
    """Walk strategies forward through a price history and write the report.

    deqfolio backtest --data prices.csv --strategy DEQMeanVariance --strategy EqualWeight
    """
    from engine.experiment import enter, read_experiment

    if experiment is not None:
        settled = set(context.params) - {"experiment", "report", "out", *WHERE}
        for name in settled:
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                option = "--" + name.rstrip("_").replace("_", "-")
                raise typer.BadParameter(f"{option}: {experiment} settles it; change it there")
        asked = read_experiment(experiment)
        _run(asked, out, report or out / "report.html", workers, restart, cluster)
        return
    if not data or not strategy:
        raise typer.BadParameter("give --data and --strategy, or an experiment file")
    span = {"source": data, "start": start, "end": end}
    further = {
        "spread": spread_bp / 1e4,
        "impact": impact,
        "fixed": fixed_fee,
        "minimum": minimum_fee,
        "borrow": borrow,
        "financing": financing,
        "cash_rate": cash_rate,
        "capital": capital,
    }
    asked = {
        "data": {name: value for name, value in span.items() if value is not None},
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
        "costs": {"commission": cost_bp / 1e4}
        | {name: value for name, value in further.items() if value},
        "simulation": {"whole_shares": whole_shares},
        "training": {"seed": seed, "ensemble": ensemble},
    }
    for text in set_ or []:
        try:
            enter(asked, text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    _run(asked, out, report or out / "report.html", workers, restart, cluster)


@app.command()
def cross_validate(
    experiment: Annotated[
        Path, typer.Argument(help="An experiment.toml, or the folder of a run, which holds one.")
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
        _import_for_workers()
    from engine import cross_validate as validate
    from engine.cluster import on_cluster
    from engine.experiment import read_experiment
    from engine.run_directory import EXPERIMENT, RunMismatch

    asked = read_experiment(experiment / EXPERIMENT if experiment.is_dir() else experiment)
    strategies, panel, plan, costs, training = _read(asked)
    try:
        with on_cluster(cluster) as executor:
            table = validate(
                strategies,
                panel,
                plan,
                costs,
                training,
                folds,
                test_folds,
                run_dir=out,
                restart=restart,
                workers=workers,
                executor=executor,
            )
    except RunMismatch as error:
        raise RunMismatch(f"{error}. On the command line: --out FOLDER, or --restart") from None
    except KeyboardInterrupt:
        typer.echo("\nstopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{len(table.loc[table.index[0][0]])} paths through {len(panel)} dates; over these:")
    typer.echo(table.groupby("strategy", sort=False)["sharpe"].describe().round(3).to_string())
    typer.echo(f"\npaths: {out / 'paths.csv'}")


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Go on with an interrupted run, to the result it would have had."""
    from engine.experiment import read_experiment
    from engine.run_directory import EXPERIMENT

    if not (run / EXPERIMENT).is_file():
        raise FileNotFoundError(f"{run} holds no {EXPERIMENT}: it is no run of the command line")
    asked = read_experiment(run / EXPERIMENT)
    _run(asked, run, run / "report.html", workers, restart=False, cluster=cluster)


Factors = Annotated[
    Path | None,
    typer.Option(help="CSV of factor returns: dates in the first column, one column a factor."),
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV of two columns: asset and group, with a heading.")
]


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default report.html in the run.")
    ] = None,
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write the report of a finished run and print its summary."""
    from engine import load_run
    from reports.commands import tell

    typer.echo(tell(load_run(run), out or run / "report.html", factors, groups))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, two or more.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("compare.html"),
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write one report of several runs, over the dates they share."""
    from reports.commands import tell
    from reports.compare import read_runs

    if len(runs) < 2:
        raise typer.BadParameter(f"give two runs or more, got {len(runs)}; see deqfolio report")
    typer.echo(tell(read_runs(runs), out, factors, groups))


@app.command()
def check(
    strategy: Annotated[str, typer.Argument(help="A strategy, or your own as module:Class.")],
    data: Annotated[str, typer.Option(help=SAMPLES)] = "sp500",
    start: Annotated[str | None, typer.Option(help="First date.")] = "2014-01-01",
) -> None:
    """Run a strategy on changed copies of the data: what must not matter must not matter."""
    from data_loaders import load
    from engine import StrategyCheckError, check_strategy

    chosen = _strategy({"class": strategy})
    try:
        outcomes = check_strategy(chosen, load(data, start=start))
    except StrategyCheckError as failure:
        outcomes = failure.outcomes
    for row in outcomes.itertuples():
        typer.echo(f"{'ok    ' if row.passed else 'FAILED'} {row.Index.replace('_', ' ')}")
        if not row.passed:
            typer.echo(f"       {row.meaning}\n       {row.found}")
    if not outcomes["passed"].all():
        raise typer.Exit(1)


Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of a database, like postgresql://user@host/name; by default DEQFOLIO_STORAGE, "
        "or a file of SQLite in ~/.local/share/deqfolio."
    ),
]


@app.command()
def sweep(
    experiment: Annotated[Path, typer.Argument(help="An experiment.toml with a table [sweep].")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations to try; else as the file says.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where best.toml and trials.csv go.")] = Path(
        "runs/sweep"
    ),
    storage: Storage = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    cluster: Cluster = None,
) -> None:
    """Search for a strategy's best parameters on history that ends before the first test.

    [sweep] says what to try; strategy (else the first), trials, folds, seed and pruning are
    optional:

    [sweep.ranges]
    hidden = {low = 8, high = 64, log = true}
    cell = ["mean_field", "graph"]
    "training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}

    A sweep that was stopped goes on when it is called again; several machines share one
    through --storage. best.toml is the experiment with the winner's parameters.
    """
    import tomli_w

    from data_loaders import load
    from engine.cluster import on_cluster
    from engine.experiment import read_experiment, with_parameters
    from engine.search import Search, search
    from engine.settings import read_costs, read_plan, read_settings, read_training

    if workers:
        _import_for_workers()
    asked = read_experiment(experiment)
    table = dict(asked.pop("sweep", {}))
    names = [each["class"].rpartition(":")[2] for each in asked["strategies"]]
    name = table.pop("strategy", names[0])
    if name not in names:
        raise ValueError(f"{experiment}: sweep.strategy is {name!r}, not among {', '.join(names)}")
    if trials is not None:
        table["trials"] = trials
    ranges = read_settings(Search, {"ranges": {}, **table}, "sweep")
    described = asked["strategies"][names.index(name)]
    panel = load(**asked["data"])
    plan, training = read_plan(asked["plan"]), read_training(asked["training"])
    costs = read_costs(asked["costs"])
    typer.echo(f"{panel}", err=True)
    try:
        with on_cluster(cluster) as executor:
            found = search(
                _strategy(described), panel, plan, costs, training,
                ranges=ranges, storage=storage, workers=workers, executor=executor,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("\nstopped; go on with the same command", err=True)
        raise typer.Exit(130) from None
    out.mkdir(parents=True, exist_ok=True)
    best = with_parameters(asked, names.index(name), found.best)
    (out / "best.toml").write_text(tomli_w.dumps(best))
    found.trials.to_csv(out / "trials.csv")
    typer.echo(found.summary())
    typer.echo(f"\nall of them: {out / 'trials.csv'}; the test of the best:")
    typer.echo(f"    deqfolio backtest {out / 'best.toml'} --out {out / 'test'}")


@app.command()
def trials(
    export: Annotated[Path | None, typer.Option(help="Write all columns to a CSV file.")] = None,
    storage: Storage = None,
) -> None:
    """List every configuration that was ever backtested, and how it did.

    Reports take the number of trials from here. Nothing is taken out when a run is deleted.
    """
    from engine.ledger import TrialLedger

    ledger = TrialLedger(storage)
    if export is not None:
        ledger.trials().to_csv(export, index=False)
    typer.echo(ledger.summary())


@app.command()
def strategies() -> None:
    """List the strategies, what they do, and their parameters."""
    from strategies.commands import listing

    typer.echo(listing())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the file to write, like my_alpha.")],
) -> None:
    """Write a strategy to start from, and its test."""
    if not name.isidentifier():
        raise typer.BadParameter(f"{name!r} is no name of a Python module; my_alpha would be")
    from strategies.commands import write_new

    typer.echo(f"wrote {' and '.join(map(str, write_new(name)))}; now:")
    typer.echo(f"    deqfolio check {name}:Alpha")
    typer.echo(f"    deqfolio backtest --data sp500 --strategy {name}:Alpha --strategy EqualWeight")


@app.command()
def orders(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    capital: Annotated[float, typer.Option(help="Money in all, that in shares included.")],
    prices: Annotated[
        str | None,
        typer.Option(
            help="Prices up to the last close; by default the run's own source, yahoo: updated."
        ),
    ] = None,
    holdings: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns asset and shares.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="The name of a strategy in the run; else its first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the orders to a CSV file.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="The day of trading; today if left out.")
    ] = None,
    fractions: Annotated[bool, typer.Option("--fractions", help="Fractions of a share.")] = False,
) -> None:
    """Say what to trade to hold what a strategy of a run wants at the last close.

    Refused: prices older than five days, assets that the run does not know, a learned strategy
    whose refit is due. Nothing is sent anywhere.
    """
    import pandas as pd

    from data_loaders import load
    from engine import load_run
    from engine.experiment import read_experiment
    from engine.orders import read_holdings, todays_orders
    from engine.run_directory import EXPERIMENT
    from strategies.limits import binding

    results = load_run(run)
    name = strategy or next(iter(results))
    if name not in results:
        raise ValueError(f"{run} has no strategy {name!r}; it has {', '.join(results)}")
    asked = read_experiment(run / EXPERIMENT)
    chosen = _strategy(asked["strategies"][list(results).index(name)])
    data = {**asked["data"], "source": prices or asked["data"]["source"], "end": None}
    if data["source"].startswith("yahoo:"):
        data["update"] = True
    shares = read_holdings(holdings) if holdings is not None else pd.Series(dtype=float)
    today = pd.Timestamp(as_of) if as_of else pd.Timestamp.now().normalize()
    found = todays_orders(chosen, results[name], load(**data), shares, capital, today, fractions)
    traded = found.table[found.table["order"] != 0]
    if out is not None:
        found.table.to_csv(out)
    typer.echo(f"{name}, decided at the close of {found.date.date()}")
    typer.echo(traded.to_string(float_format=lambda x: f"{x:,.2f}") if len(traded) else "no orders")
    typer.echo(f"costs {traded['cost'].sum():,.2f}, cash left {found.cash:,.2f}")
    before = found.table["held"] * found.table["price"] / capital
    for line in binding(chosen, found.table["weight"], before.fillna(0.0)):
        typer.echo(f"binds: {line}")


def _run(
    experiment: dict[str, Any],
    out: Path,
    report: Path,
    workers: int | None,
    restart: bool,
    cluster: str | None = None,
) -> None:
    """Run an experiment, keep it in ``out``, write the report and print the summary."""
    if workers:
        _import_for_workers()
    import tomli_w

    from engine import backtest
    from engine.cluster import on_cluster
    from engine.run_directory import EXPERIMENT, RunMismatch, holds_work
    from engine.settings import read_simulation
    from reports import check_report_path
    from reports.commands import tell

    check_report_path(report)  # before the hours of work, not after
    whole_shares = read_simulation(experiment.get("simulation", {}))
    strategies, panel, plan, costs, training = _read(experiment)
    plan.folds(panel.dates, max(strategy.lookback for strategy in strategies))
    typer.echo(f"{panel}", err=True)

    if not holds_work(out) or (restart and (out / "plan.json").exists()):
        out.mkdir(parents=True, exist_ok=True)
        (out / EXPERIMENT).write_text(tomli_w.dumps(experiment))
    try:
        with on_cluster(cluster) as executor:
            results = backtest(
                strategies,
                panel,
                plan,
                costs,
                training,
                run_dir=out,
                restart=restart,
                workers=workers,
                executor=executor,
                whole_shares=whole_shares,
            )
    except RunMismatch as error:
        raise RunMismatch(f"{error}. On the command line: --out FOLDER, or --restart") from None
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; go on with: deqfolio resume {out}", err=True)
        raise typer.Exit(130) from None
    typer.echo(tell(results, report))


def _read(experiment: dict[str, Any]) -> tuple[list[Strategy], Panel, WalkForward, Costs, Training]:
    """What an experiment says, its panel loaded last: everything else is checked sooner."""
    from data_loaders import load
    from engine.settings import nearest, read_costs, read_plan, read_training

    _look_here()
    strategies = [_strategy(described) for described in experiment["strategies"]]
    plan, costs = read_plan(experiment["plan"]), read_costs(experiment["costs"])
    training = read_training(experiment["training"])
    taken = list(inspect.signature(load).parameters)
    for key in experiment["data"]:
        if key not in taken:
            raise ValueError(f"data: unknown setting {key!r}; {nearest(key, taken)}")
    return strategies, load(**experiment["data"]), plan, costs, training


def _rows(span: str) -> str | int:
    """A span of the command line: a number is one of rows."""
    return int(span) if span.isdecimal() else span


def _strategy(described: dict[str, Any]) -> Strategy:
    """The strategy of an experiment's entry: its class, and parameters beside it."""
    _look_here()
    from strategies import create_strategy

    parameters = {name: value for name, value in described.items() if name != "class"}
    return create_strategy(described["class"], parameters)


def _import_for_workers() -> None:
    """Let the server of worker processes import now, while this process does.

    See ``local_processes`` in ``engine/fitting.py``, which would only start it later.
    """
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(["engine.preload", "strategies.registry"])
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server inherits it
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)


def _look_here() -> None:
    """Let module:Class be found where the user stands, after all that is installed."""
    if "" not in sys.path:
        sys.path.append("")


def hidden() -> list[Path]:
    """What in the working directory has the name of one of our packages, and holds code."""
    here, ours = Path.cwd(), Path(__file__).resolve().parent
    if here == ours:
        return []
    files = [here / f"{name}.py" for name in PACKAGES if (here / f"{name}.py").is_file()]
    return files + [here / name for name in PACKAGES if next((here / name).glob("*.py"), None)]


def _told(error: Exception) -> str:
    """One line; of an error that nobody foresaw, as in a strategy of one's own, where it arose."""
    if str(error) and isinstance(error, ValueError | RuntimeError | OSError | ImportError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    return f"{kind}: {error} ({last.filename}, line {last.lineno}; --debug gives the trace)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line, --debug gives the trace."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    for path in hidden():
        typer.echo(
            f"warning: {path} has the name of a package of deqfolio, so it cannot be imported "
            f"beside it; rename it, or name a strategy in it by its file: {path.name}/x.py:Class",
            err=True,
        )
    if not sys.stderr.isatty():
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        logging.getLogger("deqfolio").setLevel(logging.INFO)
    try:
        app([word for word in words if word != "--debug"])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {_told(error)}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
