"""Metrics of a series of returns against closed forms and hand-worked series."""

import numpy as np
import pandas as pd
import pytest
import torch

from engine.accounting import performance


def series(values):
    return pd.Series(values, pd.bdate_range("2020-01-01", periods=len(values)), dtype=float)


HAND = series([0.10, -0.20, 0.05, 0.10])  # wealth 1.1, 0.88, 0.924, 1.0164


def test_wealth_and_drawdowns_by_hand():
    assert performance.wealth(HAND).to_list() == pytest.approx([1.1, 0.88, 0.924, 1.0164])
    assert performance.drawdowns(HAND).to_list() == pytest.approx([0, -0.2, -0.16, -0.076])
    assert performance.max_drawdown(HAND) == pytest.approx(-0.2)


def test_a_loss_in_the_first_period_is_a_drawdown():
    assert performance.max_drawdown(series([-0.3, 0.1])) == pytest.approx(-0.3)


def test_annual_return_is_geometric():
    assert performance.annual_return(HAND, 4) == pytest.approx(0.0164)
    assert performance.annual_return(HAND, 2) == pytest.approx(1.0164**0.5 - 1)
    assert performance.annual_return(series([0.01] * 24), 12) == pytest.approx(1.01**12 - 1)


def test_ratios_by_hand():
    mean, deviation = 0.0125, np.sqrt((0.0875**2 * 2 + 0.2125**2 + 0.0375**2) / 3)
    assert performance.volatility(HAND, 4) == pytest.approx(2 * deviation)
    assert performance.sharpe(HAND, 4) == pytest.approx(2 * mean / deviation)
    assert performance.sortino(HAND, 4) == pytest.approx(2 * mean / 0.1)  # sqrt(0.2**2 / 4)
    assert performance.calmar(HAND, 4) == pytest.approx(0.0164 / 0.2)


@pytest.mark.parametrize("value", [0.0, 0.0003, -0.001, 0.1])
def test_constant_returns_have_no_ratio(value):
    returns = series([value] * 300)
    assert np.isnan(performance.sharpe(returns, 252))
    assert performance.volatility(returns, 252) == pytest.approx(0, abs=1e-12)
    if value >= 0:
        assert np.isnan(performance.sortino(returns, 252))
        assert np.isnan(performance.calmar(returns, 252))


def test_bankruptcy_is_final():
    returns = series([0.1, -1.3, 0.5, -0.2])
    assert performance.wealth(returns).to_list() == pytest.approx([1.1, 0, 0, 0])
    assert performance.annual_return(returns, 252) == -1
    assert performance.max_drawdown(returns) == -1
    assert performance.calmar(returns, 252) == -1


def test_one_period_is_enough_for_what_needs_one():
    returns = series([0.01])
    assert performance.annual_return(returns, 1) == pytest.approx(0.01)
    assert performance.max_drawdown(returns) == 0
    undefined = (
        performance.volatility,
        performance.sharpe,
        performance.calmar,
    )
    assert all(np.isnan(metric(returns, 252)) for metric in undefined)


def test_an_annual_return_too_large_to_tell_is_not_infinite():
    assert np.isnan(performance.annual_return(series([50.0, 50.0]), 252))


def test_further_ratios_by_hand():
    assert performance.deviation(HAND) == pytest.approx(np.std(HAND, ddof=1), rel=1e-14)
    assert performance.cumulative_return(HAND) == pytest.approx(0.0164, rel=1e-12)
    assert performance.downside_deviation(HAND, 4) == pytest.approx(0.2, rel=1e-12)
    # Above 20% a year, 5% a period: 5%, -25%, 0, 5%.
    assert performance.downside_deviation(HAND, 4, target=0.2) == pytest.approx(0.25, rel=1e-12)
    assert performance.sortino(HAND, 4, target=0.2) == pytest.approx((0.05 - 0.2) / 0.25)
    assert performance.omega(HAND) == pytest.approx(0.25 / 0.2, rel=1e-12)
    assert performance.omega(HAND, threshold=0.05) == pytest.approx(0.10 / 0.25, rel=1e-12)
    assert performance.yearly(series([1.0, 0.5]), 126, 252) == pytest.approx(3.0)


def test_information_ratio_by_hand():
    benchmark = series([0.09, -0.22, 0.06, 0.08])  # active: 1%, 2%, -1%, 2%
    expected = 2 * 0.01 / np.std([0.01, 0.02, -0.01, 0.02], ddof=1)
    assert performance.information_ratio(HAND, benchmark, 4) == pytest.approx(expected)


def test_differences_are_constant_by_the_size_of_what_was_rounded():
    benchmark = HAND - 1e-14 * np.array([1, 2, 3, 5])  # active: rounding errors alone
    assert np.isnan(performance.information_ratio(HAND, benchmark, 4))
    assert np.isnan(performance.information_ratio(HAND * 1e-9, HAND * 1e-9 + 1e-19 * HAND, 4))
    assert not np.isnan(performance.sharpe(HAND - benchmark, 4))
    # Larger than rounding, as is a benchmark of zero.
    assert performance.information_ratio(HAND, HAND * 0, 4) == performance.sharpe(HAND, 4)
    assert performance.information_ratio(HAND * 0, HAND, 4) == -performance.sharpe(HAND, 4)


def test_a_deviation_up_to_rounding_is_zero():
    near = series([0.1, 0.1 + 1.2e-11, 0.1])  # deviation 0.7e-11, against 1e-10 of 0.1
    assert performance.constant(near)
    assert not performance.constant(series([0.1, 0.1 + 2e-11, 0.1]))
    assert performance.constant(series([0.1, 0.2]), largest=1e9)
    small = series([0.1, 0.1, -1e-12])
    assert np.isnan(performance.sortino(small, 252))
    assert np.isnan(performance.omega(small))
    assert np.isnan(performance.calmar(small, 252))
    assert performance.omega(series([0.1, 0.1, -1e-10])) == pytest.approx(2e9)


@pytest.mark.parametrize(
    "metric",
    [
        performance.volatility,
        performance.sharpe,
        performance.downside_deviation,
        performance.sortino,
        performance.annual_return,
        performance.calmar,
    ],
)
def test_no_returns_have_no_metric(metric):
    assert np.isnan(metric(series([]), 252))


def test_no_returns_have_no_drawdown():
    assert np.isnan(performance.max_drawdown(series([])))
    assert np.isnan(performance.cumulative_return(series([])))
    assert np.isnan(performance.omega(series([])))
    assert performance.constant(series([]))


def test_what_is_too_large_to_tell_is_undefined():
    huge = series([1e200, 1e200])
    assert np.isnan(performance.cumulative_return(huge))
    assert len(performance.drawdowns(huge)) == 2


@pytest.mark.parametrize("name", ["volatility", "sharpe", "sortino", "calmar", "annual_return"])
def test_series_arrays_and_tensors_have_the_same_metrics(name):
    returns = series(np.random.default_rng(0).normal(0.001, 0.01, 50))
    metric = getattr(performance, name)
    found = metric(returns, 52)
    assert type(found) is float
    assert metric(returns.to_numpy(), 52) == found
    tensor = torch.tensor(returns.to_numpy(), requires_grad=True)
    in_training = metric(tensor, 52)
    assert in_training.item() == pytest.approx(found, rel=1e-12)
    in_training.backward()
    assert tensor.grad.isfinite().all()


def test_drawdowns_of_a_tensor():
    found = performance.drawdowns(torch.tensor(HAND.to_numpy()))
    np.testing.assert_allclose(found, performance.drawdowns(HAND), rtol=1e-14, atol=1e-16)
    assert performance.max_drawdown(torch.tensor([-0.5, 0.2]).double()).item() == -0.5
