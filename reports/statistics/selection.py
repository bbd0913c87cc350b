"""How much of the best result is due to having tried several strategies, and what was tried on the
same data before, from the trial ledger.

``returns`` are (T, S) excess returns of equal periods, one column a strategy, without NaN.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from engine.accounting.performance import constant, sharpe
from engine.runs.ledger import TrialLedger, in_excess, trial_id
from engine.runs.result import BacktestResult
from engine.runs.storage import StorageError
from reports.return_series import has_holdings
from reports.statistics.difference_tests import FEWEST, SEED, block_length, sharpe_standard_error

EULER = 0.5772156649015329  # the Euler-Mascheroni constant
BLOCKS = 16
LATEST = 50  # trials shown
PARTS = ("plan", "costs", "training")


def probabilistic_sharpe(returns: pd.Series, threshold: float = 0.0) -> float:
    """Probability that the true Sharpe ratio per period lies above ``threshold``:

    Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR**2))

    Args:
        returns: of equal periods; active returns give the probability of a true edge.
        threshold: SR*, a Sharpe ratio per period, not annual.

    Source: Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier, equation 11.
    """
    error = sharpe_standard_error(returns, 1)
    return float(norm.cdf((sharpe(returns, 1) - threshold) / error)) if error > 0 else np.nan


def expected_highest(trials: int, spread: float) -> float:
    """Expected highest Sharpe ratio of ``trials`` without skill, ``spread`` their deviation:

    spread ((1 - c) Phi^-1(1 - 1 / N) + c Phi^-1(1 - 1 / (N e))), c = 0.5772; 0 for one trial.

    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, equation 1.
    """
    if trials < 2:
        return 0.0
    first, second = norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return float(spread * ((1 - EULER) * first + EULER * second))


def deflated_sharpe(returns: pd.Series, trials: int, ratios: np.ndarray | None = None) -> float:
    """``probabilistic_sharpe`` at the ratio that the best of ``trials`` reaches without skill.

    The spread of the ratios without skill is the larger of 1 / sqrt(T - 1), that of
    independent trials without skill, and the deviation of the ratios found: with a handful of
    trials the latter alone, which the paper takes, is mostly noise and can be near 0.

    Args:
        returns: of equal periods. Give active returns: against 0 a long-only portfolio passes
            for the market's gain.
        trials: number of all configurations ever tried, not of those kept.
        ratios: Sharpe ratios a period of the trials there are results of.

    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, equation 2.
    """
    if len(returns) < 3:
        return np.nan
    known = np.asarray([] if ratios is None else ratios, dtype=float)
    known = known[np.isfinite(known)]
    found = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    spread = max(1 / np.sqrt(len(returns) - 1), found)
    return probabilistic_sharpe(returns, expected_highest(trials, spread))


class Overfitting(NamedTuple):
    """What ``overfitting`` found; NaN and 0 where it cannot be computed."""

    probability: float
    splits: int
    configurations: int


def overfitting(returns: pd.DataFrame, blocks: int = BLOCKS) -> Overfitting:
    """Probability of backtest overfitting: combinatorially symmetric cross-validation.

    The history is cut into equal blocks. Each choice of half of them is one split: the
    configuration with the highest Sharpe ratio in that half is ranked among all in the other
    half; the probability is the share of splits in which it is in the lower half there (ranks
    r of N with r / (N + 1) <= 1/2; a tie shares its ranks). For configurations without skill
    it is about one half, for a true winner near 0.

    Args:
        returns: (T, N) of all configurations tried; rows that do not fill a block are left out
            at the start.
        blocks: even; 16 give 12,870 splits.

    Source: Bailey, Borwein, Lopez de Prado and Zhu (2017), The Probability of Backtest
    Overfitting, section 3.
    """
    varying = returns.loc[:, [not constant(returns[name]) for name in returns.columns]]
    rows, configurations = varying.shape
    length = rows // blocks
    if length < 2 or configurations < 2:
        return Overfitting(np.nan, 0, configurations)
    values = varying.to_numpy(dtype=float)[rows - length * blocks :]
    parts = (values / values.std(axis=0)).reshape(blocks, length, configurations)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)  # (blocks, N)
    chosen = np.zeros((comb(blocks, blocks // 2), blocks))
    for number, picked in enumerate(combinations(range(blocks), blocks // 2)):
        chosen[number, picked] = 1.0

    def ratios(part: np.ndarray) -> np.ndarray:  # (splits, N)
        periods = length * blocks / 2
        mean = part @ sums / periods
        spread = part @ squares / periods - mean**2
        return mean / np.sqrt(np.maximum(spread, 1e-300))

    winner = ratios(chosen).argmax(axis=1)
    ranks = rankdata(ratios(1 - chosen), axis=1)  # 1 is the lowest
    rank = ranks[np.arange(len(winner)), winner] / (configurations + 1)
    return Overfitting(float((rank <= 0.5).mean()), len(winner), configurations)


def superior_ability(returns: pd.DataFrame, benchmark: str, resamples: int = 1000) -> float:
    """p-value of "no strategy is better than the benchmark", over all strategies at once.

    Returns are scaled to the same volatility, so that the question is about Sharpe ratios;
    the consistent p-value, by the stationary bootstrap. NaN with fewer than
    30 rows or nothing to compare.

    Source: Hansen (2005), A Test for Superior Predictive Ability; as in ``arch.bootstrap``.
    """
    from arch.bootstrap import SPA

    known = [name for name in returns.columns if not constant(returns[name])]
    if len(returns) < FEWEST or benchmark not in known:
        return np.nan
    scaled = returns[known] / returns[known].std(ddof=1)
    gaps = scaled.drop(columns=benchmark).sub(scaled[benchmark], axis=0).to_numpy(dtype=float)
    gaps = gaps[:, gaps.std(axis=0) > 1e-10]
    if not gaps.shape[1]:
        return np.nan
    block = block_length(gaps)
    test = SPA(np.zeros(len(gaps)), -gaps, block_size=block, reps=resamples, seed=SEED)
    test.compute()
    return float(test.pvalues["consistent"])


def tried_before(result: BacktestResult) -> pd.DataFrame | None:
    """The trials on the assets and dates of a result, as the user's ledger has them.

    None, with a warning, where it does not answer, and for returns without assets.
    """
    if not has_holdings(result):
        return None
    try:
        return TrialLedger().on_the_same(result)
    except StorageError as error:
        warnings.warn(f"trials of other runs are not counted: {error}", RuntimeWarning, 2)
        return None


def trial_history(
    results: Mapping[str, BacktestResult], tried: pd.DataFrame | None
) -> pd.DataFrame:
    """One row a trial, the latest first; empty without a ledger.

    Columns: last run (a date, UTC), kind, name, parameters (those in which trials of one class
    differ, and the parts of the settings in which all trials do, in words), runs, start, end,
    sharpe and active sharpe (annual), this run (whether it is one of the results), in excess
    (whether sharpe is in excess of the risk-free rate, see ``ledger.in_excess``).
    """
    if tried is None or tried.empty:
        return pd.DataFrame()
    found = tried.sort_values(["last_run", "id"], ascending=False)
    table = found[["kind", "name", "runs", "start", "end", "sharpe", "active_sharpe"]].copy()
    table = table.rename(columns={"active_sharpe": "active sharpe"})
    table.insert(0, "last run", found["last_run"].dt.strftime("%Y-%m-%d"))
    table.insert(3, "parameters", _parameters(found))
    table["this run"] = found["id"].isin(ledger_ids(results))
    table["in excess"] = in_excess(found)
    return table.head(LATEST).reset_index(drop=True)


def ledger_ids(results: Mapping[str, BacktestResult]) -> set[str]:
    """The ledger's ids of the results themselves."""
    return {trial_id(result) for result in results.values() if has_holdings(result)}


def trial_ratios(
    active: Mapping[str, float], results: Mapping[str, BacktestResult], tried: pd.DataFrame | None
) -> np.ndarray:
    """Sharpe ratios per period of active returns: of this run, and of every other trial."""
    mine = np.array(list(active.values()))
    if tried is None or tried.empty:
        return mine
    others = tried[~tried["id"].isin(ledger_ids(results))]
    before = others["active_sharpe"] / np.sqrt(others["periods_per_year"].astype(float))
    return np.concatenate([mine, before.dropna().to_numpy(float)])


def _parameters(found: pd.DataFrame) -> list[str]:
    """What sets each trial apart, in words: "cap = 0.3, costs 2" (the second kind of costs)."""
    strategies = [json.loads(text) for text in found["strategy"]]
    values: dict[tuple[str, str], set[str]] = {}
    for each in strategies:
        for name, value in (each.get("parameters") or {}).items():
            values.setdefault((each["class"], name), set()).add(str(value))
    numbers = {part: pd.factorize(found[part])[0] + 1 for part in PARTS}
    words = []
    for row, each in enumerate(strategies):
        own = (each.get("parameters") or {}).items()
        said = [f"{name} = {value}" for name, value in own if len(values[each["class"], name]) > 1]
        said += [f"{part} {kinds[row]}" for part, kinds in numbers.items() if kinds.max() > 1]
        words.append(", ".join(said))
    return words
