"""The report: one HTML file that needs nothing else, from the results of a backtest.

The way: ``facts.gather`` computes every number, ``sections.draw`` every figure,
``template.html`` and ``page/`` lay them out, ``export`` writes the numbers beside the page.
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

from data_loaders.atomic import atomic
from engine.runs.result import BacktestResult
from engine.runs.run_directory import written
from reports import catalogue, export, formats, sections, statistics, wording
from reports.facts import Facts, flat, gather
from reports.svg import PALETTE

HERE = Path(__file__).parent
ORDERS = 40  # listed


def write_report(
    results: Mapping[str, BacktestResult],
    path: str | Path,
    factors: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    tried: pd.DataFrame | None = None,
) -> Path:
    """Write the report of ``results`` to ``path``: the whole page or, on an error, nothing.

    Beside "report.html" go "report.json", all its numbers unrounded, and the folder
    "report-tables" with the same as CSV, and with returns, turnover, costs and targets.

    Args:
        results: {name shown: result}, in the order of the tables. The learned strategy (the
            first with a training history, else the first that is not the benchmark) is
            compared with ``EqualWeight`` or, without it, with the next strategy.
        path: of the HTML file; its folder is made where it is missing.
        factors: (T, K) returns of factors by date, fractions, on which the returns of the
            strategies are regressed.
        groups: {asset: group}, by which contributions are added up.
        tried: what else was tried on these data, ``TrialLedger().on_the_same(result)``; the
            deflated Sharpe ratio counts it.

    Returns:
        The path written.

    Raises:
        OSError: the path cannot be written (see ``check_report_path``).
        ValueError: there is no result, or returns hold a NaN.
    """
    check_report_path(path)
    return write_facts(gather(results, factors, groups, tried), path)


def write_facts(facts: Facts, path: str | Path) -> Path:
    """As ``write_report``, of facts that were gathered already."""
    target = check_report_path(path)
    folder = target.with_name(f"{target.stem}-tables")
    files = {target: render(facts), target.with_suffix(".json"): export.as_json(facts)}
    files |= {folder / name: text for name, text in export.as_csv(facts).items()}
    with written(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        with ExitStack() as stack:  # all are written before the first is renamed
            stack.callback(_remove_empty, folder)
            for place, text in files.items():
                scratch = stack.enter_context(atomic(place))
                scratch.write_text(text, encoding="utf-8", errors="replace")
        for table in folder.glob("*.csv"):  # of an older report; any other file stays
            if table not in files:
                table.unlink()
    return target


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds files
        folder.rmdir()


def check_report_path(path: str | Path) -> Path:
    """The path, if a report can be written there; call it before a long computation.

    Raises:
        OSError: it is a folder or a device, lies under a file, or its folder cannot be written to.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise IsADirectoryError(f"the report cannot be written to {target}: it is no file")
    folder = next(part for part in target.absolute().parents if part.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return target
    except OSError as error:
        raise type(error)(
            f"the report cannot be written to {target}: {folder} is not a folder that can be "
            f"written to ({error.strerror}); choose another path"
        ) from error


def render_report(results: Mapping[str, BacktestResult]) -> str:
    """The page as text; deterministic, so that the same results give the same bytes."""
    return render(gather(results))


def render(facts: Facts) -> str:
    """The page of these facts."""
    script = (HERE / "page" / "script.js").read_text(encoding="utf-8").strip()
    ranked = sections.ranking(facts)
    shown = ranked[: sections.SHOWN]
    summary = facts.metrics[list(catalogue.COLUMNS)]
    settings = facts.first.settings
    return (
        _environment()
        .get_template("template.html")
        .render(
            facts=facts,
            palette=PALETTE,
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            headline=wording.headline(facts),
            selection=wording.selection_sentence(facts),
            missing=wording.not_shown(facts),
            subject=facts.subject,
            benchmark=facts.benchmark,
            colours=sections.colours_of(ranked),
            shown=shown,
            rest=len(ranked) - len(shown),
            best=catalogue.best_in_columns(summary),
            metric_groups=catalogue.GROUPS,
            resamples=statistics.RESAMPLES,
            seed=statistics.SEED,
            own_cost=sections.own_cost(facts),
            heat=sections.heat_scale([facts.months[name] for name in shown]),
            orders=_latest(facts.first.orders),
            panel=settings.get("panel", {}),
            settings=list(flat(settings)),
            everything=json.dumps(export.settings(facts.results, settings), indent=1, default=str),
            **sections.draw(facts),
        )
    )


def _latest(orders: pd.DataFrame) -> list[dict]:
    """The last orders, the latest first; a run from before they were recorded shows dashes."""
    columns = ["date", "decided", "asset", "side", "ordered", "size", "price", "fees", "paid"]
    return orders.reindex(columns=columns).tail(ORDERS)[::-1].to_dict("records")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("percent", "chance", "number", "day", "count", "money", "times", "written")
    environment.filters |= {name: getattr(formats, name) for name in names}
    return environment
