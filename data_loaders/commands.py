"""deqfolio data: list, update, verify and export stored prices, and check a source for errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help="Snapshots of data: list, update, verify, export; and check a source for errors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

PAGE = 20  # assets, and findings, that a check prints
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the store. [default: $DEQFOLIO_DATA or ~/.cache/deqfolio/data]"),
]
Source = Annotated[
    str, typer.Argument(help='"sp500", "yahoo:SPY,TLT", "synthetic:null", or a CSV/Parquet file.')
]
Start = Annotated[str | None, typer.Option(help="First date of the data, like 2000-01-31.")]
End = Annotated[str | None, typer.Option(help="Last date of the data.")]
PeriodsPerYear = Annotated[
    float | None,
    typer.Option(help="Rows per year of the data, like 252. [default: counted from the dates]"),
]
Reading = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="How to read a file: an argument of load, like kind=returns, unit=percent, skip=3, "
        "table=1, header=date,A,B, price=adjClose, date_format=%d/%m/%Y, timezone=Asia/Tokyo, "
        "na=-99.99, decimal=',', thousands=., layout=wide. Repeat for several.",
    ),
]


@app.command("list")
def list_(store: Folder = None) -> None:
    """List the snapshots in the store, newest last."""
    import pandas as pd

    from data_loaders.store import Store

    kept = Store(store)
    rows = [
        {
            "series": name,
            "snapshot": snapshot.identity,
            "rows": snapshot.manifest["rows"],
            "first": snapshot.manifest["first"],
            "last": snapshot.manifest["last"],
            "kB": snapshot.manifest["bytes"] // 1000,
        }
        for name in kept.names()
        for snapshot in kept.snapshots(name)
    ]
    if not rows:
        typer.echo(f"The store {kept.folder} is empty: deqfolio data update yahoo:SPY fills it.")
        return
    _print(pd.DataFrame(rows).set_index("series"))


@app.command()
def show(source: Source, store: Folder = None, periods_per_year: PeriodsPerYear = None) -> None:
    """Show the manifests of a Yahoo source's snapshots, or the panel of any other source."""
    import json

    from data_loaders.sources import load
    from data_loaders.store import Store
    from data_loaders.validation import DataError
    from data_loaders.yahoo_histories import check_tickers

    if not source.startswith("yahoo:"):
        panel = load(source, periods_per_year=periods_per_year)
        typer.echo(f"{panel}\n{panel.periods_per_year:g} rows per year")
        typer.echo(f"fingerprint: {panel.fingerprint}")
        for caveat in panel.caveats:
            typer.echo(f"caveat: {caveat}")
        return
    kept = Store(store)
    for ticker in check_tickers(source.removeprefix("yahoo:").split(",")):
        snapshots = kept.snapshots(f"yahoo/{ticker}")
        if not snapshots:
            note = kept.note(f"yahoo/{ticker}")
            known = f": {note['status']}, {note['message']}" if note else ""
            raise DataError(f"the store {kept.folder} holds no snapshot of {ticker}{known}")
        for snapshot in snapshots:
            about = {"snapshot": snapshot.identity, **snapshot.manifest}
            typer.echo(json.dumps(about, indent=1))


@app.command()
def update(
    source: Annotated[
        str | None, typer.Argument(help='Like "yahoo:SPY,TLT"; default: every series stored.')
    ] = None,
    store: Folder = None,
    full: Annotated[
        bool, typer.Option(help="Request whole histories, to notice rewriting of any day.")
    ] = False,
    deadline: Annotated[float, typer.Option(help="Seconds, then no request is made.")] = 600.0,
) -> None:
    """Fetch newer prices from Yahoo; exits with 1 if a ticker has failed."""
    from dataclasses import replace

    from data_loaders import yahoo_histories
    from data_loaders.store import Store
    from data_loaders.validation import DataError

    kept = Store(store)
    if source is None:
        tickers = [name.removeprefix("yahoo/") for name in kept.names()]
        if not tickers:
            raise DataError(f"the store {kept.folder} is empty: name a source, like yahoo:SPY,TLT")
    elif source.startswith("yahoo:"):
        tickers = yahoo_histories.check_tickers(source.removeprefix("yahoo:").split(","))
    else:
        raise DataError(f"only yahoo: sources are fetched, got {source!r}")
    policy = replace(yahoo_histories.POLICY, deadline=deadline)
    found = yahoo_histories.fetch(tickers, kept, update=True, full=full, policy=policy)
    _print(yahoo_histories.status_table(found))
    if any(one.status in ("failed", "stale") for one in found):
        raise typer.Exit(1)


@app.command()
def verify(store: Folder = None) -> None:
    """Hash every file of the store; exits with 1 if one is damaged (it is moved aside)."""
    from data_loaders.store import Store

    errors = [error for _, _, error in Store(store).verify()]
    damaged = list(filter(None, errors))
    for error in damaged:
        typer.echo(error)
    intact = len(errors) - len(damaged)
    typer.echo(f"{len(errors)} snapshots: {intact} intact, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)


@app.command()
def export(
    source: Source,
    file: Annotated[Path, typer.Argument(help="To write: .csv, .csv.gz or .parquet.")],
    start: Start = None,
    end: End = None,
    store: Folder = None,
    options: Reading = None,
) -> None:
    """Write the prices of a source, one row per date and one column per asset."""
    from data_loaders.sources import load
    from data_loaders.writing import write_prices

    panel = load(source, start, end, store=store, **_arguments(options))
    write_prices(panel.prices, file)
    typer.echo(f"{panel}\nwritten to {file}; fingerprint of the panel: {panel.fingerprint}")


@app.command()
def check(
    source: Source,
    start: Start = None,
    end: End = None,
    store: Folder = None,
    periods_per_year: PeriodsPerYear = None,
    options: Reading = None,
    out: Annotated[
        Path,
        typer.Option(help="CSV file of all findings, written where they fill more than a page."),
    ] = Path("data_check.csv"),
) -> None:
    """Check the data, and report what looks wrong; nothing is changed."""
    from contextlib import suppress

    from data_loaders import quality
    from data_loaders.sources import load
    from data_loaders.validation import DataError

    panel = load(
        source, start, end, store=store, periods_per_year=periods_per_year, **_arguments(options)
    )
    found = quality.check(panel)
    typer.echo(f"{panel}")
    with suppress(DataError):  # that they have none is a finding
        typer.echo(f"{panel.periods_per_year:g} rows per year")
    typer.echo("")
    table = found.assets
    table["coverage"] = table["coverage"].map("{:.1%}".format)
    table["zero_returns"] = table["zero_returns"].map("{:.1%}".format)
    _print(table.head(PAGE))
    if len(table) > PAGE:
        typer.echo(f"and {len(table) - PAGE} more assets")
    typer.echo("")
    each = max(2, PAGE // max(1, found.problems["problem"].nunique()))
    for problem, rows in found.problems.groupby("problem", sort=False):
        for row in rows.head(each).itertuples():
            typer.echo(f"{problem}: {row.where}: {row.detail}")
        if len(rows) > each:
            typer.echo(f"{problem}: and {len(rows) - each} more")
    for caveat in panel.caveats:
        typer.echo(f"caveat: {caveat}")
    if not len(found.problems):
        typer.echo("No problems were found.")
    if len(found.problems) > PAGE or len(table) > PAGE:
        from data_loaders.writing import safe_csv

        out.write_text(safe_csv(found.problems, index=False), encoding="utf-8")
        typer.echo(f"all {len(found.problems)} findings: {out}")


@app.command()
def look(
    file: Annotated[Path, typer.Argument(help="A file, a folder, or a pattern like 'data/*.csv'.")],
    options: Reading = None,
) -> None:
    """Show the first rows of a file as they are read, and the options that were detected."""
    from data_loaders.files import first_lines, read_all, read_panel
    from data_loaders.reading.options import Options

    asked = Options(**_arguments(options))
    for line in first_lines(file):
        typer.echo(f"  | {line}")
    frames = read_all(file, asked)
    panel = read_panel(file, asked, frames)
    typer.echo(f"\n{panel}")
    for caveat in panel.caveats:
        typer.echo(caveat)
    detected = " ".join(f"{name}={value}" for name, value in frames.chosen.items())
    typer.echo(f"detected: {detected}" if detected else "detected: columns by their types")
    columns = panel.assets[:8]
    typer.echo(f"\n{asked.kind}, as prices:" if asked.kind == "returns" else "\nprices:")
    _print(panel.prices[columns].head())
    if more := len(panel.assets) - len(columns):
        typer.echo(f"and {more} more assets")
    for name, frame in panel.asset_features.items():
        typer.echo(f"\n{name}:")
        _print(frame[columns].head(2))


def _arguments(options: list[str] | None) -> dict[str, Any]:
    from data_loaders.reading.options import options_of_words

    return dict(options_of_words(options or []))


def _print(table: pd.DataFrame) -> None:
    typer.echo(table.to_string())
