"""The mean-variance problem, a batch of it: its tensors, its checks, what a solution is.

For each sample of a batch the weights are

    argmin_z  1/2 z'Pz - q'z   subject to   1'z = budget,  lower <= z <= upper,
                                            row_lower <= rows z <= row_upper

with P the risk (symmetric positive definite) and q the expected return. Rows say group limits
and equalities alike.

Letters: B samples, N assets, K factors, R rows (the budget is row 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SLACK = 1e-9  # how far constraints may miss each other before a problem counts as infeasible
NAMED = 5  # samples named in a message


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
    labels: Sequence[object] | None = None  # a name for each sample, for messages

    def name(self, samples: Sequence[int]) -> str:
        """``samples 3, 17 (2008-10-10, ...)``: the first few, by number and label."""
        named = list(samples)[:NAMED]
        more = ", ..." if len(samples) > NAMED else ""
        text = f"sample{'s' if len(samples) > 1 else ''} {', '.join(map(str, named))}{more}"
        if self.labels is not None:
            text += f" ({', '.join(str(self.labels[sample]) for sample in named)}{more})"
        return text

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
        converged: (B,) bool, the residual is within the solver's tolerance.
        rounds: (B,) steps the solver took; zero where it does not say (qpth).
        residual: (B,) relative residual of the optimality conditions, see ``kkt_residual``.
        duals: (B, R) multipliers of the rows, the budget's first; positive where the upper
            limit holds the row, negative at the lower one. In the unit of ``P z``. No gradient.
    """

    weights: Tensor
    converged: Tensor
    rounds: Tensor
    residual: Tensor
    duals: Tensor


class Solver(Protocol):
    tolerance: float

    def solve(self, problem: Problem) -> Solution: ...


def build_problem(
    risk: Tensor | FactorRisk,
    expected_return: Tensor,
    *,
    lower: Tensor | float = 0.0,
    upper: Tensor | float = 1.0,
    budget: Tensor | float = 1.0,
    rows: Tensor | None = None,
    row_lower: Tensor | float = -torch.inf,
    row_upper: Tensor | float = torch.inf,
    labels: Sequence[object] | None = None,
) -> Problem:
    """Bring the layer's arguments to one batch, float64, with the budget as row 0.

    Args:
        risk: P, (B, N, N) or (N, N) shared by the batch, or a ``FactorRisk``.
        expected_return: q, (B, N) or (N,). Only its ratio to P matters.
        lower, upper: bounds of the weights, fractions (0.1 = 10 %): a number, (N,) or (B, N).
        budget: sum of the weights, a number or (B,); 0 for dollar-neutral.
        rows: further rows, (R, N) or (B, R, N): a group's 0 and 1, or betas.
        row_lower, row_upper: limits of ``rows z``: a number, (R,) or (B, R); equal ones make
            an equality, infinite ones are no limit.
        labels: a name for each sample, such as its date, for messages.

    Raises:
        ValueError: shapes that do not fit.
    """
    given = (risk.loadings, risk.specific) if isinstance(risk, FactorRisk) else (risk,)
    device = given[0].device
    assets = expected_return.shape[-1]

    def tensor(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=device)

    parts = [tensor(part) for part in given]
    wanted = [(assets, assets)] if len(parts) == 1 else [(assets, parts[0].shape[-1]), (assets,)]
    for part, tail in zip(parts, wanted, strict=True):
        if part.shape[-len(tail) :] != tail or part.dim() > len(tail) + 1:
            raise ValueError(
                f"risk must have shape {tail} or (B, {', '.join(map(str, tail))}) to fit "
                f"expected_return {tuple(expected_return.shape)}, got {tuple(part.shape)}"
            )
    parts = [
        part if part.dim() > len(tail) else part.unsqueeze(0)
        for part, tail in zip(parts, wanted, strict=True)
    ]
    named = {"expected_return": expected_return, "lower": lower, "upper": upper}
    by_asset = {name: tensor(value) for name, value in named.items()}
    budget = tensor(budget)
    matrix = torch.ones(1, 1, assets, dtype=torch.float64, device=device)
    if rows is not None:
        extra = tensor(rows)
        extra = extra if extra.dim() == 3 else extra.unsqueeze(0)
        matrix = torch.cat([matrix.expand(extra.shape[0], -1, -1), extra], dim=1)  # (1|B, R, N)
    count = matrix.shape[1] - 1
    limits = {"row_lower": tensor(row_lower), "row_upper": tensor(row_upper)}

    sizes = [part.shape[0] for part in parts] + [matrix.shape[0]]
    sizes += [value.shape[0] for value in (*by_asset.values(), *limits.values()) if value.dim() > 1]
    sizes += [budget.shape[0]] if budget.dim() else []
    batch = max(sizes)
    if any(size not in (1, batch) for size in sizes):
        raise ValueError(f"the arguments have different batch sizes: {sorted(set(sizes))}")

    def expand(name: str, value: Tensor, width: int) -> Tensor:
        if value.dim() > 2 or (value.dim() and value.shape[-1] not in (1, width)):
            raise ValueError(
                f"{name} must be a number, ({width},) or ({batch}, {width}), "
                f"got shape {tuple(value.shape)}"
            )
        return value.expand(batch, width)

    budget = budget.reshape(-1, 1).expand(batch, 1)
    by_row = {
        name: torch.cat([budget, expand(name, value, count)], dim=1) if count else budget
        for name, value in limits.items()
    }
    return Problem(
        parts[0] if len(parts) == 1 else FactorRisk(*parts),
        **{name: expand(name, value, assets) for name, value in by_asset.items()},
        rows=matrix,
        **by_row,
        labels=labels,
    )


def _where(bad: Tensor) -> list[int]:
    """Samples with a true entry; ``bad`` has shape (B, ...)."""
    return bad.reshape(bad.shape[0], -1).any(dim=1).nonzero().flatten().tolist()


@torch.no_grad()
def check_problem(problem: Problem) -> None:
    """Raise if some sample has no solution; the message names the samples and the reason.

    Found here: NaN and infinity, an asymmetric risk or one with a diagonal that is not positive,
    and constraints of which one alone cannot be met within the bounds.
    """

    def refuse(bad: Tensor, reason: str) -> None:
        if bad.any():
            raise ValueError(f"{reason}; {problem.name(_where(bad.expand(batch, -1)))}")

    batch = problem.expected_return.shape[0]
    risk = problem.risk
    parts = (risk.loadings, risk.specific) if isinstance(risk, FactorRisk) else (risk,)
    for part in parts:
        refuse(~part.isfinite().flatten(1), "the risk has a NaN or an infinity")
    refuse(
        ~problem.expected_return.isfinite(),
        "the expected return has a NaN or an infinity",
    )
    refuse(~problem.rows.isfinite().flatten(1), "the rows have a NaN or an infinity")
    for name in ("lower", "upper", "row_lower", "row_upper"):
        refuse(getattr(problem, name).isnan(), f"{name} has a NaN")
    if isinstance(risk, FactorRisk):
        refuse(risk.specific <= 0, "the specific risk is not positive")
    else:
        diagonal = risk.diagonal(dim1=-2, dim2=-1)
        refuse(diagonal <= 0, "the diagonal of the risk is not positive")
        asymmetry = (risk - risk.mT).abs().amax(dim=(-2, -1))
        refuse(
            (asymmetry > 1e-8 * diagonal.amax(-1)).unsqueeze(1),
            "the risk is not symmetric",
        )
    _check_feasible(problem)


def _check_feasible(problem: Problem) -> None:
    lower, upper = problem.lower, problem.upper

    def refuse(bad: Tensor, reason: str) -> None:
        samples = _where(bad)
        raise InfeasibleError(f"{reason}; {problem.name(samples)}", samples)

    crossed = lower > upper + SLACK
    if crossed.any():
        sample, asset = (int(i) for i in crossed.nonzero()[0])
        refuse(
            crossed,
            f"asset {asset} has a floor of {float(lower[sample, asset]):.6g} above its cap of "
            f"{float(upper[sample, asset]):.6g}",
        )
    positive, negative = problem.rows.clamp(min=0), problem.rows.clamp(max=0)
    least = _times(positive, lower) + _times(negative, upper)  # (B, R)
    most = _times(positive, upper) + _times(negative, lower)
    for row in range(problem.rows.shape[1]):
        name = "budget" if row == 0 else f"row {row - 1}"
        reach = "caps sum to {:.6g}" if row == 0 else "the bounds let it reach at most {:.6g}"
        short = problem.row_lower[:, row] > most[:, row] + SLACK
        if short.any():
            i = int(short.nonzero()[0])
            wanted = float(problem.row_lower[i, row])
            refuse(short, f"{reach.format(float(most[i, row]))}, {name} is {wanted:.6g}")
        reach = "floors sum to {:.6g}" if row == 0 else "the bounds make it at least {:.6g}"
        over = problem.row_upper[:, row] < least[:, row] - SLACK
        if over.any():
            i = int(over.nonzero()[0])
            wanted = float(problem.row_upper[i, row])
            refuse(over, f"{reach.format(float(least[i, row]))}, {name} is {wanted:.6g}")


def _times(rows: Tensor, bound: Tensor) -> Tensor:
    """``rows bound``, (B, R), with 0 times infinity = 0."""
    product = rows * bound.unsqueeze(1)
    return torch.where(rows == 0, 0.0, product).sum(-1)


@torch.no_grad()
def kkt_residual(problem: Problem, weights: Tensor, duals: Tensor) -> Tensor:
    """How far weights and row multipliers are from optimal, (B,), without unit.

    The largest of: the natural residual ``|z - clip(z - r / s, lower, upper)|``, with r the
    gradient of the Lagrangian and s the largest of its terms; the violation of the rows; and the
    complementarity of row limits and multipliers (Facchinei & Pang 2003, section 1.5).
    """
    risk_term = problem.risk_times(weights)  # (B, N)
    row_term = (problem.rows.mT @ duals.unsqueeze(-1)).squeeze(-1)
    gradient = risk_term - problem.expected_return + row_term
    terms = torch.stack([risk_term, problem.expected_return, row_term]).abs().amax(dim=(0, 2))
    scale = torch.maximum(terms, problem.risk_diagonal().mean(-1)).unsqueeze(1)  # (B, 1)
    step = (weights - gradient / scale).clamp(problem.lower, problem.upper)
    stationary = (weights - step).abs().amax(1)
    value = (problem.rows @ weights.unsqueeze(-1)).squeeze(-1)  # (B, R)
    row_step = (value + duals / scale).clamp(problem.row_lower, problem.row_upper)
    return torch.maximum(stationary, (value - row_step).abs().amax(1))
