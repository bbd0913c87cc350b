"""WalkForward: which rows train, which rows decide, and when decisions are filled."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Fold:
    """One refit and the decisions that follow it, as row numbers of the panel.

    Attributes:
        start: first row that may be learned from.
        train: decisions whose holding period ends at the refit or before: what may be
            learned from. A decision holds from its fill to the next decision's fill.
        ends: the rows at which those holding periods end, in the order of ``train``.
        refit: the first test decision; everything up to its close is known.
        test: decisions made with what was learned.
    """

    number: int
    start: int
    train: np.ndarray
    ends: np.ndarray
    refit: int
    test: np.ndarray


@dataclass(frozen=True)
class WalkForward:
    """A walk forward through time: refit, decide until the next refit, repeat.

    Args:
        train: span of history before the first refit, like "5Y", "18M", "300D" (calendar).
        refit: span between refits.
        rebalance: pandas frequency of decisions, each on the last session of its period:
            "W-FRI" weekly, "ME" monthly, "QE" quarterly, "D" every session.
        window: "expanding" trains on all history, "rolling" on the last ``train`` only.
        purge: rows more to leave out between the last training label and the refit.
        execution_lag: sessions from decision to fill; 1 = the next close, 0 = the same.
    """

    train: str = "5Y"
    refit: str = "1Y"
    rebalance: str = "W-FRI"
    window: str = "expanding"
    purge: int = 0
    execution_lag: int = 1

    def __post_init__(self) -> None:
        _span(self.train, "train")
        _span(self.refit, "refit")
        if self.window not in ("expanding", "rolling"):
            raise ValueError(f"window is 'expanding' or 'rolling', got {self.window!r}")
        for name in ("purge", "execution_lag"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 0):
                raise ValueError(f"{name} is a whole number of rows from 0 on, got {value!r}")
        try:
            pd.tseries.frequencies.to_offset(self.rebalance)
        except ValueError as error:
            raise ValueError(
                f"rebalance={self.rebalance!r} is no pandas frequency: {error}"
            ) from None

    def decisions(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """Rows at which decisions are made: the last session of each period.

        The last period counts only where the data show that it is over; a decision that
        could not be filled before the data end is left out.
        """
        periods = pd.Series(np.arange(len(dates)), index=dates).resample(self.rebalance).last()
        rows = periods.dropna().astype(int)
        finished = rows.index <= dates[-1].normalize()  # labels of periods are their last day
        rows = rows[finished]
        return rows.to_numpy()[rows.to_numpy() + self.execution_lag < len(dates)]

    def folds(self, dates: pd.DatetimeIndex, lookback: int) -> list[Fold]:
        """The folds, in order.

        Args:
            lookback: rows of history the most demanding strategy needs for a decision.

        Raises:
            ValueError: the history is too short for the first fold.
        """
        decisions = self.decisions(dates)
        begin = dates[0] + _span(self.train, "train")
        testable = decisions[(dates[decisions] >= begin) & (decisions + 1 >= lookback)]
        if not len(testable):
            raise ValueError(
                f"too short a history for the first fold: {self.train} of training and {lookback} "
                f"rows of lookback are needed before the first decision; the data span "
                f"{dates[0].date()} to {dates[-1].date()} ({len(dates)} rows)"
            )
        usable = decisions[decisions + 1 >= lookback]
        folds: list[Fold] = []
        first = dates[testable[0]]
        while first <= dates[testable[-1]]:
            end = first + _span(self.refit, "refit")
            test = testable[(dates[testable] >= first) & (dates[testable] < end)]
            if len(test):
                refit = int(test[0])
                start = 0
                if self.window == "rolling":
                    start = int(dates.searchsorted(dates[refit] - _span(self.train, "train")))
                ends = usable[1:] + self.execution_lag  # the fill of the decision that follows
                known = (ends <= refit - self.purge) & (usable[:-1] + 1 >= start + lookback)
                folds.append(Fold(len(folds), start, usable[:-1][known], ends[known], refit, test))
            first = end
        return folds


def _span(text: str, name: str) -> pd.DateOffset:
    match = re.fullmatch(r"([1-9]\d*)([YMWD])", str(text))
    if not match:
        raise ValueError(
            f"{name}={text!r} is no span of time; write it like '5Y', '6M', '26W', '90D'"
        )
    unit = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}[match[2]]
    return pd.DateOffset(**{unit: int(match[1])})
