"""Everything the report says, as tables of unrounded numbers: page, JSON and CSV come from here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.accounting import performance
from engine.runs.result import BacktestResult
from reports import (
    calendars,
    catalogue,
    drawdowns,
    history,
    learning,
    relative,
    selection,
    statistics,
    trading,
)

BENCHMARK = "EqualWeight"
SWEEP = np.arange(0, 51, 2.5) * 1e-4  # costs of trading, fractions of the value traded
WORST = 10  # drawdowns listed
VALUES = (1e6, 1e7, 1e8, 1e9)  # of a portfolio, at which the drag of market impact is shown


@dataclass(frozen=True)
class Facts:
    """What is known about a run; a table without rows is something that cannot be shown.

    Attributes:
        results: by name, as given.
        subject: whom the report is about; benchmark: whom it is compared with, or None.
        metrics: one row a strategy, ``catalogue.METRICS``.
        luck: one row a strategy, see ``luck_table``.
        trials: how many configurations were tried; overfitting, superior: of all of them.
        history: these, see ``history.history``; empty without a ledger.
        drawdowns: the worst of the subject. years: by year and strategy.
        months: {strategy: table}. folds, seeds, epochs, solves, checks: one row an item.
        sweep: net Sharpe ratio by cost (basis points) and strategy.
        assets: of the subject, see ``trading.asset_table``; groups: their sums.
        limits: how often each constraint binds and its shadow price, see ``trading.limit_table``.
        sensitivity: what each network looks at, see ``trading.sensitivity_table``.
        capacity: what market impact would take, by strategy; see ``_capacity``.
        whole: annual return and Sharpe ratio with whole shares and with fractions, by strategy.
        factors: regression of each strategy, stacked.
        differing: settings in which the results differ, by strategy.
    """

    results: dict[str, BacktestResult]
    subject: str
    benchmark: str | None
    metrics: pd.DataFrame
    luck: pd.DataFrame
    trials: int
    overfitting: selection.Overfitting
    history: pd.DataFrame
    superior: float
    drawdowns: pd.DataFrame
    years: pd.DataFrame
    months: dict[str, pd.DataFrame]
    folds: pd.DataFrame
    seeds: pd.DataFrame
    sweep: pd.DataFrame
    assets: pd.DataFrame
    groups: pd.DataFrame
    limits: pd.DataFrame
    sensitivity: pd.DataFrame
    capacity: pd.DataFrame
    whole: pd.DataFrame
    factors: pd.DataFrame
    epochs: pd.DataFrame
    solves: pd.DataFrame
    checks: pd.DataFrame
    differing: pd.DataFrame

    @property
    def first(self) -> BacktestResult:
        """The subject's result."""
        return self.results[self.subject]

    @property
    def periods_per_year(self) -> float:
        """Of the subject."""
        return self.first.settings["periods_per_year"]


def gather(
    results: Mapping[str, BacktestResult],
    factors: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    tried: pd.DataFrame | None = None,
) -> Facts:
    """All facts of a run; for the arguments see ``reports.write_report``."""
    subject, benchmark = chosen(results)
    results = dict(results)
    table = catalogue.metric_table(results, benchmark)
    year = results[subject].settings["periods_per_year"]
    returns = pd.concat({n: r.net_returns for n, r in results.items()}, axis=1, join="inner")
    trials = trials_of(results, benchmark, tried)
    rivals = returns.drop(columns=[benchmark] if benchmark else [])
    active = rivals.sub(returns[benchmark], axis=0) if benchmark else rivals
    assets = trading.asset_table(results[subject], year)
    found = {name: performance.sharpe(active[name], 1) for name in active.columns}
    ratios = history.ratios(found, results, tried)
    return Facts(
        results=results,
        subject=subject,
        benchmark=benchmark,
        metrics=table,
        luck=luck_table(returns, active, benchmark, year, trials, ratios),
        trials=trials,
        overfitting=selection.overfitting(active),
        history=history.history(results, tried),
        superior=selection.superior_ability(returns, benchmark) if benchmark else np.nan,
        drawdowns=drawdowns.drawdown_periods(results[subject].net_returns).head(WORST),
        years=pd.DataFrame(
            {name: calendars.yearly_returns(r.net_returns) for name, r in results.items()}
        ),
        months={name: calendars.monthly_returns(r.net_returns) for name, r in results.items()},
        folds=_folds(results),
        seeds=learning.seeds(results),
        sweep=_sweep(results),
        assets=assets,
        groups=_grouped(assets, groups),
        limits=_stacked(
            results, lambda r: trading.limit_table(r.limits) if len(r.limits) else r.limits
        ),
        sensitivity=_stacked(
            results,
            lambda r: (
                trading.sensitivity_table(r.sensitivity) if len(r.sensitivity) else r.sensitivity
            ),
        ),
        capacity=_capacity(results),
        whole=_whole(results),
        factors=_factors(results, factors),
        epochs=_stacked(results, lambda result: result.training_summary()),
        solves=_stacked(results, lambda result: learning.solves(result.solves)),
        checks=_stacked(results, lambda result: learning.checks(result.checks)),
        differing=_differing(results),
    )


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


def trials_of(
    results: Mapping[str, BacktestResult],
    benchmark: str | None,
    tried: pd.DataFrame | None = None,
) -> int:
    """How many configurations were tried: those of the ledger but 1/N, or, if that is more,
    "trials" in the settings, where told. At least those in the run but the benchmark.
    """
    noted = 0
    if tried is not None and len(tried):
        noted = int((~tried["strategy"].str.contains(f':{BENCHMARK}"', regex=False)).sum())
    told = [result.settings.get("trials") for result in results.values()]
    known = [int(number) for number in told if isinstance(number, int | float) and number > 0]
    return max([len(results) - (benchmark is not None), 1, noted, *known])


def luck_table(
    returns: pd.DataFrame,
    active: pd.DataFrame,
    benchmark: str | None,
    periods_per_year: float,
    trials: int,
    ratios: np.ndarray,
) -> pd.DataFrame:
    """One row a strategy, the benchmark with NaN where it would be compared with itself.

    Columns: low, high (95% interval of the Sharpe ratio); difference, error, difference low,
    difference high, p, studentised, block (``statistics.sharpe_differences``); active,
    deflated (probability that the Sharpe ratio of the active return is above 0, and above
    that of the best of ``trials`` without skill, whose spread is that of ``ratios``, of trials
    made). Without a benchmark the active return is the return.
    """
    table = statistics.sharpe_intervals(returns, periods_per_year)
    columns = ["difference", "error", "difference low", "difference high", "p", "studentised"]
    columns += ["block", "active", "deflated"]
    table[columns] = np.nan
    if benchmark:
        found = statistics.sharpe_differences(returns, benchmark, periods_per_year)
        found = found.rename(columns={"low": "difference low", "high": "difference high"})
        for column in found.columns:
            table.loc[found.index, column] = found[column]
    for name in active.columns:
        table.loc[name, "active"] = selection.probabilistic_sharpe(active[name])
        table.loc[name, "deflated"] = selection.deflated_sharpe(active[name], trials, ratios)
    return table


def _sweep(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Also at 10 and 25 bp and at each result's own rate, so that its Sharpe ratio is in it."""
    own = (rate_of(result) for result in results.values())
    rates = set(SWEEP) | {rate for rate in own if rate is not None}
    lines = {
        name: trading.cost_sweep(
            result.gross_returns,
            result.turnover,
            sorted(rates),
            result.settings["periods_per_year"],
        )
        for name, result in results.items()
        if len(result.turnover)
    }
    return pd.DataFrame(lines).rename_axis("basis points").dropna(axis=1, how="all")


def rate_of(result: BacktestResult) -> float | None:
    """Cost of trading of the run, a fraction of the value traded; None where it varies."""
    traded = result.turnover > 1e-12
    rates = (result.costs / result.turnover)[traded]
    alike = len(rates) and rates.max() - rates.min() < 1e-9
    return round(float(rates.mean()), 9) if alike else None


def _grouped(assets: pd.DataFrame, groups: Mapping[str, str] | None) -> pd.DataFrame:
    if not groups:
        return pd.DataFrame()
    names = pd.Index([groups.get(asset, "no group") for asset in assets.index], name="group")
    return assets[["mean", "return", "risk"]].groupby(names).sum(min_count=1)


def _capacity(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Value at which impact takes 1% a year, and what it takes a year at each of ``VALUES``.

    One row a strategy that traded assets with volumes.
    """
    rows = {}
    for name, result in results.items():
        shares = trading.traded_shares(result) if result.illiquidity.size else pd.DataFrame()
        if not len(shares):
            continue
        drag = trading.impact_drag(
            shares,
            result.illiquidity,
            len(result.net_returns),
            result.settings["periods_per_year"],
        )
        rows[name] = {"capacity": trading.capacity(drag)}
        rows[name] |= {f"drag at {value:.0e}": drag * value**0.5 for value in VALUES}
    return pd.DataFrame.from_dict(rows, orient="index")


def _whole(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a strategy that traded whole shares: what that changes."""
    rows = {}
    for name, result in results.items():
        whole, parts = result.net_returns, result.fractional_returns
        if len(parts) and not parts.equals(whole) and (parts - whole).abs().max() > 0:
            year = result.settings["periods_per_year"]
            rows[name] = {
                "return, whole": performance.annual_return(whole, year),
                "return, fractions": performance.annual_return(parts, year),
                "Sharpe, whole": performance.sharpe(whole, year),
                "Sharpe, fractions": performance.sharpe(parts, year),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def _factors(results: Mapping[str, BacktestResult], factors: pd.DataFrame | None) -> pd.DataFrame:
    if factors is None:
        return pd.DataFrame()
    return _stacked(
        results,
        lambda result: relative.factor_regression(
            result.net_returns, factors, result.settings["periods_per_year"]
        ).reset_index(),
    )


def _stacked(results: Mapping[str, BacktestResult], rows: Any) -> pd.DataFrame:
    """One below the other, with a column "strategy" in front; empty where all are."""
    parts = {name: rows(result) for name, result in results.items()}
    parts = {name: part for name, part in parts.items() if len(part)}
    if not parts:
        return pd.DataFrame()
    whole = pd.concat([part.assign(strategy=name) for name, part in parts.items()])
    return whole[["strategy", *[c for c in whole.columns if c != "strategy"]]].reset_index(
        drop=True
    )


def _folds(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a refit of the first result that has any, and a strategy: its dates and results."""
    refits = next((result.folds for result in results.values() if len(result.folds)), None)
    if refits is None:
        return pd.DataFrame()
    rows = []
    for name, result in results.items():
        scores = calendars.fold_returns(
            result.net_returns,
            pd.to_datetime(refits["test_start"]),
            result.settings["periods_per_year"],
        )
        for number, (fold, (value, ratio)) in enumerate(
            zip(refits.to_dict("records"), scores, strict=True)
        ):
            rows.append(
                {"fold": number, **fold, "strategy": name, "return": value, "Sharpe": ratio}
            )
    return pd.DataFrame(rows)


def flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows of (path, value), without what has a place of its own."""
    for key, value in settings.items():
        if key in ("caveats", "quality", "simulation_difference"):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            more = f" and {len(value) - 12} more" if len(value) > 12 else ""
            yield f"{path}{key}", ", ".join(map(str, value[:12])) + more
        else:
            yield f"{path}{key}", str(value)


def _differing(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Rows: the settings in which the results differ; columns: strategies."""
    table = pd.DataFrame({name: dict(flat(r.settings)) for name, r in results.items()}).fillna("")
    return table[table.nunique(axis=1) > 1]
