"""Which blocks an epoch sees, how large its steps are, and what is wrong with training."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from engine.training.dataset import Samples
from engine.training.errors import TrainingWarning
from engine.training.settings import Training

FEWEST = 10  # periods in a block, below which a Sharpe ratio is mostly noise


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


def epoch_blocks(
    blocks: list[tuple[int, int]], bootstrap: bool, mirrors: int = 0, decisions: int = 0
) -> list[tuple[int, int]]:
    """The blocks of an epoch in random order, of torch's global generator.

    With ``bootstrap`` each is moved to a random place in the training rows, so that they overlap
    and leave gaps: the moving-block bootstrap. Kuensch (1989). With ``mirrors`` each is taken from
    the true panel, or from one of the mirrored ones that follow it, ``decisions`` rows each.
    """
    order = torch.randperm(len(blocks)).tolist()
    first, last = blocks[0][0], blocks[-1][1]
    drawn = []
    for index in order:
        start, stop = blocks[index]
        if bootstrap:
            length = stop - start
            start = int(torch.randint(first, last - length + 1, ()).item())
            stop = start + length
        shift = int(torch.randint(mirrors + 1, ()).item()) * decisions if mirrors else 0
        drawn.append((start + shift, stop + shift))
    return drawn


def shocks(growth: Tensor, noise: float) -> Tensor:
    """What growth factors (S, N) are multiplied by: exp(noise * s * e), e standard normal.

    s is the deviation of each asset's returns in these rows, so that 0.5 adds a quarter of its
    variance; prices stay positive.
    """
    drawn = torch.randn(growth.shape, dtype=growth.dtype).to(growth.device)  # on any device alike
    return (noise * growth.std(0) * drawn).exp()


def check_samples(samples: Samples) -> None:
    """Every input has one row a decision.

    Raises:
        ValueError: one has more, which may be rows of the future, or fewer.
    """
    panels = 1 + samples.mirrors
    for name, values in samples.inputs.items():
        if len(values) != panels * len(samples):
            rows = len(values) / panels
            raise ValueError(
                f"input {name!r} has {rows:g} rows for {len(samples)} decisions: prepare() "
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
