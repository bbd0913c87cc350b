"""What the optimising and learned strategies did, summed over folds: training, solves, limits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from engine.accounting.performance import sharpe
from engine.runs.result import BacktestResult
from reports.statistics.difference_tests import sharpe_differences

SEED_COLUMNS = ["configuration", "compared with", "seeds", "difference", "error", "p"]
LIMITS = {
    "limit.lower": "floors (which assets may be held)",
    "limit.upper": "caps (which assets may be held)",
}


def seeds(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a learned configuration that was run with several seeds: its Sharpe ratios."""
    ratios = {who: pd.Series(own) for who, own in ratios_by_seed(results).items() if len(own) > 1}
    rows = [(who, len(x), x.min(), x.median(), x.max()) for who, x in ratios.items()]
    return pd.DataFrame(rows, columns=["configuration", "seeds", "lowest", "median", "highest"])


def ratios_by_seed(results: Mapping[str, BacktestResult]) -> dict[str, dict[int, float]]:
    """{configuration: {seed: Sharpe ratio}} of what was trained."""
    found: dict[str, dict[int, float]] = {}
    for result in results.values():
        if len(result.training):
            who = f"{result.strategy.get('class')} {result.strategy.get('parameters')}"
            ratio = sharpe(result.excess_returns, result.settings["periods_per_year"])
            found.setdefault(who, {})[int(result.settings.get("seed") or 0)] = float(ratio)
    return found


def paired_by_seed(
    results: Mapping[str, BacktestResult], benchmark: str | None = None
) -> pd.DataFrame:
    """One row a configuration of several seeds and what it is compared with, on the same history:
    how surely other seeds would show the same difference on these dates, and on no others.

    Columns: configuration, compared with (the benchmark, where that is not trained, or another
    configuration on the seeds that both have), seeds, difference (mean of the annual Sharpe ratios'
    differences), error (its standard error over the seeds), p (two-sided, Student's t).
    """
    ratios = {who: own for who, own in ratios_by_seed(results).items() if len(own) > 1}
    rows = []

    def add(who: str, other: str, differences: np.ndarray) -> None:
        known = differences[np.isfinite(differences)]
        if len(known) > 1:
            spread = known.std(ddof=1)
            p = float(ttest_1samp(known, 0.0).pvalue) if spread > 0 else np.nan
            error = spread / np.sqrt(len(known))
            rows.append((who, other, len(known), known.mean(), error, p))

    rule = results.get(benchmark) if benchmark else None
    if rule is not None and not len(rule.training):
        year = rule.settings["periods_per_year"]
        level = float(sharpe(rule.excess_returns, year))
        for who, own in ratios.items():
            add(who, str(benchmark), np.array(list(own.values())) - level)
    for (who, one), (other, two) in combinations(ratios.items(), 2):
        shared = sorted(one.keys() & two.keys())
        add(who, other, np.array([one[seed] - two[seed] for seed in shared]))
    return pd.DataFrame(rows, columns=SEED_COLUMNS)


def trained_less_untrained(
    results: Mapping[str, BacktestResult], periods_per_year: float
) -> pd.DataFrame:
    """One row a learned strategy: what its training was worth.

    Columns: strategy, fits, nothing (fits of which the untrained state was kept); untrained (the
    name of the result that ``Untrained`` around it has, None without one), difference, low, high
    (of the Sharpe ratios a year, trained less untrained, 95% interval), p (Ledoit & Wolf 2008).
    """
    rows = []
    for name, result in results.items():
        fits = result.training_summary()
        if fits.empty or not fits["epochs"].any():
            continue
        row = {"strategy": name, "fits": len(fits), "nothing": int((~fits["learned"]).sum())}
        row |= {"untrained": None} | dict.fromkeys(("difference", "low", "high", "p"), float("nan"))
        for other, before in results.items():
            given = before.strategy.get("parameters", {}).items()
            inner = {
                k.removeprefix("strategy__"): v for k, v in given if k.startswith("strategy__")
            }
            is_untrained = str(before.strategy.get("class", "")).endswith(":Untrained")
            if is_untrained and inner == result.strategy["parameters"]:
                both = pd.DataFrame({"a": result.excess_returns, "b": before.excess_returns})
                found = sharpe_differences(both.dropna(), "b", periods_per_year).loc["a"]
                row |= {"untrained": other, "p": found["studentised"]}
                row |= {k: found[k] for k in ("difference", "low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


def solves(solves: pd.DataFrame) -> pd.DataFrame:
    """One row a phase and kind of solve, over all folds."""
    if not len(solves):
        return solves
    steps = solves["mean_steps"] * solves["samples"]
    grouped = solves.assign(mean_steps=steps).groupby(["phase", "solve"], sort=False)
    how = {"samples": "sum", "mean_steps": "sum", "most_steps": "max", "residual": "max"}
    table = grouped.agg(how | {"failures": "sum"})
    table["mean_steps"] /= table["samples"].clip(lower=1)
    return table.reset_index()


def checks(checks: pd.DataFrame) -> pd.DataFrame:
    """One row a time of comparison: the largest differences to the other solver, over all folds."""
    if not len(checks):
        return checks
    if "peer" not in checks:  # of version 0.1.0
        checks = checks.assign(peer="qpth")
    found = checks.groupby(["when", "peer"], sort=False).agg(
        {"samples": "sum", "weights": "max", "gradients": "max"}
    )
    return found[found["samples"] > 0].reset_index()


def limit_shares(limits: pd.DataFrame) -> pd.DataFrame:
    """``BacktestResult.limits`` with share: of the weights that stand at the limit, of sums 1 or 0;
    and price: the shadow price over the variance z'Pz, absolute, 0 where it does not bind.
    """
    price = (limits["price"] / limits["variance"]).abs().where(limits["held"] > 0, 0.0)
    return limits.assign(share=limits["held"] / limits["of"], price=price)


def limits(limits: pd.DataFrame) -> pd.DataFrame:
    """How often each constraint binds, and at what price: one row a constraint.

    Columns: binds (share of the decisions at which it holds any weight or, for sums, at all),
    weights (mean share of the weights that stand at it; NaN for sums), price and highest (mean
    and largest shadow price over the variance z'Pz, absolute, where it binds): the gain of the
    objective for one unit more of the limit, in units of the variance. A price of 0.5 says that
    one percentage point more room is worth half a percent of the variance.
    """
    if not len(limits):
        return limits
    binds = limits["held"] > 0
    table = limit_shares(limits).assign(binds=binds)
    table["price"] = table["price"].where(binds)
    grouped = table.groupby("limit", sort=False)
    found = grouped.agg(
        binds=("binds", "mean"), weights=("share", "mean"), price=("price", "mean"),
        highest=("price", "max"),
    )  # fmt: skip
    return found.assign(weights=found["weights"].where(grouped["of"].max() > 1)).reset_index()


def sensitivity(sensitivity: pd.DataFrame) -> pd.DataFrame:
    """One row a feature, the most important first: feature, change (mean share of the portfolio
    that is elsewhere when it is shuffled over the test dates, see ``walking.sensitivity``), lowest
    and highest fold or seed.
    """
    if not len(sensitivity):
        return sensitivity
    named = sensitivity["feature"].replace(LIMITS)
    found = sensitivity.groupby(named, sort=False)["change"].agg(["mean", "min", "max"])
    found.columns = pd.Index(["change", "lowest", "highest"])
    return found.sort_values("change", ascending=False, kind="stable").reset_index()
