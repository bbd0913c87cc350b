"""Anyone's estimators as strategies: of portfolios (skfolio's), and of returns (scikit-learn's)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from data_loaders import Panel
from data_loaders.plugins import load_object
from strategies.base import Strategy
from strategies.baselines import MeanVariance, WindowRule, optimal, window_volatility
from strategies.constraints import Constraints
from strategies.contract_types import Plan
from strategies.covariance import shrunk_covariance
from strategies.features import feature_table
from strategies.parameter_ranges import at_least
from strategies.strategy_constraints import kept


class EstimatorStrategy(Strategy):
    """A portfolio estimator, fitted anew on the window of every decision.

    Args:
        estimator: an object with ``fit(X)``, X a DataFrame of simple returns, that leaves
            ``weights_`` or, as skfolio's pipelines and searches, predicts a portfolio; or the name
            of its class, as module:Class. It gets the assets that trade throughout the window; the
            others are not held. One that refuses prices that do not move, such as those of cash, is
            fitted without them. Its own constraints hold.
        parameters: of the class, where it is named.
        lookback: rows of prices; the estimator sees one return less.
        short: whether it may sell short.
        leverage: most that its absolute weights may sum to.
    """

    def __init__(
        self,
        estimator: Any = "skfolio.optimization:MeanRisk",
        parameters: Mapping[str, Any] | None = None,
        lookback: int = 253,
        short: bool = False,
        leverage: float = 1.0,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.lookback = lookback
        self.short = short
        self.leverage = leverage

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return estimated_weights(made(self.estimator, self.parameters, "estimator"), history)


class HierarchicalRiskParity(WindowRule):
    """Risk split along a tree of assets that move together; Lopez de Prado (2016), by skfolio.

    Args:
        lookback: rows of prices behind distances and covariance.
    """

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        from skfolio.optimization import HierarchicalRiskParity as Tree

        return estimated_weights(Tree(), history)


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
            volatility = window_volatility(seen)
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
        self.check_parameters()
        features = feature_table(history, self.features).to_numpy()
        known = np.isfinite(features).all(axis=1) & history.trades_throughout.to_numpy()
        mean = np.zeros(len(known))
        if known.any():
            predicted = self.model_.predict(features[known])
            mean[known] = predicted * window_volatility(history)[known] / np.sqrt(self.horizon_)
        covariance = shrunk_covariance(history, kept(history, holdings))
        return optimal(self, mean, covariance, history, holdings, self.aversion)


def made(given: Any, parameters: Mapping[str, Any] | None, role: str) -> Any:
    """A fresh estimator: a copy of the one given, or one of the class that is named.

    Args:
        role: the name of the strategy's parameter, for errors.

    Raises:
        ValueError: there is no such class, it does not take the parameters, or it cannot be fitted.
    """
    found = given
    if isinstance(given, str):
        if ":" not in given:
            raise ValueError(
                f"{role}={given!r} should name module and class, like sklearn.linear_model:Ridge"
            )
        cls = load_object(given)
        if not isinstance(cls, type):
            raise ValueError(f"{role}={given!r} is not a class")
        try:
            found = cls(**(parameters or {}))
        except TypeError as error:
            raise ValueError(f"{role}={given!r}: {error}") from None
    elif parameters:
        raise ValueError(f"parameters are for the {role} given by the name of its class")
    if isinstance(found, type) or not hasattr(found, "fit"):
        raise ValueError(f"{role} should be an object with a method fit, got {found!r}")
    return clone(found, safe=False)  # what has no get_params is copied


def estimated_weights(estimator: Any, history: Panel) -> pd.Series:
    """Weights (N,) of an estimator fitted on the returns of ``history``; 0 where none is given.

    Raises:
        ValueError: nothing trades throughout, the estimator fails, or leaves no finite weights of
            the assets it was given.
    """
    name = type(estimator).__name__
    trades = history.trades_throughout
    if not trades.any():
        raise ValueError("no asset trades throughout the lookback, so there is nothing to hold")
    moves = trades & (history.returns.iloc[1:] != 0).any()
    try:
        found, returns = _fitted(estimator, history, trades)
    except ValueError:
        if moves.equals(trades) or not moves.any():
            raise
        trades = moves
        found, returns = _fitted(estimator, history, trades)
    if found.shape != (returns.shape[1],):
        raise ValueError(
            f"{name} leaves weights_ of shape {found.shape} for {returns.shape[1]} assets: it is "
            "not a portfolio estimator"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{name} leaves weights_ that are not finite: {found}")
    weights = pd.Series(0.0, index=history.assets)
    weights[trades] = found
    return weights


def _fitted(estimator: Any, history: Panel, chosen: pd.Series) -> tuple[np.ndarray, pd.DataFrame]:
    """Weights (n,) of the assets ``chosen`` (N,) bool, and the returns that they are fitted on."""
    returns = history.returns.loc[:, chosen].iloc[1:]
    try:
        with config_context(transform_output="pandas"):  # a pipeline's steps keep the names
            estimator.fit(returns)
            return _weights(estimator, returns), returns
    except Exception as error:
        name = type(estimator).__name__
        raise ValueError(f"{name} cannot be fitted on {returns.shape} returns: {error}") from error


def _weights(estimator: Any, returns: pd.DataFrame) -> np.ndarray:
    """Weights (n,) of the columns of ``returns``; of shape (0,) where there are none."""
    if not hasattr(estimator, "weights_") and hasattr(estimator, "predict"):
        portfolio = estimator.predict(returns)  # of skfolio; a pipeline may have left assets out
        held = getattr(portfolio, "weights_dict", None)
        if held is not None:
            unknown = [str(name) for name in held if name not in returns.columns]
            if unknown:
                raise ValueError(f"its portfolio holds {', '.join(unknown[:5])}, unknown here")
            return pd.Series(held).reindex(returns.columns).fillna(0.0).to_numpy(float)
    return np.asarray(getattr(estimator, "weights_", ()), dtype=float)
