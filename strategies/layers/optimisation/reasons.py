"""Why a solved problem has the weights that it has: forecast, risk, limits, and what would be else.

At the solution, with c and h the quadratic cost of trading and the holdings (``consecutive.py``),

    q - P z - c (z - h) - rows'y  =  price of the cap - price of the floor

so a weight stands between its limits where its forecast q pays for its risk, for the trade and for
its share of the budget, and at a limit where it pays more or less. What would be else is solved
anew: without the forecast, without the cost of trading, and each weight without its cap.

Letters: B samples, N assets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.consecutive import plus_diagonal
from strategies.layers.optimisation.explanation import AT_LIMIT, Solved, limits_of, terms_of
from strategies.layers.optimisation.problem import FactorRisk, Problem, Solution

DIRECTIONS = 3  # of the risk, the largest
RELEASED = 10  # weights of a sample whose caps are released, those with the highest prices
SMALL = 64  # assets, up to which all directions are computed at once
PART = 64 * 2**20  # bytes of P in one solve


class Reasons(NamedTuple):
    """Of B samples.

    Attributes:
        limits: what binds in each, see ``explanation.py``.
        samples: {name: (B,)}: variance (z'Pz), exposure (sum of z), gross (of their sizes), hurdle
            (the price of the budget: what a forecast has to pay beyond its risk), trading_cost (c),
            and direction_1 to 3 (the largest eigenvalues of P over its trace).
        assets: {name: (D, N)} of the D samples asked for: aimed (z), forecast (q), variance
            (diagonal of P), marginal (P z), limit_price (positive of a cap, negative of a floor),
            fixed (1 where both limits are the same, as of an asset that cannot be traded),
            no_forecast, no_trading_cost, no_cap (the weight there would be; NaN where that is no
            question), direction_1 to 3 (eigenvectors, their largest entry positive).
    """

    limits: list[list[dict[str, object]]]
    samples: dict[str, np.ndarray]
    assets: dict[str, np.ndarray]


def joined_solves(solves: Sequence[Solved]) -> Iterator[Solved]:
    """The same samples in the same order, in as few batches as their kinds allow."""
    for _, group in groupby(solves, _kind):
        yield _cat(list(group))


def solve_reasons(solved: Solved, detailed: np.ndarray) -> Reasons:
    """The reasons of a batch.

    Args:
        detailed: (B,) bool, the samples whose assets are asked for.
    """
    problem, solution, cost, _ = solved
    z = solution.weights
    own = _without_trading(solved)
    samples = {
        "variance": (z * own.risk_times(z)).sum(-1),
        "exposure": z.sum(-1),
        "gross": z.abs().sum(-1),
        "hurdle": solution.duals[:, 0],
        "trading_cost": torch.zeros(len(z)) if cost is None else cost.squeeze(-1),
    }
    chosen = torch.from_numpy(np.flatnonzero(detailed))
    few, few_own = problem.of_samples(chosen), own.of_samples(chosen)
    ended = Solution(*(getattr(solution, name)[chosen] for name in ENDED))
    z = ended.weights
    values, vectors = _directions(few_own)  # (D, K), (D, K, N)
    for k in range(DIRECTIONS):
        share = torch.full((len(detailed),), torch.nan, dtype=torch.float64)
        share[chosen] = values[:, k] / few_own.risk_diagonal().sum(-1)
        samples[f"direction_{k + 1}"] = share
    terms = terms_of(few, ended)
    fixed = (few.upper - few.lower).numpy() <= AT_LIMIT  # it is not traded, so that no limit binds
    at_cap = ((few.upper - z).abs().numpy() <= AT_LIMIT) & ~fixed
    at_floor = ((z - few.lower).abs().numpy() <= AT_LIMIT) & ~fixed
    cap, floor = np.where(at_cap, terms["cap"], 0.0), np.where(at_floor, terms["floor"], 0.0)
    pull = few.expected_return - few_own.expected_return  # of the holdings: c h
    untaxed = replace(few_own, holdings=None, cost=None, turnover_limit=None)
    free = cost is None and problem.holdings is None
    assets = {
        "aimed": z.numpy(),
        "forecast": few_own.expected_return.numpy(),
        "variance": few_own.risk_diagonal().numpy(),
        "marginal": few_own.risk_times(z).numpy(),
        "limit_price": cap - floor,
        "fixed": fixed.astype(float),
        "no_forecast": _weights(replace(few, expected_return=pull)),
        "no_trading_cost": np.full(cap.shape, np.nan) if free else _weights(untaxed),
        "no_cap": _without_caps(few, cap),
        **{f"direction_{k + 1}": vectors[:, k].numpy() for k in range(DIRECTIONS)},
    }
    limits = limits_of(problem, solution)
    for lines, variance in zip(limits, samples["variance"].tolist(), strict=True):
        for line in lines:
            line["variance"] = variance  # of the risk alone
    return Reasons(limits, {name: value.numpy() for name, value in samples.items()}, assets)


ENDED = ("weights", "status", "rounds", "residual", "duals")


def _kind(solved: Solved) -> tuple:
    """What has to agree for problems to be one batch."""
    problem = solved.problem
    parts = vars(problem.risk).values() if isinstance(problem.risk, FactorRisk) else [problem.risk]
    shapes = tuple(part.shape[1:] for part in parts)
    names = ("holdings", "cost", "turnover_limit", "gross_limit")
    given = tuple(getattr(problem, name) is None for name in names)
    rows = None if problem.row_names is None else tuple(problem.row_names)
    return (shapes, problem.rows.shape[1:], given, rows, solved.cost is None)


def _cat(batch: Sequence[Solved]) -> Solved:
    """One batch on the CPU, with the leading dimension B everywhere."""
    counts = [len(each.solution.weights) for each in batch]

    def cat(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], FactorRisk):
            return FactorRisk(cat([p.loadings for p in parts]), cat([p.specific for p in parts]))
        if not isinstance(parts[0], Tensor):
            return parts[0]
        spread = [
            p if len(p) == n else p.expand(n, *p.shape[1:])
            for p, n in zip(parts, counts, strict=True)
        ]
        return (torch.cat(spread) if len(spread) > 1 else spread[0]).detach().cpu()

    def merged(items: Sequence[Any], names: Iterable[str]) -> dict[str, Any]:
        return {name: cat([getattr(item, name) for item in items]) for name in names}

    problems, solutions = [each.problem for each in batch], [each.solution for each in batch]
    return Solved(
        Problem(**merged(problems, vars(problems[0])) | {"labels": None}),
        Solution(**merged(solutions, ENDED)),
        *(cat(parts) for parts in zip(*(each[2:] for each in batch), strict=True)),
    )


def _without_trading(solved: Solved) -> Problem:
    """The problem with P and q as they were before the quadratic cost of trading."""
    problem, _, cost, holdings = solved
    if cost is None or holdings is None:
        return problem
    return replace(
        problem,
        risk=plus_diagonal(problem.risk, -cost.expand_as(problem.lower)),
        expected_return=problem.expected_return - cost * holdings,
    )


def _without_caps(problem: Problem, price: np.ndarray) -> np.ndarray:
    """(D, N) what each weight would be without its own cap; NaN where that does not bind."""
    found = np.full(price.shape, np.nan)
    highest = np.sort(price, axis=1)[:, -min(RELEASED, price.shape[1])][:, None]
    sample, asset = np.nonzero((price > AT_LIMIT) & (price >= highest))
    size = 8 * price.shape[1] ** (1 if isinstance(problem.risk, FactorRisk) else 2)
    step = max(1, PART // size)
    for first in range(0, len(sample), step):
        part = slice(first, first + step)
        few = problem.of_samples(torch.from_numpy(sample[part]))
        upper = few.upper.clone()
        upper[torch.arange(len(upper)), torch.from_numpy(asset[part])] = torch.inf
        weights = _weights(replace(few, upper=upper))
        found[sample[part], asset[part]] = weights[np.arange(len(weights)), asset[part]]
    return found


def _weights(problem: Problem) -> np.ndarray:
    """The weights (D, N); NaN of a sample that is not solved."""
    if not len(problem.lower):
        return np.empty(problem.lower.shape)
    solution = ActiveSet().solve(problem)
    return torch.where(solution.converged.unsqueeze(-1), solution.weights, torch.nan).numpy()


def _directions(problem: Problem) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (D, K) and eigenvectors (D, K, N) of P, K = ``DIRECTIONS``.

    Each vector has length 1, and its largest entry is positive; NaN beyond the number of assets.
    """
    count, assets = problem.lower.shape
    values = torch.full((count, DIRECTIONS), torch.nan, dtype=torch.float64)
    vectors = torch.full((count, DIRECTIONS, assets), torch.nan, dtype=torch.float64)
    most = min(DIRECTIONS, assets)
    if assets <= SMALL:
        found, columns = torch.linalg.eigh(problem.dense_risk())
        values[:, :most] = found.flip(-1)[:, :most].expand(count, -1)
        vectors[:, :most] = columns.flip(-1)[:, :, :most].mT.expand(count, -1, -1)
    else:
        for b in range(count):
            one = problem.of_samples(torch.tensor([b]))

            def times(z: np.ndarray, one: Problem = one) -> np.ndarray:
                return one.risk_times(torch.from_numpy(z.reshape(1, -1)))[0].numpy()

            operator = LinearOperator((assets, assets), matvec=times, dtype=np.float64)
            found_, columns_ = eigsh(operator, k=most, v0=np.ones(assets), tol=1e-8)
            order = np.argsort(-found_)
            values[b, :most] = torch.from_numpy(found_[order])
            vectors[b, :most] = torch.from_numpy(columns_[:, order].T.copy())
    peak = vectors.gather(-1, vectors.abs().nan_to_num(0).argmax(-1, keepdim=True))
    return values, vectors * peak.sign()
