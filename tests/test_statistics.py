"""Luck: closed forms, known distributions, and noise that must read as noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports import statistics


def pair(rows: int, gap: float, seed: int = 0, exact: bool = True) -> pd.DataFrame:
    """Two correlated normal strategies; ours has a Sharpe ratio a period that is ``gap`` higher.

    ``exact``: in the sample itself, not only in the distribution it is drawn from.
    """
    random = np.random.default_rng(seed)
    values = np.sqrt(0.8) * random.normal(size=(rows, 1)) + np.sqrt(0.2) * random.normal(
        size=(rows, 2)
    )
    if exact:
        values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    values = 0.01 * (values + np.array([0.05 + gap, 0.05]))
    return pd.DataFrame(values, pd.bdate_range("2000-01-03", periods=rows), ["ours", "theirs"])


def test_interval_agrees_with_the_closed_form_for_normal_returns():
    """Jobson and Korkie 1981, as corrected by Memmel 2003: the variance of the difference."""
    rows, gap = 3000, 0.02
    returns = pair(rows, gap)
    rho, first, second = returns.corr().iloc[0, 1], 0.05 + gap, 0.05
    spread = 2 - 2 * rho + (first**2 + second**2 - 2 * first * second * rho**2) / 2
    row = statistics.sharpe_differences(returns, "theirs", 1).loc["ours"]
    assert row["difference"] == pytest.approx(gap)
    assert row["high"] - row["difference"] == pytest.approx(1.96 * np.sqrt(spread / rows), rel=0.07)
    assert row["low"] == pytest.approx(2 * row["difference"] - row["high"])


def test_the_test_is_symmetric_and_repeatable():
    returns = pair(800, 0.03)
    ours = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    theirs = statistics.sharpe_differences(returns, "ours", 252).loc["theirs"]
    again = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert theirs["difference"] == pytest.approx(-ours["difference"])
    assert theirs["p"] == ours["p"]
    pd.testing.assert_series_equal(ours, again, check_exact=True)


def test_interval_and_p_value_agree():
    for gap in (0.0, 0.01, 0.02, 0.03, 0.05):
        row = statistics.sharpe_differences(pair(600, gap), "theirs", 252).loc["ours"]
        assert (row["low"] > 0) == (row["p"] < 0.05)


def test_null_reads_as_null_and_skill_as_skill():
    """Without a difference about one in ten lies below 0.1; a large one is seen."""
    p = [
        statistics.sharpe_differences(
            pair(250, 0.0, seed, exact=False), "theirs", 252, resamples=200
        ).loc["ours", "p"]
        for seed in range(150)
    ]
    assert 0.04 <= np.mean(np.array(p) < 0.1) <= 0.18
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert statistics.sharpe_differences(pair(2000, 0.08), "theirs", 252).loc["ours", "p"] < 0.001


def test_the_same_strategy_twice_differs_by_nothing():
    returns = pair(300, 0.0)
    returns["theirs"] = returns["ours"]
    row = statistics.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert row["difference"] == 0
    assert row["p"] == 1


def test_what_cannot_be_compared_is_not_a_number():
    returns = pair(300, 0.02).assign(flat=0.001)
    table = statistics.sharpe_differences(returns, "theirs", 252)
    assert table.loc["flat"].isna().all()
    assert table.loc["ours"].notna().all()
    assert statistics.sharpe_differences(returns, "flat", 252).isna().all(axis=None)
    short = statistics.sharpe_differences(returns[:20], "theirs", 252).loc["ours"]
    assert np.isfinite(short["difference"])
    assert np.isnan(short["p"])


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.05, 0.61, "in 61% of cases: this is not evidence of skill"),
        (-0.05, 0.61, "in 61% of cases: this is not evidence of a difference"),
        (0.3, 0.07, "in 7% of cases: this is weak evidence at best"),
        (0.9, 0.0005, "in less than 1% of cases: luck alone is an unlikely reason, unless"),
        (-0.9, 0.02, "in 2% of cases: it did worse"),
    ],
)
def test_verdicts(difference, p, words):
    assert words in statistics.verdict(difference, p)
