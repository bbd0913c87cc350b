"""From a table to prices (T, N) and features {name: (T, N)} on ascending dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from data_loaders.machine import check_room
from data_loaders.reading.dates import finished_sessions, read_dates, with_times
from data_loaders.reading.meaning import Roles, Table, interpret
from data_loaders.reading.numbers import without_marks
from data_loaders.reading.options import Options
from data_loaders.validation import DataError, day
from data_loaders.writing import as_written

BARS = ("open", "high", "low")


@dataclass
class Frames:
    """What a table holds."""

    price: str  # name of the field that is the price
    fields: dict[str, pd.DataFrame]  # {name: (T, N)}, the price among them
    notes: list[str] = field(default_factory=list)  # what was taken, changed and left out
    chosen: dict[str, object] = field(default_factory=dict)  # options detected, and the layout

    @property
    def caveat(self) -> str:
        """The notes as one sentence, "" without any."""
        said = "; ".join(self.notes)
        return said[:1].upper() + said[1:] + "." * bool(said)


def read_frames(table: Table, options: Options, features: bool = False) -> Frames:
    """The fields of a table, by date and asset."""
    roles = interpret(table, options, features)
    keys = [each for each in (roles.date, roles.time, roles.asset) if each is not None]
    texts, values = table.read(keys, [take.position for take in roles.takes])
    if not len(values):
        raise DataError(f"{table.source}: there is no row of prices")
    values = without_marks(values, options)
    assets = None if roles.asset is None else _assets(table, texts[-1], roles.asset)
    column = table.columns[roles.date].name
    dates, notes, form = read_dates(
        texts[0], options, lambda row: table.at(row, roles.date), column, assets
    )
    if (time := roles.time) is not None:
        if texts[1].nunique() == 1:  # one bar a day: the dates alone tell the rows apart
            roles.notes.append(f"column {table.columns[time].name} left out")
        else:
            dates = with_times(dates, texts[1], lambda row: table.at(row, time))
    notes = [*table.notes, *roles.notes, *notes]
    finished = finished_sessions(dates)
    rows = np.flatnonzero(finished)  # of the table, for messages
    if len(rows) < len(dates):
        notes.append(f"last row left out, an unfinished session at {day(dates.max())}")
        dates, values = dates[finished], np.ascontiguousarray(values[finished])
        assets = None if assets is None else assets[finished]
    if assets is None:
        fields = _wide(table, roles, dates, values, rows)
    else:
        names = [take.field for take in roles.takes]
        fields = dict(zip(names, _long(table, dates, assets, values, rows), strict=True))
    chosen = table.chosen | ({"date_format": form} if form else {})
    if roles.takes[0].field and len(table.columns) > 2:
        chosen["layout"] = "long" if assets is not None else "fields" if roles.one else "wide"
    frames = Frames(roles.price, fields, notes, chosen)
    if not features:
        _adjust_bars(frames)
    return frames


def _assets(table: Table, texts: pd.Series, column: int) -> np.ndarray:
    """Names (rows,) of the assets: numbers as whole ones, without spaces around them."""
    codes, unique = pd.factorize(texts, use_na_sentinel=True)
    names = []
    for value in unique:
        whole = isinstance(value, float | np.floating) and value == int(value)
        names.append(str(int(value) if whole else value).strip())
    empty = (codes < 0) | np.isin(codes, [i for i, name in enumerate(names) if not name])
    if empty.any():
        row = int(empty.argmax())
        raise DataError(f"{table.source}, {table.place(row)}: there is no asset")
    return np.array(names, dtype=object)[codes]


def _long(
    table: Table,
    dates: pd.DatetimeIndex,
    assets: np.ndarray,
    values: np.ndarray,
    numbers: np.ndarray,
) -> list[pd.DataFrame]:
    """A frame (T, N) of each column (rows,) of a long table."""
    rows, index = pd.factorize(dates, sort=True)
    columns, names = pd.factorize(assets)
    check_room(table.source, len(index), len(names) * values.shape[1])
    cells = rows * len(names) + columns
    twice = np.flatnonzero(pd.Series(cells).duplicated().to_numpy())
    if len(twice):
        row = int(twice[0])
        raise DataError(
            f"{table.source}, {table.place(int(numbers[row]))}: {assets[row]} has a row for "
            f"{day(dates[row])} already",
            dates=[dates[row]],
            assets=[assets[row]],
        )
    frames = []
    for column in values.T:
        wide = np.full((len(index), len(names)), np.nan)
        wide.ravel()[cells] = column
        frames.append(frame(wide, pd.DatetimeIndex(index, name="date"), list(names)))
    return frames


def _wide(
    table: Table, roles: Roles, dates: pd.DatetimeIndex, values: np.ndarray, numbers: np.ndarray
) -> dict[str, pd.DataFrame]:
    """A frame (T, N) of each field, in order of the dates."""
    turned = len(dates) > 1 and dates.is_monotonic_decreasing  # newest first
    if turned:
        dates, values = dates[::-1], np.ascontiguousarray(values[::-1])
    wrong = np.flatnonzero(dates[1:] <= dates[:-1]) + 1
    if len(wrong):
        row = int(wrong[0])
        again = "a second time" if dates[row] in dates[:row] else "after a later date"
        place = int(numbers[len(dates) - 1 - row if turned else row])
        raise DataError(
            f"{table.at(place, roles.date)}: {day(dates[row])} stands {again}", dates=dates[wrong]
        )
    by_field: dict[str, list[int]] = {}
    for at, take in enumerate(roles.takes):
        by_field.setdefault(take.field, []).append(at)
    assets = list(dict.fromkeys(take.asset or "" for take in roles.takes))
    if len(by_field) == 1:  # no copy of a table that is all prices
        (name,) = by_field
        return {name: frame(values, dates, [take.asset or "" for take in roles.takes])}
    found = {}
    for name, places in by_field.items():
        own = [roles.takes[at].asset or "" for at in places]
        if len(set(own)) < len(own):
            twice = next(each for each in own if own.count(each) > 1)
            raise DataError(f"{table.source}: {twice} has two columns of {name}", assets=[twice])
        if name == roles.price and len(own) < len(assets):
            lacking = [each for each in assets if each not in own]
            raise DataError(
                f"{table.source}: {', '.join(lacking[:5])} has no column of "
                f"{name.replace('_', ' ')}",
                assets=lacking,
            )
        part = frame(np.ascontiguousarray(values[:, places]), dates, own)
        found[name] = part if own == assets else part.reindex(columns=assets)
    return found


def frame(values: np.ndarray, dates: pd.DatetimeIndex, names: Sequence[str]) -> pd.DataFrame:
    """A frame over an array that nothing else refers to: a panel takes it without a copy."""
    values.flags.writeable = False
    columns = [as_written(each) for each in names]
    return pd.DataFrame(values, index=dates, columns=columns, copy=False)


def _adjust_bars(frames: Frames) -> None:
    """Open, high and low on the level of an adjusted close, so that fills and stops fit it."""
    fields = frames.fields
    if frames.price != "adjusted_close":
        return
    raw = [name for name in BARS if name in fields and f"adjusted_{name}" not in fields]
    for name in BARS:
        if f"adjusted_{name}" in fields:
            fields[name] = fields.pop(f"adjusted_{name}")
    if raw and "close" in fields:
        factor = fields["adjusted_close"].to_numpy() / fields["close"].to_numpy()
        for name in raw:
            values = fields[name].to_numpy() * factor
            fields[name] = frame(values, fields[name].index, list(fields[name].columns))
        frames.notes.append(f"{', '.join(raw)} adjusted like the close")
