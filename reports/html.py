"""The report: one HTML file that needs nothing else, from the results of a backtest."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.result import BacktestResult
from reports import figures, metrics, statistics
from reports.metrics import count, day, number, percent

BENCHMARK = "EqualWeight"
SHOWN = len(figures.STRATEGY_COLOURS)  # strategies with a colour of their own
SHORTEST_WINDOW = 10  # periods; below, a rolling Sharpe ratio is not shown
SOLVE_COLOURS = {"fixed point": "s1", "adjoint": "s3", "mean-variance": "s4"}


def write_report(results: Mapping[str, BacktestResult], path: str | Path) -> Path:
    """Write the report of ``results`` to ``path``: the whole page or, on an error, nothing.

    Args:
        results: {name shown: result}, in the order of the tables. The learned strategy (the
            first with a training history, else the first that is not the benchmark) is
            compared with ``EqualWeight`` or, without it, with the next strategy.
        path: of the HTML file; its folder is made where it is missing.

    Returns:
        The path written.

    Raises:
        OSError: the path cannot be written (see ``check_report_path``).
        ValueError: there is no result, or returns hold a NaN.
    """
    target = check_report_path(path)
    page = render_report(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".report-{os.getpid()}.part"
    try:
        scratch.write_text(page, encoding="utf-8", errors="replace")
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return target


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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "day": day, "count": count}
    table = metrics.summary_table(results)
    subject, benchmark = chosen(results)
    first = results[subject]
    ranked = [subject, *([benchmark] if benchmark else [])]
    ranked += [name for name in results if name not in ranked]
    shown = ranked[:SHOWN]
    colours = dict.fromkeys(ranked, "rest")
    colours |= zip(shown, figures.STRATEGY_COLOURS, strict=False)
    luck = _luck(results, benchmark) if benchmark else pd.DataFrame()
    context = {
        "palette": figures.PALETTE,
        "subject": subject,
        "benchmark": benchmark,
        "colours": colours,
        "shown": shown,
        "rest": len(ranked) - len(shown),
        "first": first,
        "headline": headline(results, table, luck, subject, benchmark),
        "table": table,
        "best": metrics.best_in_columns(table),
        "luck": luck,
        "resamples": statistics.RESAMPLES,
        "seed": statistics.SEED,
        **_time_figures({name: results[name] for name in ranked}, table, colours),
        **_weight_figures({name: results[name] for name in shown}),
        **_learning_figures({name: results[name] for name in shown}),
        "months": {name: metrics.monthly_returns(results[name].net_returns) for name in shown},
        "folds": _folds({name: results[name] for name in shown}),
        "solves": _solves(results),
        "checks": _checks(results),
        "differences": {
            name: result.settings.get("simulation_difference") for name, result in results.items()
        },
        "panel": first.settings.get("panel", {}),
        "settings": list(_flat(first.settings)),
        "strategies": {name: result.strategy for name, result in results.items()},
        "everything": json.dumps(_everything(results, first.settings), indent=1, default=str),
    }
    context["heat"] = _heat_scale(context["months"])
    return environment.get_template("template.html").render(context)


def chosen(results: Mapping[str, BacktestResult]) -> tuple[str, str | None]:
    """Whom the report is about, and whom it is compared with (None if there is no other)."""
    if not results:
        raise ValueError("there is no result to report: results are empty")
    equal = [
        name
        for name, result in results.items()
        if re.split(r"[.:]", str(result.strategy.get("class", "")))[-1] == BENCHMARK
    ][:1]
    learned = [name for name, result in results.items() if len(result.training)]
    others = [name for name in results if name not in equal]
    subject = [*learned, *others, *results][0]
    rivals = [name for name in [*equal, *results] if name != subject]
    return subject, rivals[0] if rivals else None


def headline(
    results: Mapping[str, BacktestResult],
    table: pd.DataFrame,
    luck: pd.DataFrame,
    subject: str,
    benchmark: str | None,
) -> Markup:
    """In plain words: how the subject did after costs, and how likely that is by luck."""
    periods = len(results[subject].net_returns)
    years = periods / results[subject].settings["periods_per_year"]
    span = f"{years:.1f} years" if years >= 1 else f"{periods} periods ({years:.2f} years)"
    who = Markup("Over {} <bdi>{}</bdi>").format(span, subject)
    row = table.loc[subject]
    if row["annual return"] == -1:
        return who + " lost everything: at some point its value after costs was 0."
    alone = who + f" returned {percent(row['annual return'])} a year after costs"
    if benchmark is None:
        return alone + (
            f", a Sharpe ratio of {number(row['Sharpe'])} \N{PLUS-MINUS SIGN} "
            f"{number(row['Sharpe s.e.'])}; there is no other strategy to compare it with."
        )
    difference, p = luck.loc[subject, "difference"], luck.loc[subject, "p"]
    if not np.isfinite(difference):
        return alone + Markup(
            "; its Sharpe ratio and that of <bdi>{}</bdi> cannot be compared, as returns without "
            "spread have none."
        ).format(benchmark)
    size = number(abs(difference)) if abs(difference) >= 0.005 else "less than 0.01"
    more = "more" if difference > 0 else "less"
    earned = Markup(" earned {} {} Sharpe than <bdi>{}</bdi> after costs; ").format(
        size, more, benchmark
    )
    quiet = Markup('<span class="quiet">{}</span>')
    if not np.isfinite(p):
        reason = "the history is too short to say how likely that is by chance."
        return who + earned + quiet.format(reason)
    return who + earned + quiet.format(statistics.verdict(difference, p))


def _luck(results: Mapping[str, BacktestResult], benchmark: str) -> pd.DataFrame:
    returns = pd.concat({name: r.net_returns for name, r in results.items()}, axis=1, join="inner")
    periods = results[benchmark].settings["periods_per_year"]
    return statistics.sharpe_differences(returns, benchmark, periods)


def _time_figures(
    results: Mapping[str, BacktestResult], table: pd.DataFrame, colours: Mapping[str, str]
) -> dict[str, Any]:
    """Equity, drawdowns, rolling Sharpe, turnover and costs; None where nothing can be shown."""
    subject = next(iter(results))
    net = {name: result.net_returns for name, result in results.items()}
    year = results[subject].settings["periods_per_year"]
    window = int(min(year, len(net[subject]) // 2))
    wealth = {name: metrics.wealth(returns) for name, returns in net.items()}
    drawdowns = {name: metrics.drawdowns(returns) for name, returns in net.items()}
    rolling = {
        name: metrics.rolling_sharpe(line, max(window, 2), year) for name, line in net.items()
    }
    rolling = {name: line for name, line in rolling.items() if line.notna().any()}
    traded = {name: result for name, result in results.items() if len(result.turnover)}
    trailing = {name: metrics.trailing_turnover(r.turnover) for name, r in traded.items()}
    paid = {name: r.costs.cumsum() for name, r in traded.items()}
    ends = _listed(wealth, lambda name: number(wealth[name].iloc[-1]))
    depths = _listed(net, lambda name: percent(table.loc[name, "max drawdown"]))
    means = _listed(paid, lambda name: number(table.loc[name, "turnover/year"]))
    total = _listed(paid, lambda name: percent(paid[name].iloc[-1]))
    lines = partial(figures.time_lines, colours=colours)
    drawn: dict[str, Any] = dict.fromkeys(("rolling", "turnover", "paid"))
    label = f"Growth of 1 after costs, logarithmic. At the end: {ends}."
    drawn["equity"] = lines("equity", label, wealth, log=True, height=340)
    label = f"Loss since the highest value so far. Deepest: {depths}."
    drawn["drawdowns"] = lines(
        "drawdowns", label, drawdowns, percent=True, fill=subject, height=260
    )
    if window >= SHORTEST_WINDOW and rolling:
        label = f"Sharpe ratio of the last {window} periods by date."
        drawn["rolling"] = lines("rolling", label, rolling, height=260)
    if traded:
        label = f"Turnover over the trailing year. On average: {means}."
        drawn["turnover"] = lines("turnover", label, trailing, height=270)
        label = f"Costs paid since the start, share of the portfolio. In all: {total}."
        drawn["paid"] = lines("paid", label, paid, percent=True, height=270)
    ruined = {n: day(line.index[line <= 0][0]) for n, line in wealth.items() if line.iloc[-1] <= 0}
    return {"window": window, "ruined": ruined, **drawn}


def _listed(names: Iterable[str], value: Callable[[str], str]) -> str:
    """The values of the first few, for those who do not see the figure."""
    return ", ".join(f"{name} {value(name)}" for name in list(names)[:SHOWN])


def _weight_figures(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """One stack a strategy; the largest assets over all strategies get the colours."""
    sizes = pd.concat([result.weights.abs().mean() for result in results.values()], axis=1)
    order = sizes.fillna(0).mean(axis=1).sort_values(ascending=False, kind="stable").index
    large, small = order[: len(figures.ASSET_COLOURS)], order[len(figures.ASSET_COLOURS) :]
    drawn = {}
    for number_, (name, result) in enumerate(results.items()):
        weights = result.weights.reindex(columns=order).fillna(0)
        shown = weights[large].copy()
        if len(small):
            shown["other, long"] = weights[small].clip(lower=0).sum(axis=1)
            shown["other, short"] = weights[small].clip(upper=0).sum(axis=1)
        means = weights[large[:3]].mean()
        top = ", ".join(f"{asset} {percent(mean)}" for asset, mean in means.items())
        label = f"Weights of {name} over time, stacked. Mean weights: {top}."
        drawn[name] = figures.stacked_weights(f"weights{number_}", label, shown)
    assets = list(zip(large, figures.ASSET_COLOURS, strict=False))
    return {"weights": drawn, "assets": assets, "small": len(small)}


def _learning_figures(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """Training curves and solver steps of the strategies that have them."""
    curves, steps, epochs = {}, {}, {}
    for number_, (name, result) in enumerate(results.items()):
        if not len(result.training):
            continue
        label = f"Loss by epoch of {name}, training and validation, one line a fold."
        curves[name] = figures.training_curves(f"training{number_}", label, result.training)
        epochs[name] = _epochs(result.training)
        if len(result.solves):
            rows = result.solves[result.solves["phase"] == "training"]
            kinds = {k: c for k, c in SOLVE_COLOURS.items() if (rows["solve"] == k).any()}
            label = f"Mean and most steps of the solves of {name} in training, by fold."
            figure = figures.solver_steps(f"steps{number_}", label, rows, kinds)
            steps[name] = {"figure": figure, "kinds": kinds}
    return {"training": curves, "epochs": epochs, "steps": steps}


def _epochs(training: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a fold: how long it trained and what was kept, the last epoch marked best."""
    rows = []
    for fold, part in training.groupby("fold"):
        kept = part[part["best"].astype(bool)].tail(1)
        rows.append(
            {
                "fold": fold,
                "epochs": len(part),
                "gradient_norm": part["gradient_norm"].median(),
                "skipped": part["skipped"].sum(),
                **{
                    name: kept[name].sum(min_count=1)
                    for name in ("epoch", "loss", "validation_loss")
                },
            }
        )
    return rows


def _folds(results: Mapping[str, BacktestResult]) -> list[dict[str, Any]]:
    """One row a refit of the first strategy that has any: its dates, and how each one did."""
    refits = next((r.folds for r in results.values() if len(r.folds)), None)
    if refits is None:
        return []
    scores = {
        name: metrics.fold_returns(
            result.net_returns,
            pd.to_datetime(refits["test_start"]),
            result.settings["periods_per_year"],
        )
        for name, result in results.items()
    }
    return [
        {**fold, "scores": {name: of_fold[position] for name, of_fold in scores.items()}}
        for position, fold in enumerate(refits.to_dict("records"))
    ]


def _solves(results: Mapping[str, BacktestResult]) -> list[dict[str, Any]]:
    """One row a strategy, phase and kind of solve, over all folds."""
    rows = []
    for name, result in results.items():
        if not len(result.solves):
            continue
        for (phase, solve), part in result.solves.groupby(["phase", "solve"], sort=False):
            samples = part["samples"].sum()
            rows.append(
                {
                    "name": name,
                    "phase": phase,
                    "solve": solve,
                    "samples": samples,
                    "mean_steps": (part["mean_steps"] * part["samples"]).sum() / max(samples, 1),
                    "most_steps": part["most_steps"].max(),
                    "residual": part["residual"].max(),
                    "failures": part["failures"].sum(),
                }
            )
    return rows


def _checks(results: Mapping[str, BacktestResult]) -> list[dict[str, Any]]:
    """One row a strategy and time of comparison: the largest differences to qpth, all folds."""
    rows = []
    for name, result in results.items():
        if not len(result.checks):
            continue
        for when, part in result.checks.groupby("when", sort=False):
            largest = part[["weights", "gradients"]].max().to_dict()
            rows.append({"name": name, "when": when, "samples": part["samples"].sum(), **largest})
    return [row for row in rows if row["samples"]]


def _heat_scale(months: Mapping[str, pd.DataFrame]) -> float:
    """The monthly return that gets the full colour: the 95% quantile of the sizes."""
    returns = [table.drop(columns="year").to_numpy().ravel() for table in months.values()]
    sizes = np.abs(np.concatenate(returns))
    sizes = sizes[np.isfinite(sizes)]
    return float(np.quantile(sizes, 0.95)) or 1.0 if len(sizes) else 1.0


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows of (path, value), without what has a place of its own."""
    for key, value in settings.items():
        if key in ("caveats", "simulation_difference"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            more = f" and {len(value) - 12} more" if len(value) > 12 else ""
            yield f"{path}{key}", ", ".join(map(str, value[:12])) + more
        else:
            yield f"{path}{key}", str(value)


def _everything(results: Mapping[str, BacktestResult], shared: Mapping[str, Any]) -> dict[str, Any]:
    """All settings once, and for each strategy its parameters and the settings it differs in."""
    strategies = {}
    for name, result in results.items():
        own = {key: value for key, value in result.settings.items() if shared.get(key) != value}
        strategies[name] = {**result.strategy, "settings": own}
    return {"settings": shared, "strategies": strategies}
