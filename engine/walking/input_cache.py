"""Prepared inputs of a strategy: each date once, all in one place, and batches as views of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from strategies.base import Inputs


class InputCache:
    """The inputs of a strategy on the dates of a run, made when they are first asked for.

    Consecutive dates are handed out as a view, so the training rows of folds, which overlap, take
    no memory of their own. Dates that nobody asked for take none either.
    """

    def __init__(self, name: str, rows: np.ndarray, make: Callable[[int], Inputs]):
        """
        Args:
            name: of the strategy, for messages.
            rows: (D,) rows of the panel, increasing: the dates that can be asked for.
            make: prepares one of them.
        """
        self.name, self.make = name, make
        self._place = {int(row): number for number, row in enumerate(rows)}
        self._values: Inputs = {}  # (D, ...) each
        self._known = np.zeros(len(rows), bool)
        self._written: list[int] = []

    def __call__(self, rows: np.ndarray) -> Inputs:
        """The inputs (B, ...) of some of the dates.

        Raises:
            ValueError: two dates have inputs of other names or shapes.
        """
        if self._written != self._versions():  # a module wrote to a view: it may keep it
            self._values, self._written = {}, []
            self._known[:] = False
        places = [self._place[int(row)] for row in rows]
        for row, place in zip(rows, places, strict=True):
            if not self._known[place]:
                self._keep(place, self.make(int(row)))
        first, last = places[0], places[-1] + 1
        if places == list(range(first, last)):
            return {name: values[first:last] for name, values in self._values.items()}
        chosen = torch.tensor(places)
        return {name: values[chosen] for name, values in self._values.items()}

    def _keep(self, place: int, inputs: Inputs) -> None:
        if not self._values:
            dates = len(self._place)
            self._values = {k: v.new_empty((dates, *v.shape)) for k, v in inputs.items()}
        expected = {name: tuple(values.shape[1:]) for name, values in self._values.items()}
        found = {name: tuple(values.shape) for name, values in inputs.items()}
        if found != expected:
            raise ValueError(
                f"{self.name}.prepare() should give the same names and shapes on all dates, got "
                f"{found} after {expected}"
            )
        for name, values in self._values.items():
            values[place] = inputs[name]
        self._known[place] = True
        self._written = self._versions()

    def _versions(self) -> list[int]:
        """How often each was written to; a view shares the count with what it is a view of."""
        return [values._version for values in self._values.values()]
