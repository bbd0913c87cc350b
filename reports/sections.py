"""The figures of each section, drawn from the facts; None where nothing can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.accounting import performance
from engine.runs.result import BacktestResult
from reports import calendars, figures, metrics, relative
from reports.facts import Facts, rate_of
from reports.folds import timeline
from reports.formats import day, number, percent
from reports.svg import ASSET_COLOURS, STRATEGY_COLOURS

SHOWN = len(STRATEGY_COLOURS)  # strategies with a colour of their own
SHORTEST_WINDOW = 10  # periods; below, nothing rolling is shown
SHADED = 5  # drawdowns with a grey ground in the figure of growth
SOLVE_COLOURS = {"fixed point": "s1", "adjoint": "s3", "mean-variance": "s4"}


def ranking(facts: Facts) -> list[str]:
    """All strategies in the order of the figures: the subject, the benchmark, the others."""
    ranked = [facts.subject, *([facts.benchmark] if facts.benchmark else [])]
    return ranked + [name for name in facts.results if name not in ranked]


def colours_of(ranked: list[str]) -> dict[str, str]:
    """{name: a name in ``PALETTE``}: one each for the first, grey for the rest."""
    colours = dict.fromkeys(ranked, "rest")
    return colours | dict(zip(ranked[:SHOWN], STRATEGY_COLOURS, strict=False))


def draw(facts: Facts) -> dict[str, Any]:
    """All figures, by the name the template uses."""
    ranked = ranking(facts)
    colours = colours_of(ranked)
    results = {name: facts.results[name] for name in ranked}
    shown = {name: results[name] for name in ranked[:SHOWN]}
    return {
        **_growth(facts, results, colours),
        **_rolling(facts, results, colours),
        **_trading(facts, results, colours),
        **_weights(shown),
        **_limits(shown),
        "folds": _folds(facts, colours),
        "plan": _plan(facts),
        **_learning(shown),
    }


def _growth(
    facts: Facts, results: Mapping[str, BacktestResult], colours: Mapping[str, str]
) -> dict[str, Any]:
    """Growth, drawdowns, years and the distribution."""
    net = {name: result.net_returns for name, result in results.items()}
    wealth = {name: performance.wealth(returns) for name, returns in net.items()}
    under = {name: performance.drawdowns(returns) for name, returns in net.items()}
    ends = _listed(wealth, lambda name: number(wealth[name].iloc[-1]))
    depths = _listed(net, lambda name: percent(facts.metrics.loc[name, "max drawdown"]))
    last = net[facts.subject].index[-1]
    worst = facts.drawdowns.head(SHADED)
    shade = [(row.start, last if pd.isna(row.end) else row.end) for row in worst.itertuples()]
    ruined = {n: day(line.index[line <= 0][0]) for n, line in wealth.items() if line.iloc[-1] <= 0}
    drawn: dict[str, Any] = {"ruined": ruined, "shaded": len(shade), "years": None, "spread": None}
    label = f"Growth of 1 after costs, logarithmic. At the end: {ends}."
    drawn["equity"] = figures.time_lines(label, wealth, colours, log=True, shade=shade, height=340)
    label = f"Loss since the highest value so far. Deepest: {depths}."
    drawn["drawdowns"] = figures.time_lines(
        label, under, colours, percent=True, fill=facts.subject, height=260
    )
    subject = net[facts.subject]
    pair = [facts.subject, *([facts.benchmark] if facts.benchmark else [])]
    if len(facts.years) > 1:
        best = facts.years[facts.subject]
        label = (
            f"Returns by calendar year. {facts.subject}: best {percent(best.max())}, worst "
            f"{percent(best.min())}."
        )
        drawn["years"] = figures.bars(label, facts.years[pair], colours)
    if not performance.constant(subject) and len(subject) >= 30:
        label = (
            f"Distribution of the returns of {facts.subject}. Skewness "
            f"{number(facts.metrics.loc[facts.subject, 'skewness'])}, excess kurtosis "
            f"{number(facts.metrics.loc[facts.subject, 'excess kurtosis'])}."
        )
        drawn["spread"] = figures.histogram(label, subject)
    return drawn


def _rolling(
    facts: Facts, results: Mapping[str, BacktestResult], colours: Mapping[str, str]
) -> dict[str, Any]:
    """Sharpe ratio, volatility and beta over a moving year, or half of a shorter history."""
    net = {name: result.net_returns for name, result in results.items()}
    year = facts.periods_per_year
    window = int(min(year, len(net[facts.subject]) // 2))
    drawn: dict[str, Any] = {"window": window, **dict.fromkeys(("rolling", "volatility", "beta"))}
    if window < SHORTEST_WINDOW:
        return drawn
    ratios = {name: metrics.rolling_sharpe(line, window, year) for name, line in net.items()}
    ratios = {name: line for name, line in ratios.items() if line.notna().any()}
    if not ratios:
        return drawn
    label = f"Sharpe ratio of the last {window} periods by date."
    drawn["rolling"] = figures.time_lines(label, ratios, colours, height=260)
    spreads = {name: metrics.rolling_volatility(net[name], window, year) for name in ratios}
    label = f"Volatility of the last {window} periods by date."
    drawn["volatility"] = figures.time_lines(label, spreads, colours, percent=True, height=270)
    if facts.benchmark:
        other = net[facts.benchmark]
        betas = {}
        for name in ratios:
            common = net[name].index.intersection(other.index)
            if name != facts.benchmark and len(common) > window:
                line = relative.rolling_beta(net[name][common], other[common], window)
                betas[name] = line
        betas = {name: line for name, line in betas.items() if line.notna().any()}
        if betas:
            label = f"Beta to {facts.benchmark} over the last {window} periods by date."
            drawn["beta"] = figures.time_lines(label, betas, colours, height=270)
    return drawn


def _trading(
    facts: Facts, results: Mapping[str, BacktestResult], colours: Mapping[str, str]
) -> dict[str, Any]:
    """Turnover, costs, and the Sharpe ratio at other costs."""
    drawn: dict[str, Any] = dict.fromkeys(("turnover", "paid", "sweep"))
    traded = {name: result for name, result in results.items() if len(result.turnover)}
    if traded:
        trailing = {n: calendars.trailing_turnover(r.turnover) for n, r in traded.items()}
        paid = {name: result.costs.cumsum() for name, result in traded.items()}
        means = _listed(paid, lambda name: number(facts.metrics.loc[name, "turnover/year"]))
        total = _listed(paid, lambda name: percent(facts.metrics.loc[name, "costs paid"]))
        label = f"Turnover over the trailing year. On average: {means}."
        drawn["turnover"] = figures.time_lines(label, trailing, colours, height=270)
        label = f"Costs paid since the start, share of the portfolio. In all: {total}."
        drawn["paid"] = figures.time_lines(label, paid, colours, percent=True, height=270)
    lines = {name: facts.sweep[name].dropna() for name in results if name in facts.sweep}
    if lines:
        ends = _listed(lines, lambda name: number(lines[name].iloc[-1]))
        label = f"Sharpe ratio after costs, by basis points of the value traded. At 50: {ends}."
        drawn["sweep"] = figures.curves(label, lines, colours, own_cost(facts))
    return drawn


def own_cost(facts: Facts) -> float | None:
    """The run's cost of trading in basis points, None where it has no single one."""
    rate = rate_of(facts.first)
    return None if rate is None else 1e4 * rate


def _listed(names: Iterable[str], value: Callable[[str], str]) -> str:
    """The values of the first few, for those who do not see the figure."""
    return ", ".join(f"{name} {value(name)}" for name in list(names)[:SHOWN])


def _weights(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """One stack a strategy; the largest assets over all strategies get the colours."""
    sizes = pd.concat([result.weights.abs().mean() for result in results.values()], axis=1)
    order = sizes.fillna(0).mean(axis=1).sort_values(ascending=False, kind="stable").index
    large, small = order[: len(ASSET_COLOURS)], order[len(ASSET_COLOURS) :]
    drawn = {}
    for name, result in results.items():
        weights = result.weights.reindex(columns=order).fillna(0)
        shown = weights[large].copy()
        if len(small):
            shown["other, long"] = weights[small].clip(lower=0).sum(axis=1)
            shown["other, short"] = weights[small].clip(upper=0).sum(axis=1)
        means = weights[large[:3]].mean()
        top = ", ".join(f"{asset} {percent(mean)}" for asset, mean in means.items())
        label = f"Weights of {name} over time, stacked. Mean weights: {top}."
        drawn[name] = figures.stacked_weights(label, shown)
    coloured = list(zip(large, ASSET_COLOURS, strict=False))
    return {"weights": drawn, "coloured": coloured, "small": len(small)}


def _limits(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """Of each optimising strategy, over the last quarter: where limits bind, shadow prices."""
    drawn: dict[str, Any] = {}
    for name, result in results.items():
        if not len(result.limits):
            continue
        limits = result.limits.assign(
            share=result.limits["held"] / result.limits["of"],
            worth=(result.limits["price"] / result.limits["variance"]).abs(),
        )
        limits.loc[limits["held"] == 0, "worth"] = 0.0
        by_date = limits.groupby(["date", "limit"], sort=False)[["share", "worth"]].mean().unstack()
        varying = [k for k in by_date["share"] if by_date["share"][k].nunique() > 1]
        order = by_date["share"][varying].mean().sort_values(ascending=False).index[:SHOWN]
        if not len(order):
            continue
        years = max(len(result.net_returns) / result.settings["periods_per_year"], 1e-9)
        window = max(1, round(len(by_date) / years / 4))
        smooth = by_date.rolling(window, min_periods=1).mean()
        colours = dict(zip(order, STRATEGY_COLOURS, strict=False))
        share = {limit: smooth["share"][limit] for limit in order}
        worth = {limit: smooth["worth"][limit] for limit in order}
        means = ", ".join(f"{limit} {percent(by_date['share'][limit].mean())}" for limit in order)
        drawn[name] = {
            "colours": colours,
            "share": figures.time_lines(
                f"Share of the weights of {name} at a limit by date. On average: {means}.",
                share,
                colours,
                percent=True,
                height=270,
            ),
            "worth": figures.time_lines(
                f"Shadow prices of the limits of {name} by date, in units of the variance.",
                worth,
                colours,
                height=270,
            ),
        }
    return {"limits": drawn}


def _plan(facts: Facts) -> Markup | None:
    """The folds in time: of a strategy that is trained, if there is one."""
    tables = [result.folds for result in facts.results.values() if len(result.folds)]
    trained = [table for table in tables if "validation_start" in table]
    trained = [table for table in trained if table["validation_start"].notna().any()] + tables
    return timeline(trained[0]) if trained else None


def _folds(facts: Facts, colours: Mapping[str, str]) -> Markup | None:
    """Sharpe ratio by fold of the subject and the benchmark."""
    if not len(facts.folds):
        return None
    pair = [facts.subject, *([facts.benchmark] if facts.benchmark else [])]
    ratios = facts.folds.pivot_table(index="fold", columns="strategy", values="Sharpe")
    ratios = ratios.reindex(columns=pair)
    if len(ratios) < 2 or ratios[facts.subject].isna().all():
        return None
    own = ratios[facts.subject]
    label = (
        f"Sharpe ratio by fold. {facts.subject}: best {number(own.max())}, worst "
        f"{number(own.min())}."
    )
    return figures.bars(label, ratios, colours, percent=False)


def _learning(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """Training curves and solver steps of the strategies that have them."""
    curves: dict[str, Markup] = {}
    steps: dict[str, Any] = {}
    for name, result in results.items():
        if not len(result.training):
            continue
        label = f"Loss by epoch of {name}, training and validation, one line a fold."
        curves[name] = figures.training_curves(label, result.training)
        if len(result.solves):
            rows = _by_fold(result.solves[result.solves["phase"] == "training"])
            kinds = {k: c for k, c in SOLVE_COLOURS.items() if (rows["solve"] == k).any()}
            label = f"Mean and most steps, and largest residuals, of the solves of {name} by fold."
            figure = figures.solver_steps(label, rows, kinds)
            steps[name] = {"figure": figure, "kinds": kinds}
    return {"training": curves, "steps": steps}


def _by_fold(solves: pd.DataFrame) -> pd.DataFrame:
    """One row a fold and kind of solve, over all seeds."""
    grouped = solves.groupby(["fold", "solve"], sort=False)
    return grouped.agg(
        mean_steps=("mean_steps", "mean"),
        most_steps=("most_steps", "max"),
        residual=("residual", "max"),
    ).reset_index()


def heat_scale(months: Iterable[pd.DataFrame]) -> float:
    """The monthly return that gets the full colour: the 95% quantile of the sizes."""
    returns = [table.drop(columns="year").to_numpy().ravel() for table in months]
    sizes = np.abs(np.concatenate(returns))
    sizes = sizes[np.isfinite(sizes)]
    return float(np.quantile(sizes, 0.95)) or 1.0 if len(sizes) else 1.0
