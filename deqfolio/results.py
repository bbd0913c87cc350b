"""deqfolio report, compare, verify: read finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deqfolio.options import About, Benchmark, Factors, FinishedRun, Groups, Trust
from deqfolio.trust import check_trust

if TYPE_CHECKING:
    import pandas as pd

    from engine import BacktestResult


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|RETURNS",
            help="The folder of a finished run, or a file of returns: dates in the first column, "
            "then a column of simple returns or of values (prices, a net asset value) for each "
            "strategy.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of the report. [default: report.html in the run, or NAME.html of a file]"
        ),
    ] = None,
    benchmark: Benchmark = None,
    about: About = None,
    factors: Factors = None,
    groups: Groups = None,
    trust: Trust = False,
) -> None:
    """Write the report of a finished run, or of returns from anywhere, and print its summary.

    Without --benchmark and --about the report of a run is about what it was asked to compare.

    Examples: deqfolio report runs/backtest; deqfolio report returns.csv --benchmark spy.csv
    """
    from data_loaders.writing import remove_unfinished
    from engine import load_run
    from engine.runs.experiment import experiment_of, read_report
    from engine.runs.run_directory import unfinished
    from engine.runs.run_files import EXPERIMENT, locked
    from reports import check_report_path
    from reports.return_series import results_of

    if not run.exists():
        raise FileNotFoundError(f"there is no folder of a run, and no file of returns, {run}")
    if run.is_file():
        page = out or Path(f"{run.name.split('.')[0]}.html")
        typer.echo(write_and_summarise(results_of(run), page, factors, groups, benchmark, about))
        return
    results = load_run(run)
    if missing := unfinished(run):
        typer.echo(
            f"not finished, so not in the report: {', '.join(missing)}; resume with: deqfolio "
            f"resume {run}",
            err=True,
        )
    asked = experiment_of(run) if (run / EXPERIMENT).is_file() else {}
    chosen = read_report(asked.get("report", {}))
    page = out or run / "report.html"
    if benchmark is None:
        benchmark = chosen.benchmark
        check_trust(run, {"benchmark": benchmark}, trust, Path())
    check_report_path(page)
    with locked(run) if page.parent == run else nullcontext():
        if page.parent == run:
            remove_unfinished(run)
        typer.echo(
            write_and_summarise(results, page, factors, groups, benchmark, about or chosen.about)
        )


def verify(
    run: FinishedRun,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="List only what is damaged or missing.")
    ] = False,
) -> None:
    """Compare every file of a run with the hash that was kept when it was written.

    Exit code 1 if anything is damaged or missing: deqfolio resume RUN makes that again.
    """
    from engine import verify_run

    states = verify_run(run)
    wrong = [file for file, state in states.items() if state in ("damaged", "missing")]
    for file, state in states.items():
        if file in wrong or not quiet:
            typer.echo(f"{state:8} {file}")
    old = sum(state == "no hash" for state in states.values())
    told = f"; {old} without a hash, as version 0.1 wrote them" if old else ""
    typer.echo(f"{len(states)} files, {len(wrong)} damaged or missing{told}")
    if wrong:
        raise typer.Exit(1)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, two or more.")],
    out: Annotated[Path, typer.Option(help="File of the report.")] = Path("compare.html"),
    benchmark: Benchmark = None,
    about: About = None,
    factors: Factors = None,
    groups: Groups = None,
) -> None:
    """Write one report of several runs, over the dates that they share."""
    from reports.compare import read_runs

    if len(runs) < 2:
        raise typer.BadParameter(
            f"expected two or more runs, got {len(runs)}; for one run see deqfolio report"
        )
    typer.echo(write_and_summarise(read_runs(runs), out, factors, groups, benchmark, about))


def write_and_summarise(
    results: Mapping[str, BacktestResult],
    out: Path,
    factors: Path | None = None,
    groups: Path | None = None,
    benchmark: str | None = None,
    about: str | None = None,
) -> str:
    """Write the report of results to ``out``; returns the summary for a terminal.

    Args:
        factors: CSV file of factor returns: dates first, then a column for each factor.
        groups: CSV file of two columns, asset and group, with a heading.
        benchmark, about: as ``benchmark`` and ``subject`` of ``write_report``.
    """
    import pandas as pd

    from reports.report import check_report_path, write_data
    from reports.report_data import gather
    from reports.wording import terminal_summary

    check_report_path(out)
    table, named = None, None
    if factors:
        table = _read(factors, "factor returns", index_col=0)
        try:
            table.index = pd.to_datetime(table.index)
            table = table.astype(float)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{factors} should hold dates in its first column and returns in the others: "
                f"{error}"
            ) from error
    if groups:
        pairs = _read(groups, "groups", dtype=str)
        if pairs.shape[1] != 2:
            columns = pairs.shape[1]
            raise ValueError(f"{groups} has {columns} columns, expected two: asset and group")
        named = dict(pairs.itertuples(index=False))
    data = gather(results, table, named, True, benchmark, about)
    path = write_data(data, out)
    return f"{terminal_summary(data)}\n\nreport: {path}"


def _read(path: Path, what: str, **how: Any) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise ValueError(f"there is no file of {what} {path}")
    try:
        return pd.read_csv(path, **how)
    except ValueError as error:  # torn lines, no lines, another encoding
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a readable CSV file of {what}: {reason}") from error
