"""The risk-free rate: a number a year, or yearly rates by date, as simple returns of periods.

A rate holds from its date until the next one. Interest accrues over elapsed time and is credited at
each fill, as that of ``Costs.carry`` is: a portfolio of nothing but cash at the risk-free rate has
the risk-free return in every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from data_loaders.calendars import elapsed_years

Rates: TypeAlias = "float | pd.Series"

LOWEST, HIGHEST = -0.1, 1.0  # yearly rates from here on are refused, as those of ``Costs``
CARRIED = pd.Timedelta("35D")  # a last rate holds so long at least: the next month's is not out


@dataclass(frozen=True)
class RiskFree:
    """Yearly rates, fractions: 0.02 = 2%. ``read_risk_free`` checks them.

    Args:
        rates: a number, or a Series by ascending dates.
    """

    rates: Rates = 0.0

    def accrued(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """Interest (T,) on 1 up to each of ascending dates, not compounded; the first is 0."""
        if not isinstance(self.rates, pd.Series):
            return self.rates * elapsed_years(dates).cumsum()
        every = dates.union(pd.DatetimeIndex(self.rates.index))
        rates = self.rates.reindex(every).ffill().to_numpy(dtype=float)
        accrued = np.zeros(len(every))
        accrued[1:] = rates[:-1] * elapsed_years(every)[1:]
        total = np.where(every > dates[0], accrued, 0.0).cumsum()
        return total[every.get_indexer(dates)]

    def returns(self, dates: pd.DatetimeIndex, fills: pd.DatetimeIndex) -> pd.Series:
        """Simple return (T,) of the period that ends at each date; 0 in the first row.

        Args:
            fills: (K,) those of the dates at which interest is credited. From one fill to the next
                the returns compound to the rate times the years between.
        """
        if not len(dates):
            return pd.Series(dtype=float, name="risk_free")
        accrued = self.accrued(dates)
        credited = dates[:1].union(fills)
        latest = credited[credited.searchsorted(dates, side="right") - 1]
        since = accrued - accrued[dates.searchsorted(latest)]  # the latest fill
        returns = np.zeros(len(dates))
        returns[1:] = np.diff(accrued) / (1 + since[:-1])
        return pd.Series(returns, dates, name="risk_free")

    def described(self) -> Any:
        """What tells it apart from any other, as JSON can hold it."""
        if not isinstance(self.rates, pd.Series):
            return self.rates
        dates = pd.DatetimeIndex(self.rates.index)
        content = dates.to_numpy("datetime64[ns]").tobytes() + self.rates.to_numpy().tobytes()
        return {
            "fingerprint": hashlib.sha256(content).hexdigest(),
            "start": str(dates[0].date()),
            "end": str(dates[-1].date()),
            "mean": float(self.rates.mean()),
        }


def read_risk_free(given: object, cash_rate: float, dates: pd.DatetimeIndex) -> RiskFree:
    """The risk-free rate that was asked for.

    Args:
        given: a number a year, a Series of yearly rates by date, or None: ``cash_rate``.
        dates: (T,) of the panel.

    Raises:
        ValueError: rates that are none, may be percent, or do not cover the dates; TypeError:
            something else was given.
    """
    if given is None:
        return RiskFree(cash_rate)
    if isinstance(given, Real) and not isinstance(given, bool):
        _check_rates(np.array([float(given)]))
        return RiskFree(float(given))
    if not isinstance(given, pd.Series):
        raise TypeError(
            "risk_free is a number a year, like 0.02 for 2%, or a Series of such rates by date, "
            f"got {given!r:.80}"
        )
    rates = _by_date(given)
    _check_rates(rates.to_numpy(), rates.index)
    first, last = rates.index[[0, -1]]
    if first > dates[0]:
        raise ValueError(
            f"the risk-free rates begin on {first.date()}, after the panel on {dates[0].date()}: "
            f"give earlier rates, or take panel.since({str(first.date())!r})"
        )
    carried = max(CARRIED, pd.Series(rates.index).diff().max())  # NaT of a single rate is no max
    if dates[-1] - last > carried:
        raise ValueError(
            f"the risk-free rates end on {last.date()}, and the panel on {dates[-1].date()}: give "
            f"later rates, or take panel.until({str(last.date())!r})"
        )
    return RiskFree(rates)


def read_rates(path: str | Path) -> pd.Series:
    """Yearly rates from a CSV file: dates in its first column, rates in its second, a heading.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise ValueError(f"risk_free: there is no file {path}; or give a number, 0.02 for 2%")
    try:
        table = pd.read_csv(path, index_col=0, dtype=str)
        (column,) = table.columns
        rates = table[column].astype(float).to_numpy()  # of text, which is read exactly
        return pd.Series(rates, pd.to_datetime(table.index), name="rate")
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"risk_free: {path} should be a CSV file with dates in its first column and yearly "
            f"rates in its second, under a heading: {reason}"
        ) from error


def risk_free_of(settings: Mapping[str, Any]) -> RiskFree:
    """That of the settings of an earlier run: its number, or what its cash earned.

    Raises:
        ValueError: it was a series, of which settings hold the fingerprint only.
    """
    found = risk_free_in(settings)
    if not isinstance(found, Real):
        raise ValueError("the risk-free rates of the run are in its folder, risk_free.csv")
    return RiskFree(float(found))


def risk_free_in(settings: Mapping[str, Any]) -> Any:
    """The risk-free rate as settings describe it; those of earlier versions by the cash rate."""
    return settings.get("risk_free", (settings.get("costs") or {}).get("cash_rate", 0.0))


def own_risk_free(settings: Mapping[str, Any]) -> Any:
    """``risk_free_in`` where it is not the costs' cash rate, which is the default; or None."""
    default = risk_free_in({"costs": settings.get("costs")})
    found = risk_free_in(settings)
    return None if found == default else found


def _by_date(given: pd.Series) -> pd.Series:
    """As float64 by ascending dates."""
    dates = given.index
    if not len(given) or not isinstance(dates, pd.DatetimeIndex) or dates.tz is not None:
        raise ValueError(
            "risk_free as a Series needs rates by date, of type datetime64 without a time zone, "
            f"got {len(given)} by {dates.dtype}; see pandas.to_datetime and tz_localize(None)"
        )
    if dates.hasnans or dates.has_duplicates:
        raise ValueError("risk_free has dates that are missing or occur twice: keep one rate each")
    try:
        return given.astype(float).sort_index()
    except (ValueError, TypeError):
        raise ValueError(
            f"risk_free holds {next(v for v in given if not isinstance(v, Real))!r}, which is no "
            "number: give yearly rates, fractions like 0.02 for 2%"
        ) from None


def _check_rates(rates: np.ndarray, dates: pd.Index | None = None) -> None:
    bad = np.flatnonzero(~((rates > LOWEST) & (rates < HIGHEST)))
    if not len(bad):
        return
    when = "" if dates is None else f" on {dates[bad[0]].date()}"
    value = float(rates[bad[0]])
    if not np.isfinite(value):
        raise ValueError(
            f"the risk-free rate{when} is {value}: give a number, or leave the date out, and the "
            "rate before it holds"
        )
    raise ValueError(
        f"the risk-free rate{when} is {value:g}, which reads as {value:.0%} a year, or as "
        f"{value:g}% where it is meant in percent: give fractions, {value / 100:g} for {value:g}%"
    )
