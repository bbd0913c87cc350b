"""Losses on risk alone: what a covariance is learned from, whatever returns turn out to be.

Both are of the invested part, the weights over their sum, so that holding cash lowers neither. They
read its returns at each row within the holding periods, which say far more of a variance than the
returns of whole periods do.

loss = RealizedVariance(log=True) + QLIKE()
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine.accounting.costs import Account
from engine.losses.returns import FLOOR, Loss


@dataclass(frozen=True)
class RealizedVariance(Loss):
    """Mean over periods of the sum of squared returns of the rows within, a year.

    Andersen, Bollerslev, Diebold and Labys (2003); the criterion by which Engle and Colacito (2006)
    compare covariances: the better one gives the minimum-variance portfolio that varies less.

    ``log``: the mean of their logarithms, in which calm and stormy periods weigh alike.
    """

    log: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.log, bool):
            raise ValueError(f"log is True or False, got {self.log!r}")

    @property
    def within(self) -> bool:
        return True

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        variance = _realized(account, periods_per_year, "RealizedVariance")
        return (variance.clamp_min(FLOOR**2).log() if self.log else variance).mean()


@dataclass(frozen=True)
class QLIKE(Loss):
    """Mean of  v / h - log(v / h) - 1,  v the realized and h the predicted variance: 0 at v = h.

    Patton (2011), equation 20: of the losses whose minimum is the expected variance, the one that
    does not depend on its scale. For modules whose ``weights_and_forecast(inputs)`` gives
    (weights, q, h) with h (B,) the predicted variance a year of the invested part, as
    DEQMeanVariance's does where it may hold cash.
    """

    @property
    def forecasts(self) -> bool:
        return True

    @property
    def within(self) -> bool:
        return True

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        predicted = account.predicted_variance
        if predicted is None:
            raise ValueError(
                "QLIKE needs a predicted variance, which the strategy's weights_and_forecast does "
                "not give; DEQMeanVariance does with cash=True and constraints that allow cash"
            )
        ratio = _realized(account, periods_per_year, "QLIKE") / predicted
        return (ratio - ratio.clamp_min(FLOOR**2).log() - 1).mean()


def _realized(account: Account, periods_per_year: float, name: str) -> Tensor:
    """(S,) sums of squared returns, a year."""
    if account.row_returns is None:
        raise ValueError(f"{name} needs the returns of the rows within the holding periods")
    return account.row_returns.square().sum(-1) * periods_per_year
