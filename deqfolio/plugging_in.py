"""deqfolio strategies, new, check: list strategies, start your own, test it for look-ahead."""

from __future__ import annotations

from typing import Annotated

import typer

from deqfolio.experiments import make_strategy
from deqfolio.options import DATA, STRATEGY, PeriodsPerYear, source_names, strategy_names

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
