"""The mean-variance problem, a batch of it: its tensors, its checks, what a solution is.

For each sample of a batch the weights are

    argmin_z  1/2 z'Pz - q'z + cost'|z - z0|

    subject to   1'z = budget, or between two,  lower <= z <= upper,
                 row_lower <= rows z <= row_upper,
                 sum |z - z0| <= turnover limit,  sum |z| <= gross limit

with P the risk (symmetric positive definite), q the expected return and z0 the holdings traded
from. Rows say group limits and linear equalities alike. A tracking term in the objective is a
change of q and cost (``build_problem``).

Letters: B samples, N assets, K factors, R rows (the budget is row 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

import torch
from torch import Tensor

from strategies.layers.optimisation.arguments import (
    budget_ends,
    collapse,
    expand,
    with_batch,
    with_usual_rows,
)

SLACK = 1e-12  # how far constraints may miss each other before a problem counts as infeasible
NAMED = 5  # samples named in a message
ONCE = "the weights' gradient", "take the solver Reference() of reference.py"


class InfeasibleError(ValueError):
    """No weights satisfy the constraints of some samples, named in ``samples``."""

    def __init__(self, message: str, samples: Sequence[int]) -> None:
        super().__init__(message)
        self.samples = list(samples)


class SolveError(RuntimeError):
    """The solver missed its tolerance on some samples, named in ``samples``."""

    def __init__(self, message: str, samples: Sequence[int]) -> None:
        super().__init__(message)
        self.samples = list(samples)


class Status(IntEnum):
    """How the solve of a sample ended. Samples that cannot be solved, because no weights satisfy
    the constraints or a number is not one, are no status: they raise, named, before."""

    SOLVED = 0  # the residual is within the solver's tolerance
    INACCURATE = 1  # it is not
    STALLED = 2  # the solver gave up without weights


@dataclass(frozen=True)
class FactorRisk:
    """Risk in factor form, ``P = loadings loadings' + diag(specific)``.

    Args:
        loadings: (B, N, K), or (N, K) shared by the batch.
        specific: (B, N) or (N,), positive; variances in the unit of P.
    """

    loadings: Tensor
    specific: Tensor

    def dense(self) -> Tensor:
        """P itself, (B, N, N)."""
        return self.loadings @ self.loadings.mT + torch.diag_embed(self.specific)


@dataclass(frozen=True)
class Problem:
    """A batch of problems in the one form that solvers take; float64, one device.

    Tensors with a leading ``1|B`` may be shared by the batch, all others are expanded.
    """

    risk: Tensor | FactorRisk  # (1|B, N, N) or loadings (1|B, N, K), specific (1|B, N)
    expected_return: Tensor  # (B, N)
    lower: Tensor  # (B, N)
    upper: Tensor  # (B, N)
    rows: Tensor  # (1|B, R, N), row 0 is all ones
    row_lower: Tensor  # (B, R)
    row_upper: Tensor  # (B, R), equal to row_lower for equalities
    holdings: Tensor | None = None  # (B, N) z0, where there is a turnover cost or limit
    cost: Tensor | None = None  # (B, N), with ``holdings``
    turnover_limit: Tensor | None = None  # (B,), with ``holdings``
    gross_limit: Tensor | None = None  # (B,)
    labels: Sequence[object] | None = None  # a name for each sample, for messages
    row_names: Sequence[str] | None = None  # of the further rows, for messages

    def name(self, samples: Sequence[int]) -> str:
        """``samples 3, 17 (2008-10-10, ...)``: the first few, by number and label."""
        named = list(samples)[:NAMED]
        more = ", ..." if len(samples) > NAMED else ""
        text = f"sample{'s' if len(samples) > 1 else ''} {', '.join(map(str, named))}{more}"
        if self.labels is not None:
            text += f" ({', '.join(str(self.labels[sample]) for sample in named)}{more})"
        return text

    def row_name(self, row: int) -> str:
        """``budget``, or the name of a further row."""
        if row == 0:
            return "budget"
        return self.row_names[row - 1] if self.row_names is not None else f"row {row - 1}"

    def each_tensor(self, change: Callable[[Tensor], Tensor]) -> Problem:
        """The problem with every tensor changed."""

        def changed(value: Any) -> Any:
            if isinstance(value, FactorRisk):
                return FactorRisk(change(value.loadings), change(value.specific))
            return change(value) if isinstance(value, Tensor) else value

        return Problem(**{name: changed(value) for name, value in vars(self).items()})

    def of_samples(self, samples: Tensor) -> Problem:
        """The problems of some samples, by number; what all share stays shared."""
        few = self.each_tensor(lambda t: t if t.shape[0] == 1 else t[samples.to(t.device)])
        if self.labels is None:
            return few
        return replace(few, labels=[self.labels[sample] for sample in samples.tolist()])

    def all_limits(self) -> tuple[Tensor, Tensor]:
        """Lower and upper, of the rows, turnover and gross exposure, (B, R + 2) each."""
        never = torch.full_like(self.lower[:, 0], torch.inf)
        sums = [
            never if limit is None else limit for limit in (self.turnover_limit, self.gross_limit)
        ]
        least = torch.cat([self.row_lower, torch.stack([-never, -never], 1)], dim=1)
        return least, torch.cat([self.row_upper, torch.stack(sums, 1)], dim=1)

    def dense_risk(self) -> Tensor:
        return self.risk.dense() if isinstance(self.risk, FactorRisk) else self.risk

    def risk_times(self, weights: Tensor) -> Tensor:
        """``P z``, (B, N); a factor risk is never multiplied out."""
        column = weights.unsqueeze(-1)
        if isinstance(self.risk, FactorRisk):
            common = self.risk.loadings @ (self.risk.loadings.mT @ column)
            return common.squeeze(-1) + self.risk.specific * weights
        return (self.risk @ column).squeeze(-1)

    def risk_diagonal(self) -> Tensor:
        if isinstance(self.risk, FactorRisk):
            return self.risk.loadings.square().sum(-1) + self.risk.specific
        return self.risk.diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True)
class Solution:
    """What a solve returns, one entry a sample.

    Attributes:
        weights: (B, N) float64; carries the gradient.
        status: (B,) int8, a ``Status`` each.
        rounds: (B,) steps the solver took; zero where it does not say (qpth).
        residual: (B,) relative residual of the optimality conditions, see ``kkt_residual``.
        duals: (B, R + 2) multipliers: of the rows, the budget's first, of the turnover limit, of
            the gross limit; positive at an upper limit, negative at a lower one. In the unit of
            ``P z``. No gradient.
        states: (B, N + R + 2) int8, what pins each weight and which rows are active, to start
            a later solve of a similar problem from; None from a solver that has none.
    """

    weights: Tensor
    status: Tensor
    rounds: Tensor
    residual: Tensor
    duals: Tensor
    states: Tensor | None = None

    @property
    def converged(self) -> Tensor:
        """(B,) bool, which samples are solved."""
        return self.status == Status.SOLVED


def status_of(residual: Tensor, tolerance: float) -> Tensor:
    """The status of each sample, (B,) int8; NaN is the residual of a sample without weights."""
    status = (~(residual <= tolerance)).to(torch.int8)
    return status + residual.isnan().to(torch.int8) if status.any() else status


class Solver(Protocol):
    """Finds the weights of a batch of problems, with their gradient."""

    @property
    def tolerance(self) -> float:
        """Relative KKT residual above which a sample has not converged."""

    def solve(self, problem: Problem, start: Tensor | None) -> Solution:
        """Solve; ``start`` is the ``states`` of an earlier solution, or None.

        Raises what ``check_problem`` raises.
        """


def build_problem(
    risk: Tensor | FactorRisk,
    expected_return: Tensor,
    *,
    lower: Tensor | float = 0.0,
    upper: Tensor | float = 1.0,
    budget: Tensor | float | Sequence[Tensor | float] = 1.0,
    rows: Tensor | None = None,
    row_lower: Tensor | float | None = None,
    row_upper: Tensor | float | None = None,
    A: Tensor | None = None,
    b: Tensor | float | None = None,
    G: Tensor | None = None,
    h: Tensor | float | None = None,
    holdings: Tensor | None = None,
    turnover_cost: Tensor | float | None = None,
    turnover_limit: Tensor | float | None = None,
    gross_limit: Tensor | float | None = None,
    benchmark: Tensor | None = None,
    tracking: Tensor | float | None = None,
    labels: Sequence[object] | None = None,
    row_names: Sequence[str] | None = None,
) -> Problem:
    """Bring the layer's arguments to one batch, float64, with the budget as row 0.

    Args:
        risk: P, (B, N, N) or (N, N) shared by the batch, or a ``FactorRisk``.
        expected_return: q, (B, N) or (N,). Only its ratio to P matters.
        lower, upper: bounds of the weights, fractions (0.1 = 10 %): a number, (N,) or (B, N). An
            asset that cannot trade is kept where it is by equal bounds.
        budget: sum of the weights, a number or (B,); 0 for dollar-neutral. Or a pair of those, the
            least and the most it may be, or both as (B, 2): with (0, 1) cash is a choice.
        rows: further rows, (N,), (R, N) or (B, R, N): a group's 0 and 1, or betas.
        row_lower, row_upper: limits of ``rows z``: a number, (R,) or (B, R); equal ones make
            an equality (its gradient goes to ``row_upper``), None or infinite ones are no limit.
        A, b, G, h: ``A z = b`` and ``G z <= h`` under their usual names: further rows, after those.
        holdings: z0, (N,) or (B, N); needed by the two turnover terms.
        turnover_cost: c in the term ``c'|z - z0|`` of the objective, in the unit of q: a number,
            (N,) or (B, N).
        turnover_limit: of ``sum |z - z0|``, a number or (B,); 0.3 = 30 % bought plus sold.
        gross_limit: of ``sum |z|``, a number or (B,); 1.6 with a budget of 1 is 130/30.
        benchmark, tracking: add ``tracking / 2 (z - benchmark)'P(z - benchmark)`` to the
            objective: (N,) or (B, N); a number or (B,), not negative.
        labels: a name for each sample, such as its date, for messages.
        row_names: a name for each of the further rows, for messages.

    Raises:
        ValueError: shapes that do not fit, or one of a pair of arguments without the other.
    """
    if (holdings is None) != (turnover_cost is None and turnover_limit is None):
        raise ValueError("holdings go with a turnover_cost or a turnover_limit")
    if (benchmark is None) != (tracking is None):
        raise ValueError("benchmark and tracking go together")
    least, most = budget_ends(budget)
    expected_return = torch.atleast_1d(torch.as_tensor(expected_return))
    risk = risk if isinstance(risk, FactorRisk) else torch.as_tensor(risk)
    assets = expected_return.shape[-1]
    parts = _risk_parts(risk, expected_return)
    device = parts[0].device

    rows, row_lower, row_upper, row_names = with_usual_rows(
        (rows, row_lower, row_upper, row_names), A, b, G, h
    )
    matrix = torch.ones(1, 1, assets, dtype=torch.float64, device=device)
    if rows is not None:
        extra = torch.atleast_2d(torch.as_tensor(rows, dtype=torch.float64, device=device))
        extra = with_batch("rows", extra, (extra.shape[-2], assets))
        matrix = torch.cat([matrix.expand(extra.shape[0], -1, -1), extra], dim=1)  # (1|B, R, N)
        row_lower = -torch.inf if row_lower is None else row_lower
        row_upper = torch.inf if row_upper is None else row_upper
    elif not (row_lower is None and row_upper is None and row_names is None):
        raise ValueError("row_lower, row_upper and row_names need rows")
    if turnover_cost is None and holdings is not None:
        turnover_cost = 0.0
    values = {
        "expected_return": (expected_return, assets),
        "lower": (lower, assets),
        "upper": (upper, assets),
        "holdings": (holdings, assets),
        "turnover_cost": (turnover_cost, assets),
        "benchmark": (benchmark, assets),
        "row_lower": (row_lower, matrix.shape[1] - 1),
        "row_upper": (row_upper, matrix.shape[1] - 1),
        "budget": (least, 1),
        "budget_upper": (None if most is least else most, 1),
        "turnover_limit": (turnover_limit, 1),
        "gross_limit": (gross_limit, 1),
        "tracking": (tracking, 1),
    }
    given = expand(values, {part.shape[0] for part in (*parts, matrix)}, device)

    def by_sample(name: str) -> Tensor | None:
        return given[name].squeeze(1) if name in given else None

    first, last = given["budget"], given.get("budget_upper", given["budget"])  # (B, 1)
    problem = Problem(
        collapse(parts[0]) if len(parts) == 1 else FactorRisk(*map(collapse, parts)),
        given["expected_return"],
        given["lower"],
        given["upper"],
        matrix,
        first if rows is None else torch.cat([first, given["row_lower"]], dim=1),
        last if rows is None else torch.cat([last, given["row_upper"]], dim=1),
        given.get("holdings"),
        given.get("turnover_cost"),
        by_sample("turnover_limit"),
        by_sample("gross_limit"),
        labels,
        row_names,
    )
    if benchmark is None:
        return problem
    return _track(problem, given["benchmark"], given["tracking"])


def _risk_parts(risk: Tensor | FactorRisk, expected_return: Tensor) -> list[Tensor]:
    """P, or its loadings and specific variances, float64 with a leading 1|B."""
    assets = expected_return.shape[-1]
    if isinstance(risk, FactorRisk):
        tails: list[tuple[int, ...]] = [(assets, risk.loadings.shape[-1]), (assets,)]
        return [
            with_batch(f"risk.{name}", getattr(risk, name).to(torch.float64), tail)
            for name, tail in zip(("loadings", "specific"), tails, strict=True)
        ]
    return [with_batch("risk", risk.to(torch.float64), (assets, assets))]


def _track(problem: Problem, benchmark: Tensor, tracking: Tensor) -> Problem:
    """Add the tracking term: with a = tracking, P becomes (1 + a) P and q becomes q + a P z_b.
    All divided by 1 + a, P stays as it is."""
    if not bool((tracking >= 0).all()):
        raise ValueError("tracking must not be negative")
    pulled = problem.expected_return + tracking * problem.risk_times(benchmark)
    return replace(
        problem,
        expected_return=pulled / (1 + tracking),
        cost=None if problem.cost is None else problem.cost / (1 + tracking),
    )
