"""Which column of a table holds what: dates, assets, prices, other fields, nothing of use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data_loaders.reading import names
from data_loaders.reading.dates import looks_like_date, numeric_format
from data_loaders.reading.options import Options
from data_loaders.reading.table import Column, Table
from data_loaders.validation import DataError


@dataclass(frozen=True)
class Take:
    """A column of numbers: one field, of one asset (None: of the asset that its row names)."""

    position: int
    field: str
    asset: str | None


@dataclass
class Roles:
    """Positions of the columns by what they hold.

    Attributes:
        date: of the dates; time: of the times of day, if a column of its own holds them.
        asset: of the assets' names in a long table.
        takes: the numbers; price: the field that is the price; one: they are of one asset.
        notes: what was taken and left out, in words.
    """

    date: int
    time: int | None
    asset: int | None
    takes: list[Take] = field(default_factory=list)
    price: str = "price"
    one: bool = False
    notes: list[str] = field(default_factory=list)


def interpret(table: Table, options: Options, features: bool = False) -> Roles:
    """What the columns of a table hold.

    Args:
        features: the table holds features: every number is taken by its own name.

    Raises:
        DataError: there is no column of dates or of prices, or there are two readings.
    """
    columns = table.columns
    given = isinstance(options.header, str)
    _refuse_other_shapes(table)
    date = _date(table, options)
    others = [i for i in range(len(columns)) if i != date]
    _refuse_blocks(table, date, others)
    left = [i for i in others if _is_left_out(columns[i], i, features, given)]
    times = [i for i in left if names.is_time(columns[i].name) and _holds_times(columns[i])]
    asset = None
    if options.layout in (None, "long"):
        asset = _asset(columns, [i for i in others if i not in left])
    if options.layout == "long" and asset is None:
        raise DataError(f"{table.source}: no column is named asset, ticker or symbol")
    numbers = [i for i in others if i not in left and i != asset]
    roles = Roles(date, times[0] if times else None, asset)
    if features or options.layout == "wide":
        roles.takes = [Take(i, "", columns[i].name) for i in numbers]
        if asset is not None:
            roles.takes = [Take(i, columns[i].name, None) for i in numbers]
        roles.price = ""
    elif asset is not None:
        _long(table, numbers, roles, options, left)
    else:
        _wide(table, numbers, roles, options, left)
    if not roles.takes:
        raise _no_prices(table)
    unused = [columns[i].name or str(i + 1) for i in left if i != roles.time and not given]
    if unused:
        roles.notes.append(f"column{'s' * (len(unused) > 1)} {_listed(unused)} left out")
    return roles


def _refuse_blocks(table: Table, date: int, others: Sequence[int]) -> None:
    """Refuse blocks side by side that have dates of their own, like Date, ZZA, Date, ZZB."""
    chosen = table.columns[date]
    for i in others:
        column = table.columns[i]
        same = names.plain(column.name).rstrip("0123456789") == names.plain(chosen.name)
        if column.kind == "date" and same and list(column.sample[:]) != list(chosen.sample[:]):
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
    for i in [i for i in named if i in typed] or typed:
        return i
    if options.date_format:
        return named[0] if named else 0
    first = [0] if columns else []
    indices = [i for i, column in enumerate(columns) if names.is_row_number(column.name)]
    for i in dict.fromkeys([*named, *first, *indices]):
        if columns[i].kind == "number" and numeric_format(columns[i].whole_numbers):
            return i
    for i, column in enumerate(columns):
        numbers = column.kind == "number" and names.may_be_date(column.name)
        if numbers and (numeric_format(column.whole_numbers) or "").startswith("epoch"):
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
    if names.is_time(column.name) and _holds_times(column):
        return True
    return names.is_date(column.name) and column.whole_numbers is not None


def _holds_times(column: Column) -> bool:
    texts = [text.strip() for text in column.sample if text]
    if not texts:
        return False
    if column.kind == "text":
        return all(text.replace(":", "").isdecimal() and len(text) <= 8 for text in texts)
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
        weak = names.plain(column.name) in names.WEAK
        if column.kind == "text" or (not weak and not _are_decimals(column)):
            found.append((rank, i))
    return min(found)[1] if found else None


def _are_decimals(column: Column) -> bool:
    """Whether the sample holds numbers with decimals, as prices, and not codes like 7203."""
    texts = [text for text in column.sample if text]
    return not texts or all(re.fullmatch(r"-?\d*\.\d*[1-9]\d*", text) for text in texts)


def _long(
    table: Table, numbers: list[int], roles: Roles, options: Options, left: list[int]
) -> None:
    """Takes of a table with a column of assets, or of one asset."""
    columns = table.columns
    texts = [
        i for i in numbers
        if len(numbers) > 1
        and (columns[i].kind == "text" or names.is_identifier(columns[i].name))
    ]  # fmt: skip
    left += texts
    numbers = [i for i in numbers if i not in texts]
    if not numbers:
        raise _no_prices(table)
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
            name = options.asset or _without_suffix(table.stem)
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
    available = sorted({pair[0] for pair in pairs}, key=[pair[0] for pair in pairs].index)
    positions = [next(i for i, p in zip(numbers, pairs, strict=True) if p[0] == each)
                 for each in available]  # fmt: skip
    chosen = _price(table, positions, list(available), options)
    roles.price = pairs[numbers.index(chosen)][0]
    roles.takes = [Take(i, p[0], p[1]) for i, p in zip(numbers, pairs, strict=True)]
    _describe(roles, "")


def _pairs(table: Table, numbers: list[int]) -> list[tuple[str, str]] | None:
    """(field, asset) of each column, from the levels or the parts of its name; None for others."""
    levels = [table.columns[i].levels for i in numbers]
    if all(len(each) == 1 for each in levels):
        single = [each[0] for each in levels]
        whole = all(names.field(name) for name in single)
        return None if whole or not single else names.split_names(single)
    if len({len(each) for each in levels}) == 1:
        readings = {at: [names.field(each[at]) for each in levels] for at in range(len(levels[0]))}
        places = [at for at, found in readings.items() if all(found)]
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
    found = names.fields(shown)
    known = [name for name, each in zip(shown, found, strict=True) if each]
    if not known:
        return False
    priced = [each for each in found if each in (*names.PRICES, "return")]
    bars = {"open", "high", "low", "close"} <= set(found)
    others = [name for name in shown if name not in known]
    if options.price or bars or (priced and not others):
        return True
    if not priced and all(name in names.TICKERS for name in known):
        return False  # tickers like LOW and OPEN among others
    if priced and len(known) > len(others) and len(known) > 1:
        return True
    which = f"{_listed(known)} like a field of one asset" + (
        f", {_listed(others)} like assets" if others else ""
    )
    price = next((n for n, e in zip(shown, found, strict=True) if e in names.PRICES), shown[0])
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
        same = [i for i, name in zip(numbers, shown, strict=True) if name == wanted]
        alike = [
            i
            for i, name, each in zip(numbers, shown, found, strict=True)
            if names.plain(name) == names.plain(wanted) or each == wanted
        ]
        if len(same or alike) != 1:
            raise DataError(
                f"{table.source}: price={wanted!r} names no column, there are {_listed(shown)}"
                if not alike
                else f"{table.source}: price={wanted!r} may be {_listed(shown)}"
            )
        return (same or alike)[0]
    if len(numbers) == 1:
        if found[0] == "return" and options.kind == "prices":
            raise DataError(
                f"{table.source}: column {shown[0]} holds returns: pass kind='returns', or "
                f"price={shown[0]!r} if they are prices"
            )
        return numbers[0]
    wanted_fields = ("return",) if options.kind == "returns" else names.PRICES
    priced = [(each, i, name) for each, i, name in zip(found, numbers, shown, strict=True)
              if each in wanted_fields]  # fmt: skip
    if not priced:
        raise DataError(
            f"{table.source}: which column holds the {options.kind}, {_listed(shown)}? "
            f"Pass price={shown[0]!r}, or the name of another"
        )
    adjusted = [entry for entry in priced if entry[0] == "adjusted_close"]
    returns = [name for name, each in zip(shown, found, strict=True) if each == "return"]
    choice = adjusted or priced
    if len(choice) > 1:
        said = " or ".join(f"price={name!r}" for _, _, name in choice)
        raise DataError(f"{table.source}: several columns may hold the {options.kind}: pass {said}")
    if not adjusted and returns and options.kind == "prices":
        raise DataError(
            f"{table.source}: holds prices ({choice[0][2]}, not adjusted for dividends) and "
            f"returns ({returns[0]}): pass kind='returns' or price={choice[0][2]!r}"
        )
    return choice[0][1]


def _without_suffix(name: str) -> str:
    """The name of a file without its type: "BRK.B.csv.gz" is "BRK.B"."""
    return re.sub(
        r"(\.(csv|txt|tsv|dat|prn|parquet|pq|feather|arrow|gz|bz2|xz))+$", "", name, flags=re.I
    )


def _no_prices(table: Table) -> DataError:
    return DataError(f"{table.source} needs a column of dates and at least one of prices")


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
