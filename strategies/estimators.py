"""Anyone's portfolio estimator as a strategy: skfolio's, or any with fit(X) and weights_."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.plugins import load_object
from strategies.base import Strategy


class EstimatorStrategy(Strategy):
    """A portfolio estimator, fitted anew on the window of every decision.

    Args:
        estimator: an object with ``fit(X)``, X a DataFrame of simple returns, that leaves
            ``weights_``; or the name of its class, as module:Class. It gets the assets that trade
            throughout the window; the others are not held. Its own constraints hold.
        parameters: of the class, where it is named.
        lookback: rows of prices; the estimator sees one return less.
    """

    def __init__(
        self,
        estimator: Any = "skfolio.optimization:MeanRisk",
        parameters: Mapping[str, Any] | None = None,
        lookback: int = 253,
    ):
        self.estimator = estimator
        self.parameters = parameters
        self.lookback = lookback

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return estimated_weights(made(self.estimator, self.parameters), history)


def made(said: Any, parameters: Mapping[str, Any] | None) -> Any:
    """A fresh estimator: a clone of the one given, or one of the class that is named.

    Raises:
        ValueError: there is no such class, or it does not take the parameters.
    """
    if not isinstance(said, str):
        if parameters:
            raise ValueError("parameters are for an estimator given by its class's name")
        return clone(said)
    cls = load_object(said)
    try:
        return cls(**(parameters or {}))  # type: ignore[operator]
    except TypeError as error:
        raise ValueError(f"estimator {said!r}: {error}") from None


def estimated_weights(estimator: Any, history: Panel) -> pd.Series:
    """Weights (N,) of an estimator fitted on the returns of ``history``; 0 where none is given.

    Raises:
        ValueError: nothing trades throughout, the estimator fails, or leaves no weights_ of the
            assets it was given.
    """
    name = type(estimator).__name__
    trades = history.trades_throughout
    returns = history.returns.loc[:, trades].iloc[1:]
    if not trades.any():
        raise ValueError("no asset trades throughout the lookback, so there is nothing to hold")
    try:
        estimator.fit(returns)
    except Exception as error:
        raise ValueError(f"{name} cannot be fitted on {returns.shape} returns: {error}") from error
    found = np.asarray(getattr(estimator, "weights_", ()), dtype=float)
    if found.shape != (returns.shape[1],):
        raise ValueError(
            f"{name} leaves weights_ of shape {found.shape} for {returns.shape[1]} assets: it is "
            "no portfolio estimator"
        )
    weights = pd.Series(0.0, index=history.assets)
    weights[trades] = found
    return weights
