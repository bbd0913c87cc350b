"""Predict, then optimise: what end-to-end training is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from data_loaders import Panel
from strategies.base import Plan, Strategy
from strategies.baselines import optimal
from strategies.constraints import Constraints
from strategies.covariance import shrunk_covariance
from strategies.estimators import made
from strategies.features import feature_table
from strategies.parameter_ranges import above, at_least, one_of
from strategies.strategy_constraints import FALLBACKS, kept


class MeanVariance(Strategy):
    """Mean and variance of the window, both shrunk, to the optimal portfolio; Markowitz (1952).

    The weights solve  max mu'w - a/2 w'Sw  under the constraints, with S of Ledoit & Wolf and mu
    the mean return, shrunk towards that of the minimum variance portfolio (Jorion 1986).

    Args:
        lookback: rows of prices behind both.
        aversion: a, to variance.
        cap: largest weight of an asset, a fraction. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values.
        fallback: where no weights satisfy them: "raise" an error, "hold" the current holdings,
            or "relax" the caps in proportion.
    """

    equivariant = True
    ranges: ClassVar = {
        "lookback": at_least(3),
        "aversion": above(0),
        "cap": above(0),
        "fallback": one_of(*FALLBACKS),
    }

    def __init__(
        self,
        lookback: int = 253,
        aversion: float = 5.0,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
    ):
        self.lookback = lookback
        self.aversion = aversion
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        trades = history.trades_throughout.to_numpy()
        returns = history.returns.to_numpy()[1:, trades]
        mean = np.zeros(len(trades))
        covariance = shrunk_covariance(history, kept(history, holdings))
        if trades.any():
            mean[trades] = bayes_stein(returns, covariance[np.ix_(trades, trades)])
        return _optimal(self, mean, covariance, history, holdings)


class PredictThenOptimize(Strategy):
    """Returns predicted by any scikit-learn regressor, then the mean-variance portfolio of them.

    The regressor learns from all assets together, one sample an asset and date: features to the
    return over the next ``horizon`` rows, over its volatility. Features are scaled as the training
    rows are. Labels end before the refit.

    Args:
        regressor: an object with fit and predict, or the name of its class, as module:Class.
        parameters: of the class, where it is named.
        horizon: rows of the return that is predicted; by default those from a fill to the next,
            in the median over the plan's decisions.
        delay: rows from a decision to its fill; by default the plan's execution_lag.
        lookback: rows of prices behind the features and the covariance.
        aversion: to variance, in  max mu'w - a/2 w'Sw, with S of Ledoit & Wolf.
        cap: largest weight of an asset, a fraction. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values.
        fallback: where no weights satisfy them: "raise" an error, "hold" the current holdings,
            or "relax" the caps in proportion.
        features: sets of features, see ``features.py``.
    """

    ranges: ClassVar = {**MeanVariance.ranges, "horizon": at_least(1), "delay": at_least(0)}

    def __init__(
        self,
        regressor: Any = "sklearn.linear_model:Ridge",
        parameters: Mapping[str, Any] | None = None,
        horizon: int | None = None,
        delay: int | None = None,
        lookback: int = 253,
        aversion: float = 5.0,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
        features: Sequence[str] = ("prices", "panel"),
    ):
        self.regressor = regressor
        self.parameters = parameters
        self.horizon = horizon
        self.delay = delay
        self.lookback = lookback
        self.aversion = aversion
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback
        self.features = features

    def fit(self, history: Panel, plan: Plan | None = None) -> PredictThenOptimize:
        """Learn from the rows of ``history``, for decisions and fills as the plan has them.

        Raises:
            ValueError: too few rows, or neither a plan nor both ``horizon`` and ``delay``.
        """
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regressor = made(self.regressor, self.parameters, "regressor")
        self.horizon_, self.delay_ = self.timing(history, plan)
        x, y = self.samples(history, plan)
        if len(y) < 2:
            raise ValueError(
                f"{len(history)} training rows leave {len(y)} samples for the regressor: they must "
                f"be more than the lookback of {self.lookback} and the horizon of {self.horizon_}, "
                "and some asset must trade and move throughout a lookback"
            )
        self.model_ = make_pipeline(StandardScaler(), regressor)
        self.model_.fit(x, y)
        return self

    def timing(self, history: Panel, plan: Plan | None = None) -> tuple[int, int]:
        """Rows of the return that is predicted, and rows from a decision to its fill."""
        horizon, delay = self.horizon, self.delay
        if plan is None and (horizon is None or delay is None):
            raise ValueError(
                "PredictThenOptimize takes horizon and delay from the plan that engine.backtest "
                "gives it; fitted without one, give both"
            )
        if horizon is None and plan is not None:
            rows = np.diff(plan.decisions(history.dates))
            if not len(rows):
                raise ValueError(
                    f"the plan makes fewer than two decisions in {len(history)} training rows, so "
                    "that there is no time from one fill to the next: give horizon, or a longer "
                    "train span"
                )
            horizon = round(float(np.median(rows)))
        if delay is None and plan is not None:
            delay = plan.execution_lag
        assert horizon is not None
        assert delay is not None
        if horizon < 1 or delay < 0:
            raise ValueError(
                f"horizon is at least 1 row and delay at least 0, got {horizon} and {delay}"
            )
        return horizon, delay

    def samples(self, history: Panel, plan: Plan | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Features (M, F) and labels (M,) whose returns end in ``history``, a horizon apart."""
        horizon, delay = self.timing(history, plan)
        prices = np.log(history.prices.to_numpy())
        x, y = [], []
        last = len(history) - 1 - delay - horizon
        for row in range(self.lookback - 1, last + 1, horizon):
            seen = history.rows(row + 1 - self.lookback, row + 1)
            start = row + delay
            label = prices[start + horizon] - prices[start]
            volatility = _volatility(seen)
            label /= np.where(volatility > 0, volatility, np.nan) * np.sqrt(horizon)
            features = feature_table(seen, self.features).to_numpy()
            known = np.isfinite(label) & np.isfinite(features).all(axis=1)
            known &= seen.trades_throughout.to_numpy()
            x.append(features[known])
            y.append(label[known])
        return np.concatenate(x or [np.empty((0, 1))]), np.concatenate(y or [np.empty(0)])

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        if not hasattr(self, "model_"):
            raise NotFittedError("PredictThenOptimize is not fitted yet: engine.backtest does it")
        features = feature_table(history, self.features).to_numpy()
        known = np.isfinite(features).all(axis=1) & history.trades_throughout.to_numpy()
        mean = np.zeros(len(known))
        if known.any():
            predicted = self.model_.predict(features[known])
            mean[known] = predicted * _volatility(history)[known] / np.sqrt(self.horizon_)
        covariance = shrunk_covariance(history, kept(history, holdings))
        return _optimal(self, mean, covariance, history, holdings)


def bayes_stein(returns: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mean returns (N,) shrunk towards that of the minimum variance portfolio.

    By  lambda / (lambda + L),  lambda = (N + 2) / ((m - m0)' inv(S) (m - m0)).  Jorion (1986),
    "Bayes-Stein estimation for portfolio analysis", equation 17.

    Args:
        returns: (L, N). covariance: (N, N), of any scale.
    """
    mean = returns.mean(axis=0)
    covariance = covariance * (returns.var(axis=0).mean() / np.diag(covariance).mean())
    inverse = np.linalg.inv(covariance)
    common = (inverse.sum(axis=1) @ mean) / inverse.sum()
    apart = mean - common
    distance = apart @ inverse @ apart
    if not distance > 0:
        return mean
    strength = (len(mean) + 2) / distance
    return mean - apart * strength / (strength + len(returns))


def _optimal(
    strategy: MeanVariance | PredictThenOptimize,
    mean: np.ndarray,
    covariance: np.ndarray,
    history: Panel,
    holdings: pd.Series,
) -> pd.Series:
    """The weights for mean returns (N,) a row and a covariance over its mean variance."""
    strategy.check_parameters()
    trades = history.trades_throughout.to_numpy()
    if trades.any():
        mean = mean / (strategy.aversion * np.square(_volatility(history)[trades]).mean())
    return optimal(strategy, mean, covariance, history, holdings)


def _volatility(history: Panel) -> np.ndarray:
    """Of the returns in the window, (N,), a row; NaN where an asset does not trade throughout."""
    return history.returns.iloc[1:].std(ddof=0, skipna=False).to_numpy()
