"""The command line, and the only module that sees all four packages.

deqfolio demo         the flagship beside three baselines on bundled real data, offline
deqfolio backtest     your data, your strategies, a report
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Backtesting for strategies in which the portfolio is a layer of the network.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

Seed = Annotated[int, typer.Option(min=0, help="Seed of all training.")]
Solver = Annotated[str, typer.Option(help="Of the mean-variance layer: active_set or qpth.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run and its report go.")] = Path("runs/demo"),
    solver: Solver = "active_set",
    seed: Seed = 0,
) -> None:
    """Walk DEQMeanVariance and three baselines through 20 US stocks from 2000, net of 10 bp."""
    from engine import Costs, Training, WalkForward
    from strategies import DEQMeanVariance, EqualWeight, InverseVolatility, MinimumVariance

    _run(
        data="sp500",
        span=("2000-01-01", None),
        strategies=[
            DEQMeanVariance(solver=solver),
            EqualWeight(),
            InverseVolatility(),
            MinimumVariance(),
        ],
        plan=WalkForward(train="5Y", refit="3Y", rebalance="W-FRI"),
        costs=Costs(commission=0.001),
        training=Training(seed=seed),
        out=out,
        report=out / "report.html",
    )


@app.command()
def backtest(
    data: Annotated[
        str, typer.Option(help='"sp500", or a CSV file: one row a date, one column an asset.')
    ],
    strategy: Annotated[
        list[str], typer.Option(help="A strategy, or your own as module:Class. Repeat for several.")
    ],
    report: Annotated[Path, typer.Option(help="The HTML report.")] = Path(
        "runs/backtest/report.html"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Also save the whole run to this folder.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First date, like 2000-01-31.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date.")] = None,
    train: Annotated[
        str, typer.Option(help="History before the first refit: 5Y, 18M, 300D.")
    ] = "5Y",
    refit: Annotated[str, typer.Option(help="Time between refits.")] = "1Y",
    rebalance: Annotated[str, typer.Option(help="Decisions: W-FRI, ME, QE, D.")] = "W-FRI",
    lag: Annotated[int, typer.Option(min=0, help="Sessions from decision to fill.")] = 1,
    cost_bp: Annotated[
        float, typer.Option(help="Commission in basis points of value traded.")
    ] = 10.0,
    seed: Seed = 0,
) -> None:
    """Walk strategies forward through a price history and write the report."""
    from engine import Costs, Training, WalkForward
    from strategies import load_strategy

    sys.path.insert(0, "")  # module:Class is looked up where the user stands
    _run(
        data=data,
        span=(start, end),
        strategies=[load_strategy(name)() for name in strategy],
        plan=WalkForward(train=train, refit=refit, rebalance=rebalance, execution_lag=lag),
        costs=Costs(commission=cost_bp / 1e4),
        training=Training(seed=seed),
        out=out,
        report=report,
    )


def _run(data, span, strategies, plan, costs, training, out, report) -> None:
    from data_loaders import load
    from engine import backtest, save_run
    from reports import check_report_path, summary_table, write_report

    check_report_path(report)  # before the hours of work, not after
    panel = load(data, *span)
    typer.echo(f"{panel}", err=True)
    results = backtest(strategies, panel, plan, costs, training)
    if out is not None:
        save_run(results, out)
    path = write_report(results, report)
    typer.echo(summary_table(results).to_string(float_format=lambda value: f"{value:.3f}"))
    typer.echo(f"\nreport: {path}")


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
