"""Expected returns from signals, against scikit-learn and an independent computation."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.linear_model import Ridge
from small_runs import QUICK, SMALL

from data_loaders.synthetic import planted
from engine import Costs, WalkForward
from engine.training.trainer import build
from engine.walking.learner import Learner
from strategies import DEQMeanVariance
from strategies.contract_types import stack
from strategies.signal_forecast import AVERSION, RIDGE, SignalForecast, relative_volatility

ROWS, ASSETS = 600, 6


def given(strength=0.1, pairs=False, seed=0):
    """Inputs of training rows: two signals, of which the first predicts the next return."""
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(ROWS, ASSETS, 2))
    signals[..., 1] += 0.5 * signals[..., 0]
    volatility = np.linspace(0.6, 1.4, ASSETS)
    heard = np.roll(signals[..., 0], 1, axis=1) if pairs else signals[..., 0]
    growth = 1 + 0.01 * volatility * (strength * heard + rng.normal(size=(ROWS, ASSETS)))
    covariance = np.diag(volatility**2) / (volatility**2).mean()
    return {
        "signals": torch.tensor(np.exp(signals)),  # ranks do not see the exponential
        "trades": torch.ones(ROWS, ASSETS, dtype=torch.bool),
        "covariance": torch.tensor(covariance).expand(ROWS, -1, -1),
        "growth": torch.tensor(growth),
    }


def by_hand(inputs):
    """Expected returns (R, N) by scipy and scikit-learn, of the pooled regression."""
    signals, growth = inputs["signals"].numpy(), inputs["growth"].numpy()
    volatility = np.sqrt(np.diagonal(inputs["covariance"].numpy(), axis1=1, axis2=2))
    x = np.stack([rankdata(each).reshape(ROWS, -1) for each in np.moveaxis(signals, 2, 0)], axis=2)
    x = norm.ppf((x - 0.5) / (ROWS * ASSETS))
    x -= x.mean(axis=1, keepdims=True)
    y = (growth - 1) / volatility
    unit = np.sqrt((y**2).mean())
    y = y / unit
    y -= y.mean(axis=1, keepdims=True)

    def predicted(rows, of):
        count = rows.stop * ASSETS
        model = Ridge(alpha=RIDGE * count, fit_intercept=False)
        model.fit(x[rows].reshape(count, -1), y[rows].ravel())
        return model.predict(x[of].reshape(-1, 2)).reshape(-1, ASSETS)

    edges = np.arange(0, ROWS + 1, ROWS // 5)
    later = [predicted(slice(0, a), slice(a, b)) for a, b in pairwise(edges[1:])]
    out, seen = np.concatenate(later), y[edges[1] :]
    products = (out * seen).mean(axis=1) / np.sqrt((out**2).mean() * (seen**2).mean())
    correlation, error = products.mean(), products.std(ddof=1) / np.sqrt(len(products))
    weight = correlation * (1 - (error / correlation) ** 2) if correlation > error else 0.0
    score = predicted(slice(0, ROWS), slice(0, ROWS))
    score /= np.sqrt((score**2).mean())
    return weight * score * volatility / (unit * AVERSION), weight


def test_it_is_the_information_coefficient_times_volatility_times_a_ridge_score():
    inputs = given()
    expected, weight = by_hand(inputs)
    assert 0.03 < weight < 0.15
    found = SignalForecast(inputs, pairs=False)(inputs).detach().numpy()
    # Of 3,600 values 199 quantiles are kept: scores differ by a step, which is wide in the tails.
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_what_does_not_predict_moves_nothing_or_little(seed):
    inputs = given(strength=0.0, seed=seed)
    _, weight = by_hand(inputs)
    found = SignalForecast(inputs, pairs=False)(inputs).detach().numpy()
    assert weight < 0.02
    assert (found == 0).all() == (weight == 0)
    turned = given(seed=seed)  # what was found before goes the other way later
    turned["growth"][ROWS // 5 :] = 2 - turned["growth"][ROWS // 5 :]
    turned["growth"][: ROWS // 5] += 10 * (turned["growth"][: ROWS // 5] - 1)
    assert (SignalForecast(turned, pairs=False)(turned) == 0).all()


def test_in_pairs_each_asset_is_predicted_from_the_others():
    inputs = given(strength=0.3, pairs=True)
    inputs["signals"] = inputs["signals"][..., :1]
    forecast = SignalForecast(inputs, pairs=True)
    slopes = forecast.coefficients  # (N, N), from the signals of row to the asset of column
    leaders = (slopes - slopes.mean(0)).abs().argmax(0)
    np.testing.assert_array_equal(leaders, np.roll(np.arange(ASSETS), 1))
    alone = SignalForecast(inputs, pairs=False)(inputs)
    assert alone.abs().mean() < 0.3 * forecast(inputs).abs().mean()


def test_an_unknown_signal_and_an_asset_that_does_not_trade_say_nothing():
    inputs = given()
    forecast = SignalForecast(inputs, pairs=False)
    few = {name: each[:2].clone() for name, each in inputs.items()}
    few["signals"][0, 1] = torch.nan
    few["signals"][1, 2:] = torch.nan
    scores = forecast.scores(few["signals"], few["trades"])
    assert (scores[0, 1] == 0).all()
    assert (scores[1, 2:] == 0).all()
    torch.testing.assert_close(scores.sum(1), torch.zeros(2, 2, dtype=torch.float64))
    few["trades"][0, 0] = False
    assert (forecast.scores(few["signals"], few["trades"])[0, 0] == 0).all()


def test_volatilities_are_the_same_in_both_forms_of_risk():
    panel = planted(80, 6).panel
    both = [DEQMeanVariance(lookback=64, risk=form) for form in ("covariance", "factor")]
    found = [relative_volatility(stack([each.prepare(panel.last(64))])) for each in both]
    torch.testing.assert_close(*found)
    returns = panel.last(64).returns.iloc[1:].std(ddof=0).to_numpy()
    assert np.corrcoef(found[0][0], returns)[0, 1] > 0.98  # but for the shrinkage


def weekly():
    """A strategy on a market with a strong signal, and its training rows."""
    panel = planted(1500, 4, strength=0.3).panel
    plan = WalkForward(train="3Y", refit="2Y", rebalance=5, execution_lag=0)
    strategy = DEQMeanVariance(**SMALL, cash=False, signals=("signal",), inertia=0.0)
    learner = Learner(panel, plan.folds(panel.dates, 64)[:1], plan, Costs(), QUICK, 1)
    return strategy, learner, learner.dataset("s", strategy, learner.folds[0])


def test_it_is_learned_from_holding_periods_that_end_before_validation():
    strategy, _, data = weekly()
    module = build(strategy, data, QUICK)
    last, _ = data.split(QUICK.validation)
    before = module.forecast.coefficients.clone()
    assert before.shape == (1,)
    data.growth[last:] = 9.0
    torch.testing.assert_close(
        build(strategy, data, QUICK).forecast.coefficients, before, rtol=0, atol=0
    )
    data.growth[last - 1] = 9.0
    assert not torch.equal(build(strategy, data, QUICK).forecast.coefficients, before)
    assert "growth" not in data.inputs  # the network is never given it

    one = stack([strategy.prepare(planted(64, 4).panel)])  # as when orders are made: sizes alone
    strategy.build(one).double().load_state_dict(module.state_dict())


def test_weights_follow_the_forecast_from_the_start():
    strategy, learner, data = weekly()
    strategy.module_ = build(strategy, data, QUICK)
    inputs = learner.stacked("s", strategy, learner.folds[0].test)
    weights = strategy.weights(inputs).numpy()
    signal = inputs["signals"].squeeze(-1).numpy()
    assert np.corrcoef(weights.ravel(), signal.ravel())[0, 1] > 0.5


def test_a_signal_that_is_no_feature_is_named():
    panel = planted(100, 4).panel
    with pytest.raises(ValueError, match="no feature 'signl'; did you mean 'signal'"):
        DEQMeanVariance(**SMALL, signals=("signl",)).prepare(panel)
    with pytest.raises(ValueError, match="no feature 'signal'"):
        DEQMeanVariance(**SMALL, signals=("signal",), features=("prices",)).prepare(panel)
    with pytest.raises(ValueError, match="signals is a list of names"):
        DEQMeanVariance(**SMALL, signals="signal").prepare(panel)
