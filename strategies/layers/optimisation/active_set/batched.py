"""The active-set method in batched torch, for problems that are not on the CPU.

A GPU works ahead of the host that tells it what to do, until the host asks for a value; so the host
looks once a round. Samples whose rounds cycle are handed to the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.layers.optimisation.active_set.batched_rounds import (
    FreeBlock,
    Geometry,
    Look,
    flip,
    let_go_of_weak,
    solve_states,
)
from strategies.layers.optimisation.active_set.tolerances import PATIENCE, ROUND_LIMIT
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.problem import FactorRisk, Problem


def cold_start(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """States of the optimum for diag(P), the budget and the costs, by bisection on the budget's
    multiplier; and the rows' states, equalities active."""
    problem = geometry.problem
    q, lower, upper = problem.expected_return, geometry.breaks[..., 0], geometry.breaks[..., -1]
    diagonal = geometry.diagonal.expand_as(q)
    width = geometry.cost / diagonal

    def weights(dual: Tensor) -> Tensor:
        z = (q - dual) / diagonal
        z = torch.minimum(z + width, torch.maximum(geometry.holdings, z - width))
        return torch.minimum(torch.maximum(z, lower), upper)

    unasked = weights(torch.zeros_like(q[:, :1])).sum(1, keepdim=True)  # at a multiplier of zero
    least, most = problem.row_lower[:, :1], problem.row_upper[:, :1]
    budget = torch.minimum(torch.maximum(unasked, least), most)
    reach = q.abs().amax(1, keepdim=True) + geometry.cost.amax(1, keepdim=True)
    reach = reach + diagonal.amax(1, keepdim=True) * (1 + budget.abs())
    low, high = -reach, reach
    for _ in range(60):  # widen until the multiplier is inside, then halve
        low = torch.where(weights(low).sum(1, keepdim=True) < budget, 2 * low, low)
        high = torch.where(weights(high).sum(1, keepdim=True) > budget, 2 * high, high)
        middle = (low + high) / 2
        heavy = weights(middle).sum(1, keepdim=True) > budget
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    free = (least < most) & (least <= unasked) & (unasked <= most)
    z = weights(torch.where(free, 0.0, (low + high) / 2)).unsqueeze(-1)
    passed = (geometry.breaks <= z).sum(-1).clamp(min=1) - 1  # last break point at or below z
    here = geometry.breaks.gather(-1, passed.unsqueeze(-1))
    pinned = (passed == geometry.breaks.shape[-1] - 1) | (z <= here).squeeze(-1)
    states = torch.where(pinned, 2 * passed, 2 * passed + 1)
    row_states = (geometry.limits[0] == geometry.limits[1]).long()
    end = (unasked > most).long() - (unasked < least).long()
    row_states[:, :1] = torch.where(least < most, end, 1)
    return states, row_states


def admit(geometry: Geometry, states: Tensor, row_states: Tensor) -> tuple[Tensor, Tensor]:
    """Make a given start one that this problem can have: nothing is pinned at infinity."""
    top = 2 * (geometry.breaks.shape[-1] - 1)
    states = states.clamp(0, top)
    states = torch.where((states == 0) & geometry.breaks[..., 0].isinf(), 1, states)
    states = torch.where((states == top) & geometry.breaks[..., -1].isinf(), top - 1, states)
    least, most = geometry.limits
    row_states = row_states.clamp(-1, 1)
    never = ((row_states > 0) & most.isinf()) | ((row_states < 0) & least.isinf())
    row_states = torch.where(never, 0, row_states)
    return states, torch.where(least == most, 1, row_states)


@torch.no_grad()
def solve_batched(problem: Problem, start: Tensor | None) -> tuple[Tensor, ...]:
    """Weights (B, N), duals (B, R + 2), states (B, N + R + 2), rounds and residual (B,); the
    residual is infinite where the rounds cycle, NaN where P is not positive definite."""
    geometry = Geometry.of(problem)
    assets = problem.lower.shape[1]
    states, row_states = cold_start(geometry)
    if start is not None:
        warm = (start[:, :1] >= 0).to(states.device)
        given = start.to(device=states.device, dtype=torch.int64)
        states, row_states = (
            torch.where(warm, admitted, cold)
            for admitted, cold in zip(
                admit(geometry, given[:, :assets], given[:, assets:]),
                (states, row_states),
                strict=True,
            )
        )
    done = torch.zeros(len(states), dtype=torch.bool, device=states.device)
    rounds = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    fewest, waited = torch.full_like(rounds, 2**62), torch.zeros_like(rounds)
    look = Look.at(states, row_states, ~done)
    for _ in range(ROUND_LIMIT):
        now = solve_states(geometry, states, row_states, look)
        new, new_rows, flipped = flip(geometry, now, states, row_states)
        rounds = rounds + (~done).long()
        done = done | (flipped == 0)
        waited = torch.where(flipped < fewest, 0, waited + 1)
        fewest = torch.minimum(fewest, flipped)
        following = torch.where(done.unsqueeze(1), states, new)
        following_rows = torch.where(done.unsqueeze(1), row_states, new_rows)
        look = Look.at(following, following_rows, ~done & (waited <= PATIENCE))
        if not look.going:
            break
        states, row_states = following, following_rows
    low, high = geometry.at(states)
    free = states % 2 == 1
    z = torch.where(free, torch.minimum(torch.maximum(now.z, low), high), now.z)
    residual = torch.where(done, kkt_residual(problem, z, now.duals), torch.inf)
    residual = torch.where(now.definite, residual, torch.nan)
    states, row_states = let_go_of_weak(geometry, now, states, row_states)
    return z, now.duals, torch.cat([states, row_states], 1).to(torch.int8), rounds, residual


def differentiate_batched(
    problem: Problem, z: Tensor, duals: Tensor, states: Tensor, incoming: Tensor
) -> dict[str, Tensor]:
    """Gradients by the name of the argument, as ``differentiate_batch`` has them."""
    geometry = Geometry.of(problem)
    assets = z.shape[1]
    states, row_states = states[:, :assets].long(), states[:, assets:].long()
    free = states % 2 == 1
    block = FreeBlock.of(problem, free, Look.at(states, row_states, free.any(1)))
    active = (row_states != 0).unsqueeze(2)
    rows = geometry.rows(states) * active
    u, v = block.with_rows(block.gather(incoming), block.gather(rows), torch.zeros_like(duals))
    u = block.scatter(u, assets)
    through = incoming - problem.risk_times(u) - (rows.mT @ v.unsqueeze(2)).squeeze(2)
    through = torch.where(free, 0.0, through)
    at_lower = z == problem.lower
    at_upper = ~at_lower & (z == problem.upper)
    at_holding = ~at_lower & ~at_upper & (z == geometry.holdings)
    sides = geometry.sides(states)
    found = {
        "linear": u,
        "lower": torch.where(at_lower, through, 0.0),
        "upper": torch.where(at_upper, through, 0.0),
        "holdings": torch.where(at_holding, through, 0.0) + v[:, -2:-1] * rows[:, -2],
        "cost": -u * sides[:, 0],
        "row_lower": torch.where(row_states < 0, v, 0.0)[:, :-2],
        "row_upper": torch.where(row_states > 0, v, 0.0)[:, :-2],
        "turnover_limit": v[:, -2],
        "gross_limit": v[:, -1],
        "rows": -(
            duals[:, :-2].unsqueeze(2) * u.unsqueeze(1) + v[:, :-2].unsqueeze(2) * z.unsqueeze(1)
        ),
    }
    shared = {"rows": problem.rows}
    if isinstance(problem.risk, FactorRisk):
        seen, moved = (problem.risk.loadings.mT @ x.unsqueeze(2) for x in (z, u))  # (B, K, 1)
        found["loadings"] = -(u.unsqueeze(2) @ seen.mT + z.unsqueeze(2) @ moved.mT)
        found["specific"] = -u * z
        shared |= {"loadings": problem.risk.loadings, "specific": problem.risk.specific}
    else:
        outer = u.unsqueeze(2) * z.unsqueeze(1)
        found["risk"] = -(outer + outer.mT) / 2
        shared["risk"] = problem.risk
    for name, tensor in shared.items():
        if tensor.shape[0] == 1 and len(z) > 1:
            found[name] = found[name].sum(0, keepdim=True)
    return found
