"""The decisions that a strategy is trained on, and where its validation begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from strategies.base import Inputs


@dataclass(frozen=True)
class Samples:
    """K decisions in a row, each held from its fill to the next decision's fill.

    With mirrors (see ``mirrors.py``) inputs, growth, years and illiquidity have as many times K
    rows more, those of one mirrored panel after the other; all else is of the true panel.

    Attributes:
        inputs: prepared inputs, (K, ...) each.
        growth: (K, N) growth factors of prices over the holding periods.
        rows: (K,) rows of the panel at which the decisions are made.
        ends: (K,) rows at which the holding periods end.
        per_year: holding periods a year.
        years: (K,) lengths of the holding periods, if holding costs or earns anything.
        illiquidity: (K, N) at the fills, if there is market impact (see ``Costs.charge``).
        assets: (N,) names, for losses that name one as their benchmark.
        mirrors: how many mirrored panels there are.
    """

    inputs: Inputs
    growth: Tensor
    rows: np.ndarray
    ends: np.ndarray
    per_year: float
    years: Tensor | None = None
    illiquidity: Tensor | None = None
    assets: tuple[str, ...] = ()
    mirrors: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Samples:
        """The same with its tensors on another device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            inputs={name: values.to(device) for name, values in self.inputs.items()},
            growth=self.growth.to(device),
            years=moved(self.years),
            illiquidity=moved(self.illiquidity),
        )

    def runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """``start`` to ``stop`` without the decisions that come after a gap in time.

        Cross-validation cuts gaps; what is held across one is unknown, so the decision after it
        is where a run is entered, as ``start - 1`` is. Stretches of a mirrored panel lie K rows
        further on, or a multiple of it.
        """
        edges = self._gaps + start // len(self) * len(self)
        if not len(edges):
            return [(start, stop)] if start < stop else []
        edges = edges[(edges >= start) & (edges < stop)]
        runs = zip([start, *(edges + 1)], [*edges, stop], strict=True)
        return [(int(a), int(b)) for a, b in runs if a < b]

    @cached_property
    def _gaps(self) -> np.ndarray:
        """The decisions that come after a gap."""
        lags = self.ends[:-1] - self.rows[1:]  # all the same, where decisions are in a row
        return np.flatnonzero(lags < lags.max()) + 1

    def rows_until(self, last: int) -> Inputs:
        """The inputs of the decisions before ``last``."""
        return {name: values[:last] for name, values in self.inputs.items()}

    def split(self, validation: float) -> tuple[int, int]:
        """Those before the first number are trained on, those from the second on validate.

        Between them lie those whose label reaches into the validation rows.
        """
        cut = round(len(self) * (1 - validation))
        last = int(np.sum(self.ends[:cut] <= self.rows[min(cut, len(self) - 1)]))
        return last, cut
