"""The command line, and the only module that sees all four packages.

deqfolio demo         the flagship beside three baselines on bundled real data, offline
deqfolio backtest     your data, your strategies, a report
deqfolio resume       go on with a run that was interrupted
deqfolio report       the report of a saved run
deqfolio compare      one report of several runs
deqfolio check        does a strategy keep its hands off the future?
deqfolio strategies   what there is, and its parameters
deqfolio new          a file to start your own from, with its test
deqfolio orders       what to trade today
deqfolio data         the store of price snapshots: list, show, update, verify, export, check
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from data_loaders.commands import app as data_commands

app = typer.Typer(
    help="Backtesting for strategies in which the portfolio is a layer of the network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_commands, name="data")

Seed = Annotated[int, typer.Option(min=0, help="Seed of all training.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Train in so many processes.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever is there.")]
SAMPLES = (
    '"sp500", "yahoo:SPY,TLT", "synthetic:planted", or a file (.csv, .parquet): one row a date, '
    "one column an asset."
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
        typer.Option("--set", help="A parameter: DEQMeanVariance.hidden=32. Repeat for several."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The HTML report; by default in the run's folder.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The run's folder. An interrupted run goes on from it.")
    ] = Path("runs/backtest"),
    start: Annotated[str | None, typer.Option(help="First date, like 2000-01-31.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date.")] = None,
    train: Annotated[str, typer.Option(help="History before the first refit: 5Y, 18M.")] = "5Y",
    refit: Annotated[str, typer.Option(help="Time between refits.")] = "1Y",
    rebalance: Annotated[str, typer.Option(help="Decisions: W-FRI, ME, QE, D.")] = "W-FRI",
    lag: Annotated[int, typer.Option(min=0, help="Sessions from decision to fill.")] = 1,
    cost_bp: Annotated[float, typer.Option(help="Basis points of the value traded.")] = 10.0,
    seed: Seed = 0,
    workers: Workers = None,
    restart: Restart = False,
) -> None:
    """Walk strategies forward through a price history and write the report.

    deqfolio backtest --data prices.csv --strategy DEQMeanVariance --strategy EqualWeight
    """
    if experiment is not None:
        if data or strategy or set_:
            raise typer.BadParameter("an experiment file says data and strategies already")
        asked = tomllib.loads(experiment.read_text())
        _run(asked, out, report or out / "report.html", workers, restart)
        return
    if not data or not strategy:
        raise typer.BadParameter("give --data and --strategy, or an experiment file")
    span = {"source": data, "start": start, "end": end}
    asked = {
        "data": {name: value for name, value in span.items() if value is not None},
        "strategies": [{"class": name, **_parameters(name, set_ or [])} for name in strategy],
        "plan": {
            "train": train,
            "refit": refit,
            "rebalance": rebalance,
            "execution_lag": lag,
        },
        "costs": {"commission": cost_bp / 1e4},
        "training": {"seed": seed},
    }
    unused = [text for text in set_ or [] if text.split(".")[0] not in map(_short, strategy)]
    if unused:
        raise typer.BadParameter(f"--set {unused[0]}: no --strategy has that name")
    _run(asked, out, report or out / "report.html", workers, restart)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    workers: Workers = None,
) -> None:
    """Go on with an interrupted run, to the result it would have had."""
    from engine.run_directory import EXPERIMENT

    if not (run / EXPERIMENT).is_file():
        raise FileNotFoundError(f"{run} holds no {EXPERIMENT}: it is no run of the command line")
    experiment = tomllib.loads((run / EXPERIMENT).read_text())
    _run(experiment, run, run / "report.html", workers, restart=False)


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


@app.command()
def strategies() -> None:
    """List the strategies, what they do, and their parameters."""
    from strategies import known_strategies

    for name, cls in known_strategies().items():
        parameters = cls().get_params(deep=False)
        typer.echo(f"{name}: {(cls.__doc__ or '').strip().splitlines()[0]}")
        typer.echo(f"    {', '.join(f'{key}={value!r}' for key, value in parameters.items())}\n")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the file to write, like my_alpha.")],
) -> None:
    """Write a strategy to start from, and its test."""
    if not name.isidentifier():
        raise typer.BadParameter(f"{name!r} is no name of a Python module; my_alpha would be")
    files = {Path(f"{name}.py"): STRATEGY, Path(f"test_{name}.py"): STRATEGY_TEST}
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path} exists already; choose another name")
    for path, text in files.items():
        path.write_text(text.replace("NAME", name))
    typer.echo(f"wrote {' and '.join(map(str, files))}; now:")
    typer.echo(f"    deqfolio check {name}:Alpha")
    typer.echo(f"    deqfolio backtest --data sp500 --strategy {name}:Alpha --strategy EqualWeight")


@app.command()
def orders(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    prices: Annotated[str, typer.Option(help="Prices up to the last close: " + SAMPLES)],
    capital: Annotated[float, typer.Option(help="Money in all, that in shares included.")],
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
    """Say what to trade to hold what a strategy of a run wants at the last close."""
    import pandas as pd

    from data_loaders import load
    from engine import load_run
    from engine.orders import todays_orders

    results = load_run(run)
    name = strategy or next(iter(results))
    if name not in results:
        raise ValueError(f"{run} has no strategy {name!r}; it has {', '.join(results)}")
    asked = tomllib.loads((run / "experiment.toml").read_text())["strategies"]
    described = asked[list(results).index(name)]
    shares = pd.Series(dtype=float)
    if holdings is not None:
        table = pd.read_csv(holdings)
        if list(table.columns) != ["asset", "shares"]:
            raise ValueError(f"{holdings} needs the columns asset,shares; it has {list(table)}")
        shares = table.set_index("asset")["shares"].astype(float)
    today = pd.Timestamp(as_of) if as_of else pd.Timestamp.now().normalize()
    found = todays_orders(
        _strategy(described), results[name], load(prices), shares, capital, today, fractions
    )
    traded = found.table[found.table["order"] != 0]
    if out is not None:
        found.table.to_csv(out)
    typer.echo(f"{name}, decided at the close of {found.date.date()}")
    typer.echo(traded.to_string(float_format=lambda x: f"{x:,.2f}") if len(traded) else "no orders")
    typer.echo(f"costs {traded['cost'].sum():,.2f}, cash left {found.cash:,.2f}")


STRATEGY = '''"""Alpha: replace this idea, holding what rose most in the last quarter, by yours."""

from strategies import Strategy


class Alpha(Strategy):
    def __init__(self, lookback=64, count=5):
        self.lookback = lookback  # rows of history that allocate() is handed
        self.count = count

    def allocate(self, history, holdings):
        """Target weights by asset at the last date of history; the rest to 1 is cash."""
        growth = (history.prices.iloc[-1] / history.prices.iloc[0]).where(history.trades_throughout)
        return (growth.rank(ascending=False) <= self.count) / self.count
'''

STRATEGY_TEST = """from data_loaders import load
from engine import check_strategy
from NAME import Alpha


def test_alpha_is_honest():
    check_strategy(Alpha(), load("sp500", start="2016-01-01"))
"""


def _parameters(name: str, settings: list[str]) -> dict[str, Any]:
    """The parameters that ``--set`` gives to one strategy: Name.parameter=value."""
    found = {}
    for text in settings:
        left, equals, value = text.partition("=")
        owner, dot, parameter = left.partition(".")
        if not equals or not dot:
            raise typer.BadParameter(f"--set {text}: write it like DEQMeanVariance.hidden=32")
        if owner == _short(name):
            try:
                found[parameter] = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                found[parameter] = value  # a word needs no quotes
    return found


def _short(name: str) -> str:
    """The class's own name of ``module:Class``."""
    return name.rpartition(":")[2]


def _run(
    experiment: dict[str, Any], out: Path, report: Path, workers: int | None, restart: bool
) -> None:
    """Run an experiment, keep it in ``out``, write the report and print the summary."""
    import tomli_w

    from data_loaders import load
    from engine import Costs, Training, WalkForward, backtest
    from engine.run_directory import EXPERIMENT
    from reports import check_report_path
    from reports.commands import tell

    strategies = [_strategy(described) for described in experiment["strategies"]]
    plan, costs = WalkForward(**experiment["plan"]), Costs(**experiment["costs"])
    training = Training(**experiment["training"])
    check_report_path(report)  # before the hours of work, not after
    panel = load(**experiment["data"])
    plan.folds(panel.dates, max(strategy.lookback for strategy in strategies))
    typer.echo(f"{panel}", err=True)

    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if new or restart:
        (out / EXPERIMENT).write_text(tomli_w.dumps(experiment))
    try:
        results = backtest(
            strategies,
            panel,
            plan,
            costs,
            training,
            run_dir=out,
            restart=restart,
            workers=workers,
        )
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; go on with: deqfolio resume {out}", err=True)
        raise typer.Exit(130) from None
    typer.echo(tell(results, report))


def _strategy(described: dict[str, Any]) -> Any:
    """The strategy of an experiment's entry: its class, and parameters beside it."""
    from strategies import create_strategy

    if "" not in sys.path:
        sys.path.insert(0, "")  # module:Class is looked up where the user stands
    parameters = {name: value for name, value in described.items() if name != "class"}
    return create_strategy(described["class"], parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line, --debug gives the trace."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        app([word for word in words if word != "--debug"])
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {error or type(error).__name__}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
