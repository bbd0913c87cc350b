"""Tables of named columns, and which column holds what: dates, assets, prices, other fields.

A ``Table`` is what files and frames are read as before anything is known about its meaning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from data_loaders.reading import names
from data_loaders.reading.dates import looks_like_date, numeric_format
from data_loaders.reading.options import Options
from data_loaders.validation import DataError

Kind = Literal["date", "number", "text", "empty"]
NO_PRICES = "needs a column of dates and at least one of prices"
SUFFIXES = re.compile(r"(\.(csv|txt|tsv|dat|prn|parquet|pq|feather|arrow|gz|bz2|xz))+$", re.I)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        levels: of its name; (field, asset) for pandas' MultiIndex columns.
        kind: what its sample holds.
        texts: gives the sample when it is asked for: the first texts, ``SAMPLE`` at most.
    """

    levels: tuple[str, ...]
    kind: Kind
    texts: Callable[[], list[str]] = list

    @property
    def name(self) -> str:
        return " ".join(self.levels) if len(self.levels) > 1 else self.levels[0]

    @cached_property
    def sample(self) -> list[str]:
        """The texts that are not empty, without spaces around them."""
        return [text.strip() for text in self.texts() if text]

    @property
    def whole_numbers(self) -> np.ndarray | None:
        """The sample as whole numbers, or None if one of them is not."""
        whole = (re.fullmatch(r"[+-]?[0-9]{1,19}(\.0*)?", text) for text in self.sample)
        if not self.sample or not all(whole):
            return None
        return np.array([int(text.partition(".")[0]) for text in self.sample])


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


@dataclass(frozen=True)
class Take:
    """A column of numbers: one field, of one asset (None: of the asset that its row names)."""

    position: int
    field: str
    asset: str | None


@dataclass
class Roles:
    """Positions of the columns by what they hold."""

    date: int
    time: int | None  # of the times of day, if a column of its own holds them
    asset: int | None  # of the assets' names in a long table
    takes: list[Take] = field(default_factory=list)  # the numbers
    price: str = "price"  # the field that is the price
    one: bool = False  # whether all are of one asset
    notes: list[str] = field(default_factory=list)  # what was taken and left out


def interpret(table: Table, options: Options, features: bool = False) -> Roles:
    """What the columns of a table hold.

    Args:
        features: the table holds features: every number is taken by its own name.
    """
    columns = table.columns
    given = isinstance(options.header, str)
    _refuse_other_shapes(table)
    date = _date(table, options)
    others = [i for i in range(len(columns)) if i != date]
    _refuse_blocks(table, date, others)
    left = [i for i in others if _is_left_out(columns[i], i, features, given)]
    numbers = [i for i in others if i not in left]
    asset = _asset(columns, numbers) if options.layout in (None, "long") else None
    if asset is not None:
        numbers.remove(asset)
    elif options.layout == "long":
        raise DataError(f"{table.source}: no column is named asset, ticker or symbol")
    roles = Roles(date, next((i for i in left if _is_time(columns[i])), None), asset)
    if features or options.layout == "wide":
        roles.price = ""
        own = [("", columns[i].name) if asset is None else (columns[i].name, None) for i in numbers]
        roles.takes = [Take(i, *each) for i, each in zip(numbers, own, strict=True)]
    else:
        (_wide if asset is None else _long)(table, numbers, roles, options, left)
    if not roles.takes:
        raise DataError(f"{table.source} {NO_PRICES}")
    unused = [columns[i].name or str(i + 1) for i in left if i != roles.time]
    if unused and not given:
        roles.notes.append(f"column{'s' * (len(unused) > 1)} {_listed(unused)} left out")
    return roles


def _refuse_blocks(table: Table, date: int, others: Sequence[int]) -> None:
    """Refuse blocks side by side that have dates of their own, like Date, ZZA, Date, ZZB."""
    chosen = table.columns[date]
    for i in others:
        column = table.columns[i]
        same = names.plain(column.name).rstrip("0123456789") == names.plain(chosen.name)
        if column.kind == "date" and same and column.texts() != chosen.texts():
            raise DataError(
                f"{table.source}: columns {date + 1} and {i + 1} ({chosen.name}, {column.name}) "
                "hold different dates, so that each block of columns has its own: save each block "
                "as a file, named after its asset, and load the folder"
            )


def _refuse_other_shapes(table: Table) -> None:
    """Refuse tables whose dates are in the header, or in columns Year, Month and Day."""
    columns = table.columns
    if any(column.kind == "date" for column in columns):
        return
    if sum(looks_like_date(column.name) for column in columns) > 2:
        raise DataError(
            f"{table.source}: the dates are in the header, one column each: "
            f"pd.read_csv({table.source!r}, index_col=0).T.to_csv('turned.csv') turns the table"
        )
    parts = {names.plain(column.name): column.name for column in columns}
    if {"year", "month"} <= set(parts):
        shown = [parts[part] for part in ("year", "month", "day") if part in parts]
        day = "" if "day" in parts else ".assign(day=28)"
        raise DataError(
            f"{table.source}: the dates are in the columns {', '.join(shown)}: frame = "
            f"pd.read_csv({table.source!r}); frame.assign(date=pd.to_datetime(frame[{shown}]{day}))"
            f".drop(columns={shown}).to_csv('dated.csv', index=False) makes one column of them"
        )


def _date(table: Table, options: Options) -> int:
    """The column of dates; where none is clear, the one whose reading will say what is wrong."""
    columns = table.columns
    named = [i for i, column in enumerate(columns) if names.is_date(column.name)]
    typed = [i for i, column in enumerate(columns) if column.kind == "date"]
    if typed:
        return next((i for i in named if i in typed), typed[0])
    if not options.date_format:
        numbers = [i for i, column in enumerate(columns) if column.kind == "number"]
        likely = [*named, 0, *(i for i in numbers if names.is_row_number(columns[i].name))]
        stamps = [i for i in numbers if names.may_be_stamp(columns[i].name)]
        for i in (*likely, *stamps):
            form = numeric_format(columns[i].whole_numbers) if i in numbers else None
            if form and (i in likely or form.startswith("epoch")):
                return i
    return named[0] if named else 0


def _is_left_out(column: Column, at: int, features: bool, given: bool) -> bool:
    """Row numbers, other dates and times, and empty columns without a name."""
    if not column.name and (column.kind == "empty" or given):
        return True
    if column.kind == "date":
        return True
    if names.is_row_number(column.name) or (at == 0 and not column.name):
        whole = column.whole_numbers
        if whole is not None and (len(whole) == 1 or (np.diff(whole) > 0).all()):
            return True
    if features or len(column.levels) > 1:
        return False
    return _is_time(column) or (names.is_date(column.name) and column.whole_numbers is not None)


def _is_time(column: Column) -> bool:
    """Whether a column is named after the time of day, and holds it."""
    if names.plain(column.name) not in names.TIMES or not column.sample:
        return False
    if column.kind == "text":
        return all(text.replace(":", "").isdecimal() and len(text) <= 8 for text in column.sample)
    whole = column.whole_numbers
    if whole is None:
        return False
    long = whole.max() > 2359
    hours = whole // 10000 if long else whole // 100
    minutes = whole // 100 % 100 if long else whole % 100
    return bool((whole >= 0).all() and (hours < 24).all() and (minutes < 60).all())


def _asset(columns: Sequence[Column], candidates: Sequence[int]) -> int | None:
    """The column of the assets' names in a long table: text, or the numbers of a known code."""
    found = []
    for i in candidates:
        column = columns[i]
        rank = names.asset_rank(column.name) if len(column.levels) == 1 else None
        if rank is None:
            continue
        prices = all(re.fullmatch(r"-?\d*\.\d*[1-9]\d*", text) for text in column.sample)
        code = names.is_code(column.name) and not prices  # like 7203
        if column.kind == "text" or code:
            found.append((rank, i))
    return min(found)[1] if found else None


def _long(
    table: Table, numbers: list[int], roles: Roles, options: Options, left: list[int]
) -> None:
    """Takes of a table with a column of assets, or of one asset."""
    columns = table.columns
    texts = [
        i for i in numbers
        if len(numbers) > 1 and (columns[i].kind == "text" or names.is_code(columns[i].name))
    ]  # fmt: skip
    left += texts
    numbers = [i for i in numbers if i not in texts]
    if not numbers:
        raise DataError(f"{table.source} {NO_PRICES}")
    found = names.fields([columns[i].name for i in numbers])
    counts = Counter(found)
    chosen = _price(table, numbers, found, options)
    for i, known in zip(numbers, found, strict=True):
        name = known if known and counts[known] == 1 else columns[i].name
        roles.takes.append(Take(i, name, None))
        if i == chosen:
            roles.price = name
    _describe(roles, columns[chosen].name)


def _wide(
    table: Table, numbers: list[int], roles: Roles, options: Options, left: list[int]
) -> None:
    """Takes of a table without a column of assets: assets, fields of one asset, or both."""
    columns = table.columns
    pairs = _pairs(table, numbers)
    if pairs is None:
        if options.layout == "fields" or _are_fields(table, numbers, options):
            _long(table, numbers, roles, options, left)
            name = options.asset or SUFFIXES.sub("", table.stem)
            if not name:
                shown = [columns[i].name for i in numbers]
                kept = next(t for t in roles.takes if t.field == roles.price)
                raise DataError(
                    f"{table.source}: the columns {_listed(shown)} are fields of one asset: keep "
                    f"the dates and {columns[kept.position].name}, renamed to the asset"
                )
            roles.takes = [Take(take.position, take.field, name) for take in roles.takes]
            roles.one = True
            roles.notes.insert(0, f"one asset, {name}")
        else:
            roles.takes = [Take(i, "price", columns[i].name) for i in numbers]
        return
    first: dict[str, int] = {}  # columns of the fields
    for i, (name, _) in zip(numbers, pairs, strict=True):
        first.setdefault(name, i)
    chosen = _price(table, list(first.values()), list(first), options)
    roles.price = pairs[numbers.index(chosen)][0]
    roles.takes = [Take(i, *pair) for i, pair in zip(numbers, pairs, strict=True)]
    _describe(roles, "")


def _pairs(table: Table, numbers: list[int]) -> list[tuple[str, str]] | None:
    """(field, asset) of each column, from the levels or the parts of its name; None for others."""
    levels = [table.columns[i].levels for i in numbers]
    depths = {len(each) for each in levels}
    if depths <= {1}:
        single = [each[0] for each in levels]
        return None if all(map(names.field, single)) else names.split_names(single)
    if len(depths) == 1:
        readings = [list(map(names.field, level)) for level in zip(*levels, strict=True)]
        places = [at for at, found in enumerate(readings) if all(found)]
        priced = [at for at in places if {*names.PRICES, "return"} & set(readings[at])]
        for at in priced or places:  # an asset may be called LOW
            rest = [" ".join(each[:at] + each[at + 1 :]) for each in levels]
            return [(str(known), name) for known, name in zip(readings[at], rest, strict=True)]
    shown = [" / ".join(each) for each in levels[:4]]
    raise DataError(
        f"{table.source}: columns have several levels ({'; '.join(shown)}), and none of them holds "
        "only fields like Close and Volume: keep one field, so that each column is an asset"
    )


def _are_fields(table: Table, numbers: list[int], options: Options) -> bool:
    """Whether columns of one level are fields of one asset; refused where that is not clear."""
    shown = [table.columns[i].name for i in numbers]
    meant = dict(zip(shown, names.fields(shown), strict=True))
    found = set(meant.values())
    known = [name for name in shown if meant[name]]
    if not known:
        return False
    priced = found & {*names.PRICES, "return"}
    others = [name for name in shown if not meant[name]]
    if options.price or {"open", "high", "low", "close"} <= found or (priced and not others):
        return True
    if not priced and set(known) <= names.TICKERS:
        return False  # tickers like LOW and OPEN among others
    if priced and len(known) > max(1, len(others)):
        return True
    which = f"{_listed(known)} like a field of one asset"
    which += f", {_listed(others)} like assets" if others else ""
    price = next((name for name in shown if meant[name] in names.PRICES), shown[0])
    raise DataError(
        f"{table.source}: column{'s' * (len(shown) > 1)} {which}: pass layout='wide' if each "
        f"column is an asset, or price={price!r} if they are fields of one asset"
    )


def _price(table: Table, numbers: list[int], found: Sequence[str | None], options: Options) -> int:
    """The position of the prices (or returns) among the fields of a table."""
    shown = [table.columns[i].levels[0] if len(table.columns[i].levels) == 1 else str(each)
             for i, each in zip(numbers, found, strict=True)]  # fmt: skip
    if options.price:
        wanted = options.price.strip()
        alike = [  # that are named so, or mean the same
            at for at, name in enumerate(shown)
            if names.plain(name) == names.plain(wanted) or found[at] == wanted
        ]  # fmt: skip
        same = [at for at in alike if shown[at] == wanted] or alike
        if len(same) != 1:
            said = "may be" if alike else "names no column, there are"
            raise DataError(f"{table.source}: price={wanted!r} {said} {_listed(shown)}")
        return numbers[same[0]]
    if len(numbers) == 1:
        if found[0] == "return" and options.kind == "prices":
            raise DataError(
                f"{table.source}: column {shown[0]} holds returns: pass kind='returns', or "
                f"price={shown[0]!r} if they are prices"
            )
        return numbers[0]
    fields = ("return",) if options.kind == "returns" else names.PRICES
    priced = [at for at, each in enumerate(found) if each in fields]
    if not priced:
        raise DataError(
            f"{table.source}: which column holds the {options.kind}, {_listed(shown)}? "
            f"Pass price={shown[0]!r}, or the name of another"
        )
    adjusted = [at for at in priced if found[at] == "adjusted_close"]
    chosen, *others = adjusted or priced
    if others:
        said = " or ".join(f"price={shown[at]!r}" for at in (chosen, *others))
        raise DataError(f"{table.source}: several columns may hold the {options.kind}: pass {said}")
    if not adjusted and "return" in found and options.kind == "prices":
        raise DataError(
            f"{table.source}: holds prices ({shown[chosen]}, not adjusted for dividends) and "
            f"returns ({shown[found.index('return')]}): pass kind='returns' or "
            f"price={shown[chosen]!r}"
        )
    return numbers[chosen]


def _describe(roles: Roles, column: str) -> None:
    """Say what was taken as the price, and what else as features."""
    features = sorted({take.field for take in roles.takes if take.field != roles.price})
    said = roles.price.replace("_", " ")
    if column and names.plain(column) != names.plain(said):
        said += f" of column {column}"
    if features or roles.price == "adjusted_close":
        roles.notes.append(said)
    if features:
        shown = [name.replace("_", " ") for name in features]
        roles.notes.append(f"{_listed(shown)} as feature{'s' * (len(features) > 1)}")
    if roles.price in ("close", "last", "price") and {"dividends", "splits"} & set(features):
        roles.notes.append("prices are not adjusted for dividends")


def _listed(shown: Sequence[str]) -> str:
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
