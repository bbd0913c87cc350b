"""All metrics of the report, in the order in which they are shown, and the tables of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.accounting import performance
from engine.runs.result import BacktestResult
from reports.benchmark import on_common_dates
from reports.metrics import gains_and_losses, periods, relative, trading
from reports.return_series import has_holdings
from reports.statistics import difference_tests, selection

COLUMNS = (
    "annual return",
    "volatility",
    "Sharpe",
    "Sharpe s.e.",
    "Sortino",
    "max drawdown",
    "Calmar",
    "turnover/rebalance",
    "turnover/year",
    "cost drag/year",
)


@dataclass(frozen=True)
class Metric:
    """One number of the report."""

    name: str  # of the row, in the page and in the exports
    compute: Callable[..., float]  # its docstring says formula, unit and source
    inputs: str  # what ``compute`` is given, names out of ``inputs_of``
    unit: str  # a key of ``reports.formats.FORMATS``
    high: bool | None = None  # whether high is good; None where neither is

    @property
    def definition(self) -> str:
        """The docstring of ``compute`` on one line, without its arguments."""
        text, _, _ = (inspect.getdoc(self.compute) or "").partition("Args:")
        return " ".join(text.replace("``", "").split())


GROUPS: dict[str, tuple[Metric, ...]] = {
    "Return": (
        Metric("annual return", performance.annual_return, "net pace", "percent", True),
        Metric("cumulative return", performance.cumulative_return, "net", "percent", True),
        Metric("year to date", gains_and_losses.latest, "years", "percent", True),
        Metric("last year", periods.last_year, "net year", "percent", True),
        Metric("last 5 years, annual", periods.last_five_years, "net year", "percent", True),
        Metric("best month", gains_and_losses.best, "months", "percent", True),
        Metric("worst month", gains_and_losses.worst, "months", "percent", True),
        Metric("best year", gains_and_losses.best, "years", "percent", True),
        Metric("worst year", gains_and_losses.worst, "years", "percent", True),
        Metric("months won", gains_and_losses.share_won, "months", "percent", True),
        Metric("years won", gains_and_losses.share_won, "years", "percent", True),
    ),
    "Return for risk": (
        Metric("Sharpe", performance.sharpe, "excess year", "number", True),
        Metric("Sharpe s.e.", difference_tests.sharpe_standard_error, "excess year", "number"),
        Metric("Sharpe above 0", selection.probabilistic_sharpe, "excess", "percent", True),
        Metric("Sharpe before costs", performance.sharpe, "untraded year", "number", True),
        Metric("Sortino", performance.sortino, "excess year", "number", True),
        Metric("Calmar", performance.calmar, "net pace", "number", True),
        Metric("Omega", performance.omega, "excess", "number", True),
        Metric(
            "growth-optimal leverage",
            gains_and_losses.growth_optimal_leverage,
            "excess",
            "times",
            None,
        ),
    ),
    "Risk": (
        Metric("volatility", performance.volatility, "net year", "percent", False),
        Metric(
            "downside deviation", performance.downside_deviation, "excess year", "percent", False
        ),
        Metric("max drawdown", performance.max_drawdown, "net", "percent", True),
        Metric("mean drawdown", gains_and_losses.mean_drawdown, "net", "percent", True),
        Metric("longest drawdown", gains_and_losses.longest_drawdown, "net", "periods", False),
        Metric("time under water", gains_and_losses.time_under_water, "net", "percent", False),
        Metric("Ulcer index", gains_and_losses.ulcer_index, "net", "percent", False),
        Metric("value at risk, 5%", gains_and_losses.value_at_risk, "net", "percent2", True),
        Metric(
            "expected shortfall, 5%", gains_and_losses.expected_shortfall, "net", "percent2", True
        ),
    ),
    "Single periods": (
        Metric("periods won", gains_and_losses.periods_won, "net", "percent", True),
        Metric("payoff ratio", gains_and_losses.payoff_ratio, "net", "number", True),
        Metric("best period", gains_and_losses.best, "net", "percent2", True),
        Metric("worst period", gains_and_losses.worst, "net", "percent2", True),
        Metric("tail ratio", gains_and_losses.tail_ratio, "net", "number", True),
        Metric("skewness", gains_and_losses.skewness, "net", "number", True),
        Metric("excess kurtosis", gains_and_losses.excess_kurtosis, "net", "number", False),
        Metric("autocorrelation", gains_and_losses.autocorrelation, "net", "number"),
        Metric(
            "longest losing streak", gains_and_losses.longest_losing_streak, "net", "periods", False
        ),
    ),
    "Trading and exposure": (
        Metric("turnover/rebalance", trading.turnover_per_rebalance, "turnover", "percent", False),
        Metric("turnover/year", performance.yearly, "turnover periods pace", "times", False),
        Metric("holding period", trading.holding_period, "turnover weights", "periods"),
        Metric("cost drag/year", trading.cost_drag, "before net pace", "percent2", False),
        Metric("carry/year", trading.carry_a_year, "gross before pace", "percent2", True),
        Metric("costs paid", trading.costs_paid, "costs", "percent", False),
        Metric("break-even cost", trading.break_even_cost, "again", "percent2", True),
        Metric("gross exposure", trading.gross_exposure, "weights", "percent"),
        Metric("net exposure", trading.net_exposure, "weights", "percent"),
        Metric("time in the market", trading.time_in_market, "weights", "percent"),
        Metric("effective assets", trading.effective_assets, "weights", "number", True),
        Metric("largest weight", trading.largest_weight, "weights", "percent", False),
    ),
    "Against the benchmark": (
        Metric("active return", relative.active_return, "joint other shared", "percent2", True),
        Metric("tracking error", relative.tracking_error, "joint other often", "percent2"),
        Metric(
            "information ratio",
            performance.information_ratio,
            "joint other often",
            "number",
            True,
        ),
        Metric("alpha", relative.alpha, "fit often", "percent2", True),
        Metric("alpha s.e.", relative.alpha_standard_error, "fit often", "percent2"),
        Metric("beta", relative.beta, "fit", "number"),
        Metric("beta s.e.", relative.beta_standard_error, "fit", "number"),
        Metric("R squared", relative.r_squared, "fit", "percent"),
        Metric("Treynor", relative.treynor, "fit often", "percent2", True),
        Metric("up capture", relative.up_capture, "joint other", "percent", True),
        Metric("down capture", relative.down_capture, "joint other", "percent", False),
        Metric("hit rate", relative.hit_rate, "joint other", "percent", True),
    ),
}
METRICS = {metric.name: metric for group in GROUPS.values() for metric in group}


def summary_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a strategy, net of costs; the columns are ``COLUMNS``.

    The row of a strategy that did not finish is NaN: it has not seen the same dates.

    Raises:
        ValueError: there is no result, or returns hold a NaN (the error names the dates).
    """
    if not results:
        raise ValueError("there is no result to summarise: results are empty")
    complete = {name: result for name, result in results.items() if result.complete}
    return metric_table(complete, None, COLUMNS).reindex(index=list(results), columns=COLUMNS)


def metric_table(
    results: Mapping[str, BacktestResult], benchmark: str | None, names: Iterable[str] = METRICS
) -> pd.DataFrame:
    """One row a strategy, one column a metric; NaN where one is not defined, as those against the
    benchmark are for the benchmark itself."""
    other = results[benchmark] if benchmark else None
    rows: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        given = inputs_of(name, result, None if name == benchmark else other)
        rows[name] = {}
        for column in names:
            metric = METRICS[column]
            asked = [given[each] for each in metric.inputs.split() if each in given]
            known = len(asked) == len(metric.inputs.split())
            value = float(metric.compute(*asked)) if known else np.nan
            rows[name][column] = value if np.isfinite(value) else np.nan
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def inputs_of(
    name: str, result: BacktestResult, other: BacktestResult | None = None
) -> dict[str, Any]:
    """The data that metrics can ask for by name.

    before: returns of prices and carry, before the costs of trading. excess, untraded: net returns,
    and ``before``, less the risk-free ones. again: the targets, to be filled at other costs.
    months, years: compound returns of calendar months and years. joint, other: net returns and
    the benchmark's on common dates, often: how many of these a year has; pace, shared:
    ``rows_per_year`` of all and of common dates; fit: regression of the
    excess returns, where it is defined. Of returns alone nothing is known about costs and holdings.
    """
    net = check_returns(result.net_returns, name)
    months = periods.monthly_returns(net)
    given = {
        "net": net,
        "excess": check_returns(result.excess_returns, name),
        "months": pd.Series(months.drop(columns="year").to_numpy().ravel()).dropna(),
        "years": months["year"],
        "year": result.settings["periods_per_year"],
        "pace": result.rows_per_year,
        "periods": len(net),
    }
    if has_holdings(result):
        given["gross"] = check_returns(result.gross_returns, name)
        given["before"] = result.gross_returns + result.carry
        given["untraded"] = result.in_excess(given["before"])
        if (again := trading.resimulation(result)) is not None:
            given["again"] = again
        given |= {key: getattr(result, key) for key in ("turnover", "costs", "weights")}
    if other is not None:
        ours, theirs = on_common_dates({"ours": result, "theirs": other}).values()
        if len(ours.net_returns) > 1:
            given |= {"joint": ours.net_returns, "other": theirs.net_returns}
            given["often"] = ours.settings["periods_per_year"]
            given["shared"] = ours.rows_per_year
            if fit := relative.on_benchmark(ours.excess_returns, theirs.excess_returns):
                given["fit"] = fit
    return given


def check_returns(returns: pd.Series, name: str) -> pd.Series:
    """``returns`` themselves where there are some and all are finite; an error elsewhere."""
    bad = returns.index[~np.isfinite(returns.to_numpy(dtype=float))]
    if not len(returns) or len(bad):
        where = f"not finite on {', '.join(map(str, bad[:3]))}" if len(bad) else "empty"
        raise ValueError(f"the returns of {name!r} are {where}; every period needs a return")
    return returns


def best_in_columns(table: pd.DataFrame) -> dict[str, set[str]]:
    """{column: who is best in it}; nobody if all are alike, no ruined one."""
    best: dict[str, set[str]] = {}
    table = table[table["annual return"] > -1]
    for column in table.columns:
        high, values = METRICS[column].high, table[column]
        top = values.index[values == (values.max() if high else values.min())]
        best[column] = set(top) if high is not None and len(top) < len(values) else set()
    return best
