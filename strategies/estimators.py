"""Anyone's portfolio estimator as a strategy: skfolio's, or any with fit(X) and weights_."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.plugins import load_object
from strategies.base import Strategy


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
