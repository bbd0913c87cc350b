"""The solve of mean-variance weights with a price on what exceeds a limit.

    argmin_z  1/2 z'Pz - q'z + sum_s price_s max(g_s'z - h_s, 0)

under the constraints of the mean-variance layer. Limits that are soft in this sense are also what
is behind a mean absolute deviation, costs between periods and, with one more variable t that is
taken from every ``g_s'z - h_s`` at a price, the conditional value at risk.

At the solution every limit is below (its multiplier y is 0), above (y is its price) or exactly met.
Where this is known, the problem is an ordinary one: what is above is a linear term, what is met a
row. It is solved exactly by the layer, and is the solution if the multipliers of its rows lie
between 0 and the price and every other limit is on its side: the certificate that every answer has.
What is known comes from the method of multipliers,

    y <- clip(y + (g'z - h - t) / mu, 0, price),   z the minimum of the smooth function so bounded,

each z by Newton steps, which are mean-variance problems (Rockafellar 1976, "Augmented Lagrangians
and applications of the proximal point algorithm in convex programming"; on piecewise linear
functions it ends). At a weakly active limit, with a multiplier of 0 or its price, the weights have
a kink, and the gradient is that of one side.

Letters: B samples, N assets, S soft limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import InfeasibleError, Problem, Solution, SolveError
from strategies.layers.solve_record import open_record

UPDATES = 40  # of the multipliers
STEPS, HALVINGS = 25, 40  # of Newton's method; of the length of a step
SAME = 1e-9  # of a multiplier over its price, and of a limit over its largest coefficient
BAND, NARROWER, LEAST = 1.0, 0.3, 1e-8  # of mu: at first, from one update to the next, at last
ALIKE = 1e-7  # of a weight: two ways to the same optimum
TINY = 1e-300
NEAR = 1e-3  # of a limit over its largest coefficient: so near, its side is tried


class SoftLimits(NamedTuple):
    """S limits and what exceeding them costs; gradients flow to all."""

    rows: Tensor  # g (B, S, N)
    limits: Tensor  # h (B, S)
    prices: Tensor  # (B, S), not negative, in the unit of q
    total: Tensor | None = None  # (B,) the price of t, where there is one

    def each(self, change: Callable[[Tensor], Tensor]) -> SoftLimits:
        """With every tensor changed."""
        total = None if self.total is None else change(self.total)
        return SoftLimits(change(self.rows), change(self.limits), change(self.prices), total)

    def of(self, samples: Tensor) -> SoftLimits:
        return self.each(lambda each: each[samples])


def solve_softly(layer: MeanVarianceLayer, problem: Problem, soft: SoftLimits) -> Tensor:
    """The weights (B, N), certified.

    Raises:
        ValueError: prices that are negative, or anything that is not finite.
        SolveError: no solution was found on some samples.
    """
    if not all(bool(each.isfinite().all()) for each in soft if each is not None):
        raise ValueError("soft limits, their rows and prices must be finite")
    if bool((soft.prices < 0).any()):
        raise ValueError("the price of a soft limit must not be negative")
    with torch.no_grad():
        above, met, y, states, steps = _sides(layer, problem, soft)
    whole, rows = _given_sides(problem, soft, above, met)
    solution = layer.solver.solve(whole, _with_rows(states, problem, rows))
    fine = _certified(layer, solution, problem, soft, above, met, rows, y)
    record = open_record()
    if record is not None:
        record.add("soft limits", steps, solution.residual, fine)
    weights = layer.reported(whole, solution)
    if not fine.all():
        missed = (~fine).nonzero().flatten().tolist()
        raise SolveError(
            f"no certified solution with soft limits: {problem.name(missed)}; it is degenerate "
            "there, a slight change of the prices or limits may help",
            missed,
        )
    return weights


def _given_sides(
    problem: Problem, soft: SoftLimits, above: Tensor, met: Tensor
) -> tuple[Problem, Tensor]:
    """The ordinary problem of which limits are above and met, (B, S) bool each; and which limits
    its further rows are, (B, E) with -1 for none.

    With a t, what is met equals t: the first of them stands for t in all others.
    """
    batch, width = met.shape
    place = torch.arange(batch, device=met.device).unsqueeze(1)
    prices = soft.prices * above
    pulled = problem.expected_return - (soft.rows * prices.unsqueeze(2)).sum(1)
    rows, limits, others = soft.rows, soft.limits, met
    if soft.total is not None:
        first = met.long().argmax(1)  # of none, 0, at a price of 0
        own = (soft.total - prices.sum(1)) * met.any(1)
        base = soft.rows[place[:, 0], first]  # (B, N)
        pulled = pulled - own.unsqueeze(1) * base
        rows, limits = rows - base.unsqueeze(1), limits - limits[place[:, 0], first].unsqueeze(1)
        others = met & (torch.arange(width, device=met.device) != first.unsqueeze(1))
    count = int(others.sum(1).max())
    order = (~others).long().argsort(dim=1, stable=True)[:, :count]  # (B, E)
    used = others.gather(1, order)
    infinite = torch.full_like(used, torch.inf, dtype=torch.float64)
    chosen = torch.where(used.unsqueeze(2), rows[place, order], 0.0)
    ends = limits[place, order]
    whole = replace(
        problem,
        expected_return=pulled,
        rows=torch.cat([problem.rows.expand(batch, -1, -1), chosen], dim=1),
        row_lower=torch.cat([problem.row_lower, torch.where(used, ends, -infinite)], dim=1),
        row_upper=torch.cat([problem.row_upper, torch.where(used, ends, infinite)], dim=1),
        row_names=None,
    )
    return whole, torch.where(used, order, -1)


@torch.no_grad()
def _certified(
    layer: MeanVarianceLayer,
    solution: Solution,
    problem: Problem,
    soft: SoftLimits,
    above: Tensor,
    met: Tensor,
    rows: Tensor,
    y: Tensor,
) -> Tensor:
    """(B,) bool: the multipliers lie between 0 and the price, and every limit is on its side.

    Where limits that are met depend on each other, multipliers of their rows are not unique; then
    ``y`` (B, S) are multipliers if the weights are optimal at these prices.
    """
    gap = (soft.rows @ solution.weights.unsqueeze(2)).squeeze(2) - soft.limits
    given, used = problem.rows.shape[1], rows >= 0
    found = solution.duals[:, given : given + rows.shape[1]]
    multipliers = torch.zeros_like(gap).scatter_add(1, rows.clamp(min=0), found * used)
    multipliers = torch.where(above, soft.prices, multipliers)
    if soft.total is not None:
        first = met.long().argmax(1, keepdim=True)
        own = torch.where(met.any(1), soft.total - multipliers.sum(1), 0.0)
        multipliers = multipliers.scatter_add(1, first, own.unsqueeze(1))
        inner = torch.where(met, gap, torch.nan).nanmean(1)
        low = torch.where(above, gap, torch.inf).amin(1)  # of none met, t lies in between
        gap = gap - torch.where(met.any(1), inner, low).unsqueeze(1)
    unit = soft.rows.abs().amax(2) + soft.limits.abs()
    scale = soft.prices.amax(1, keepdim=True) if soft.total is None else soft.total.unsqueeze(1)
    fine = (multipliers >= -SAME * scale) & (multipliers <= soft.prices + SAME * scale)
    beside = torch.where(above, gap >= -SAME * unit, gap <= SAME * unit)
    beside |= soft.prices == 0
    fine = fine.all(1)
    if soft.total is not None:
        fine &= (multipliers.sum(1) - soft.total).abs() <= SAME * soft.total
    if not fine.all():
        y = torch.where(above, soft.prices, torch.where(met, y, 0.0))
        pulled = problem.expected_return - (soft.rows * y.unsqueeze(2)).sum(1)
        again = layer.solver.solve(replace(problem, expected_return=pulled), None).weights
        same = (again - solution.weights).abs().amax(1) <= ALIKE
        if soft.total is not None:
            same &= (y.sum(1) - soft.total).abs() <= ALIKE * soft.total
        fine |= same
    return fine & beside.all(1) & solution.converged


def _hold(
    layer: MeanVarianceLayer,
    problem: Problem,
    soft: SoftLimits,
    above: Tensor,
    met: Tensor,
    z: Tensor,
    y: Tensor,
    states: Tensor | None,
) -> Tensor:
    """(B,) bool: these sides have a certified solution; not tried where z is far from it."""
    gap = (soft.rows @ z.unsqueeze(2)).squeeze(2) - soft.limits
    if soft.total is not None:
        gap = gap - torch.where(met, gap, torch.nan).nanmean(1, keepdim=True).nan_to_num(0.0)
    unit = soft.rows.abs().amax(2) + soft.limits.abs()
    fine = torch.where(met, gap.abs() <= NEAR * unit, True).all(1)
    while len(tried := fine.nonzero().flatten()):
        part, few = problem.of_samples(tried), soft.of(tried)
        whole, rows = _given_sides(part, few, above[tried], met[tried])
        start = _with_rows(None if states is None else states[tried], problem, rows)
        try:
            solution = layer.solver.solve(whole, start)
        except InfeasibleError as error:
            fine[tried[error.samples]] = False
            continue
        own = above[tried], met[tried], rows, y[tried]
        fine[tried] = _certified(layer, solution, part, few, *own)
        break
    return fine


def _with_rows(states: Tensor | None, problem: Problem, rows: Tensor) -> Tensor | None:
    """States of the problem without further rows, with these: all of them active."""
    if states is None:
        return None
    place = states.shape[1] - 2
    return torch.cat([states[:, :place], (rows >= 0).to(states), states[:, place:]], dim=1)


def _sides(
    layer: MeanVarianceLayer, problem: Problem, soft: SoftLimits
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Which limits are above and which are met, (B, S) bool each; their multipliers (B, S); the
    states of the weights; and the Newton steps (B,)."""
    problem = problem.each_tensor(Tensor.detach)
    soft = soft.each(Tensor.detach)
    batch = len(soft.prices)
    above, met = (torch.zeros_like(soft.prices, dtype=torch.bool) for _ in range(2))
    steps = torch.zeros(batch, dtype=torch.int64)
    going = torch.arange(batch)
    first = layer.solver.solve(problem, None)
    z, states = first.weights, first.states
    y = torch.zeros_like(soft.prices)
    gap = (soft.rows @ z.unsqueeze(2)).squeeze(2) - soft.limits
    # So wide a band that some limits lie within it; not so narrow that P is lost beside it.
    spread = (gap - gap.mean(1, keepdim=True)).abs().mean(1)
    mu = BAND * spread / soft.prices.amax(1).clamp(min=TINY)
    norm = soft.rows.square().sum(2).amax(1) / problem.risk_diagonal().mean(-1)
    least = (norm * LEAST).clamp(min=TINY)
    mu = torch.minimum(mu, norm).maximum(least)
    for _ in range(UPDATES):
        part, few = problem.of_samples(going), soft.of(going)
        smooth = _Smooth(part, few, y[going], mu[going])
        own_states = None if states is None else states[going]
        z[going], y[going], taken, own_states = smooth.minimum(layer, z[going], own_states)
        steps[going] += taken
        if states is not None and own_states is not None:
            states[going] = own_states
        own = y[going]
        scale = few.prices * SAME
        above[going] = own >= few.prices - scale
        met[going] = ~above[going] & (own > scale)
        above[going] &= few.prices > 0
        fine = _hold(layer, part, few, above[going], met[going], z[going], own, own_states)
        going = going[~fine]
        if not len(going):
            break
        mu[going] = torch.maximum(NARROWER * mu[going], least[going])
    return above, met, y, states, steps


class _Smooth(NamedTuple):
    """The smooth function, whose minimum is a step of the method of multipliers."""

    problem: Problem
    soft: SoftLimits
    y: Tensor  # (B, S) multipliers so far
    mu: Tensor  # (B,)

    def at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Its value (B,), and the multipliers (B, S) there."""
        soft, mu = self.soft, self.mu.unsqueeze(1)
        gap = (soft.rows @ z.unsqueeze(2)).squeeze(2) - soft.limits
        t = torch.zeros_like(mu)
        if soft.total is not None:  # where the multipliers sum to the price of t
            ends = torch.cat([gap + mu * self.y, gap + mu * (self.y - soft.prices)], dim=1)
            # where one sets in, or is at its price
            places, order = ends.sort(dim=1, descending=True)
            slopes = torch.where(order < gap.shape[1], 1.0, -1.0).cumsum(1)[:, :-1] / mu
            sums = (slopes * (places[:, :-1] - places[:, 1:])).cumsum(1)
            total = soft.total.unsqueeze(1)
            last = (sums < total).sum(1, keepdim=True).clamp(max=sums.shape[1] - 1)
            beyond = sums.gather(1, last) - total
            t = places.gather(1, last + 1) + beyond / slopes.gather(1, last).clamp(min=TINY)
        y = (self.y + (gap - t) / mu).clamp(min=0).minimum(soft.prices)
        value = 0.5 * (z * self.problem.risk_times(z)).sum(1)
        value = value - (self.problem.expected_return * z).sum(1)
        value = value + ((gap - t) * y - mu / 2 * (y - self.y).square()).sum(1)
        if soft.total is not None:
            value = value + soft.total * t.squeeze(1)
        if self.problem.cost is not None and self.problem.holdings is not None:
            value = value + (self.problem.cost * (z - self.problem.holdings).abs()).sum(1)
        return value, y

    def minimum(
        self, layer: MeanVarianceLayer, z: Tensor, states: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """z (B, N), its multipliers (B, S), the steps taken (B,), and the states of the weights, by
        Newton's method."""
        problem, soft = self.problem, self.soft
        risk = problem.dense_risk().expand(len(z), -1, -1)
        steps = torch.zeros(len(z), dtype=torch.int64)
        value, y = self.at(z)
        for _ in range(STEPS):
            bent = ((y > 0) & (y < soft.prices)).to(z)
            rows = soft.rows
            if soft.total is not None:  # t moves with the mean of those within the band
                count = bent.sum(1).clamp(min=1).view(-1, 1, 1)
                rows = rows - (rows * bent.unsqueeze(2)).sum(1, keepdim=True) / count
            rows = rows * bent.unsqueeze(2)
            hessian = risk + rows.mT @ rows / self.mu.view(-1, 1, 1)
            hessian = (hessian + hessian.mT) / 2
            pull = problem.expected_return - (soft.rows * y.unsqueeze(2)).sum(1)
            pull = pull + ((hessian - risk) @ z.unsqueeze(2)).squeeze(2)
            aim = replace(problem, risk=hessian, expected_return=pull)
            found = layer.solver.solve(aim, states)
            move, states = found.weights - z, found.states
            far = move.abs().amax(1) > 1e-13
            steps += far
            if not far.any():
                break
            length = torch.ones_like(value)
            for _ in range(HALVINGS):
                after, y_after = self.at(z + length.unsqueeze(1) * move)
                short = ~(after <= value + 1e-14 * value.abs())
                if not short.any():
                    break
                length = torch.where(short, length / 2, length)
            z = z + length.unsqueeze(1) * move
            y, same = y_after, (value - after).abs() <= 1e-15 * (1 + value.abs())
            value = after
            if same.all():
                break
        return z, y, steps, states
