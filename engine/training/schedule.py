"""What an epoch of training consists of: its blocks, its learning rate, its noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from engine.training.settings import Training

Block = tuple[int, int]  # decisions from the first up to the second, which is not one of them


def equal_blocks(last: int, length: int) -> list[tuple[int, int]]:
    """The decisions from 1 up to ``last`` in contiguous blocks of about ``length``, at least 3."""
    count = max(1, min(round((last - 1) / length), (last - 1) // 3))
    parts = np.array_split(np.arange(1, last), count)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


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


def noise_factors(growth: Tensor, noise: float) -> Tensor:
    """What growth factors (S, N) are multiplied by: exp(noise * s * e), e standard normal.

    s is the deviation of each asset's returns in these rows, so that 0.5 adds a quarter of its
    variance; prices stay positive.
    """
    drawn = torch.randn(growth.shape, dtype=growth.dtype).to(growth.device)  # on any device alike
    return (noise * growth.std(0) * drawn).exp()
