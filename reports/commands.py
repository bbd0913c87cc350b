"""The report from the command line: ``report`` for one saved run, ``compare`` for several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="The folder of a saved run.")]
Runs = Annotated[list[Path], typer.Argument(help="Folders of saved runs, two or more.")]
Factors = Annotated[
    Path | None,
    typer.Option(help="CSV of factor returns: dates in the first column, one column a factor."),
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV of two columns: asset and group, with a heading.")
]


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(help="The page; by default report.html in the run.")
    ] = None,
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write the report of a saved run and print its summary."""
    from engine import load_run

    _write(load_run(run), out or run / "report.html", factors, groups)


def compare(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("compare.html"),
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write one report of several runs, over the dates they share."""
    from reports.compare import read_runs

    if len(runs) < 2:
        raise ValueError(f"compare needs two runs or more, got {len(runs)}; see deqfolio report")
    _write(read_runs(runs), out, factors, groups)


def _write(results: dict, out: Path, factors: Path | None, groups: Path | None) -> None:
    import pandas as pd

    from reports.facts import gather
    from reports.html import check_report_path, write_facts
    from reports.terminal import terminal_summary

    check_report_path(out)
    table = pd.read_csv(factors, index_col=0, parse_dates=True) if factors else None
    pairs = pd.read_csv(groups, dtype=str, usecols=[0, 1]) if groups else None
    named = dict(pairs.itertuples(index=False)) if pairs is not None else None
    facts = gather(results, table, named)
    path = write_facts(facts, out)
    typer.echo(terminal_summary(facts))
    typer.echo(f"\nreport: {path}")
