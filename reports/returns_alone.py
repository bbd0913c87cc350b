"""Results of returns alone, without holdings or orders: of a benchmark, a fund, another program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.calendars import periods_per_year
from data_loaders.reading.frames import check_index
from data_loaders.reading.returns import unit_doubt
from data_loaders.validation import DataError, check_dates, day, days
from engine.accounting.risk_free import Rates, read_risk_free
from engine.runs.result import BacktestResult


def result_of_returns(
    returns: pd.Series,
    name: str | None = None,
    *,
    a_year: float | None = None,
    risk_free: Rates | None = None,
    source: str = "returns given by the caller",
) -> BacktestResult:
    """A result with these returns and nothing else.

    Args:
        returns: (T,) simple returns by date, fractions, the first one included; NaN only before
            the first and after the last.
        a_year: periods per year; by default from the dates.
        risk_free: yearly rate, or rates by date, see ``backtest``; default 0. The first return is
            taken to be of a period as long as the typical one.
        source: where they come from, for the page.

    Raises:
        DataError: no dates, not in order, gaps, returns of -100% or less, or returns that look
            like percent or prices.
    """
    name = str(name or returns.name or "strategy")
    zone = getattr(returns.index, "tz", None)
    if zone is not None and returns.index.normalize().equals(returns.index):
        returns = returns.tz_localize(None)  # session dates, as pyfolio and zipline have them
    check_index(returns.to_frame(name))
    try:
        given = returns.astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"the returns of {name} are no numbers: {error}") from None
    known = np.flatnonzero(given.notna())
    if not len(known):
        raise DataError(f"{name} has no return")
    given = given.iloc[known[0] : known[-1] + 1]
    dates = pd.DatetimeIndex(given.index)
    check_dates(dates)
    bad = dates[~np.isfinite(given.to_numpy())]
    if len(bad):
        raise DataError(
            f"{name} has no finite return on {days(bad)}: give 0 where nothing was earned, or "
            "leave the dates out",
            dates=bad,
        )
    if doubt := unit_doubt(given.to_numpy()[:, None], dates):
        reading = doubt.partition(": pass")[0]
        raise DataError(
            f"{name} should be simple returns, fractions like 0.01 for 1%, but {reading}: divide "
            "percent by 100, take 1 from growth factors, and pct_change() of prices"
        )
    if (given < -1).any():
        raise DataError(f"{name} has a return below -100% on {days(dates[given < -1])}")
    rates = read_risk_free(risk_free, 0.0, dates)
    interest = rates.returns(dates, dates)
    if len(dates) > 1:
        first = dates[0] + pd.Timedelta(np.median(np.diff(dates.values)))
        interest.iloc[0] = rates.accrued(pd.DatetimeIndex([dates[0], first]))[1]
    span = {"start": day(dates[0]), "end": day(dates[-1])}
    return BacktestResult(
        name=name,
        strategy={"class": "", "parameters": {}},
        **dict.fromkeys(("targets", "orders", "folds", "training", "solves"), pd.DataFrame()),
        weights=pd.DataFrame(index=dates),
        gross_returns=pd.Series(dtype=float),
        net_returns=given.rename("net_returns"),
        turnover=pd.Series(dtype=float, index=dates[:0]),
        costs=pd.Series(dtype=float, index=dates[:0]),
        settings={
            "panel": {"source": source, **span, "caveats": []},
            "costs": {},
            "risk_free": rates.described(),
            "periods_per_year": a_year or periods_per_year(dates),
        },
        risk_free=interest,
    )


def as_results(given: object, risk_free: Rates | None = None) -> dict[str, BacktestResult]:
    """Results by name, of results or of returns: a Series, a frame, or a mapping of Series.

    Raises:
        TypeError: something else, or both in one mapping.
    """
    if isinstance(given, pd.Series):
        given = {given.name or "strategy": given}
    if isinstance(given, pd.DataFrame):
        given = dict(given.items())
    if not isinstance(given, Mapping):
        raise TypeError(
            "a report needs {name: result} as backtest returns them, or simple returns: a Series, "
            "a DataFrame with a column per strategy, {name: Series}, or a file of these; got "
            f"{type(given).__name__}"
        )
    if all(isinstance(each, BacktestResult) for each in given.values()):
        if risk_free is not None:
            raise ValueError(
                "results of a backtest have the risk-free rate that they were run with: give it to "
                "backtest(risk_free=...)"
            )
        return dict(given)
    if all(isinstance(each, pd.Series) for each in given.values()):
        return {
            str(name): result_of_returns(each, str(name), risk_free=risk_free)
            for name, each in given.items()
        }
    odd = sorted({type(each).__name__ for each in given.values()})
    raise TypeError(f"expected results, or a Series of returns for each name, got {', '.join(odd)}")


def of_seeds(given: object) -> object:
    """{seed: {name: result}} as {"name (seed 3)": result}, a rule once; anything else as it is."""
    if not (isinstance(given, Mapping) and given and all(isinstance(s, int) for s in given)):
        return given
    found: dict[str, Any] = {}
    for seed, results in given.items():
        for name, result in results.items():
            learned = bool((result.strategy or {}).get("learned"))
            found.setdefault(f"{name} (seed {seed})" if learned else name, result)
    return {name: replace(result, name=name) for name, result in found.items()}


def has_holdings(result: BacktestResult) -> bool:
    """Whether more is known than its returns."""
    return bool(len(result.weights.columns))
