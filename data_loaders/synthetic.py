"""Synthetic markets with known expected returns and covariance, to test what strategies learn.

A decision at the close of t earns returns r[t+1] with the conditional mean mu[t] and the
covariance S. The oracle knows both and holds w[t] proportional to inv(S) mu[t].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
from scipy.linalg import solve_discrete_lyapunov

from data_loaders.machine import check_room
from data_loaders.panel import Panel
from data_loaders.suggestions import known_names
from data_loaders.validation import DataError

SESSIONS = 252  # a year
MEAN = 3e-4  # expected return of every asset in a session, a fraction
WARM_UP = 500  # sessions discarded, so that the first row is stationary


@dataclass(frozen=True)
class Market:
    """A panel and the model that generated it.

    Attributes:
        panel: prices (T, N), with what predicts them among its features.
        expected_returns: (T, N), row t the mean of the returns of t + 1 given what is known at
            the close of t, fractions.
        covariance: (N, N) of the returns of t + 1 around it; in the null market its mean over
            time.
        oracle_weights: (T, N), to be held from the close of t to that of t + 1; long and
            short, a constant multiple of inv(S) mu[t] with mean gross exposure 1.
        oracle_sharpe: annualised Sharpe ratio of these weights before costs, in closed form.
    """

    panel: Panel
    expected_returns: pd.DataFrame
    covariance: np.ndarray
    oracle_weights: pd.DataFrame
    oracle_sharpe: float


def planted(rows: int = 2000, assets: int = 10, seed: int = 0, strength: float = 0.05) -> Market:
    """r[t+1] = m + strength s_i x_i[t] + noise, where x is known at the close of t.

    x is autoregressive (0.9) with variance 1, and is ``asset_features["signal"]``; s is
    the volatility of the noise. A strategy that reads the signal can earn the oracle's Sharpe.
    """
    rng, volatility, covariance = _setting(rows, assets, seed)
    signal = np.empty((rows + WARM_UP, assets))
    signal[0] = rng.normal(size=assets)
    for t in range(1, len(signal)):
        signal[t] = 0.9 * signal[t - 1] + np.sqrt(1 - 0.9**2) * rng.normal(size=assets)
    signal = signal[WARM_UP:]
    expected = MEAN + strength * volatility * signal  # (T, N)
    noise = rng.multivariate_normal(np.zeros(assets), covariance, size=rows)
    returns = np.vstack([MEAN + noise[:1], expected[:-1] + noise[1:]])
    spread = np.diag((strength * volatility) ** 2)
    return _market("planted", returns, expected, covariance, spread, seed, signal)


def lead_lag(rows: int = 2000, assets: int = 10, seed: int = 0, strength: float = 0.08) -> Market:
    """Asset i follows the last relative return of asset perm(i), with the coefficient ``strength``.

    z[t+1] = strength Q (z[t] - mean(z[t])) + noise, with z = (r - m) / s and Q a permutation
    without a fixed point. Prediction needs the returns of other assets and the assets' identities;
    an asset's own last return predicts the wrong sign.
    """
    rng, volatility, covariance = _setting(rows, assets, seed)
    if assets < 2:
        raise DataError(f"a lead-lag market needs at least 2 assets, got {assets}")
    ring = rng.permutation(assets)
    follows = np.empty(assets, dtype=int)
    follows[ring] = np.roll(ring, 1)
    centre = np.eye(assets) - 1 / assets
    step = strength * centre[follows]  # (N, N), Q times the centring
    correlation = covariance / np.outer(volatility, volatility)
    noise = rng.multivariate_normal(np.zeros(assets), correlation, size=rows + WARM_UP)
    scores = np.empty_like(noise)
    scores[0] = noise[0]
    for t in range(1, len(noise)):
        scores[t] = step @ scores[t - 1] + noise[t]
    scores = scores[WARM_UP:]
    expected = MEAN + volatility * (scores @ step.T)
    stationary = solve_discrete_lyapunov(step, correlation)
    spread = np.outer(volatility, volatility) * (step @ stationary @ step.T)
    return _market("lead_lag", MEAN + volatility * scores, expected, covariance, spread, seed)


def null(rows: int = 2000, assets: int = 10, seed: int = 0) -> Market:
    """Nothing predicts the mean: equal means, one factor, GARCH volatility, Student-t noise.

    r[t] = m + sqrt(h[t]) e[t], where e has 6 degrees of freedom and h is GARCH(1, 1) with mean 1,
    common to all assets. A strategy that shows a significant gain over the oracle's constant
    weights leaks, or times volatility.
    """
    rng, _, covariance = _setting(rows, assets, seed)
    freedom, alpha, beta = 6.0, 0.08, 0.90
    shocks = rng.multivariate_normal(np.zeros(assets), covariance, size=rows + WARM_UP)
    chi = rng.chisquare(freedom, size=(rows + WARM_UP, 1)) / freedom
    shocks *= np.sqrt((freedom - 2) / freedom / chi)  # multivariate Student t, variance 1
    inverse = np.linalg.inv(covariance)
    sizes = np.einsum("ti,ij,tj->t", shocks, inverse, shocks) / assets  # mean 1
    heat = np.empty(len(shocks))
    heat[0] = 1.0
    for t in range(1, len(heat)):
        heat[t] = 1 - alpha - beta + heat[t - 1] * (alpha * sizes[t - 1] + beta)
    returns = (MEAN + np.sqrt(heat)[:, None] * shocks)[WARM_UP:]
    expected = np.full((rows, assets), MEAN)
    return _market("null", returns, expected, covariance, np.zeros((assets, assets)), seed)


MARKETS: dict[str, Callable[..., Market]] = {f.__name__: f for f in (planted, lead_lag, null)}


def from_name(name: str) -> Market:
    """The market of "synthetic:planted?seed=3&rows=2000&assets=10"."""
    kind, _, query = name.removeprefix("synthetic:").partition("?")
    if kind not in MARKETS:
        raise DataError(f"{name!r}: unknown market {kind!r}{known_names(kind, MARKETS)}")
    arguments = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("rows", "assets", "seed") or not value.isdecimal():
            raise DataError(
                f"{name!r}: {key}={value} is not rows=, assets= or seed= with a whole number"
            )
        arguments[key] = int(value)
    return MARKETS[kind](**arguments)


def _setting(
    rows: int, assets: int, seed: int
) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Generator, volatilities (N,) from 0.8% to 2%, covariance (N, N) of one factor."""
    if rows < 2 or assets < 1:
        raise DataError(f"a market needs at least 2 rows and 1 asset, got {rows} and {assets}")
    check_room("a synthetic market", rows + assets, assets, tables=4, remedy="take fewer")
    rng = np.random.default_rng(seed)
    volatility = rng.uniform(0.008, 0.02, assets)
    loading = np.sqrt(rng.uniform(0.2, 0.5, assets))  # share of the factor in the variance
    correlation = np.outer(loading, loading)
    np.fill_diagonal(correlation, 1.0)
    return rng, volatility, correlation * np.outer(volatility, volatility)


def _market(
    name: str,
    returns: np.ndarray,
    expected: np.ndarray,
    covariance: np.ndarray,
    spread: np.ndarray,
    seed: int,
    signal: np.ndarray | None = None,
) -> Market:
    """Everything is (T, N) or (N, N); ``spread`` is the covariance of mu[t]."""
    rows, assets = returns.shape
    prices = pd.DataFrame(
        100 * np.cumprod(1 + returns, axis=0),
        index=pd.bdate_range("2000-01-03", periods=rows, name="date"),
        columns=[f"S{i:0{len(str(assets - 1))}}" for i in range(assets)],
    )
    panel = Panel(
        prices,
        {} if signal is None else {"signal": pd.DataFrame(signal, prices.index, prices.columns)},
        source=f"synthetic market {name!r}: {rows} rows, {assets} assets, seed {seed}",
        caveats=("Synthetic: results on it say nothing about real markets.",),
    )
    weights = np.linalg.solve(covariance, expected.T).T
    weights /= np.abs(weights).sum(axis=1).mean()
    return Market(
        panel,
        expected_returns=pd.DataFrame(expected, panel.dates, panel.assets),
        covariance=covariance,
        oracle_weights=pd.DataFrame(weights, panel.dates, panel.assets),
        oracle_sharpe=oracle_sharpe(np.full(assets, MEAN), covariance, spread),
    )


def oracle_sharpe(mean: np.ndarray, covariance: np.ndarray, spread: np.ndarray) -> float:
    """Annualised Sharpe ratio of w[t] = inv(S) mu[t], for mu[t] normal with mean m, covariance V.

    A period's return has the conditional mean and variance q = mu' inv(S) mu, so its mean is
    E[q] and its variance E[q] + Var[q]; with A = inv(S), E[q] = m'Am + tr(AV) and
    Var[q] = 2 tr(AVAV) + 4 m'AVAm (moments of a quadratic form in normal variables; Mathai &
    Provost 1992, section 3.2b).

    Args:
        mean: (N,) m; covariance: (N, N) S; spread: (N, N) V.
    """
    inverse = np.linalg.inv(covariance)
    product = inverse @ spread
    gain = mean @ inverse @ mean + np.trace(product)
    variance = 2 * np.trace(product @ product) + 4 * mean @ product @ inverse @ mean
    return float(gain / np.sqrt(gain + variance) * np.sqrt(SESSIONS))
