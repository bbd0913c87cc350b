"""What training raises, and what it warns of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and why.

    Attributes:
        state: the best state until then, if there was one: what ``load_state_dict`` takes.
        epoch: the epoch it is of; 0 is the untrained module.
        failure: that of a ``BacktestResult``, where a backtest trained.
        finished: the results of all strategies of that backtest, by name.
    """

    failure: dict | None = None
    finished: Mapping = MappingProxyType({})

    def __init__(
        self, message: str, state: dict[str, Tensor] | None = None, epoch: int | None = None
    ):
        super().__init__(message)
        self.state, self.epoch = state, epoch

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.state, self.epoch), {"failure": self.failure}


class TrainingWarning(UserWarning):
    """Training continues, but its result is likely to be noise."""
