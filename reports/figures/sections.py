"""The figures of each section of the page; None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from engine.accounting import performance
from engine.runs.experiment import read_costs
from engine.runs.result import BacktestResult
from reports import learning
from reports.benchmark import on_common_dates
from reports.figures import charts
from reports.figures.axes import ASSET_COLOURS, STRATEGY_COLOURS, svg
from reports.formats import day, number, percent
from reports.metrics import periods
from reports.report_data import ReportData

SHOWN = len(STRATEGY_COLOURS)  # strategies with a colour of their own
SHORTEST_WINDOW = 10  # periods; below, nothing rolling is shown
CARRIED = 1e-9  # of the portfolio; below, nothing was earned or paid for holding
LATEST = 12  # holdings named
SHADED = 5  # drawdowns with a grey band in the figure of growth
OPTIONAL = (
    "years", "spread", "rolling", "volatility", "beta", "alpha", "turnover", "paid", "carried",
    "sweep", "own_cost", "latest", "exposure",
)  # fmt: skip
SOLVE_COLOURS = {"fixed point": "s1", "adjoint": "s3", "mean-variance": "s4"}

Colours = Mapping[str, str]
Results = Mapping[str, BacktestResult]
Lines = Mapping[str, pd.Series]


def colours_of(ranked: list[str]) -> dict[str, str]:
    """{name: a name in ``PALETTE``}: one each for the first, grey for the rest."""
    colours = dict.fromkeys(ranked, "rest")
    return colours | dict(zip(ranked[:SHOWN], STRATEGY_COLOURS, strict=False))


def draw(data: ReportData) -> dict[str, Any]:
    """All figures, by the name the template uses."""
    colours = colours_of(data.ranked)
    results = {name: data.results[name] for name in data.ranked}
    shown = {name: results[name] for name in data.ranked[:SHOWN]}
    folds = [result.folds for result in data.results.values() if len(result.folds)]
    trained = [t for t in folds if "validation_start" in t and t["validation_start"].notna().any()]
    return {
        **dict.fromkeys(OPTIONAL),
        **_growth(data, results, colours),
        **_rolling(data, results, colours),
        **_trading(data, results, colours),
        **_weights({name: result for name, result in shown.items() if name in data.held}),
        **_exposure(data),
        "ic": _ic(data, colours),
        "ic_names": [name for name, quality in data.forecasts.items() if len(quality.by_date)],
        "limits": _limits(shown),
        "folds": _folds(data, colours),
        "plan": svg(*charts.timeline([*trained, *folds][0])) if folds else None,
        **_learning(shown),
    }


def _growth(data: ReportData, results: Results, colours: Colours) -> dict[str, Any]:
    """Growth, drawdowns, years and the distribution."""
    subject = data.subject
    net = {name: result.net_returns for name, result in results.items()}
    wealth = {name: performance.wealth(line) for name, line in net.items()}
    losses = {name: performance.drawdowns(line) for name, line in net.items()}
    worst = data.drawdowns.head(SHADED)
    shade = list(zip(worst["start"], worst["end"].fillna(net[subject].index[-1]), strict=True))
    ends = _listed(wealth, lambda name: number(wealth[name].iloc[-1]))
    depths = _listed(net, lambda name: percent(data.metrics.loc[name, "max drawdown"]))
    drawn: dict[str, Any] = {
        "ruined": {n: day(w.index[w <= 0][0]) for n, w in wealth.items() if w.iloc[-1] <= 0},
        "shaded": len(shade),
        "equity": charts.line_chart(
            f"Growth of 1{' after costs' if data.held else ''}, logarithmic. At the end: {ends}.",
            wealth, colours, log=True, shade=shade, height=340,
        ),
        "drawdowns": charts.line_chart(
            f"Loss since the highest value so far. Deepest: {depths}.",
            losses, colours, percent=True, fill=subject, height=260,
        ),
    }  # fmt: skip
    if len(data.years) > 1:
        drawn["years"] = _bars("Returns by calendar year", data.years, data, colours, percent)
    if not performance.constant(net[subject]) and len(net[subject]) >= 30:
        row = data.metrics.loc[subject]
        label = (
            f"Distribution of the returns of {subject}. Skewness {number(row['skewness'])}, "
            f"excess kurtosis {number(row['excess kurtosis'])}."
        )
        drawn["spread"] = charts.histogram(label, net[subject])
    return drawn


def _rolling(data: ReportData, results: Results, colours: Colours) -> dict[str, Any]:
    """Sharpe ratio, volatility and beta over a moving year, or half of a shorter history; over
    several where a year has few periods.
    """
    year = data.periods_per_year
    years = int(np.ceil(SHORTEST_WINDOW / year))
    window = int(min(round(years * year), len(data.first.net_returns) // 2))
    drawn: dict[str, Any] = {"window": window}
    if window < SHORTEST_WINDOW:
        return drawn

    def span(result: BacktestResult) -> tuple[int, float]:
        """As many periods of another calendar, and how many of them a year has."""
        own = result.settings["periods_per_year"]
        return max(2, round(window * own / year)), own

    lines = {n: periods.rolling_sharpe(r.excess_returns, *span(r)) for n, r in results.items()}
    if not (lines := _known(lines)):
        return drawn
    label = f"Sharpe ratio of the last {window} periods by date."
    drawn["rolling"] = charts.line_chart(label, lines, colours, height=260)
    known = {name: results[name] for name in lines}
    spreads = {n: periods.rolling_volatility(r.net_returns, *span(r)) for n, r in known.items()}
    label = f"Volatility of the last {window} periods by date."
    drawn["volatility"] = charts.line_chart(label, spreads, colours, percent=True)
    alphas, betas = {}, {}
    for name in lines if data.benchmark else ():
        if name != data.benchmark:
            pair = {"ours": results[name], "theirs": results[str(data.benchmark)]}
            ours, theirs = on_common_dates(pair).values()
            both = ours.excess_returns, theirs.excess_returns
            betas[name] = periods.rolling_beta(*both, span(ours)[0])
            alphas[name] = periods.rolling_alpha(*both, *span(ours))
    if betas := _known(betas):
        label = f"Beta to {data.benchmark} over the last {window} periods by date."
        drawn["beta"] = charts.line_chart(label, betas, colours)
        label = f"Annual alpha against {data.benchmark} over the last {window} periods by date."
        drawn["alpha"] = charts.line_chart(label, _known(alphas), colours, percent=True)
    return drawn


def _known(lines: Lines) -> dict[str, pd.Series]:
    return {name: line for name, line in lines.items() if line.notna().any()}


def _trading(data: ReportData, results: Results, colours: Colours) -> dict[str, Any]:
    """Turnover, costs, and the Sharpe ratio at other costs."""
    drawn: dict[str, Any] = {}
    traded = {name: result for name, result in results.items() if len(result.turnover)}
    if traded:
        trailing = {n: periods.trailing_turnover(r.turnover) for n, r in traded.items()}
        paid = {name: result.costs.cumsum() for name, result in traded.items()}
        means = _listed(paid, lambda name: number(data.metrics.loc[name, "turnover/year"]))
        total = _listed(paid, lambda name: percent(data.metrics.loc[name, "costs paid"]))
        label = f"Turnover over the trailing year. On average: {means}."
        drawn["turnover"] = charts.line_chart(label, trailing, colours)
        label = f"Costs paid since the start, share of the portfolio. In all: {total}."
        drawn["paid"] = charts.line_chart(label, paid, colours, percent=True)
        carried = {name: result.carry.cumsum() for name, result in traded.items()}
        if any((line.abs() > CARRIED).any() for line in carried.values()):
            label = "Interest on cash less financing and borrow fees since the start, by date."
            drawn["carried"] = charts.line_chart(label, carried, colours, percent=True)
    lines = {name: data.sweep[name].dropna() for name in results if name in data.sweep}
    if lines:
        costs = data.first.settings.get("costs")
        drawn["own_cost"] = 1e4 * read_costs(costs).rate if costs else None
        ends = _listed(lines, lambda name: number(lines[name].iloc[-1]))
        label = f"Sharpe ratio after costs, by basis points of the value traded. At 50: {ends}."
        drawn["sweep"] = charts.line_chart(label, lines, colours, mark=drawn["own_cost"])
    return drawn


def _weights(results: Results) -> dict[str, Any]:
    """One stack a strategy; the largest assets over all strategies get the colours."""
    if not results:
        return {"weights": {}, "coloured": [], "small": 0}
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
        drawn[name] = charts.stacked_weights(label, shown)
    coloured = list(zip(large, ASSET_COLOURS, strict=False))
    return {"weights": drawn, "coloured": coloured, "small": len(small)}


def _ic(data: ReportData, colours: Colours) -> Markup | None:
    """Rank correlations of forecasts and returns, a moving mean of a year of decisions."""
    lines = {}
    for name, quality in data.forecasts.items():
        line = quality.by_date.dropna()
        window = min(52, len(line) // 3)
        if window >= SHORTEST_WINDOW:
            lines[name] = line.rolling(window).mean().iloc[window - 1 :]
    if not lines:
        return None
    label = "Rank correlation of forecast and return, mean of the last decisions, by date."
    return charts.line_chart(label, lines, colours, height=230)


def _exposure(data: ReportData) -> dict[str, Any]:
    """The latest holdings of the subject, and its exposure over time: by group where there are
    groups, else long, short, gross and net, where it is not always fully invested."""
    weights = data.first.weights.fillna(0.0) if data.subject in data.held else pd.DataFrame()
    if not len(weights):
        return {}
    last = weights.iloc[-1]
    held = last[last.abs() > 1e-9]
    order = held.abs().sort_values(ascending=False, kind="stable").index
    rest = order[LATEST:]
    drawn: dict[str, Any] = {
        "latest": [(str(asset), held[asset]) for asset in order[:LATEST]],
        "latest_rest": (len(rest), float(held[rest].sum()), float(1 - last.sum())),
    }
    if data.grouping:
        names = pd.Index([data.grouping.get(str(a), "no group") for a in weights.columns])
        lines = {str(g): weights.loc[:, names == g].sum(axis=1) for g in names.unique()}
        order = sorted(lines, key=lambda group: -lines[group].abs().mean())[:SHOWN]
        lines = {group: lines[group] for group in order}
        said = "Sum of the weights of each group after each close."
    else:
        net, gross = weights.sum(axis=1), weights.abs().sum(axis=1)
        if (net - 1).abs().max() < 0.02 and (gross - net).max() < 1e-9:
            return drawn
        lines = {"net": net, "long": weights.clip(lower=0).sum(axis=1)}
        if (gross - net).max() > 1e-9:
            lines |= {"short": weights.clip(upper=0).sum(axis=1), "gross": gross}
        said = "Sums of the weights after each close; what net is below 100% is cash."
    colours = dict(zip(lines, STRATEGY_COLOURS, strict=False))
    label = f"Exposure of {data.subject} by date. {said}"
    drawn["exposure"] = charts.line_chart(label, lines, colours, percent=True)
    return drawn | {"exposure_colours": colours, "exposure_said": said}


def _limits(results: Results) -> dict[str, Any]:
    """Of each optimising strategy, over the last quarter: where limits bind, shadow prices."""
    drawn: dict[str, Any] = {}
    for name, result in results.items():
        if not len(result.limits):
            continue
        rows = learning.limit_shares(result.limits).groupby(["date", "limit"], sort=False)
        by_date = rows[["share", "price"]].mean().unstack()
        varying = by_date["share"].columns[by_date["share"].nunique() > 1]
        means = by_date["share"][varying].mean().sort_values(ascending=False)[:SHOWN]
        if means.empty:
            continue
        years = max(len(result.net_returns) / result.settings["periods_per_year"], 1e-9)
        smooth = by_date.rolling(max(1, round(len(by_date) / years / 4)), min_periods=1).mean()
        colours = dict(zip(means.index, STRATEGY_COLOURS, strict=False))
        share, price = ({k: smooth[kind][k] for k in means.index} for kind in ("share", "price"))
        listed = ", ".join(f"{limit} {percent(mean)}" for limit, mean in means.items())
        label = f"Share of the weights of {name} at a limit by date. On average: {listed}."
        drawn[name] = {"colours": colours}
        drawn[name]["share"] = charts.line_chart(label, share, colours, percent=True)
        label = f"Shadow prices of the limits of {name} by date, in units of the variance."
        drawn[name]["price"] = charts.line_chart(label, price, colours)
    return drawn


def _folds(data: ReportData, colours: Colours) -> Markup | None:
    """Sharpe ratio by fold of the subject and the benchmark."""
    if not len(data.folds):
        return None
    ratios = data.folds.pivot_table(index="fold", columns="strategy", values="Sharpe")
    ratios = ratios.reindex(columns=data.pair)
    if len(ratios) < 2 or ratios[data.subject].isna().all():
        return None
    return _bars("Sharpe ratio by fold", ratios, data, colours, number)


def _bars(
    title: str, table: pd.DataFrame, data: ReportData, colours: Colours, text: Callable[..., str]
) -> Markup:
    """Rows of a table as bars, for the subject and the benchmark; ``text`` writes a value."""
    own = table[data.subject]
    label = f"{title}. {data.subject}: best {text(own.max())}, worst {text(own.min())}."
    return charts.bars(label, table[data.pair], colours, percent=text is percent)


def _learning(results: Results) -> dict[str, Any]:
    """Training curves and solver steps of the strategies that have them."""
    curves: dict[str, Markup] = {}
    steps: dict[str, Any] = {}
    for name, result in results.items():
        if not len(result.training) or not result.training["epoch"].any():  # untrained
            continue
        label = f"Loss by epoch of {name}, training and validation, one line a fold."
        curves[name] = charts.training_curves(label, result.training)
        if len(result.solves):
            training = result.solves[result.solves["phase"] == "training"]  # over all seeds
            how = {"mean_steps": "mean", "most_steps": "max", "residual": "max"}
            rows = training.groupby(["fold", "solve"], sort=False).agg(how).reset_index()
            kinds = {k: c for k, c in SOLVE_COLOURS.items() if (rows["solve"] == k).any()}
            label = f"Mean and most steps, and largest residuals, of the solves of {name} by fold."
            figure = charts.solver_steps(label, rows, kinds)
            steps[name] = {"figure": figure, "kinds": kinds}
    return {"training": curves, "steps": steps}


def _listed(names: Iterable[str], value: Callable[[str], str]) -> str:
    """The values of the first few, for readers who do not see the figure."""
    return ", ".join(f"{name} {value(name)}" for name in list(names)[:SHOWN])


def heat_scale(months: Iterable[pd.DataFrame]) -> float:
    """The monthly return that gets the full colour: the 95% quantile of the sizes."""
    moves = [table.drop(columns="year").to_numpy().ravel() for table in months]
    sizes = np.abs(np.concatenate(moves))
    return float(np.quantile(sizes[np.isfinite(sizes)], 0.95)) or 1.0
