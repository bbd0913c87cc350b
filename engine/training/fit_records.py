"""A fit: which it is, what it leaves behind or fails with, and its summary. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:  # it takes a second to import
    from torch import Tensor

FOUND = ("validation_gain", "validation_error", "share", "first_gain")


class FitKey(NamedTuple):
    """Which fit: of the strategy shown under ``name``, in a fold, with a seed."""

    name: str
    fold: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind: the module's state, and the record of its training."""

    state: dict[str, Tensor]
    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]


Fits = dict[FitKey, Fitted]


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


def training_summary(training: pd.DataFrame) -> pd.DataFrame:
    """One row a fold and seed, from the rows of the epochs (``BacktestResult.training``).

    Returns:
        Columns fold and seed (where known); epochs, how many were trained; epoch, the best, 0 the
        untrained one, with its loss and validation_loss; untrained, the validation loss of epoch
        0, and gain, by how much that of the best is lower; validation_gain and validation_error,
        what all validation blocks say of the gain, and share, how far from the untrained state
        the one that was kept is (see ``evidence.py``; not in older runs); first_gain, of a first
        loss, if there was one; learned, whether what was kept differs from the untrained state;
        gradient_norm, the
        median; skipped, steps left out; contraction, of the slowest fixed point of any epoch.
        Where nothing was finite, NaN. Empty where nothing is trained.
    """
    keys = [key for key in ("fold", "seed") if key in training]
    rows = []
    for values, part in training.groupby(keys, sort=False, dropna=False) if len(training) else ():
        kept = part[part["best"].astype(bool)].tail(1)
        last = {name: kept[name].sum(min_count=1) for name in ("epoch", "loss", "validation_loss")}
        first = part.loc[part["epoch"] == 0, "validation_loss"].sum(min_count=1)
        slowest = part["contraction"].max() if "contraction" in part else float("nan")
        found = {name: part[name].iloc[-1] for name in FOUND if name in part}
        learned = last["epoch"] > 0 and found.get("share", 1) > 0
        rows.append(
            {
                **dict(zip(keys, values, strict=True)),
                "epochs": int(part["epoch"].max()),
                **last,
                "untrained": first,
                "gain": first - last["validation_loss"],
                **found,
                "learned": bool(learned or found.get("first_gain", 0) > 0),
                "gradient_norm": part["gradient_norm"].dropna().median(),
                "skipped": part["skipped"].sum(),
                "contraction": slowest,
            }
        )
    return pd.DataFrame(rows)
