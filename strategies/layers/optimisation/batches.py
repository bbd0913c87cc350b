"""Arguments brought to one batch, float64."""

from __future__ import annotations

import torch
from torch import Tensor

# one number a sample
BY_SAMPLE = ("budget", "budget_upper", "turnover_limit", "gross_limit", "tracking")


def expand(
    values: dict[str, tuple[Tensor | float | None, int]], sizes: set[int], device: torch.device
) -> dict[str, Tensor]:
    """Every value that is not None as (B, width), float64, by name; values are (value, width).

    A number, a (width,) shared by the batch, a (B, width), or a (B,) of width 1. ``sizes`` are the
    batch sizes of the other arguments, 1 for what all samples share.
    """
    numbers, tensors = {}, {}
    for name, (value, _) in values.items():
        if value is None and name in ("lower", "upper"):
            raise ValueError(f"{name} is None: leave it out for its default, or give an infinity")
        if value is None:
            continue
        if isinstance(value, float | int):
            numbers[name] = value
        else:
            tensor = torch.as_tensor(value, dtype=torch.float64, device=device)
            if name in BY_SAMPLE and tensor.dim() == 1:
                tensor = tensor.unsqueeze(1)
            tensors[name] = tensor
            if tensor.dim() > 1:
                sizes.add(tensor.shape[0])
    batch = max(sizes)
    if sizes - {1, batch}:
        raise ValueError(f"the arguments have different batch sizes: {sorted(sizes)}")
    given = {
        name: torch.full((batch, values[name][1]), number, dtype=torch.float64, device=device)
        for name, number in numbers.items()
    }
    for name, tensor in tensors.items():
        width = values[name][1]
        if tensor.dim() > 2 or (tensor.dim() and tensor.shape[-1] not in (1, width)):
            shapes = f"({batch},)" if name in BY_SAMPLE else f"({width},) or ({batch}, {width})"
            raise ValueError(f"{name} must be a number, {shapes}, got shape {tuple(tensor.shape)}")
        given[name] = tensor if tensor.shape == (batch, width) else tensor.expand(batch, width)
    return given


def with_batch(name: str, tensor: Tensor, tail: tuple[int, ...]) -> Tensor:
    """A tensor (*tail) or (B, *tail) as (1|B, *tail)."""
    if tensor.dim() == len(tail):
        tensor = tensor.unsqueeze(0)
    if tensor.shape[1:] != tail:
        shape = ", ".join(map(str, tail))
        raise ValueError(
            f"{name} must have shape ({shape}) or (B, {shape}) to fit the expected returns, "
            f"got {tuple(tensor.shape)}"
        )
    return tensor


def collapse(part: Tensor) -> Tensor:
    """Take a risk that is expanded over the batch only once."""
    return part[:1] if part.shape[0] > 1 and part.stride(0) == 0 else part
