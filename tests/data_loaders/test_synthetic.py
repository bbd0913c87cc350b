import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError, load
from data_loaders.synthetic import MARKETS, MEAN, from_name, lead_lag, null, oracle_sharpe, planted

ROWS = 60_000


@pytest.fixture(scope="module", params=MARKETS)
def market(request):
    return MARKETS[request.param](rows=ROWS, assets=6, seed=1)


def earned(weights, market):
    """Per-period returns of weights decided at t, from t to t + 1."""
    returns = market.panel.returns.to_numpy()[1:]
    return (weights.to_numpy()[:-1] * returns).sum(axis=1)


def sharpe(returns):
    return returns.mean() / returns.std() * np.sqrt(252)


def test_the_oracle_earns_what_it_says(market):
    error = np.sqrt(252 / ROWS)  # standard error of an annualised Sharpe ratio
    assert sharpe(earned(market.oracle_weights, market)) == pytest.approx(
        market.oracle_sharpe, abs=4 * error
    )
    assert market.oracle_weights.abs().sum(axis=1).mean() == pytest.approx(1)


def test_no_weights_beat_the_oracle(market):
    """inv(S) mu/(1 + mu' inv(S) mu) is the best there is, and the oracle is nearly that."""
    mu = market.expected_returns.to_numpy()
    q = np.einsum("ti,ij,tj->t", mu, np.linalg.inv(market.covariance), mu)
    best = (q / (1 + q)).mean()
    best = np.sqrt(best / (1 - best) * 252)
    assert market.oracle_sharpe == pytest.approx(best, rel=0.02)
    assert market.oracle_sharpe < best + 4 * np.sqrt(252 / ROWS)


def test_the_mean_and_covariance_are_true(market):
    surprise = market.panel.returns.to_numpy()[1:] - market.expected_returns.to_numpy()[:-1]
    scale = np.sqrt(np.diag(market.covariance))
    assert np.abs(surprise.mean(axis=0) / scale).max() < 4 / np.sqrt(ROWS)
    ratio = np.cov(surprise.T) / market.covariance
    assert ratio == pytest.approx(np.ones((6, 6)), abs=0.15 if market.panel.source.startswith(
        "synthetic market 'null'") else 0.05)  # fmt: skip
    # What was known at the close predicts nothing of the surprise.
    lagged = market.expected_returns.to_numpy()[:-1] - MEAN
    if lagged.std() > 0:
        assert abs(np.corrcoef(lagged.ravel(), surprise.ravel())[0, 1]) < 4 / np.sqrt(6 * ROWS)


def test_planted_says_its_signal():
    market = planted(rows=20_000, assets=4, seed=2)
    signal = market.panel.asset_features["signal"]
    volatility = np.sqrt(np.diag(market.covariance))
    expected = MEAN + 0.05 * volatility * signal
    pd.testing.assert_frame_equal(expected, market.expected_returns)
    later = signal.to_numpy()[1:].ravel()
    assert np.corrcoef(signal.to_numpy()[:-1].ravel(), later)[0, 1] == pytest.approx(0.9, abs=0.01)
    assert later.std() == pytest.approx(1, abs=0.05)


def test_lead_lag_needs_the_other_assets():
    market = lead_lag(rows=ROWS, assets=6, seed=3)
    scores = (market.panel.returns.to_numpy()[1:] - MEAN) / np.sqrt(np.diag(market.covariance))
    relative = scores - scores.mean(axis=1, keepdims=True)
    slopes = relative[:-1].T @ scores[1:] / (relative[:-1] ** 2).sum(axis=0)[:, None]  # (from, to)
    led = slopes.argmax(axis=0)
    assert sorted(led) == list(range(6)), "each asset leads one other"
    assert (led != np.arange(6)).all()
    np.testing.assert_allclose(slopes[led, np.arange(6)], 0.08, atol=0.03)
    own = (relative[:-1] * scores[1:]).mean(axis=0)
    assert own.mean() < 0, "own lags earn less than nothing"


def test_null_cannot_be_predicted_but_is_volatile():
    market = null(rows=ROWS, assets=6, seed=4)
    returns = market.panel.returns.to_numpy()[1:]
    assert (market.expected_returns == MEAN).all().all()
    centred = returns - returns.mean(axis=0)
    own = (centred[1:] * centred[:-1]).mean(axis=0) / centred.var(axis=0)
    assert np.abs(own).max() < 0.05
    sizes = np.abs(centred).mean(axis=1)
    assert np.corrcoef(sizes[1:], sizes[:-1])[0, 1] > 0.1, "volatility clusters"
    kurtosis = (centred**4).mean(axis=0) / centred.var(axis=0) ** 2
    assert (kurtosis > 4).all(), "tails are heavy"


def test_closed_form_without_prediction_is_the_tangency():
    mean, covariance = np.array([1e-3, 2e-3]), np.diag([1e-4, 4e-4])
    expected = np.sqrt(252 * (1e-6 / 1e-4 + 4e-6 / 4e-4))
    assert oracle_sharpe(mean, covariance, np.zeros((2, 2))) == pytest.approx(expected, rel=1e-12)


def test_markets_by_name():
    market = from_name("synthetic:planted?seed=3&rows=50&assets=12")
    panel = load("synthetic:planted?seed=3&rows=50&assets=12")
    assert panel.prices.shape == (50, 12)
    assert panel.fingerprint == market.panel.fingerprint
    assert panel.fingerprint == planted(rows=50, assets=12, seed=3).panel.fingerprint
    assert panel.fingerprint != load("synthetic:planted?seed=4&rows=50&assets=12").fingerprint
    assert load("synthetic:null").prices.shape == (2000, 10)
    assert "signal" not in load("synthetic:lead_lag", end="2001-01-01").asset_features
    for name, message in (
        ("synthetic:planted?sed=3", "sed=3 is not rows=, assets= or seed="),
        ("synthetic:planted?rows=many", "rows=many is not"),
        ("synthetic:plantd", "did you mean 'planted'"),
        ("synthetic:null?rows=1", "at least 2 rows"),
        ("synthetic:lead_lag?assets=1", "at least 2 assets"),
    ):
        with pytest.raises(DataError, match=message):
            load(name)
