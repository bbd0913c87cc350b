"""What can be wrong with a mean-variance problem or its solution, sample by sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from strategies.layers.optimisation.problem import SLACK, FactorRisk, InfeasibleError, Problem

JOINT_SLACK = 1e-9  # what a linear program may leave open


def _where(bad: Tensor) -> list[int]:
    """Samples with a true entry; ``bad`` has shape (B, ...)."""
    return bad.reshape(bad.shape[0], -1).any(dim=1).nonzero().flatten().tolist()


@torch.no_grad()
def check_problem(problem: Problem) -> None:
    """Raise if some sample cannot be solved; the message names the samples and the reason.

    Looks at every entry, but at one constraint at a time: constraints that only together leave no
    weights are found by ``check_jointly``.

    Raises:
        ValueError: NaN or infinity, or a risk that is not symmetric positive definite.
        InfeasibleError: a constraint that the bounds alone make impossible.
    """
    batch = problem.expected_return.shape[0]

    def refuse(bad: Tensor, reason: str) -> None:
        if bad.any():
            raise ValueError(f"{reason}; {problem.name(_where(bad.expand(batch, -1)))}")

    risk = problem.risk
    parts = (risk.loadings, risk.specific) if isinstance(risk, FactorRisk) else (risk,)
    for part in parts:
        refuse(~part.isfinite().flatten(1), "the risk has a NaN or an infinity")
    refuse(~problem.expected_return.isfinite(), "the expected return has a NaN or an infinity")
    refuse(~problem.rows.isfinite().flatten(1), "the rows have a NaN or an infinity")
    for name in ("lower", "upper", "row_lower", "row_upper"):
        refuse(getattr(problem, name).isnan(), f"{name} has a NaN")
    if problem.holdings is not None and problem.cost is not None:
        refuse(~problem.holdings.isfinite(), "the holdings have a NaN or an infinity")
        refuse(~(problem.cost >= 0), "the turnover cost is negative or NaN")
        refuse(problem.cost.isinf(), "the turnover cost is infinite")
    if isinstance(risk, FactorRisk):
        refuse(risk.specific <= 0, "the specific risk is not positive")
    else:
        diagonal = risk.diagonal(dim1=-2, dim2=-1)
        refuse(diagonal <= 0, "the diagonal of the risk is not positive")
        asymmetry = (risk - risk.mT).abs().amax(dim=(-2, -1))
        refuse(
            (asymmetry > 1e-8 * diagonal.amax(-1)).unsqueeze(1),
            "the risk is not symmetric: give (P + P.mT) / 2",
        )
        failed = torch.linalg.cholesky_ex(risk).info.unsqueeze(1) > 0
        refuse(failed, "the risk is not positive definite: add a ridge to its diagonal")
    _check_bounds(problem)
    _check_rows(problem)


def _infeasible(problem: Problem, bad: Tensor, reason: str) -> InfeasibleError:
    samples = _where(bad)
    return InfeasibleError(f"{reason}; {problem.name(samples)}", samples)


def _check_bounds(problem: Problem) -> None:
    crossed = problem.lower > problem.upper + SLACK
    if crossed.any():
        sample, asset = (int(i) for i in crossed.nonzero()[0])
        raise _infeasible(
            problem,
            crossed,
            f"asset {asset} has a floor of {float(problem.lower[sample, asset]):.12g} above its "
            f"cap of {float(problem.upper[sample, asset]):.12g}",
        )


def _check_rows(problem: Problem) -> None:
    """Each row against the range that the bounds give it."""
    positive, negative = problem.rows.clamp(min=0), problem.rows.clamp(max=0)
    least = _times(positive, problem.lower) + _times(negative, problem.upper)  # (B, R)
    most = _times(positive, problem.upper) + _times(negative, problem.lower)
    for row in range(problem.rows.shape[1]):
        low, high = problem.row_lower[:, row], problem.row_upper[:, row]
        crossed = low > high + SLACK
        if crossed.any():
            i = int(crossed.nonzero()[0])
            raise _infeasible(
                problem,
                crossed,
                f"{problem.row_name(row)} has a lower limit of {float(low[i]):.12g} above its "
                f"upper limit of {float(high[i]):.12g}",
            )
        short = low > most[:, row] + SLACK
        if short.any():
            i = int(short.nonzero()[0])
            reach = "the bounds let it reach at most" if row else "caps sum to"
            raise _infeasible(
                problem,
                short,
                f"{reach} {float(most[i, row]):.12g}, {problem.row_name(row)} is "
                f"{'at least ' if low[i] < high[i] else ''}{float(low[i]):.12g}",
            )
        over = high < least[:, row] - SLACK
        if over.any():
            i = int(over.nonzero()[0])
            reach = "the bounds make it at least" if row else "floors sum to"
            raise _infeasible(
                problem,
                over,
                f"{reach} {float(least[i, row]):.12g}, {problem.row_name(row)} is "
                f"{'at most ' if low[i] < high[i] else ''}{float(high[i]):.12g}",
            )


def _times(rows: Tensor, bound: Tensor) -> Tensor:
    """``rows bound``, (B, R), with 0 times infinity = 0."""
    product = rows * bound.unsqueeze(1)
    return torch.where(rows == 0, 0.0, product).sum(-1)


def check_jointly(problem: Problem, samples: list[int]) -> None:
    """Raise ``InfeasibleError`` for those of the samples that no weights satisfy (one LP each)."""
    reasons = {sample: feasible_point(problem, sample)[1] for sample in samples}
    bad = [sample for sample, reason in reasons.items() if reason]
    if bad:
        raise InfeasibleError(f"{reasons[bad[0]]}; {problem.name(bad)}", bad)


def feasible_point(problem: Problem, sample: int) -> tuple[np.ndarray, str]:
    """Weights (N,) that miss the constraints of a sample by as little as possible, in the sum of
    what the rows, the turnover and the gross limit are missed by; and a message, or ''."""
    from scipy.optimize import linprog

    def of_sample(tensor: Tensor) -> np.ndarray:
        return tensor[sample % tensor.shape[0]].detach().cpu().numpy()

    rows, low, high = (of_sample(t) for t in (problem.rows, problem.row_lower, problem.row_upper))
    lower, upper = of_sample(problem.lower), of_sample(problem.upper)
    kinks = []  # limits of sum |z - centre|
    if problem.holdings is not None and problem.turnover_limit is not None:
        limit = float(problem.turnover_limit[sample])
        kinks.append(("the turnover limit", of_sample(problem.holdings), limit))
    if problem.gross_limit is not None:
        limit = float(problem.gross_limit[sample])
        kinks.append(("the gross limit", np.zeros_like(lower), limit))
    n, count, parts = len(lower), len(low), len(kinks)

    # Variables: z, |z - centre| for each kink, the shortfall of each row, of each kink's limit.
    gaps = n + parts * n
    matrix = np.zeros((2 * count + parts * (2 * n + 1), gaps + count + parts))
    matrix[:count, :n], matrix[count : 2 * count, :n] = rows, -rows
    matrix[:count, gaps : gaps + count] = matrix[count : 2 * count, gaps : gaps + count] = -np.eye(
        count
    )
    right = [high, -low]
    for k, (_, centre, limit) in enumerate(kinks):
        top = 2 * count + k * (2 * n + 1)
        size = slice(n + k * n, 2 * n + k * n)
        matrix[top : top + n, :n], matrix[top + n : top + 2 * n, :n] = np.eye(n), -np.eye(n)
        matrix[top : top + n, size] = matrix[top + n : top + 2 * n, size] = -np.eye(n)
        matrix[top + 2 * n, size] = 1
        matrix[top + 2 * n, gaps + count + k] = -1
        right += [centre, -centre, np.array([limit])]
    limits = np.concatenate(right)
    limited = np.isfinite(limits)
    bounds = np.full((matrix.shape[1], 2), [0.0, np.inf])
    bounds[:n] = np.stack([lower, np.maximum(lower, upper)], axis=1)
    price = np.zeros(matrix.shape[1])
    price[gaps:] = 1
    found = linprog(
        price,
        A_ub=matrix[limited],
        b_ub=limits[limited],
        bounds=bounds,
        options={"primal_feasibility_tolerance": 1e-10},
    )
    assert found.success, found.message
    names = [problem.row_name(row) for row in range(count)] + [name for name, _, _ in kinks]
    missed = [
        f"{name} by {gap:.6g}"
        for name, gap in zip(names, found.x[gaps:], strict=True)
        if gap > JOINT_SLACK
    ]
    words = f"no weights meet all constraints together; the nearest miss {', '.join(missed)}"
    return found.x[:n], words if missed else ""


@torch.no_grad()
def kkt_residual(problem: Problem, weights: Tensor, duals: Tensor) -> Tensor:
    """How far weights (B, N) and multipliers (B, R + 2) are from optimal, (B,), without unit.

    The natural residual, the largest ``|z - prox(z - r / s)|``: r is the gradient of the
    Lagrangian, s the largest of its terms (at least the mean of P's diagonal) and prox that of the
    bounds and the turnover and gross terms. And the same for every limit with its multiplier.
    Zero at the solution and only there (Facchinei & Pang 2003, section 1.5).
    """
    given = problem.rows.shape[1]
    risk_term = problem.risk_times(weights)  # (B, N)
    row_term = (problem.rows.mT @ duals[:, :given].unsqueeze(-1)).squeeze(-1)
    gradient = risk_term - problem.expected_return + row_term
    terms = torch.stack([risk_term, problem.expected_return, row_term]).abs().amax(dim=(0, 2))
    scale = torch.maximum(terms, problem.risk_diagonal().mean(-1)).unsqueeze(1)  # (B, 1)

    zero = torch.zeros_like(weights)
    holdings = zero if problem.holdings is None else problem.holdings
    cost = zero if problem.cost is None else problem.cost
    widths = [(cost + duals[:, -2:-1]) / scale, (duals[:, -1:] / scale).expand_as(zero)]
    step = weights - gradient / scale + widths[0] + widths[1]
    turnover_first = holdings <= 0
    for first, second in ((0, 1), (1, 0)):  # the two kinks in ascending order of place
        place = torch.where(turnover_first, (holdings, zero)[first], (holdings, zero)[second])
        width = torch.where(turnover_first, widths[first], widths[second])
        step = torch.minimum(step, torch.maximum(place, step - 2 * width))
    stationary = (weights - step.clamp(problem.lower, problem.upper)).abs().amax(1)

    value = torch.cat(
        [
            (problem.rows @ weights.unsqueeze(-1)).squeeze(-1),
            (weights - holdings).abs().sum(1, keepdim=True),
            weights.abs().sum(1, keepdim=True),
        ],
        dim=1,
    )  # (B, R + 2)
    row_step = (value + duals / scale).clamp(*problem.all_limits())
    return torch.maximum(stationary, (value - row_step).abs().amax(1))
