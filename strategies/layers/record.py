"""A record of every solve: how many, how many steps, how exact, how many failed.

Layers report each solve to the innermost open record and keep no state of their own:

    with record_solves() as record:
        module(inputs)
    record.summary()

The backward solve of a layer reports to the record that was open when its forward ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

_open: ContextVar[SolveRecord | None] = ContextVar("open_solve_record", default=None)


@dataclass
class SolveTally:
    """Totals over all samples of all solves of one kind.

    ``residual`` is the largest one seen, in the unit of that solver's own test (relative).
    """

    samples: int = 0
    steps: int = 0
    most_steps: int = 0
    residual: float = 0.0
    failures: int = 0

    @property
    def mean_steps(self) -> float:
        return self.steps / self.samples if self.samples else 0.0


@dataclass
class SolveRecord:
    """What the solvers did while this record was open, by kind of solve.

    ``limits``: None, or of every mean-variance solve what held each sample (``activity.py``).
    """

    tallies: dict[str, SolveTally] = field(default_factory=dict)
    limits: list[list[dict[str, object]]] | None = None

    def add(self, kind: str, steps: Tensor, residual: Tensor, converged: Tensor) -> None:
        """Count one batch: ``steps``, ``residual`` and ``converged`` have shape (B,)."""
        tally = self.tallies.setdefault(kind, SolveTally())
        tally.samples += steps.numel()
        tally.steps += int(steps.sum())
        tally.most_steps = (
            max(tally.most_steps, int(steps.max())) if steps.numel() else tally.most_steps
        )
        finite = residual[residual.isfinite()]
        tally.residual = (
            max(tally.residual, float(finite.max())) if finite.numel() else tally.residual
        )
        tally.failures += int((~converged).sum())

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
def record_solves(limits: bool = False) -> Iterator[SolveRecord]:
    """Open a record; solves inside the block report to it (the innermost one only).

    With ``limits``, also which constraints hold each sample of each mean-variance solve.
    """
    record = SolveRecord(limits=[] if limits else None)
    token = _open.set(record)
    try:
        yield record
    finally:
        _open.reset(token)


def open_record() -> SolveRecord | None:
    """The record that is open now, for a layer to report to, or None."""
    return _open.get()
