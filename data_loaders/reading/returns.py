"""Returns of any unit as fractions (refused where the unit is in doubt), and as prices."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_loaders.reading.frames import check_index
from data_loaders.reading.options import UNITS, Options
from data_loaders.validation import DataError, check_assets, check_dates, day, frozen, located

LEAST = 20  # returns of an asset below which its unit is not judged
TOO_VOLATILE = 3.0  # a yearly volatility of 300%, for the middle one of the assets
MARKS = (-99.99, -99.9, -99.0, -999.0, -999.9, -999.99, -9999.0)  # of the missing, in old files


def simple_returns(returns: pd.DataFrame, options: Options, source: str) -> pd.DataFrame:
    """Simple returns (T, N) in fractions."""
    try:
        values = returns.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return returns  # refused where they become prices
    rows, columns = np.nonzero(np.isin(values, MARKS))
    named = pd.to_numeric(pd.Series(options.missing, dtype=object), errors="coerce")
    if len(rows) and options.unit != "bp" and not named.isin(MARKS).any():
        value, name = values[rows[0], columns[0]], returns.columns[columns[0]]
        raise DataError(  # a return of almost -100%, or a mark of a missing one
            f"{source}: {name} is {value:g} on {day(returns.index[rows[0]])} ({len(rows)} such "
            f"values), usually a mark of a missing one: pass na='{value:g}'",
            dates=returns.index[np.unique(rows)],
            assets=list(returns.columns[np.unique(columns)]),
        )
    if options.unit is None and (doubt := unit_doubt(values, returns.index)):
        raise DataError(f"{source}: {doubt}")
    if options.unit in (None, "fraction"):
        return returns
    assert options.unit is not None
    shift = 1.0 if options.unit == "gross" else 0.0
    return (returns - shift) / UNITS[options.unit]


def unit_doubt(values: np.ndarray, dates: pd.DatetimeIndex) -> str:
    """Why returns (T, N) do not look like fractions, with what to pass; "" if they do."""
    with np.errstate(all="ignore"):
        counts = (~np.isnan(values)).sum(axis=0)
        values = values[:, counts >= LEAST]
        if not values.shape[1]:
            return ""
        low = np.nanmin(values)
        middle = np.nanmedian(values, axis=0)
        typical = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    centre, spread = float(np.median(middle)), float(np.median(typical))
    years = max((dates[-1] - dates[0]).days / 365.25, 1e-9)
    yearly = spread * np.sqrt(len(dates) / years)
    if low > 0 and 0.5 < centre < 2 and spread < 0.3:
        return (
            f"all values are near 1 (median {centre:.3g}): pass unit='gross' if they are "
            "1 + return, or kind='prices'"
        )
    if low > 0 and centre > 2:
        return f"all values are positive (median {centre:.3g}), as prices are: pass kind='prices'"
    if yearly > TOO_VOLATILE:
        return (
            f"as fractions these returns have a volatility of {yearly:.0%} a year: pass "
            "unit='percent' if they are in percent, or unit='fraction' if they are right"
        )
    return ""


def prices_from(returns: pd.DataFrame) -> pd.DataFrame:
    """Prices (T + 1, N) with these simple returns (T, N), in fractions, all starting at 100."""
    check_index(returns)
    check_dates(returns.index)
    check_assets(returns.columns)
    returns = frozen(returns, "returns")
    wrong = returns.le(-1) | np.isinf(returns)
    if wrong.to_numpy().any():
        raise located("simple returns must be finite and above -1 (-100%)", returns, wrong)
    gaps = returns.index.to_series().diff()
    period = gaps.median() if len(returns) > 1 else pd.Timedelta("1D")
    growth = 100 * (1 + returns.fillna(0)).cumprod()
    base = pd.DataFrame(100.0, index=[returns.index[0] - period], columns=returns.columns)
    prices = pd.concat([base, growth])
    known = returns.notna().to_numpy()
    nothing = np.zeros((1, known.shape[1]), bool)
    opens = np.vstack([known, nothing])  # a return starts here
    ends = np.vstack([nothing, known])
    return prices.where(opens | ends).rename_axis(returns.index.name)
