"""The rounds of the active-set method in batched torch: those of ``rounds.py`` (read that first).

All samples side by side: free weights are gathered to the front and padded to the most any sample
has. The host looks once a round, at all that it has to know (``Look``). Where more than one row is
active, torch looks once more, whether the eigenvalues of their Gram matrix were found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from strategies.layers.optimisation.active_set.tolerances import (
    AT_ONCE,
    DEPENDENT_EIGENVALUE,
    FEASIBLE,
    RETURN_TOLERANCE,
    ROUNDING,
    ROW_ROUNDING,
    WEAK,
)
from strategies.layers.optimisation.problem import FactorRisk, Problem


@dataclass(frozen=True)
class Geometry:
    """What of a problem stays the same in all rounds."""

    problem: Problem
    holdings: Tensor  # (B, N) z0
    cost: Tensor  # (B, N)
    breaks: Tensor  # (B, N, 2..4) ascending
    limits: tuple[Tensor, Tensor]  # (B, R + 2) lower and upper, turnover and gross last
    diagonal: Tensor  # (1|B, N) of P

    @classmethod
    def of(cls, problem: Problem) -> Geometry:
        zero = torch.zeros_like(problem.lower)
        upper = torch.maximum(problem.lower, problem.upper)
        holdings = zero if problem.holdings is None else problem.holdings
        kinks = [holdings] if problem.holdings is not None else []
        kinks += [zero] if problem.gross_limit is not None else []
        inner = [torch.minimum(torch.maximum(kink, problem.lower), upper) for kink in kinks]
        points = [problem.lower, *inner, upper]
        return cls(
            problem,
            holdings,
            zero if problem.cost is None else problem.cost,
            torch.stack(points, dim=-1).sort(dim=-1).values,
            problem.all_limits(),
            problem.risk_diagonal(),
        )

    def at(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the segment, or twice the break point, of every weight: (B, N) each."""
        low, high = (states // 2).unsqueeze(-1), ((states + 1) // 2).unsqueeze(-1)
        return self.breaks.gather(-1, low).squeeze(-1), self.breaks.gather(-1, high).squeeze(-1)

    def beside(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """States of the segments to the right and to the left of a break point, (B, N) each."""
        at = at.unsqueeze(-1)
        return 2 * (self.breaks <= at).sum(-1) - 1, 2 * (self.breaks < at).sum(-1) - 1

    def sides(self, states: Tensor) -> Tensor:
        """Signs of z - z0 and of z, (B, 2, N)."""
        low, _ = self.at(states)
        free = states % 2 == 1
        signs = [
            torch.where(free, torch.where(low >= kink, 1.0, -1.0), torch.sign(low - kink))
            for kink in (self.holdings, torch.zeros_like(self.holdings))
        ]
        return torch.stack(signs, dim=1).to(low.dtype)

    def rows(self, states: Tensor) -> Tensor:
        """Coefficients of all rows, (B, R + 2, N)."""
        given = self.problem.rows.expand(len(states), -1, -1)
        return torch.cat([given, self.sides(states)], dim=1)

    def slopes(self, at: Tensor, duals: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the costs to the left and to the right of a point, (B, N) each."""
        turnover, gross = self.cost + duals[:, -2:-1], duals[:, -1:]
        left = torch.where(at > self.holdings, turnover, -turnover) + torch.where(
            at > 0, gross, -gross
        )
        right = torch.where(at >= self.holdings, turnover, -turnover)
        return left, right + torch.where(at >= 0, gross, -gross)


class Look(NamedTuple):
    """What the host has to know of the states before the next round."""

    going: bool  # a sample is not done
    most_free: int  # weights of a sample
    most_active: int  # rows of a sample

    @classmethod
    def at(cls, states: Tensor, row_states: Tensor, going: Tensor) -> Look:
        """The one transfer of a round; ``going`` is (B,) bool."""
        free, active = states % 2 == 1, row_states != 0
        counts = torch.stack([going.any().long(), free.sum(1).amax(), active.sum(1).amax()])
        found = counts.tolist()
        return cls(bool(found[0]), found[1], found[2])


@dataclass(frozen=True)
class FreeBlock:
    """The free weights of every sample, gathered to the front, and the inverse of their P."""

    index: Tensor  # (B, M)
    valid: Tensor  # (B, M) bool, not padding
    inverse: Callable[[Tensor], Tensor]  # (B, M, X) -> (B, M, X)
    definite: Tensor  # (B,) bool
    one_row: bool  # no sample has more than one active row

    @classmethod
    def of(cls, problem: Problem, free: Tensor, look: Look) -> FreeBlock:
        count, most, one_row = free.sum(1), max(1, look.most_free), look.most_active <= 1
        index = torch.argsort(~free, dim=1, stable=True)[:, :most]
        valid = torch.arange(most, device=free.device) < count.unsqueeze(1)
        batch = torch.arange(len(free), device=free.device).unsqueeze(1)
        padding = torch.diag_embed((~valid).to(torch.float64))
        both = (valid.unsqueeze(1) & valid.unsqueeze(2)).to(torch.float64)
        if not isinstance(problem.risk, FactorRisk):
            sample = batch % problem.risk.shape[0]
            block = problem.risk[sample.unsqueeze(2), index.unsqueeze(2), index.unsqueeze(1)]
            factor, info = torch.linalg.cholesky_ex(block * both + padding)
            return cls(index, valid, lambda x: torch.cholesky_solve(x, factor), info == 0, one_row)
        loadings = problem.risk.loadings[batch % problem.risk.loadings.shape[0], index]  # (B, M, K)
        specific = problem.risk.specific[batch % problem.risk.specific.shape[0], index]
        loadings, specific = loadings * valid.unsqueeze(2), torch.where(valid, specific, 1.0)
        if most <= loadings.shape[2]:
            block = loadings @ loadings.mT + torch.diag_embed(specific)
            factor, info = torch.linalg.cholesky_ex(block)
            return cls(index, valid, lambda x: torch.cholesky_solve(x, factor), info == 0, one_row)
        scaled = loadings / specific.unsqueeze(2)  # Woodbury: a K x K matrix in place of M x M
        unit = torch.eye(loadings.shape[2], dtype=torch.float64, device=free.device)
        factor, info = torch.linalg.cholesky_ex(unit + loadings.mT @ scaled)

        def inverse(x: Tensor) -> Tensor:
            return x / specific.unsqueeze(2) - scaled @ torch.cholesky_solve(scaled.mT @ x, factor)

        return cls(index, valid, inverse, info == 0, one_row)

    def gather(self, full: Tensor) -> Tensor:
        """(B, ..., N) at the free weights, (B, ..., M), zero at the padding."""
        index, valid = self.index, self.valid
        while index.dim() < full.dim():
            index, valid = index.unsqueeze(1), valid.unsqueeze(1)
        shape = (*full.shape[:-1], self.index.shape[1])
        return torch.where(valid, full.gather(-1, index.expand(shape)), 0.0)

    def scatter(self, part: Tensor, assets: int) -> Tensor:
        """(B, M) back to (B, N), zero elsewhere."""
        full = torch.zeros(len(part), assets, dtype=part.dtype, device=part.device)
        return full.scatter_add(1, self.index, torch.where(self.valid, part, 0.0))

    def with_rows(self, right: Tensor, rows: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Solve ``K x + C'y = right, C x = gaps``: x (B, M) and y (B, R); rows are (B, R, M)."""
        x = self.inverse(right.unsqueeze(2)).squeeze(2)
        through = self.inverse(rows.mT)  # (B, M, R)
        schur = rows @ through
        if self.one_row:  # the only entry is on the diagonal
            only = schur.diagonal(dim1=-2, dim2=-1)
            pseudo = torch.diag_embed(torch.where(only > 0, 1 / only, 0.0))
        else:
            pseudo = torch.linalg.pinv(
                (schur + schur.mT) / 2, rtol=DEPENDENT_EIGENVALUE, hermitian=True
            )
        y = torch.zeros_like(gaps)
        for _ in range(2):  # again, so that rows hold to rounding
            step = pseudo @ ((rows @ x.unsqueeze(2)).squeeze(2) - gaps).unsqueeze(2)
            y = y + step.squeeze(2)
            x = x - (through @ step).squeeze(2)
        return x, y


@dataclass(frozen=True)
class Round:
    """Weights and multipliers if every weight and row is as its state says."""

    z: Tensor  # (B, N)
    duals: Tensor  # (B, R + 2)
    gaps: Tensor  # (B, R + 2) what active rows lack
    gradient: Tensor  # (B, N) Pz - q + given rows' multipliers
    scale: Tensor  # (B, 1)
    definite: Tensor  # (B,)


def solve_states(geometry: Geometry, states: Tensor, row_states: Tensor, look: Look) -> Round:
    problem = geometry.problem
    assets = states.shape[1]
    free = states % 2 == 1
    pinned = torch.where(free, 0.0, geometry.at(states)[0])
    rows, active = geometry.rows(states), row_states != 0
    block = FreeBlock.of(problem, free, look)
    target = torch.where(row_states > 0, geometry.limits[1], geometry.limits[0])
    target = torch.where(active, target, 0.0)
    moved = (rows[:, -2] * geometry.holdings).sum(1)  # the turnover row is about z - z0
    target[:, -2] += torch.where(active[:, -2], moved, 0.0)
    rows = rows * active.unsqueeze(2)
    gaps = target - (rows @ pinned.unsqueeze(2)).squeeze(2)
    right = problem.expected_return - problem.risk_times(pinned)
    right = right - geometry.cost * geometry.sides(states)[:, 0]
    x, duals = block.with_rows(block.gather(right), block.gather(rows), gaps)
    z = pinned + block.scatter(x, assets)
    shortfall = target - (rows @ z.unsqueeze(2)).squeeze(2)
    risk_term = problem.risk_times(z)
    row_term = rows[:, :-2] * duals[:, :-2].unsqueeze(2)  # (B, R, N)
    terms = [risk_term.abs().amax(1), problem.expected_return.abs().amax(1)]
    scale = torch.stack([*terms, row_term.abs().amax((1, 2))]).amax(0).unsqueeze(1)
    gradient = risk_term - problem.expected_return + row_term.sum(1)
    return Round(z, duals, shortfall, gradient, scale, block.definite)


def flip(
    geometry: Geometry, now: Round, states: Tensor, row_states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """States and row states with what the round contradicts corrected, and how many, (B,)."""
    breaks = geometry.breaks
    low, high = geometry.at(states)
    free = states % 2 == 1
    short, over = (low - now.z).clamp(min=0) * free, (now.z - high).clamp(min=0) * free
    room = ROUNDING * (1 + now.z.abs())
    below, above = free & (short > room), free & (over > room)
    clip_low = short.sum(1, keepdim=True) >= over.sum(1, keepdim=True)
    clip_high = short.sum(1, keepdim=True) <= over.sum(1, keepdim=True)
    left, right = geometry.slopes(low, now.duals)
    tolerance = RETURN_TOLERANCE * geometry.diagonal + ROUNDING * now.scale
    rise = ~free & (low < breaks[..., -1]) & (now.gradient + right < -tolerance)
    fall = ~free & ~rise & (low > breaks[..., 0]) & (now.gradient + left > tolerance)
    to_right, to_left = geometry.beside(low)
    flipped = (below | above | rise | fall).sum(1)
    new = torch.where(below & clip_low, states - 1, states)
    new = torch.where(above & clip_high, states + 1, new)
    new = torch.where(rise, to_right, torch.where(fall, to_left, new))

    least, most = geometry.limits
    active = row_states != 0
    sums = (geometry.problem.rows @ now.z.unsqueeze(2)).squeeze(2)
    turnover, gross = (now.z - geometry.holdings).abs().sum(1), now.z.abs().sum(1)
    value = torch.cat([sums, torch.stack([turnover, gross], dim=1)], dim=1)
    drop = active & (least < most) & (row_states * now.duals < -ROUNDING * now.scale)
    up = ~active & (value > most + ROW_ROUNDING * (1 + most.abs()))
    down = ~active & (value < least - ROW_ROUNDING * (1 + least.abs()))
    missed = up | down
    by = torch.maximum(value - most, least - value)
    by[:, :-2] /= geometry.problem.rows.abs().amax(-1)
    by[:, -2:] = torch.inf
    worst = torch.where(missed, by, -torch.inf).argmax(1, keepdim=True)
    only = torch.zeros_like(missed).scatter(1, worst, True)
    taken = missed & (only | (missed.sum(1, keepdim=True) <= AT_ONCE))
    added = torch.where(up, 1, -1)
    new_rows = torch.where(drop, 0, torch.where(taken, added, row_states))
    shortfall = torch.where(active & ~drop, now.gaps, 0.0)
    shortfall = torch.where(shortfall.abs() > FEASIBLE * (1 + value.abs()), shortfall, 0.0)
    flipped = flipped + (drop | missed | (shortfall != 0)).sum(1)
    row = shortfall.abs().argmax(1, keepdim=True)  # the row missed most, if any, frees one weight
    index = row.unsqueeze(2).expand(-1, -1, states.shape[1])
    coefficient = geometry.rows(states).gather(1, index).squeeze(1)
    pull = shortfall.gather(1, row) * coefficient  # (B, N), zero where no row is missed
    price = torch.where(pull > 0, now.gradient + right, -now.gradient - left)
    possible = (pull > 0) & (low < breaks[..., -1]) | (pull < 0) & (low > breaks[..., 0])
    price = torch.where(possible & ~free, price / coefficient.abs(), torch.inf)
    best = price.argmin(1, keepdim=True)
    chosen = torch.zeros_like(free).scatter(1, best, price.gather(1, best).isfinite())
    new = torch.where(chosen, torch.where(pull > 0, to_right, to_left), new)
    return new, new_rows, flipped


def let_go_of_weak(
    geometry: Geometry, now: Round, states: Tensor, row_states: Tensor
) -> tuple[Tensor, Tensor]:
    """At a solution, states without the limits whose multiplier is zero."""
    least, most = geometry.limits
    weak = (least < most) & (now.duals.abs() <= WEAK * now.scale)
    low, _ = geometry.at(states)
    left, right = geometry.slopes(low, now.duals)
    room = WEAK * torch.maximum(now.scale, geometry.diagonal.expand_as(low))
    pinned = states % 2 == 0
    rise = pinned & (low < geometry.breaks[..., -1]) & (now.gradient + right <= room)
    fall = pinned & ~rise & (low > geometry.breaks[..., 0]) & (now.gradient + left >= -room)
    to_right, to_left = geometry.beside(low)
    states = torch.where(rise, to_right, torch.where(fall, to_left, states))
    return states, torch.where(weak, 0, row_states)
