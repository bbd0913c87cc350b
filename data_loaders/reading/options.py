"""The options of reading a file: arguments of ``load``, of ``[data]`` and of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property

from data_loaders.suggestions import did_you_mean, known_names

KINDS = ("prices", "returns")
UNITS = {"fraction": 1.0, "percent": 100.0, "bp": 10000.0, "gross": 1.0}
LAYOUTS = ("wide", "fields", "long")
MISSING = (
    "", "NA", "N/A", "#N/A", "#N/A N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "--",
    ".", "#NV", "<NA>", "NaT",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How to read a file, as ``load`` says it; what is None is detected, or refused in doubt."""

    kind: str = "prices"
    unit: str | None = None
    price: str | None = None
    layout: str | None = None
    asset: str | None = None
    date_format: str | None = None
    timezone: str | None = None
    skip: int | str = 0
    header: int | str | list[str] | None = None
    table: int | None = None
    na: str | float | None = None
    decimal: str | None = None
    thousands: str | None = None

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _one_of("unit", self.unit, UNITS)
        _one_of("layout", self.layout, LAYOUTS)
        _one_of("decimal", self.decimal, (".", ","))
        _one_of("thousands", self.thousands, (",", ".", " ", "'"))
        if self.unit is not None and self.kind == "prices":
            raise ValueError("unit is for kind='returns'")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        if isinstance(self.header, list):
            object.__setattr__(self, "header", ",".join(self.header))
        if str(self.header).isdecimal():
            object.__setattr__(self, "header", int(str(self.header)))
        elif self.header is not None and "," not in str(self.header):
            raise ValueError(
                f"header is a number of lines, or names like 'date,A,B', got {self.header!r}"
            )
        _ = self.skipped  # refuses what is no range of lines
        if self.table is not None and int(self.table) < 1:
            raise ValueError(f"table counts from 1, got {self.table!r}")

    @cached_property
    def skipped(self) -> list[tuple[int, int]]:
        """First and last number of each range of lines to leave out."""
        text = str(self.skip).replace(" ", "")
        if text.isdecimal():
            return [(1, int(text))] if int(text) else []
        found = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if not (first.isdecimal() and (last.isdecimal() if dash else True)):
                raise ValueError(
                    f'skip is a number of lines, or lines like "1-3,9", got {self.skip!r}'
                )
            found.append((int(first), int(last) if dash else int(first)))
        return found

    @property
    def missing(self) -> list[str]:
        """The marks of ``na`` as text."""
        return [] if self.na is None else [mark.strip() for mark in str(self.na).split(",")]

    @property
    def marks(self) -> list[str]:
        """All marks of the missing."""
        return [*MISSING, *self.missing]


def options_of_words(words: Iterable[str]) -> dict[str, str]:
    """Arguments of ``load`` from a command line: ["skip=3", "unit=percent"]."""
    known = [item.name for item in fields(Options)]
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--set {word}: write it like skip=3")
        if name not in known:
            raise ValueError(f"--set {word}: no option {name!r}{known_names(name, known)}")
        found[name] = value
    Options(**found)  # type: ignore[arg-type]
    return found


def _one_of(name: str, value: object, known: object) -> None:
    if value is not None and value not in known:  # type: ignore[operator]
        listed = list(known)  # type: ignore[call-overload]
        raise ValueError(
            f"unknown {name} {value!r}{did_you_mean(value, listed)}; known are "
            f"{', '.join(map(repr, listed))}"
        )
