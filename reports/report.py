"""The report: one HTML file that needs nothing else, from the results of a backtest.

``report_data.gather`` computes every number, ``figures.sections.draw`` every figure, the
templates in ``page/`` lay them out, and ``export`` writes the numbers beside the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from data_loaders.writing import atomic, remove_abandoned
from engine.accounting.risk_free import Rates
from engine.runs.result import BacktestResult
from engine.runs.result_views import why_failed
from engine.runs.run_files import written
from reports import export, formats, wording
from reports.compare import flat
from reports.decisions import shown_decisions
from reports.figures import sections
from reports.figures.axes import PALETTE
from reports.metrics import catalogue, trading
from reports.report_data import ReportData, gather
from reports.return_series import results_of
from reports.statistics import difference_tests

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("script.js", "charts.js")  # in this order, as one
ORDERS, TRIPS = 40, 200  # listed
ORDER_COLUMNS = (
    "date", "decided", "asset", "side", "reason", "ordered", "size", "price", "fees", "paid",
)  # fmt: skip


def write_report(
    results: Mapping[str, BacktestResult]
    | Mapping[int, Mapping[str, BacktestResult]]
    | Mapping[str, pd.Series]
    | pd.DataFrame
    | pd.Series
    | str
    | Path,
    path: str | Path,
    *,
    benchmark: str | Path | pd.Series | None = None,
    subject: str | None = None,
    factors: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    tried: pd.DataFrame | bool = True,
    risk_free: Rates | None = None,
) -> Path:
    """Write the report of ``results`` to ``path``: the whole page or, on an error, nothing.

    Beside "report.html" go "report.json", all its numbers unrounded, and the folder
    "report-tables" with the same as CSV, with returns, turnover, costs and targets, and with the
    decisions as Parquet.

    Args:
        results: {name shown: result}, in the order of the tables. Or returns alone, simple ones
            by date as fractions: a Series, a frame with a column per strategy, a mapping of
            Series, or a file with dates and a column of returns or of values (prices, a net asset
            value) for each. What needs holdings or orders is then left out, and the page says so.
        path: of the HTML file; its folder is made where it is missing.
        benchmark: what the strategies are compared with: a name in ``results``; the name of the
            panel's benchmark; a Series, or a file, of prices or simple returns by date;
            "EqualWeight": 1/N, which is computed where it was not run. By default the panel's
            benchmark where it has one, else 1/N, else the next strategy; the page says which.
        subject: the strategy that the report is about; by default the first that is not the
            benchmark.
        factors: (T, K) returns of factors by date, fractions, on which the returns of the
            strategies are regressed.
        groups: {asset: group}, by which contributions are added up.
        tried: what else was tried on these data, which the deflated Sharpe ratio counts: by
            default what the user's ledger knows; a table, ``TrialLedger(url).on_the_same(result)``;
            False: nothing.
        risk_free: of returns alone: a yearly rate, 0.02 = 2%, or a Series of such rates by date;
            default 0. Results of a backtest have theirs.

    Returns:
        The path written.

    Raises:
        OSError: the path cannot be written (see ``check_report_path``).
        ValueError: there is no result or strategy of that name, returns hold a NaN, or the
            benchmark does not cover the dates, or can be read as prices and as returns.
    """
    check_report_path(path)
    found = results_of(results, risk_free)
    return write_data(gather(found, factors, groups, tried, benchmark, subject), path)


def write_data(data: ReportData, path: str | Path) -> Path:
    """As ``write_report``, of data that were gathered already."""
    target = check_report_path(path)
    folder = target.with_name(f"{target.stem}-tables")
    texts = {target: render(data), target.with_suffix(".json"): export.as_json(data)}
    texts |= {folder / name: text for name, text in export.as_csv(data).items()}
    files = {place: text.encode("utf-8", "replace") for place, text in texts.items()}
    files |= {folder / name: content for name, content in export.as_parquet(data).items()}
    with written(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with ExitStack() as stack:  # all are written before the first is renamed
            stack.callback(_remove_empty, folder)
            for place, content in files.items():
                remove_abandoned(place)
                stack.enter_context(atomic(place)).write_bytes(content)
        for table in (*folder.glob("*.csv"), *folder.glob("decisions.parquet")):
            if table not in files:  # of an older report; any other file stays
                table.unlink()
    return target


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds files
        folder.rmdir()


def check_report_path(path: str | Path) -> Path:
    """The path, if a report can be written there; call it before a long computation.

    Raises:
        OSError: the report cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise IsADirectoryError(f"the report cannot be written to {target}: it is not a file")
    folder = next(part for part in target.absolute().parents if part.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return target
    except OSError as error:
        raise type(error)(
            f"the report cannot be written to {target}: {folder} is not a folder that can be "
            f"written to ({error.strerror}); choose another path"
        ) from error


def render(data: ReportData) -> str:
    """The page as text; deterministic, so that the same results give the same bytes."""
    parts = [(PAGE / name).read_text(encoding="utf-8").strip() for name in SCRIPTS]
    script = "\n".join(['"use strict";', "(() => {", *parts, "})();"])
    shown = data.ranked[: sections.SHOWN]
    settings = data.first.settings
    orders = data.first.orders.reindex(columns=ORDER_COLUMNS)  # older runs have fewer columns
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            subject=data.subject,
            benchmark=data.benchmark,
            palette=PALETTE,
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            headline=wording.headline(data),
            ladder=wording.ladder(data),
            selection="" if data.benchmark else wording.selection_sentence(data),
            missing=wording.not_shown(data),
            run_sentences=wording.run_sentences(data),
            marked=data.runs.incomparable if data.runs else {},
            dagger=wording.MARK,
            risk_free=wording.risk_free(data),
            colours=sections.colours_of([*data.ranked, *data.failed]),
            failed={name: why_failed(result) for name, result in data.failed.items()},
            shown=shown,
            rest=len(data.ranked) - len(shown),
            best=catalogue.best_in_columns(data.metrics[list(catalogue.COLUMNS)]),
            metric_groups=catalogue.GROUPS,
            resamples=difference_tests.RESAMPLES,
            seed=difference_tests.SEED,
            heat=sections.heat_scale(data.months[name] for name in shown),
            delays=trading.delay_sentences(data.first.delays),
            orders=orders.tail(ORDERS)[::-1].to_dict("records"),
            shown_trips=data.first.round_trips.tail(TRIPS)[::-1].to_dict("records"),
            panel=settings.get("panel", {}),
            settings=list(flat(settings)),
            forecasts=[n for n, q in data.forecasts.items() if len(q.by_fold) or len(q.volatility)],
            decisions=shown_decisions(data.results, data.decisions, data.subject),
            everything=json.dumps(
                export.settings({**data.failed, **data.results}, settings), indent=1, default=str
            ),
            **sections.draw(data),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    names = ("percent", "chance", "number", "day", "count", "money", "times", "written")
    environment.filters |= {name: getattr(formats, name) for name in names}
    return environment
