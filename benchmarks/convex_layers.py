"""Our layers beside cvxpylayers: mean-variance, conditional value at risk, several periods.

    python benchmarks/convex_layers.py

Needs the extra "bench". Forward + backward of a batch, float64, one thread, the best of each in
turns; how far cvxpylayers' weights and gradients of q are from ours, and how far ours are from a
central difference along a random direction (the weights are piecewise linear in q).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.soft_limit_layers import CVaRLayer, MultiPeriodLayer

LEVEL, PRICE, CAP, QUADRATIC, PROPORTIONAL = 0.9, 0.5, 0.4, 0.3, 0.15
ACCURATE = {"eps": 1e-9, "max_iters": 50_000, "n_jobs_forward": 1, "n_jobs_backward": 1}
Case = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]  # ours, theirs, q


def problem(batch: int, assets: int, *more: int) -> tuple[Tensor, Tensor, Tensor]:
    """P (B, N, N), its root, and random numbers (B, *more)."""
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(batch, assets, assets, generator=draw, dtype=torch.float64) / assets**0.5
    risk = root @ root.mT + 0.1 * torch.eye(assets)
    noise = torch.randn(batch, *more, generator=draw, dtype=torch.float64)
    return risk, torch.linalg.cholesky(risk).mT, noise


def half_square(root: Any, z: Any) -> Any:
    return 0.5 * cp.sum_squares(root @ z)


def within(z: Any) -> list[Any]:
    return [cp.sum(z) == 1, z >= 0, z <= CAP]


def layer_of(objective: Any, limits: list[Any], parameters: list[Any], z: Any) -> Any:
    from cvxpylayers.torch import CvxpyLayer

    program = cp.Problem(cp.Minimize(objective), limits)
    return CvxpyLayer(program, parameters=parameters, variables=[z])


def mean_variance(batch: int, assets: int) -> Case:
    risk, root, q = problem(batch, assets, assets)
    z, R, p = cp.Variable(assets), cp.Parameter((assets, assets)), cp.Parameter(assets)
    theirs = layer_of(half_square(R, z) - p @ z, within(z), [R, p], z)
    ours = MeanVarianceLayer()
    return (
        lambda q: ours(risk, q, upper=CAP),
        lambda q: theirs(root, q, solver_args=ACCURATE)[0],
        q,
    )


def conditional_value_at_risk(batch: int, assets: int, scenarios: int) -> Case:
    risk, root, noise = problem(batch, assets, scenarios + 1, assets)
    q, returns = noise[:, 0], noise[:, 1:].contiguous()
    z, t = cp.Variable(assets), cp.Variable()
    R, p = cp.Parameter((assets, assets)), cp.Parameter(assets)
    E = cp.Parameter((scenarios, assets))
    tail = t + cp.sum(cp.pos(-E @ z - t)) / ((1 - LEVEL) * scenarios)
    theirs = layer_of(half_square(R, z) - p @ z + PRICE * tail, within(z), [R, p, E], z)
    ours = CVaRLayer(LEVEL)
    return (
        lambda q: ours(risk, q, returns, PRICE, upper=CAP),
        lambda q: theirs(root, q, returns, solver_args=ACCURATE)[0],
        q,
    )


def several_periods(batch: int, periods: int, assets: int) -> Case:
    risk, root, q = problem(batch, assets, periods, assets)
    held = torch.full((batch, assets), 1 / assets, dtype=torch.float64)
    z = cp.Variable((periods, assets))
    R, p = cp.Parameter((assets, assets)), cp.Parameter((periods, assets))
    before, objective, limits = held[0].numpy(), 0, []
    for h in range(periods):
        move = z[h] - before
        objective += half_square(R, z[h]) - p[h] @ z[h] + QUADRATIC / 2 * cp.sum_squares(move)
        objective += PROPORTIONAL * cp.norm1(move)
        limits += within(z[h])
        before = z[h]
    theirs = layer_of(objective, limits, [R, p], z)
    ours = MultiPeriodLayer()
    return (
        lambda q: ours(risk, q, held, QUADRATIC, PROPORTIONAL, upper=CAP),
        lambda q: theirs(root, q, solver_args=ACCURATE)[0],
        q,
    )


def compare(name: str, case: Case, rounds: int = 5) -> None:
    *layers, q = case
    draw = torch.Generator().manual_seed(1)
    pull = torch.randn(q.shape, generator=draw, dtype=torch.float64)
    best, found = [torch.inf, torch.inf], [(q, q), (q, q)]
    for _ in range(rounds):
        for k, layer in enumerate(layers):
            leaf = q.clone().requires_grad_()
            begin = time.perf_counter()
            weights = layer(leaf)
            (slope,) = torch.autograd.grad(weights, leaf, pull)
            best[k] = min(best[k], time.perf_counter() - begin)
            found[k] = weights.detach(), slope
    step = 1e-7 * torch.randn(q.shape, generator=draw, dtype=torch.float64)
    quotient = (pull * (layers[0](q + step) - layers[0](q - step))).sum() / 2
    along = (found[0][1] * step).sum()
    (ours, our_slope), (theirs, their_slope) = found
    apart, off = (ours - theirs).abs().max(), (our_slope - their_slope).abs().max()
    print(
        f"{name:34}{1e3 * best[0]:9.2f} ms, cvxpylayers {1e3 * best[1]:9.1f} ms "
        f"({best[1] / best[0]:.0f} x); |dz| {apart:.0e}, dL/dq {off / our_slope.abs().max():.0e} "
        f"apart; ours off the quotient by {abs(along / quotient - 1):.0e}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare("mean-variance, B 16, N 20", mean_variance(16, 20))
    compare("mean-variance, B 16, N 50", mean_variance(16, 50))
    compare("CVaR, B 8, N 10, T 100", conditional_value_at_risk(8, 10, 100))
    compare("periods, B 8, H 5, N 10", several_periods(8, 5, 10))
