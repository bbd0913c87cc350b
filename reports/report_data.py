"""All numbers of a report, as tables that are not rounded: page, JSON and CSV are made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.accounting import performance
from engine.accounting.performance import sharpe
from engine.runs.result import BacktestResult
from reports import learning
from reports.benchmark import EQUAL_WEIGHT, Given, class_of, finished, on_common_dates
from reports.compare import RunDifferences, differences, flat
from reports.formats import day
from reports.metrics import (
    catalogue,
    gains_and_losses,
    periods,
    relative,
    trading,
)
from reports.metrics.forecasts import ForecastQuality, forecast_quality
from reports.return_series import has_holdings
from reports.statistics import difference_tests, selection

WORST = 10  # drawdowns listed


@dataclass(frozen=True)
class ReportData:
    """What is known about a run; a table without rows is something that cannot be shown."""

    results: dict[str, BacktestResult]  # by name, as given, of those that finished or were ruined
    failed: dict[str, BacktestResult]  # the others
    finished: tuple[int, int]  # how many strategies did, of how many
    subject: str  # the strategy that the report is about
    benchmark: str | None  # the strategy, or series, it is compared with
    notes: tuple[str, ...]  # how the benchmark was found, and matched
    metrics: pd.DataFrame  # one row a strategy, ``catalogue.METRICS``
    luck: pd.DataFrame  # one row a strategy, see ``luck_table``
    trials: int  # how many configurations were tried
    overfitting: selection.Overfitting  # of all configurations
    superior: float  # see ``selection.superior_ability``
    history: pd.DataFrame  # see ``selection.trial_history``
    drawdowns: pd.DataFrame  # the worst of the subject
    trailing: pd.DataFrame  # returns to date and of the last years, by strategy
    stress: pd.DataFrame  # returns in known crises, see ``periods.stress_returns``
    years: pd.DataFrame  # returns by calendar year and strategy
    months: dict[str, pd.DataFrame]  # {strategy that had any: returns by year and month}
    folds: pd.DataFrame  # results by fold and strategy
    seeds: pd.DataFrame  # Sharpe ratios of configurations that were run with several seeds
    seed_tests: pd.DataFrame  # differences paired by seed, see ``learning.paired_by_seed``
    sweep: pd.DataFrame  # net Sharpe ratio by cost (basis points) and strategy
    assets: pd.DataFrame  # of the subject, see ``trading.asset_table``
    groups: pd.DataFrame  # sums of these by group
    trips: pd.DataFrame  # of the subject, see ``trading.trip_summary``
    profits: pd.DataFrame  # of the subject by asset, see ``BacktestResult.profit_by_asset``
    group_profits: pd.DataFrame  # the same by group
    limits: pd.DataFrame  # these and the next: one row an item, see ``learning``
    sensitivity: pd.DataFrame
    trained: pd.DataFrame  # see ``learning.trained_less_untrained``
    epochs: pd.DataFrame
    solves: pd.DataFrame
    checks: pd.DataFrame
    capacity: pd.DataFrame  # what market impact would take, by strategy
    whole: pd.DataFrame  # results with whole shares and with fractions, by strategy
    factors: pd.DataFrame  # regression of each strategy on the factors
    differing: pd.DataFrame  # settings in which the results differ, by strategy
    runs: RunDifferences | None  # what the runs differ in, where there are several
    forecasts: dict[str, ForecastQuality]  # {strategy that optimises: how good q and P were}
    grouping: dict[str, str]  # {asset: group}, as given
    decisions: dict[str, pd.DataFrame]  # {strategy: its ``positions_by_decision``}

    @property
    def first(self) -> BacktestResult:
        """The subject's result."""
        return self.results[self.subject]

    @property
    def periods_per_year(self) -> float:
        """Of the subject."""
        return self.first.settings["periods_per_year"]

    @property
    def held(self) -> dict[str, BacktestResult]:
        """The results of which more is known than their returns."""
        return {name: result for name, result in self.results.items() if has_holdings(result)}

    @property
    def pair(self) -> list[str]:
        """The subject, and the benchmark if there is one."""
        return [self.subject, *([self.benchmark] if self.benchmark else [])]

    @property
    def ranked(self) -> list[str]:
        """All strategies in the order of the figures."""
        return _pair_first(self.results, self.subject, self.benchmark)


def gather(
    results: Mapping[str, BacktestResult],
    factors: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    tried: pd.DataFrame | bool = False,
    benchmark: Given = None,
    subject: str | None = None,
) -> ReportData:
    """The data of a report; for the arguments see ``reports.write_report``."""
    done = sum(result.failure is None for result in results.values()), len(results)
    (results, subject, benchmark, notes), failed = finished(results, subject, benchmark)
    first, rows = results[subject], [*results, *failed]
    tried = selection.tried_before(first) if tried is True else tried
    tried = None if isinstance(tried, bool) else tried
    table = catalogue.metric_table(results, benchmark)
    paired = on_common_dates({subject: first, **results})
    often = paired[subject].settings["periods_per_year"]
    excess = pd.DataFrame({name: paired[name].excess_returns for name in results})
    if benchmark and len(excess) and excess.index[0] != first.net_returns.index[0]:
        notes += (f"The comparison begins on {day(excess.index[0])}.",)
    notes += tuple(filter(None, map(_free_loan, results.values())))
    active = _active(paired, excess, benchmark)
    count = trials_of({**failed, **results}, benchmark, tried)
    # Those of the ledger are against 1/N, and tell the spread of such ratios only.
    known = tried if benchmark and class_of(results[benchmark]) == EQUAL_WEIGHT else None
    found = {name: sharpe(line, 1) for name, line in active.items()}
    ratios = selection.trial_ratios(found, results, known)
    assets = trading.asset_table(first, first.settings["periods_per_year"])
    net = {name: result.net_returns for name, result in results.items()}
    begun = {n: r.net_returns for n, r in {**results, **failed}.items() if len(r.net_returns)}
    months = {name: periods.monthly_returns(line) for name, line in begun.items()}
    group_of = [(groups or {}).get(asset, "no group") for asset in assets.index]
    by_group = assets[["mean", "return", "risk"]].groupby(pd.Index(group_of, name="group"))
    settings = {name: dict(flat(r.settings)) for name, r in results.items() if has_holdings(r)}
    own = pd.DataFrame(settings, None if settings else [], results, dtype=object).fillna("")
    regressions = {}
    for name, result in results.items() if factors is not None else ():
        years = result.settings["periods_per_year"]
        fit = relative.factor_regression(result.excess_returns, factors, years)
        regressions[name] = fit.reset_index()
    return ReportData(
        results=results,
        subject=subject,
        benchmark=benchmark,
        notes=notes,
        failed=failed,
        finished=done,
        metrics=table.reindex(rows),
        luck=luck_table(excess, active, benchmark, often, count, ratios).reindex(rows),
        trials=count,
        overfitting=selection.overfitting(active),
        superior=selection.superior_ability(excess, benchmark) if benchmark else np.nan,
        history=selection.trial_history(results, tried),
        trailing=periods.trailing_returns(net),
        stress=periods.stress_returns({n: net[n] for n in _pair_first(net, subject, benchmark)}),
        drawdowns=gains_and_losses.drawdown_periods(first.net_returns).head(WORST),
        years=pd.DataFrame({name: each["year"] for name, each in months.items()}, columns=rows),
        months=months,
        folds=_folds(results, failed),
        seeds=learning.seeds(results),
        seed_tests=learning.paired_by_seed(results, benchmark),
        sweep=trading.sharpe_by_cost(results),
        assets=assets,
        groups=by_group.sum(min_count=1) if groups else pd.DataFrame(),
        trips=trading.trip_summary(first),
        profits=first.profit_by_asset(),
        group_profits=first.profit_by_asset(groups) if groups else pd.DataFrame(),
        limits=_stacked({n: learning.limits(r.limits) for n, r in results.items()}),
        sensitivity=_stacked({n: learning.sensitivity(r.sensitivity) for n, r in results.items()}),
        capacity=trading.capacity_table(results),
        whole=trading.whole_shares(results),
        factors=_stacked(regressions),
        trained=learning.trained_less_untrained(results, often),
        epochs=_stacked({n: r.training_summary() for n, r in results.items()}),
        solves=_stacked({n: learning.solves(r.solves) for n, r in results.items()}),
        checks=_stacked({n: learning.checks(r.checks) for n, r in results.items()}),
        differing=own[own.nunique(axis=1) > 1],
        runs=differences(**first.settings["runs"]) if "runs" in first.settings else None,
        forecasts={n: q for n in results if (q := forecast_quality(results[n])) is not None},
        grouping=dict(groups or {}),
        decisions={n: t for n, r in results.items() if len(t := r.positions_by_decision)},
    )


def _free_loan(result: BacktestResult) -> str:
    """A sentence, where a strategy owed more than 1% of its value and paid no interest on it."""
    owed = result.weights.sum(axis=1) - 1
    costs = result.settings.get("costs") or {}
    if not (owed > 0.01).any() or costs.get("financing", True):
        return ""
    return (
        f"{result.name} borrowed up to {owed.max():.0%} of its value, without interest: the costs "
        "name none (financing=0.05 is 5% a year)."
    )


def _pair_first(names: Iterable[str], subject: str, benchmark: str | None) -> list[str]:
    """The names in the order of the figures: the subject, the benchmark, the others."""
    return list(dict.fromkeys([subject, *([benchmark] if benchmark else []), *names]))


def _active(
    results: Mapping[str, BacktestResult], excess: pd.DataFrame, benchmark: str | None
) -> pd.DataFrame:
    """Net returns less the benchmark's, without its column; without one the excess returns."""
    if benchmark is None:
        return excess
    other = results[benchmark].net_returns
    rivals = [name for name in excess.columns if name != benchmark]
    lines = {n: performance.excess(results[n].net_returns, other) for n in rivals}
    return pd.DataFrame({name: line[excess.index] for name, line in lines.items()}, excess.index)


def trials_of(
    results: Mapping[str, BacktestResult],
    benchmark: str | None,
    tried: pd.DataFrame | None = None,
) -> int:
    """How many configurations were tried, without 1/N: the most of those in the ledger, the
    strategies of the run other than the benchmark, and "trials" in the settings."""
    noted = 0
    if tried is not None and len(tried):
        noted = int((~tried["strategy"].str.contains(f':{EQUAL_WEIGHT}"', regex=False)).sum())
    stated = [result.settings.get("trials") for result in results.values()]
    known = [int(number) for number in stated if isinstance(number, int | float) and number > 0]
    judged = [n for n, r in results.items() if n != benchmark and class_of(r) != EQUAL_WEIGHT]
    return max([len(judged), 1, noted, *known])


def luck_table(
    excess: pd.DataFrame,
    active: pd.DataFrame,
    benchmark: str | None,
    periods_per_year: float,
    count: int,
    ratios: np.ndarray,
) -> pd.DataFrame:
    """One row a strategy; NaN where the benchmark would be compared with itself.

    Columns: low, high (95% interval of the Sharpe ratio); difference, error, difference low,
    difference high, p, studentised, block (see ``sharpe_differences``); active (probability that
    the true Sharpe ratio of the active return is above 0); deflated (the same, above the ratio
    that the best of ``count`` trials without skill reaches, by the spread of their ``ratios``).
    """
    table = difference_tests.sharpe_intervals(excess, periods_per_year)
    columns = ["difference", "error", "difference low", "difference high", "p", "studentised"]
    table[[*columns, "block", "active", "deflated"]] = np.nan
    if benchmark:
        found = difference_tests.sharpe_differences(excess, benchmark, periods_per_year)
        table.update(found.rename(columns={"low": "difference low", "high": "difference high"}))
    for name in active.columns:
        table.loc[name, "active"] = selection.probabilistic_sharpe(active[name])
        table.loc[name, "deflated"] = selection.deflated_sharpe(active[name], count, ratios)
    return table


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all strategies below each other, with a first column "strategy"."""
    parts = {name: part for name, part in tables.items() if len(part)}
    if not parts:
        return pd.DataFrame()
    return pd.concat(parts, names=["strategy"]).reset_index("strategy").reset_index(drop=True)


def _folds(
    results: Mapping[str, BacktestResult], failed: Mapping[str, BacktestResult]
) -> pd.DataFrame:
    """One row a strategy and refit of the first result that has any: its dates and results; of
    those that failed, of the folds that they finished.
    """
    refits = next((result.folds for result in results.values() if len(result.folds)), None)
    if refits is None:
        return pd.DataFrame()
    starts = pd.to_datetime(refits["test_start"])
    tables = []
    for name, result in {**results, **failed}.items():
        year = result.settings["periods_per_year"]
        scores = periods.fold_returns(result.net_returns, result.excess_returns, starts, year)
        table = refits.reset_index(drop=True).rename_axis("fold").reset_index()
        table["strategy"] = name
        table[["return", "Sharpe"]] = np.array(scores, dtype=float)
        if name in failed:
            reached = starts.shift(-1).to_numpy() <= result.net_returns.index.max()
            table.loc[~reached, ["return", "Sharpe"]] = np.nan
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
