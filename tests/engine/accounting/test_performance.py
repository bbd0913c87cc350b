"""Metrics of a series of returns against closed forms and hand-worked series."""

import numpy as np
import pandas as pd
import pytest

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
