"""A table before anything is known about its meaning: named columns, with a sample of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["date", "number", "text", "empty"]
SAMPLE = 200  # rows that are looked at to tell what a column holds


@dataclass(frozen=True)
class Column:
    """One column."""

    levels: tuple[str, ...]  # of its name; (field, asset) for pandas' MultiIndex columns
    kind: Kind  # what its sample holds
    sample: Sequence[str] = ()  # the first texts, at most ``SAMPLE``

    @property
    def name(self) -> str:
        return " ".join(self.levels) if len(self.levels) > 1 else self.levels[0]

    @property
    def whole_numbers(self) -> np.ndarray | None:
        """The sample as whole numbers, or None if one of them is not."""
        texts = [text.strip() for text in self.sample if text]
        if not texts or not all(re.fullmatch(r"[+-]?[0-9]{1,19}(\.0*)?", text) for text in texts):
            return None
        return np.array([int(text.partition(".")[0]) for text in texts])


@dataclass(frozen=True)
class Table:
    """Columns and a way to read them.

    Attributes:
        source: the file or frame, for messages; stem: the name of the file.
        read: (positions of keys, positions of numbers) to the keys as Series of objects or dates
            (rows,), and the numbers (rows, C), float64.
        place: says where a row is, for messages: "line 7".
        notes: what was decided, as sentences' parts; chosen: options that were detected, by name.
    """

    source: str
    columns: list[Column]
    read: Callable[[Sequence[int], Sequence[int]], tuple[list[pd.Series], np.ndarray]]
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    notes: list[str] = field(default_factory=list)
    chosen: dict[str, object] = field(default_factory=dict)
    stem: str = ""

    def at(self, row: int, column: int) -> str:
        return f"{self.source}, {self.place(row)}, column {self.columns[column].name!r}"
