"""Several modules of one kind at once, each on its own samples of one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def each(
    modules: Sequence[Any], sizes: Sequence[int], *tensors: Tensor | None
) -> Iterator[tuple[Any, ...]]:
    """Each module with its own part of the tensors (M, ...): ``sizes`` samples each, in order."""
    parts = [
        [None] * len(sizes) if tensor is None else map(_aligned, tensor.split(list(sizes)))
        for tensor in tensors
    ]
    return zip(modules, *parts, strict=True)


def _aligned(part: Tensor) -> Tensor:
    """As a tensor of its own would lie in memory: the last bits of a product depend on it."""
    return part.clone() if part.data_ptr() % 64 else part


def apply_each(modules: Sequence[nn.Module], sizes: Sequence[int], *tensors: Tensor) -> Tensor:
    """The outputs (M, ...) of modules that are called one by one, each on its own samples."""
    return torch.cat([module(*parts) for module, *parts in each(modules, sizes, *tensors)])


def spread(values: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """(M, ...): the value of each module, for each of its samples."""
    parts = zip(values, sizes, strict=True)
    return torch.cat([value.expand(size, *value.shape) for value, size in parts])
