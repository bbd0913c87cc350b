"""The smooth function of a step of the method of multipliers, see ``soft_limits.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import Problem

STEPS, HALVINGS = 25, 40  # of Newton's method; of the length of a step
TINY = 1e-300


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


class Smooth(NamedTuple):
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
            places, order = ends.sort(
                dim=1, descending=True
            )  # where one sets in, or is at its price
            slopes = torch.where(order < gap.shape[1], 1.0, -1.0).cumsum(1)[:, :-1] / mu
            sums = (slopes * (places[:, :-1] - places[:, 1:])).cumsum(1)
            last = (
                (sums < soft.total.unsqueeze(1)).sum(1, keepdim=True).clamp(max=sums.shape[1] - 1)
            )
            beyond = sums.gather(1, last) - soft.total.unsqueeze(1)
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
