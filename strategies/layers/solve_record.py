"""A record of every solve: how many, how many steps, how exact, how many failed.

Layers report each solve to the innermost open record and keep no state of their own:

    with record_solves() as record:
        module(inputs)
    record.summary()

The backward solve of a layer reports to the record that was open when its forward ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

# kinds of details
FIXED_POINT, MEAN_VARIANCE, EXPOSURE = "fixed point", "mean-variance", "exposure"

_open: ContextVar[SolveRecord | None] = ContextVar("open_solve_record", default=None)


@dataclass
class SolveTally:
    """Totals over all samples of all solves of one kind.

    ``residual`` is the largest one seen, in the unit of that solver's own test (relative).
    ``contraction`` is the factor by which the slowest sample's residual fell in a step, on the way
    from 1: of a plain iteration from zero an estimate of the spectral radius. At 1 it falls no
    more; infinite where the residual became NaN.
    """

    samples: int = 0
    steps: int = 0
    most_steps: int = 0
    residual: float = 0.0
    failures: int = 0
    contraction: float = 0.0

    @property
    def mean_steps(self) -> float:
        return self.steps / self.samples if self.samples else 0.0


@dataclass
class SolveRecord:
    """What the solvers did while this record was open, by kind of solve.

    ``details``: None, or every solve itself, in order: its kind, and what its layer keeps of it.
    """

    tallies: dict[str, SolveTally] = field(default_factory=dict)
    details: list[tuple[str, Any]] | None = None

    def add(self, kind: str, steps: Tensor, residual: Tensor, converged: Tensor) -> None:
        """Count one batch: ``steps``, ``residual`` and ``converged`` have shape (B,)."""
        tally = self.tallies.setdefault(kind, SolveTally())
        if not len(steps):
            return
        counts = steps.detach().cpu().numpy()
        left = residual.detach().cpu().numpy().astype(np.float64)
        tally.samples += len(counts)
        tally.steps += int(counts.sum())
        tally.most_steps = max(tally.most_steps, int(counts.max()))
        tally.residual = max(tally.residual, float(left.max(initial=0.0, where=np.isfinite(left))))
        tally.failures += int(len(counts) - np.count_nonzero(converged.detach().cpu().numpy()))
        moved = counts > 1
        if kind == FIXED_POINT and moved.any():
            rates = left[moved] ** (1 / (counts[moved] - 1))
            rates = np.where(np.isnan(rates), math.inf, rates)
            tally.contraction = max(tally.contraction, float(rates.max()))

    def take(self, other: SolveRecord) -> None:
        """Add what another record counted."""
        for kind, theirs in other.tallies.items():
            mine = self.tallies.setdefault(kind, SolveTally())
            mine.samples += theirs.samples
            mine.steps += theirs.steps
            mine.most_steps = max(mine.most_steps, theirs.most_steps)
            mine.residual = max(mine.residual, theirs.residual)
            mine.failures += theirs.failures
            mine.contraction = max(mine.contraction, theirs.contraction)

    @property
    def contraction(self) -> float:
        """Of the fixed points, see ``SolveTally``; NaN where there was none."""
        tally = self.tallies.get(FIXED_POINT)
        return math.nan if tally is None else tally.contraction

    def summary(self) -> list[dict[str, object]]:
        """One row a kind: solve, samples, mean_steps, most_steps, residual, failures."""
        return [
            {
                "solve": kind,
                "samples": tally.samples,
                "mean_steps": tally.mean_steps,
                "most_steps": tally.most_steps,
                "residual": tally.residual,
                "failures": tally.failures,
            }
            for kind, tally in self.tallies.items()
        ]


@contextmanager
def record_solves(details: bool = False, into: SolveRecord | None = None) -> Iterator[SolveRecord]:
    """Open a record; solves inside the block report to it (the innermost one only).

    With ``details``, the solves themselves are kept. ``into`` is a record to add to, in place of a
    new one.
    """
    record = into or SolveRecord(details=[] if details else None)
    token = _open.set(record)
    try:
        yield record
    finally:
        _open.reset(token)


def open_record() -> SolveRecord | None:
    """The record that is open now, for a layer to report to, or None."""
    return _open.get()


def note_exposure(exposure: ArrayLike, volatility: ArrayLike) -> None:
    """Report what the weights of the solve just reported are multiplied by.

    Args:
        exposure: (B,). volatility: (B,) predicted a year, of the weights themselves.
    """
    record = _open.get()
    if record is not None and record.details is not None:
        record.details.append((EXPOSURE, (np.array(exposure), np.array(volatility))))
