"""Covariances with cleaned correlations: the start in closed form, and what training may change."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from sklearn.covariance import ledoit_wolf

from data_loaders import Panel
from strategies import DEQMeanVariance
from strategies.contract_types import stack
from strategies.covariance import correlation_parts
from strategies.deq_network import EigenvalueCleaning, scaled_risk
from strategies.features import feature_table

SIZES = [(80, 8), (12, 30)]  # and fewer rows than assets


def parts(*histories):
    return stack(
        [{k: torch.from_numpy(v) for k, v in correlation_parts(h).items()} for h in histories]
    )


def moved(hidden=4):
    torch.manual_seed(0)
    cleaning = EigenvalueCleaning(hidden).double()
    torch.nn.init.normal_(cleaning.out.weight)
    return cleaning


@pytest.mark.parametrize(("rows", "assets"), SIZES)
def test_it_starts_as_the_shrunk_correlation_of_scikit_learn(rows, assets):
    history = random_walks(rows, assets)
    found = EigenvalueCleaning(4).double()(parts(history), torch.ones(1, 4).double())[0]
    returns = history.returns.to_numpy()[1:]
    deviations = returns.std(axis=0)
    shrunk = ledoit_wolf(returns / deviations)[0] * np.outer(deviations, deviations)
    expected = shrunk * assets / (deviations**2).sum()
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("rows", "assets"), SIZES)
def test_other_eigenvalues_leave_the_eigenvectors(rows, assets):
    history = random_walks(rows, assets)
    given = parts(history)
    found = moved()(given, torch.ones(1, 4).double())[0].detach().numpy()
    scale = given["deviations"][0].numpy()
    correlation = found / np.outer(scale, scale)
    vectors = given["eigenvectors"][0].numpy()
    rotated = vectors.T @ correlation @ vectors
    values = rotated.diagonal()
    np.testing.assert_allclose(rotated, np.diag(values), atol=1e-12)
    assert values.mean() == pytest.approx(1, rel=1e-12)
    shrunk = given["eigenvalues"][0].numpy() * (1 - given["intensity"].item())
    shrunk += given["intensity"].item()
    assert np.ptp(values / shrunk) > 0.05
    assert (values / shrunk).max() / (values / shrunk).min() < 100


@pytest.mark.parametrize(("rows", "assets"), SIZES)
def test_assets_in_another_order_are_the_same(rows, assets):
    history = random_walks(rows, assets)
    order = np.random.default_rng(0).permutation(assets)
    turned = Panel(history.prices.iloc[:, order])
    one, two = moved()(parts(history, turned), torch.ones(2, 4).double()).detach().numpy()
    np.testing.assert_allclose(two, one[np.ix_(order, order)], atol=1e-11)


def test_assets_that_do_not_trade_or_move_are_on_their_own():
    prices = random_walks(80, 5).prices.copy()
    prices.iloc[40, 2] = np.nan
    prices.iloc[:, 3] = 7.0
    given = parts(Panel(prices))
    found = moved()(given, torch.ones(1, 4).double())[0].detach().numpy()
    assert (found[2, [0, 1, 3, 4]] == 0).all()
    assert (found[3] == 0).all()
    assert found[2, 2] > 0
    assert given["deviations"][0].square()[[0, 1, 3, 4]].mean().item() == pytest.approx(1)


def test_gradients_through_the_scaled_risk():
    given = parts(random_walks(30, 4), random_walks(12, 4))
    cleaning = moved(3)
    scale = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    ridge = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    state = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)

    def risk(state, scale, ridge):
        return scaled_risk({}, scale + 0.5, ridge, cleaning(given, state))

    torch.autograd.gradcheck(risk, (state, scale, ridge))


def test_the_network_learns_through_it_and_starts_from_it():
    panel = random_walks(120, 4)
    strategy = DEQMeanVariance(lookback=60, hidden=4, cap=0.5, risk="cleaned")
    seen = [panel.rows(row, row + 60) for row in range(0, 60, 10)]
    inputs = stack([strategy.prepare(each) for each in seen])
    network = strategy.build(inputs).double()
    weights, _, variance = network.weights_and_forecast(inputs)
    torch.testing.assert_close(variance.sqrt(), network.start_volatility(inputs))
    weights[:, 0].sum().backward()
    assert network.cleaning.out.weight.grad.abs().max() > 0


def test_volatilities_over_that_of_the_window_by_pandas():
    panel = random_walks(300, 3)
    implied = pd.DataFrame(0.25, panel.dates, panel.assets)
    history = Panel(panel.prices, {"implied_volatility": implied}).rows(200, 300)
    found = feature_table(history, ["volatility"])
    returns = np.log(history.prices).diff().iloc[1:]
    window = np.sqrt((returns**2).mean())
    for life in (3, 7, 15, 40):
        recent = np.sqrt((returns**2).ewm(halflife=life).mean().iloc[-1])
        expected = np.log(recent / window)
        np.testing.assert_allclose(found[f"volatility, half-life {life}"], expected, rtol=1e-10)
        assert found[f"mean volatility, half-life {life}"].iloc[0] == pytest.approx(expected.mean())
    expected = np.log(0.25 / (window * np.sqrt(history.periods_per_year)))
    np.testing.assert_allclose(found["volatility implied"], expected, rtol=1e-12)
    assert "volatility, half-life 120" not in found
