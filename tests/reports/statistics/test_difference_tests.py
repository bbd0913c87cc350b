"""Luck: closed forms, known distributions, and noise that must read as noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports.statistics import difference_tests, selection
from reports.statistics.difference_tests import variance_differences
from reports.wording import verdict


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
    row = difference_tests.sharpe_differences(returns, "theirs", 1).loc["ours"]
    assert row["difference"] == pytest.approx(gap)
    assert row["high"] - row["difference"] == pytest.approx(1.96 * np.sqrt(spread / rows), rel=0.07)
    assert row["low"] == pytest.approx(2 * row["difference"] - row["high"])


def test_the_test_is_symmetric_and_repeatable():
    returns = pair(800, 0.03)
    ours = difference_tests.sharpe_differences(returns, "theirs", 252).loc["ours"]
    theirs = difference_tests.sharpe_differences(returns, "ours", 252).loc["theirs"]
    again = difference_tests.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert theirs["difference"] == pytest.approx(-ours["difference"])
    assert theirs["p"] == ours["p"]
    pd.testing.assert_series_equal(ours, again, check_exact=True)


def test_interval_and_p_value_agree():
    for gap in (0.0, 0.01, 0.02, 0.03, 0.05):
        row = difference_tests.sharpe_differences(pair(600, gap), "theirs", 252).loc["ours"]
        assert (row["low"] > 0) == (row["p"] < 0.05)


def test_null_reads_as_null_and_skill_as_skill():
    """Without a difference about one in ten lies below 0.1; a large one is seen."""
    p = [
        difference_tests.sharpe_differences(
            pair(250, 0.0, seed, exact=False), "theirs", 252, resamples=200
        ).loc["ours", "p"]
        for seed in range(100)
    ]
    assert 0.04 <= np.mean(np.array(p) < 0.1) <= 0.18
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert (
        difference_tests.sharpe_differences(pair(2000, 0.08), "theirs", 252).loc["ours", "p"]
        < 0.001
    )


def test_the_same_strategy_twice_differs_by_nothing():
    returns = pair(300, 0.0)
    returns["theirs"] = returns["ours"]
    row = difference_tests.sharpe_differences(returns, "theirs", 252).loc["ours"]
    assert row["difference"] == 0
    assert row["p"] == 1


def test_what_cannot_be_compared_is_not_a_number():
    returns = pair(300, 0.02).assign(flat=0.001)
    table = difference_tests.sharpe_differences(returns, "theirs", 252)
    assert table.loc["flat"].isna().all()
    assert table.loc["ours"].notna().all()
    assert difference_tests.sharpe_differences(returns, "flat", 252).isna().all(axis=None)
    short = difference_tests.sharpe_differences(returns[:20], "theirs", 252).loc["ours"]
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
    assert words in verdict(difference, p)


def test_the_studentised_test_reads_noise_as_noise():
    """Heavy tails and clustered volatility, no difference: p is about uniform."""
    p = []
    for seed in range(100):
        returns = pair(250, 0.0, seed, exact=False)
        calm = np.repeat(np.random.default_rng(seed).choice([0.5, 2.0], 5), 50)[:, None]
        row = difference_tests.sharpe_differences(returns * calm, "theirs", 252, resamples=200)
        p.append(row.loc["ours", "studentised"])
    assert 0.04 <= np.mean(np.array(p) < 0.1) <= 0.18
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_the_studentised_test_sees_skill():
    row = difference_tests.sharpe_differences(pair(2000, 0.08), "theirs", 252).loc["ours"]
    assert row["studentised"] < 0.001
    closed = np.sqrt((2 - 2 * 0.8) / 2000 * 252)  # Memmel 2003, small ratios
    assert row["error"] == pytest.approx(closed, rel=0.05)


def test_the_interval_of_a_sharpe_ratio_is_lo_s_for_normal_returns():
    returns = pair(3000, 0.05)
    row = difference_tests.sharpe_intervals(returns, 252).loc["ours"]
    error = difference_tests.sharpe_standard_error(returns["ours"], 252)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert (row["high"] + row["low"]) / 2 == pytest.approx(0.1 * np.sqrt(252))
    assert difference_tests.sharpe_intervals(returns[:20], 252).isna().all(axis=None)


# What having tried several does


def two_points(rows: int, share: float, ratio: float) -> pd.Series:
    """Returns of two values, the upper one with this share, and this Sharpe ratio a period."""
    upper = round(share * rows)
    values = np.r_[np.ones(upper), np.zeros(rows - upper)]
    values = (values - values.mean()) / values.std(ddof=1) + ratio
    return pd.Series(values, pd.bdate_range("2010-01-01", periods=rows))


def test_the_worked_example_of_the_deflated_sharpe_ratio():
    """Bailey and Lopez de Prado 2014: SR 2.5 a year, 1250 days, skewness -3, kurtosis 10."""
    highest = selection.expected_highest(100, np.sqrt(1 / 2 / 250))
    assert highest == pytest.approx(0.1132, abs=5e-5)
    returns = two_points(1250, (13 + np.sqrt(117)) / 26, 2.5 / np.sqrt(250))
    assert selection.probabilistic_sharpe(returns, highest) == pytest.approx(0.9004, abs=2e-3)


def test_probabilistic_sharpe_in_closed_form():
    """For two equally likely values the standard error is 1 / sqrt(T - 1), for any ratio."""
    returns = two_points(101, 50 / 101, 0.1)
    error = difference_tests.sharpe_standard_error(returns, 1)
    assert error == pytest.approx(0.1, rel=0.01)
    assert selection.probabilistic_sharpe(returns, 0.1) == pytest.approx(0.5)
    assert selection.probabilistic_sharpe(returns, 0.1 - error) == pytest.approx(0.8413, abs=1e-4)
    assert np.isnan(selection.probabilistic_sharpe(returns * 0))


def test_the_expected_highest_is_that_of_normal_draws():
    draws = np.random.default_rng(0).normal(size=(20_000, 50)).max(axis=1).mean()
    assert selection.expected_highest(50, 1.0) == pytest.approx(draws, rel=0.02)
    assert selection.expected_highest(1, 1.0) == 0


def test_more_trials_deflate_more():
    returns = pair(1000, 0.05)["ours"]
    values = [selection.deflated_sharpe(returns, trials) for trials in (1, 2, 10, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == selection.probabilistic_sharpe(returns)


def noise(columns: int, seed: int, rows: int = 400) -> pd.DataFrame:
    values = np.random.default_rng(seed).standard_t(5, (rows, columns)) * 0.01
    dates = pd.bdate_range("2000-01-03", periods=rows)
    return pd.DataFrame(values, dates, [f"S{number}" for number in range(columns)])


def test_the_luckiest_of_many_without_skill_passes_for_what_it_is():
    """Undeflated, most of the best of 20 look significant; deflated, hardly any."""
    naive, deflated = [], []
    for seed in range(100):
        returns = noise(20, seed)
        ratios = (returns.mean() / returns.std(ddof=1)).to_numpy()
        best = returns.iloc[:, ratios.argmax()]
        naive.append(selection.probabilistic_sharpe(best) > 0.95)
        deflated.append(selection.deflated_sharpe(best, 20, ratios) > 0.95)
    assert np.mean(naive) > 0.5
    assert np.mean(deflated) <= 0.05


def test_overfitting_is_a_coin_flip_for_noise_and_absent_for_a_winner():
    found = [selection.overfitting(noise(8, seed)).probability for seed in range(30)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)
    returns = noise(8, 0)
    returns["S3"] += 0.004
    winner = selection.overfitting(returns)
    assert winner.probability < 0.01
    assert winner.splits == 12_870
    assert winner.configurations == 8


def test_overfitting_needs_two_and_some_history():
    assert np.isnan(selection.overfitting(noise(1, 0)).probability)
    assert np.isnan(selection.overfitting(noise(3, 0, rows=31)).probability)
    flat = noise(2, 0).assign(S1=0.001)
    assert selection.overfitting(flat).configurations == 1


def test_overfitting_of_two_by_hand():
    """Four blocks, one ahead in the first two and behind in the others: the winner of each
    half that differs loses the other half."""
    ahead, behind = np.tile([0.02, 0.0], 4), np.tile([0.01, -0.01], 4)
    rows = pd.bdate_range("2000-01-03", periods=32)
    returns = pd.DataFrame({"A": np.r_[ahead, ahead, behind, behind]}, rows)
    returns["B"] = np.r_[behind, behind, ahead, ahead]
    assert selection.overfitting(returns, blocks=4).probability == 1.0


def test_superior_ability_reads_noise_as_noise_and_skill_as_skill():
    p = [selection.superior_ability(noise(5, seed), "S0", resamples=200) for seed in range(40)]
    assert np.mean(np.array(p) < 0.1) <= 0.2
    returns = noise(5, 0)
    returns["S2"] += 0.003
    assert selection.superior_ability(returns, "S0") < 0.01
    assert np.isnan(selection.superior_ability(returns[:20], "S0"))
    assert np.isnan(selection.superior_ability(returns[["S0"]], "S0"))


def of_variance(rows, seed, ratio=1.0, shared=0.6):
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, 2))
    both = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return pd.DataFrame(0.01 * both * [ratio, 1.0] + 0.001, columns=["one", "base"])


def test_difference_and_error_in_closed_form():
    """Of independent normal rows with correlation r the error is sqrt(4 (1 - r**2) / T)."""
    returns = of_variance(20_000, 0, ratio=1.1)
    found = variance_differences(returns, "base", resamples=1).loc["one"]
    assert found["difference"] == pytest.approx(
        np.log(returns.var() @ [1, 0] / returns["base"].var())
    )
    assert found["error"] == pytest.approx(np.sqrt(4 * (1 - 0.6**2) / 20_000), rel=0.05)
    swapped = variance_differences(returns, "one", resamples=1).loc["base"]
    assert swapped["difference"] == pytest.approx(-found["difference"])


def test_p_is_that_of_a_loop_over_resamples():
    returns, resamples = of_variance(150, 5, ratio=1.12), 300
    found = variance_differences(returns, "base", resamples=resamples, seed=7).loc["one"]
    block, values = int(found["block"]), returns.to_numpy()
    rows, count = 150, max(150 // int(found["block"]), 2)

    def difference(x):
        return np.log(x[:, 0].var() / x[:, 1].var())

    rng, hits = np.random.default_rng(7), 0
    starts = np.concatenate(
        [rng.integers(0, rows, (size, count)) for size in (200, 100)]  # in the same chunks
    )
    for picks in starts:
        drawn = values[(picks[:, None] + np.arange(block)) % rows]  # (blocks, b, 2)
        sample = drawn.reshape(-1, 2)
        z = (drawn - sample.mean(axis=0)) ** 2 / sample.var(axis=0)
        sums = (z[..., 0] - z[..., 1]).sum(axis=1) / np.sqrt(block)
        error = np.sqrt(np.mean(sums**2) / rows)
        drawn_ratio = abs(difference(sample) - found["difference"]) / error
        hits += drawn_ratio >= abs(found["difference"]) / found["error"]
    assert found["p"] == pytest.approx((1 + hits) / (1 + resamples), abs=1e-12)


def test_size_and_power():
    def rejected(ratio, level):
        p = [
            variance_differences(of_variance(120, seed, ratio), "base", 99, seed)["p"].iloc[0]
            for seed in range(100)
        ]
        return np.mean(np.array(p) <= level)

    assert 0.02 <= rejected(1.0, 0.1) <= 0.2  # 10% is right; the deviation of the mean is 3%
    assert rejected(1.25, 0.1) > 0.6


def test_what_cannot_be_compared_is_not_known():
    returns = of_variance(100, 0).assign(still=0.01)
    assert variance_differences(returns, "base", 9).loc["still"].isna().all()
    assert variance_differences(returns.iloc[:29], "base", 9).isna().all(axis=None)
