"""Is a difference larger than what the seeds alone make? Paired by seed, on the same history.

It says how surely other seeds would show the same difference on these dates, and nothing about
other dates: for that see ``sharpe_tests``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from engine.accounting.performance import sharpe
from engine.runs.result import BacktestResult

COLUMNS = ["configuration", "compared with", "seeds", "difference", "error", "p"]


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
    """One row a configuration of several seeds and what it is compared with.

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
    return pd.DataFrame(rows, columns=COLUMNS)
