"""What a layer remembers of each sample from one call to the next, to start its solve from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class Starts:
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
        self.rows[[self.places[key] for key in keys]] = rows.to(self.rows)

    def forget(self) -> None:
        """Start every key anew."""
        self.places, self.rows = {}, self.rows.new_empty(0, 0)
