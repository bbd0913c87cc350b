"""Objects that a panel is made from: pandas frames; others are read like one, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.reading import names
from data_loaders.reading.dates import EXAMPLES, numeric_format
from data_loaders.reading.meaning import Column, Table
from data_loaders.validation import DataError

WIDE = "each column is an asset"  # attribute of a frame whose names need no check
INSTEAD = "pd.DataFrame(values, index=pd.DatetimeIndex(dates), columns=names)"
NOT_NUMBERS = {"boolean", "date", "datetime", "datetime64", "complex", "time", "timedelta"}


def as_frame(data: Any) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], list[str]]:
    """Prices (T, N), other fields {name: (T, N)} and notes about what was taken.

    A frame whose columns have two levels, as yfinance gives it, is read by its fields; so is a
    Polars or Arrow table.
    """
    if isinstance(data, pd.Series):
        if data.name is None or names.field(str(data.name)):
            raise DataError(
                f"a Series named {data.name!r} does not say which asset it is: "
                "series.rename('NAME') names it"
            )
        data = data.to_frame()
    if isinstance(data, Mapping):
        if not data or not all(isinstance(each, pd.Series) for each in data.values()):
            raise DataError("prices as a dict need a Series with dates for each asset")
        data = pd.DataFrame(dict(data))
    if hasattr(data, "__arrow_c_stream__") and not isinstance(data, pd.DataFrame):
        from data_loaders.reading.arrow_tables import from_arrow

        table = from_arrow(data, f"the {type(data).__name__}")
    elif not isinstance(data, pd.DataFrame):
        raise DataError(
            f"prices must be a DataFrame with a row per date and a column per asset, got "
            f"{type(data).__name__}: {INSTEAD} makes one"
        )
    else:
        check_index(data)
        if data.columns.nlevels == 1:
            data = data if data.attrs.get(WIDE) else _checked_names(data)
            _check_types(data)
            return data, {}, []
        _check_types(data)
        levels = [tuple(str(level).strip() for level in column) for column in data.columns]
        columns = [Column(("date",), "date"), *(Column(each, "number") for each in levels)]

        def read(keys: Any, numbers: Any) -> tuple[list[pd.Series], np.ndarray]:
            values = data.iloc[:, [i - 1 for i in numbers]].to_numpy(np.float64, na_value=np.nan)
            return [data.index.to_series() for _ in keys], values

        table = Table("prices", columns, read)
    from data_loaders.reading.assembly import read_frames
    from data_loaders.reading.options import Options

    found = read_frames(table, Options())
    return found.fields.pop(found.price), found.fields, [found.caveat] if found.notes else []


def _checked_names(data: pd.DataFrame) -> pd.DataFrame:
    """The frame with its names stripped; refused where they are fields of one asset."""
    shown = list(data.columns)
    if not all(isinstance(name, str) for name in shown):
        return data  # refused by check_assets
    stripped = [name.strip() for name in shown]
    found = names.fields(stripped)
    known = [name for name, each in zip(stripped, found, strict=True) if each]
    # Beside assets called LOW and OPEN, which are names of fields, too.
    certain = [name for name in known if name not in names.TICKERS]
    priced = [name for name in known if names.field(name) in names.PRICES]
    others = [n for n in certain if names.field(n) not in (*names.PRICES, "return")]
    if (
        (len(stripped) > 1 and any(name in certain for name in priced))
        or (len(known) > 1 and priced)
        or len(others) * 2 > len(stripped)
        or ("volume" in found and "VOL" not in stripped)
    ):
        keep = _price(stripped)
        advice = (
            f"frame[[{keep!r}]].set_axis(['NAME'], axis=1) keeps the prices under the asset's name"
            if keep
            else f"leave them out: frame.drop(columns={known!r})"
        )
        raise DataError(
            f"columns {', '.join(known[:8])} are fields of one asset, and each column should be an "
            f"asset: {advice}",
            assets=known,
        )
    return data if stripped == shown else data.set_axis(stripped, axis=1)


def _price(shown: Iterable[Any]) -> Any:
    """The name that means prices, adjusted ones before others; None without one."""
    priced = [name for name in shown if names.field(str(name)) in names.PRICES]
    adjusted = (name for name in priced if names.field(str(name)) == "adjusted_close")
    return next(adjusted, priced[0] if priced else None)


def _check_types(data: pd.DataFrame) -> None:
    """Refuse bool, dates and complex numbers, which NumPy would make numbers of."""
    if (data.dtypes == np.float64).all():
        return
    for at, dtype in enumerate(data.dtypes):
        kind = getattr(dtype, "kind", "O")
        what = str(dtype)
        if kind == "O":
            what = pd.api.types.infer_dtype(data.iloc[:, at], skipna=True)
            kind = "b" if what in NOT_NUMBERS else kind
        if kind in "bMmc":
            raise DataError(
                f"column {data.columns[at]!r} holds {what}, expected numbers: "
                f"frame.drop(columns={data.columns[at]!r}) leaves it out",
                assets=[str(data.columns[at])],
            )


def check_index(data: pd.DataFrame) -> None:
    """Refuse an index without dates, or with a time zone, with what makes dates of it."""
    index = data.index
    if isinstance(index, pd.DatetimeIndex):
        if index.tz is not None:
            raise DataError(_zone(index))
        return
    said = "the index of prices must hold dates (a DatetimeIndex), got "
    dated = [
        name for name in data.columns
        if data[name].ndim == 1
        and (data[name].dtype.kind == "M" or (isinstance(name, str) and names.is_date(name)))
    ]  # fmt: skip
    if dated:
        name = dated[0]
        asset = next((c for c in data.columns if names.asset_rank(str(c)) is not None), None)
        made = f"frame.assign(**{{{name!r}: pd.to_datetime(frame[{name!r}])}})"
        if asset is not None:
            value = _price(data.columns) or data.columns[-1]
            raise DataError(
                f"{said}a long table: {made}.pivot(index={name!r}, columns={asset!r}, "
                f"values={value!r}) makes a wide one"
            )
        raise DataError(f"{said}{type(index).__name__}: {made}.set_index({name!r}) sets them")
    if isinstance(index, pd.PeriodIndex):
        raise DataError(
            f"{said}periods: frame.set_axis(frame.index.to_timestamp(how='end').normalize()) "
            "makes dates"
        )
    if index.dtype.kind in "iuf":
        form = numeric_format(index.to_numpy().astype(np.int64)) if len(index) else None
        if form is None:
            raise DataError(f"{said}numbers that are not dates: frame.set_axis(dates) sets dates")
        made = (
            f"frame.index, unit={form[6:]!r}" if form.startswith("epoch")
            else "frame.index, unit='D', origin='1899-12-30'" if form == "excel"
            else f"frame.index.astype(str), format={form!r}"
        )  # fmt: skip
        raise DataError(f"{said}numbers: frame.set_axis(pd.to_datetime({made})) makes dates")
    raise DataError(
        f"{said}{type(index).__name__}: frame.set_axis(pd.to_datetime(frame.index)) makes dates"
    )


def _zone(index: pd.DatetimeIndex) -> str:
    """What to do about a time zone: first to the exchange's, then to its dates."""
    daily = not index.tz_localize(None).normalize().has_duplicates
    cut = ".normalize()" if daily else ""
    utc = str(index.tz) in ("UTC", "UTC+00:00", "Etc/UTC")
    convert = f".tz_convert({EXAMPLES[0]!r})" if utc else ""
    which = f", with the zone of the exchange in place of {EXAMPLES[0]!r}" if utc else ""
    return (
        f"dates carry the time zone {index.tz}; session dates have none: "
        f"frame.set_axis(frame.index{convert}.tz_localize(None){cut}){which}"
    )
