"""Portfolios inside a portfolio, against books that are kept of each apart."""

import numpy as np
import pytest

from strategies.wrappers.sub_portfolios import SubPortfolios


@pytest.mark.parametrize("seed", range(5))
def test_each_holds_what_it_would_hold_alone(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(3))
    parts, money = SubPortfolios(shares, np.zeros(4)), shares.copy()
    held = np.zeros((3, 4))  # weights of each in its own money
    for _ in range(20):
        number = rng.integers(3)
        held[number] = rng.dirichlet(np.ones(5))[:4]
        parts.trade(number, held[number])
        growth = rng.uniform(0.8, 1.3, 4)
        grown = 1 + held @ (growth - 1)
        money, held = money * grown, held * growth / grown[:, None]
        parts.update(money @ held / money.sum())
        np.testing.assert_allclose(parts.values, money / money.sum(), atol=1e-12)
        for number in range(3):
            np.testing.assert_allclose(parts.holdings(number), held[number], atol=1e-12)


def test_what_was_not_foreseen_is_shared_by_value():
    parts = SubPortfolios(np.array([0.75, 0.25]), np.array([0.4, 0.0]))
    parts.update(np.array([0.0, 0.2]))  # the first was delisted, the second comes from elsewhere
    np.testing.assert_allclose(parts.assets, [[0, 0.15], [0, 0.05]])
    np.testing.assert_allclose(parts.values, [0.75, 0.25])
    assert parts.assets.sum() + parts.cash.sum() == pytest.approx(1)


def test_positions_that_offset_each_other_stay_finite():
    parts = SubPortfolios(np.array([0.5, 0.5]), np.zeros(1))
    parts.trade(0, np.array([0.3]))
    parts.trade(1, np.array([-0.3]))
    parts.update(np.array([0.01]))
    np.testing.assert_allclose(parts.assets[:, 0], [0.155, -0.145])


def test_cash_that_was_only_rounding_is_shared_by_value():
    parts = SubPortfolios(np.array([0.75, 0.25]), np.array([0.6]))
    parts.trade(0, np.array([1.0 - 2e-16]))
    parts.trade(1, np.array([1.0]))
    parts.update(np.array([0.9]))  # a purchase was scaled down
    np.testing.assert_allclose(parts.cash, [0.075, 0.025], rtol=1e-12)
