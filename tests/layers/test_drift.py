import numpy as np
import pytest
import torch

from strategies.layers.drift import carry, drift

RATES = {"cash_rate": 0.02, "financing": 0.06, "borrow": 0.03}


def test_drift_by_hand():
    # Of 100: 50 in A, 25 in B, 25 in cash, which earns 1.
    after = drift(np.array([0.5, 0.25]), np.array([1.2, 0.8]), 0.01)
    np.testing.assert_allclose(after, [60 / 106, 20 / 106], rtol=1e-15)


def test_carry_by_hand():
    weights = np.array([[0.9, -0.3], [1.2, 0.3], [0.5, 0.5]])
    # 0.4 in cash and 0.3 short; half the portfolio borrowed; neither.
    expected = [0.02 * 0.4 - 0.03 * 0.3, -0.06 * 0.5, 0]
    np.testing.assert_allclose(carry(weights, **RATES), expected, rtol=1e-14, atol=1e-17)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_arrays_and_tensors_drift_alike(shape):
    rng = np.random.default_rng(0)
    weights, growth = rng.normal(0.2, 0.4, shape), rng.uniform(0.8, 1.2, shape)
    years = rng.uniform(0, 1, shape[:-1])
    rates = {name: rate * years for name, rate in RATES.items()}
    found = drift(weights, growth, carry(weights, **rates))
    as_tensors = {name: torch.as_tensor(rate) for name, rate in rates.items()}
    w, g = torch.tensor(weights), torch.tensor(growth)
    np.testing.assert_allclose(drift(w, g, carry(w, **as_tensors)), found, rtol=1e-14)
    # and one account at a time, in money
    for k in np.ndindex(shape[:-1]):
        cash = 100 * (1 - weights[k].sum())
        interest = (0.02 if cash > 0 else 0.06) * cash * years[k]
        fee = 0.03 * years[k] * 100 * -weights[k][weights[k] < 0].sum()
        assets = 100 * weights[k] * growth[k]
        value = assets.sum() + cash + interest - fee
        np.testing.assert_allclose(found[k], assets / value, rtol=1e-13)
