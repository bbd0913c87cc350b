"""How far training is believed: the share of the way from the untrained state to the trained one.

The validation blocks are out of sample: each is of a module that was trained on the decisions
before it, at the epoch that is best on the other blocks. From the gain over the untrained module on
all of them, and the gain's standard error, comes the share

    s = max(0, 1 - (error / gain)^2)    where the gain is positive, and else 0,

the positive-part estimator of James & Stein (1961), as Tu & Zhou (2011) combine a trained portfolio
with one that needs no training. A gain smaller than its standard error moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.accounting.costs import Account

GROUPS = 20  # of consecutive periods, left out in turn


class Evidence(NamedTuple):
    """Of the validation blocks together, in the unit of the loss."""

    gain: float  # by how much the loss is lower after training
    error: float  # its standard error
    share: float  # s


class Compared(NamedTuple):
    """The accounts of a validation block, before and after training, and the loss of an account."""

    loss: Callable[[Account], Tensor]
    untrained: Account
    trained: Account

    def gain(self, rows: np.ndarray) -> float:
        kept = torch.from_numpy(rows).to(self.untrained.cost.device)
        before, after = _rows(self.untrained, kept), _rows(self.trained, kept)
        return float(self.loss(before) - self.loss(after))


def evidence(blocks: Sequence[Compared], pooled: bool = False) -> Evidence:
    """Of validation blocks of one market, in order of time.

    Args:
        pooled: they are of the same time in several markets: the mean of their gains. Markets move
            together, so a group that is left out is left out in all of them at once.
    """
    if pooled:
        rows = np.arange(3 * GROUPS)  # parts of the time
    else:  # one after the other, they are one block
        before, after = ([each.untrained for each in blocks], [each.trained for each in blocks])
        blocks = [Compared(blocks[0].loss, joined(before), joined(after))]
        rows = np.arange(len(blocks[0].untrained.cost))

    def gain(kept: np.ndarray) -> float:
        gains = []
        for block in blocks:
            count = len(block.untrained.cost)
            own = np.isin(np.arange(count) * len(rows) // count, kept)
            gains.append(block.gain(np.flatnonzero(own)))
        return float(np.mean(gains))

    found, error = gain(rows), jackknife_error(gain, rows)
    return Evidence(found, error, positive_part(found, error))


def positive_part(gain: float, error: float) -> float:
    """s, from 0 to 1; 0 where either is not finite."""
    if not (gain > error and math.isfinite(gain)):  # NaN is not above
        return 0.0
    return 1 - (error / gain) ** 2


def jackknife_error(statistic: Callable[[np.ndarray], float], rows: np.ndarray) -> float:
    """Standard error of a statistic of consecutive rows, by leaving out a group at a time.

    Kuensch (1989), the block jackknife: groups, as neighbours depend on each other.
    """
    groups = np.array_split(rows, min(GROUPS, max(2, len(rows) // 3)))
    left = np.array([statistic(np.setdiff1d(rows, group)) for group in groups])
    return float(np.sqrt((len(groups) - 1) * np.mean((left - left.mean()) ** 2)))


def joined(accounts: Sequence[Account]) -> Account:
    """One account of several, one after the other."""
    fields: Iterator[Any] = zip(*accounts, strict=True)
    return Account._make(None if each[0] is None else torch.cat(each) for each in fields)


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict:
    """The state at a share of the way; the ends bitwise, and what is not a float from the end."""
    if share == 0:
        return dict(start)
    return {
        name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def _rows(account: Account, rows: Tensor) -> Account:
    return Account._make(None if field is None else field[rows] for field in account)
