"""The test of equal variances: a closed form, a loop of its own, size and power by simulation."""

import numpy as np
import pandas as pd
import pytest

from reports.statistics.variance_tests import variance_differences


def pair(rows, seed, ratio=1.0, shared=0.6):
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, 2))
    both = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return pd.DataFrame(0.01 * both * [ratio, 1.0] + 0.001, columns=["one", "base"])


def test_difference_and_error_in_closed_form():
    """Of independent normal rows with correlation r the error is sqrt(4 (1 - r**2) / T)."""
    returns = pair(20_000, 0, ratio=1.1)
    found = variance_differences(returns, "base", resamples=1).loc["one"]
    assert found["difference"] == pytest.approx(
        np.log(returns.var() @ [1, 0] / returns["base"].var())
    )
    assert found["error"] == pytest.approx(np.sqrt(4 * (1 - 0.6**2) / 20_000), rel=0.05)
    swapped = variance_differences(returns, "one", resamples=1).loc["base"]
    assert swapped["difference"] == pytest.approx(-found["difference"])


def test_p_is_that_of_a_loop_over_resamples():
    returns, resamples = pair(150, 5, ratio=1.12), 300
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
            variance_differences(pair(120, seed, ratio), "base", 99, seed)["p"].iloc[0]
            for seed in range(100)
        ]
        return np.mean(np.array(p) <= level)

    assert 0.02 <= rejected(1.0, 0.1) <= 0.2  # 10% is right; the deviation of the mean is 3%
    assert rejected(1.25, 0.1) > 0.6


def test_what_cannot_be_compared_is_not_known():
    returns = pair(100, 0).assign(still=0.01)
    assert variance_differences(returns, "base", 9).loc["still"].isna().all()
    assert variance_differences(returns.iloc[:29], "base", 9).isna().all(axis=None)
