"""The account of a network over a block of decisions, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from engine import Costs, TrainingError
from engine.training.dataset import Dataset
from engine.training.rollout import noise_factors, rollout, rollout_rows

WEIGHTS = np.array([[0.5, 0.5], [1.0, 0.0], [0.2, 0.2], [0.0, 1.0], [0.5, 0.0]])
GROWTH = np.array([[1.1, 0.9], [1.2, 1.0], [1.0, 1.1], [0.9, 1.3], [1.0, 1.0]])


class Given(nn.Module):
    def forward(self, inputs):
        return inputs["weights"]

    def weights_and_forecast(self, inputs):
        return inputs["weights"], inputs["weights"] * 0.01


def data(rows=(0, 5, 10, 15, 20), ends=(6, 11, 16, 21, 26), **more):
    inputs = {"weights": torch.tensor(WEIGHTS)}
    return Dataset(inputs, torch.tensor(GROWTH), np.array(rows), np.array(ends), 52.0, **more)


def test_two_periods_by_hand():
    found = rollout(Given(), data(), (1, 3), Costs(0.0))
    # 0.5 and 0.5 became 0.55 and 0.45; then 1 and 0 stay; from there to 0.2 and 0.2.
    np.testing.assert_allclose(found.turnover, [0.45 + 0.45, 0.8 + 0.2], rtol=1e-14)
    np.testing.assert_allclose(found.gross_returns, [0.2, 0.02], rtol=1e-13)
    np.testing.assert_allclose(found.net_returns, found.gross_returns, rtol=1e-14)
    np.testing.assert_allclose(found.asset_returns, GROWTH[1:3] - 1, rtol=1e-14)
    np.testing.assert_array_equal(found.weights, WEIGHTS[1:3])
    assert found.expected_return is None


def test_carry_by_hand():
    years = torch.tensor([0.1, 0.2, 0.5, 0.1, 0.1], dtype=torch.float64)
    found = rollout(Given(), data(years=years), (2, 4), Costs(0.0, cash_rate=0.1))
    # 0.2, 0.2 and 0.6 in cash, which earns 0.03: of 1.05, 0.2 and 0.22 are in the assets.
    np.testing.assert_allclose(found.net_returns, [0.02 + 0.03, 0.3], rtol=1e-13)
    np.testing.assert_allclose(found.turnover[1], 0.2 / 1.05 + 1 - 0.22 / 1.05, rtol=1e-13)


def test_impact_is_charged_at_the_illiquidity_of_each_fill():
    lack = torch.tensor(np.arange(10.0).reshape(5, 2)) * 1e-6
    costs = Costs(0.0, impact=1.0, capital=1e6)
    found = rollout(Given(), data(illiquidity=lack), (1, 3), costs)
    orders = WEIGHTS[2] * (1 - found.cost[1].item()) - WEIGHTS[1]
    paid = 1e3 * (lack[2].numpy() * np.abs(orders) ** 1.5).sum()
    np.testing.assert_allclose(found.cost[1], paid, rtol=1e-12)


def test_forecasts_come_with_the_weights_where_they_are_asked_for():
    found = rollout(Given(), data(), (2, 5), Costs(), forecasts=True)
    np.testing.assert_array_equal(found.expected_return, WEIGHTS[2:5] * 0.01)
    with pytest.raises(TrainingError, match="Identity has no method weights_and_forecast"):
        rollout(nn.Identity(), data(), (2, 5), Costs(), forecasts=True)


def test_after_a_gap_the_block_is_entered_anew():
    gapped = data(rows=(0, 5, 20, 25, 30), ends=(6, 11, 26, 31, 36))  # none from 10 to 15
    numbers, is_entry = rollout_rows(gapped, 1, 5)
    assert numbers.tolist() == [0, 1, 2, 3, 4]
    assert is_entry.tolist() == [True, False, True, False, False]
    found = rollout(Given(), gapped, (1, 5), Costs(0.0))
    np.testing.assert_array_equal(found.weights, WEIGHTS[[1, 3, 4]])
    # 0.2 and 0.2 became 0.2 and 0.22 of 1.02.
    np.testing.assert_allclose(found.turnover[1], 0.2 / 1.02 + 1 - 0.22 / 1.02, rtol=1e-13)


def test_noise_multiplies_growth():
    torch.manual_seed(3)
    found = rollout(Given(), data(), (1, 5), Costs(0.0), noise=0.5)
    torch.manual_seed(3)
    expected = GROWTH * noise_factors(torch.tensor(GROWTH), 0.5).numpy()
    np.testing.assert_allclose(found.asset_returns, expected[1:] - 1, rtol=1e-13)


def test_weights_of_the_wrong_shape():
    class Short(nn.Module):
        def forward(self, inputs):
            return inputs["weights"][:, :1]

    with pytest.raises(TrainingError, match=r"shape \(3, 1\), expected \(3, 2\)"):
        rollout(Short(), data(), (1, 3), Costs())
