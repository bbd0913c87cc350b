"""A table before anything is known about its meaning: named columns, with a sample of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["date", "number", "text", "empty"]
SAMPLE = 200  # rows that are looked at to tell what a column holds


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        levels: of its name; one for most tables, (field, asset) for pandas' MultiIndex columns.
        kind: what its sample holds.
        sample: the first texts of the column, at most ``SAMPLE``.
    """

    levels: tuple[str, ...]
    kind: Kind
    sample: Sequence[str] = ()

    @property
    def name(self) -> str:
        return " ".join(self.levels) if len(self.levels) > 1 else self.levels[0]

    @property
    def whole_numbers(self) -> np.ndarray | None:
        """The sample as whole numbers, or None if one of them is not."""
        texts = [text for text in self.sample if text]
        if not texts or not all(_is_whole(text) for text in texts):
            return None
        return np.array([_whole(text) for text in texts])


@dataclass(frozen=True)
class Table:
    """Columns and a way to read them.

    Attributes:
        source: the file or frame, for messages.
        columns: in their order.
        read: (positions of keys, positions of numbers) to the keys as Series of objects or dates
            (rows,), and the numbers (rows, C), float64.
        place: says where a row is, for messages: "line 7".
        notes: what was decided on the way to the table, as sentences' parts.
        chosen: options that were detected, by name.
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


def _is_whole(text: str) -> bool:
    head, _, tail = text.strip().lstrip("+-").partition(".")
    return head.isascii() and head.isdecimal() and len(head) <= 19 and not tail.strip("0")


def _whole(text: str) -> int:
    return int(text.strip().partition(".")[0])
