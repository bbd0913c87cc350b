"""Warm starts: what a layer keeps of each sample, to start its next solve from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WarmStarts:
    """A row of numbers for each key; on the CPU.

    Args:
        unknown: what the row of a key that was never seen is filled with.
        dtype: of the rows.
    """

    def __init__(self, unknown: float, dtype: torch.dtype):
        self.unknown = unknown
        self.rows = torch.empty(0, 0, dtype=dtype)  # (keys, width)
        self.places: dict[Hashable, int] = {}

    def recall(self, keys: Sequence[Hashable], width: int) -> Tensor:
        """Their rows (len(keys), width); rows of another width are forgotten."""
        if self.rows.shape[1] != width:
            self.places, self.rows = {}, self.rows.new_empty(0, width)
        fresh = {key for key in keys if key not in self.places}
        if fresh:
            unknown = self.rows.new_full((len(fresh), width), self.unknown)
            self.rows = torch.cat([self.rows, unknown])
            for key in dict.fromkeys(keys):
                self.places.setdefault(key, len(self.places))
        return self.rows[[self.places[key] for key in keys]]

    def keep(self, keys: Sequence[Hashable], rows: Tensor) -> None:
        """Remember rows (len(keys), width) of keys that were recalled before."""
        self.rows[[self.places[key] for key in keys]] = rows.detach().to(self.rows)

    def forget(self) -> None:
        """Forget all keys: the next solves start cold."""
        self.places, self.rows = {}, self.rows.new_empty(0, 0)


def remembered(module: nn.Module) -> dict[str, dict]:
    """What the layers inside a module remember, by their names: plain lists and tensors."""
    return {
        name: {"keys": list(layer.warm_starts.places), "rows": layer.warm_starts.rows.clone()}
        for name, layer in _remembering(module)
    }


def remember(module: nn.Module, found: dict[str, dict]) -> None:
    """Put back what ``remembered`` gave."""
    for name, layer in _remembering(module):
        layer.warm_starts.places = {key: place for place, key in enumerate(found[name]["keys"])}
        layer.warm_starts.rows = found[name]["rows"]


def _remembering(module: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(getattr(layer, "warm_starts", None), WarmStarts)
    ]
