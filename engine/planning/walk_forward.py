"""WalkForward: which rows train, which rows decide, and when decisions are filled."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.plugins import shown_module
from data_loaders.validation import day
from engine.planning.decision_dates import HOLIDAY, Rebalance, as_rebalance, decision_rows


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
        train: history before the first refit: a span like "5Y", "18M", "300D", "48h" (calendar),
            or a number of rows.
        refit: from one refit to the next, likewise.
        rebalance: when to decide: a pandas frequency like "W-FRI" (Fridays), "ME" (ends of
            months), "MS" (their beginnings), "WOM-3FRI" (third Fridays) or "D" (every day), each
            at the last row of the day, or at a time as in "W-FRI 16:00" and "16:00"; "last
            session of month", "3rd session of quarter"; every so many rows; a list of dates; or a
            function of the dates, or its name like "my_rules.py:rows" (see ``decision_dates``).
        window: "expanding" trains on all history, "rolling" on the last ``train`` only.
        purge: more rows to leave out between the last training label and the refit.
        embargo: more rows to leave out after test rows, where training rows follow them: only in
            ``cross_validate``, as a walk forward trains on nothing later than it tests.
        execution_lag: rows from decision to fill; 1 = the next close, 0 = the same.
        holiday: "previous" or "next": the session to which a decision goes that falls on a day
            without one. By default the beginnings of periods ("MS", "QS") go to the next session,
            all else to the previous one, and a list with such dates is refused.
        fill: the price at which orders are filled: "close"; "open", of the session that is
            ``execution_lag`` later; or the name of an asset feature of the panel, as "vwap".
        unpriced: what becomes of an order that finds no price: "wait" for the first, or "cancel".
    """

    train: str | int = "5Y"
    refit: str | int = "1Y"
    rebalance: Rebalance = "W-FRI"
    window: str = "expanding"
    purge: int = 0
    embargo: int = 0
    execution_lag: int = 1
    holiday: str | None = None
    fill: str = "close"
    unpriced: str = "wait"

    def __post_init__(self) -> None:
        _span(self.train, "train")
        _span(self.refit, "refit")
        if self.window not in ("expanding", "rolling"):
            raise ValueError(f"window is 'expanding' or 'rolling', got {self.window!r}")
        if self.unpriced not in ("wait", "cancel"):
            raise ValueError(f"unpriced is 'wait' or 'cancel', got {self.unpriced!r}")
        if self.fill != "close" and self.execution_lag == 0:
            raise ValueError(
                f"fill={self.fill!r} comes before the close that is decided on: execution_lag is "
                "from 1 on"
            )
        for name in ("purge", "embargo", "execution_lag"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} is a whole number of rows from 0 on, got {value!r}")
        if self.holiday not in (None, *HOLIDAY):
            raise ValueError(f"holiday is 'previous' or 'next', got {self.holiday!r}")
        object.__setattr__(self, "rebalance", as_rebalance(self.rebalance))

    def described(self) -> dict[str, Any]:
        """The arguments as JSON can hold them; a function by its module and name."""
        found = asdict(self)
        if callable(self.rebalance):
            module = shown_module(self.rebalance.__module__)
            found["rebalance"] = f"{module}:{self.rebalance.__qualname__}"
        if self.holiday is None:
            del found["holiday"]
        return found

    def decisions(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """Rows at which decisions are made, increasing.

        The last period counts only where the data show that it is over; a decision that
        could not be filled before the data end is left out.

        Raises:
            ValueError: there is none, or dates of a list are no sessions.
        """
        rows = decision_rows(dates, self.rebalance, self.holiday)  # type: ignore[arg-type]
        rows = rows[rows + self.execution_lag < len(dates)]
        if not len(rows):
            raise ValueError(
                f"rebalance={self.rebalance!r} has no session to decide on, and to fill on "
                f"{self.execution_lag} later, from {day(dates[0])} to {day(dates[-1])} "
                f"({len(dates)} rows)"
            )
        return rows

    def folds(self, dates: pd.DatetimeIndex, lookback: int) -> list[Fold]:
        """The folds, in order.

        Args:
            lookback: rows of history the most demanding strategy needs for a decision.

        Raises:
            ValueError: the history is too short for the first fold, or a fold has no decision.
        """
        if lookback > len(dates):
            raise ValueError(
                f"a lookback of {lookback} rows is longer than the history of {len(dates)}, "
                f"{day(dates[0])} to {day(dates[-1])}"
            )
        decisions = self.decisions(dates)
        begin = later(dates, 0, self.train)
        testable = decisions[(decisions >= begin) & (decisions + 1 >= lookback)]
        if not len(testable):
            raise ValueError(
                f"too short a history for the first fold: {self.train} of training and {lookback} "
                f"rows of lookback are needed before the first decision; the data span "
                f"{day(dates[0])} to {day(dates[-1])} ({len(dates)} rows)"
            )
        usable = decisions[decisions + 1 >= lookback]
        folds: list[Fold] = []
        first = edge = int(testable[0])
        while edge <= testable[-1]:
            end = later(dates, first, self.refit, len(folds) + 1)
            test = testable[(testable >= edge) & (testable < end)]
            if not len(test):
                raise ValueError(
                    f"fold {len(folds)}, from {day(dates[edge])}, has no decision: "
                    f"refit={self.refit!r} must not be shorter than rebalance={self.rebalance!r}"
                )
            refit = int(test[0])
            start = earlier_row(dates, refit, self.train) if self.window == "rolling" else 0
            ends = usable[1:] + self.execution_lag  # the fill of the decision that follows
            known = (ends <= refit - self.purge) & (usable[:-1] + 1 >= start + lookback)
            folds.append(Fold(len(folds), start, usable[:-1][known], ends[known], refit, test))
            edge = end
        return folds

    def describe(self, panel: Panel, lookback: int = 1, validation: float = 0.0) -> pd.DataFrame:
        """The folds as a table, for strategies that need ``lookback`` rows.

        ``reports.write_plan`` draws them.

        Args:
            validation: share of the training decisions, the latest, that training keeps for early
                stopping (``Training.validation``); 0 where nothing is trained.

        Returns:
            One row a fold: train_start and train_end (what may be learned from), labels_end (the
            last close of a training label; NaT without any), training (decisions),
            validation_start (NaT without any), test_start, test_end, last_fill and decisions (of
            the test).
        """
        folds = self.folds(panel.dates, lookback)
        return fold_table(folds, panel.dates, self.execution_lag, validation)


def fold_table(
    folds: list[Fold], dates: pd.DatetimeIndex, lag: int, validation: float = 0.0
) -> pd.DataFrame:
    """The folds as ``WalkForward.describe`` shows them."""

    def at(rows: list[int]) -> pd.DatetimeIndex:
        """Dates of rows, NaT of -1."""
        found = np.array(rows)
        return dates[found].where(found >= 0)

    def validated(fold: Fold) -> int:
        cut = round(len(fold.train) * (1 - validation))
        return int(fold.train[cut]) if cut < len(fold.train) else -1

    return pd.DataFrame(
        {
            "train_start": at([f.start for f in folds]),
            "train_end": at([f.refit for f in folds]),
            "test_start": at([f.test[0] for f in folds]),
            "test_end": at([f.test[-1] for f in folds]),
            "decisions": [len(f.test) for f in folds],
            "training": [len(f.train) for f in folds],
            "validation_start": at([validated(f) for f in folds]),
            "labels_end": at([f.ends[-1] if len(f.ends) else -1 for f in folds]),
            "last_fill": at([f.test[-1] + lag for f in folds]),
        },
        index=pd.Index([f.number for f in folds], name="fold"),
    )


def check_folds(folds: list[Fold], dates: pd.DatetimeIndex) -> None:
    """Refuse folds, of a user's own plan, that are empty, overlap or learn from their test.

    A training label may end at the close of the refit, which is known then, not later.

    Raises:
        ValueError: it says which fold.
    """
    if not folds:
        raise ValueError("the plan has no fold")
    before = -1
    for fold in folds:
        if not len(fold.test):
            raise ValueError(f"fold {fold.number} has no decision")
        when = f"fold {fold.number}, from {day(dates[fold.test[0]])},"
        if fold.test[0] <= before:
            raise ValueError(f"{when} overlaps with the one before, to {day(dates[before])}")
        if (np.diff(fold.test) <= 0).any() or fold.refit > fold.test[0]:
            raise ValueError(f"{when} does not go forward in time")
        if len(fold.ends) and fold.ends.max() > fold.refit:
            late = day(dates[fold.ends.max()])
            raise ValueError(f"{when} learns from a label that ends on {late}, after its refit")
        before = int(fold.test[-1])


def later(dates: pd.DatetimeIndex, row: int, span: str | int, times: int = 1) -> int:
    """The first row that lies ``times`` spans or more after a row."""
    if isinstance(span, int):
        return row + times * span
    offset = _span(span, "span")
    assert offset is not None  # which it is for rows only
    return int(dates.searchsorted(dates[row] + times * offset))


def earlier_row(dates: pd.DatetimeIndex, row: int, span: str | int) -> int:
    """The first row of a history of one span that ends at a row."""
    if isinstance(span, int):
        return max(0, row - span)
    return int(dates.searchsorted(dates[row] - _span(span, "")))


def _span(span: str | int, name: str) -> pd.DateOffset | None:
    """The calendar span; None for a number of rows."""
    if isinstance(span, int) and not isinstance(span, bool) and span > 0:
        return None
    match = re.fullmatch(r"([1-9]\d*)([YMWDh])", str(span))
    if not match:
        raise ValueError(
            f"{name}={span!r} is not a span of time; write it like '5Y', '6M', '90D', '48h', "
            "or as a number of rows"
        )
    unit = {"Y": "years", "M": "months", "W": "weeks", "D": "days", "h": "hours"}[match[2]]
    return pd.DateOffset(**{unit: int(match[1])})
