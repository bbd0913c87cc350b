"""Which blocks an epoch sees, how large its steps are, and what is wrong before the first one."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from engine.training import Samples, Training

SCHEDULES = ("constant", "cosine")
FEWEST = 10  # periods in a block, below which a Sharpe ratio is mostly noise


class TrainingWarning(UserWarning):
    """Training goes on, but what comes of it is likely to be noise."""


def learning_rate(training: Training, epoch: int) -> float:
    """Of an epoch, from 1 on: a linear warm-up, then constant, or a half cosine towards zero.

    Loshchilov and Hutter (2017), without restarts.
    """
    if epoch <= training.warmup:
        return training.learning_rate * epoch / (training.warmup + 1)
    if training.schedule == "constant":
        return training.learning_rate
    done = (epoch - training.warmup - 1) / max(1, training.epochs - training.warmup)
    return training.learning_rate * (1 + math.cos(math.pi * done)) / 2


def epoch_blocks(blocks: list[tuple[int, int]], bootstrap: bool) -> list[tuple[int, int]]:
    """The blocks of an epoch in random order, of torch's global generator.

    With ``bootstrap`` each is moved to a random place in the training rows, so that they overlap
    and leave gaps: the moving-block bootstrap. Kuensch (1989).
    """
    order = torch.randperm(len(blocks)).tolist()
    if not bootstrap:
        return [blocks[index] for index in order]
    first, last = blocks[0][0], blocks[-1][1]
    moved = []
    for index in order:
        length = blocks[index][1] - blocks[index][0]
        start = int(torch.randint(first, last - length + 1, ()).item())
        moved.append((start, start + length))
    return moved


def with_noise(growth: Tensor, noise: float) -> Tensor:
    """Growth factors (S, N) times exp(noise * s * e), e standard normal.

    s is the deviation of each asset's returns in these rows, so that 0.5 adds a quarter of its
    variance; prices stay positive.
    """
    if not noise:
        return growth
    return growth * (noise * growth.std(0) * torch.randn_like(growth)).exp()


def check_samples(samples: Samples) -> None:
    """Every input has one row a decision.

    Raises:
        ValueError: one has more, which may be rows of the future, or fewer.
    """
    for name, values in samples.inputs.items():
        if len(values) != len(samples):
            raise ValueError(
                f"input {name!r} has {len(values)} rows for {len(samples)} decisions: prepare() "
                "gives what is known at one date, and the engine stacks the dates"
            )


def warn_before(module: nn.Module, labels: int, block: int) -> None:
    """Warn of what will cost hours and teach nothing.

    Args:
        labels: returns that are trained on, decisions times assets.
        block: decisions in the smallest block.
    """
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if parameters > labels:
        warnings.warn(
            f"{parameters} parameters are trained on {labels} returns: they can be learned by "
            "heart; a smaller network or a longer train span is needed",
            TrainingWarning,
            stacklevel=3,
        )
    if block < FEWEST:
        warnings.warn(
            f"the smallest block has {block} decisions: a ratio of so few is mostly noise; "
            f"a larger block or a longer train span gives it {FEWEST} or more",
            TrainingWarning,
            stacklevel=3,
        )
