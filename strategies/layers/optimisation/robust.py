"""Distributionally robust mean-variance weights: optimal for the worst distribution near the data.

For T equally likely scenarios e_t of the assets' residuals, with q the expected return,

    argmin_z  max_p  min_c  sum_t p_t (e_t'z - c)^2 - q'z    over the p with
                            sum_t (sqrt(p_t) - sqrt(1/T))^2 <= delta  (Hellinger distance)

the robust layer of Costa & Iyengar (2022), "Distributionally robust end-to-end portfolio
construction", arXiv:2206.05134. By duality (Ben-Tal et al. 2013, "Robust solutions of optimization
problems affected by uncertain probabilities"), the inner maximum is a minimum over two scalars, of
which one has a closed form. With u_t = e_t'z - c what is left is

    min_{z, c, s}  F = s - kappa / m - q'z,  m = mean_t 1 / (s - u_t^2),  kappa = (1 - delta/2)^2,

smooth and convex where s > max u_t^2. It is solved by Newton's method: each step is a mean-variance
problem under the same constraints, which the active-set layer solves exactly. At the solution one
more Newton step maps it to itself, so that differentiating that step gives the exact gradient.

Letters: B samples, T scenarios, N assets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from strategies.layers.optimisation.mean_variance import MeanVarianceLayer, SolveError
from strategies.layers.optimisation.problem import Problem, build_problem
from strategies.layers.solve_record import open_record

LOWEST = 1e-6  # radius: s grows like 1 / sqrt(delta), and F is a small difference to it
ARMIJO = 1e-4
HALVINGS = 60
EDGE = 0.1  # of the distance to the edge of the domain that a step must leave
ROUNDING = 1e-12  # of the mean variance: keeps a risk with next to none in some portfolio definite
UNSUPPORTED = ("holdings", "turnover_cost", "turnover_limit", "benchmark", "tracking")


def highest_radius(scenarios: int) -> float:
    """1 - 1 / sqrt(T): half of the distance to a distribution that is all on one scenario.

    Costa and Iyengar draw theirs below half of this. Further out only a few scenarios matter, F has
    near-kinks, and Newton's method is the wrong one.
    """
    return 1 - 1 / scenarios**0.5


class RobustLayer(nn.Module):
    """Weights that solve the robust mean-variance problem, with exact gradients.

    Args:
        tolerance: largest change of a weight in the last Newton step; the error is its square.
        max_steps: Newton steps after which a sample counts as not converged.
        solver: of the mean-variance problem in each step; ``ActiveSet()`` if not given.
    """

    def __init__(self, tolerance: float = 1e-7, max_steps: int = 100, solver: Any = None) -> None:
        super().__init__()
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.optimiser = MeanVarianceLayer(solver)

    def forward(
        self,
        scenarios: Tensor,
        expected_return: Tensor,
        radius: Tensor | float,
        **constraints: Any,
    ) -> Tensor:
        """The weights, (B, N) float64.

        Args:
            scenarios: (B, T, N) residuals e, as fractions; gradients flow to all three tensors.
            expected_return: (B, N), in the unit of a variance: gamma times the prediction.
            radius: delta, a scalar or (B,), from 1e-6 to below ``highest_radius``.
            constraints: limits of ``MeanVarianceLayer`` that do not depend on holdings.

        Raises:
            ValueError: a radius out of range, shapes that do not fit, or a limit on turnover.
            SolveError: Newton's method missed its tolerance on some samples.
        """
        if scenarios.dim() != 3 or expected_return.shape != (len(scenarios), scenarios.shape[-1]):
            raise ValueError(
                "expected scenarios (B, T, N) and expected returns (B, N), got "
                f"{tuple(scenarios.shape)} and {tuple(expected_return.shape)}"
            )
        if wrong := [name for name in constraints if name in UNSUPPORTED]:
            raise ValueError(f"the robust layer knows no {', '.join(wrong)}: leave it out")
        batch, count, assets = scenarios.shape
        radius = torch.as_tensor(radius, dtype=scenarios.dtype).expand(batch)
        highest = highest_radius(count)
        if not bool(((radius >= LOWEST) & (radius < highest)).all()):
            got = f"{radius.min().item():.4g} to {radius.max().item():.4g}"
            raise ValueError(
                f"the Hellinger radius must be from {LOWEST} to below 1 - 1 / sqrt(T) = "
                f"{highest:.4f} for {count} scenarios, got {got}"
            )
        scale = scenarios.detach().var(dim=1).mean(dim=1)  # (B,), the solution does not change
        unit = torch.eye(assets, dtype=torch.float64, device=scenarios.device)
        within = build_problem(unit, expected_return, **constraints)
        robust = _Robust(
            scenarios / scale.sqrt()[:, None, None],
            expected_return / scale[:, None],
            (1 - radius / 2) ** 2,
        )
        record = open_record()
        kept = 0 if record is None or record.details is None else len(record.details)
        with torch.no_grad():
            point, steps, change = self._solve(robust, radius, within)
        if record is not None and record.details is not None:
            del record.details[kept:]  # the last step, which follows, is the portfolio
        self._report(steps, change)
        curvature = robust.hessian(point.detach())
        weights, _ = self._step(point, robust.gradient(point), curvature, within)
        return weights

    def _start(self, robust: _Robust, radius: Tensor, within: Problem) -> Tensor:
        """The weights without ambiguity, their mean, and an s inside the domain: (B, N + 2)."""
        centred = robust.scenarios - robust.scenarios.mean(dim=1, keepdim=True)
        covariance = centred.mT @ centred / centred.shape[1]
        weights = self._weights(_positive(2 * covariance), robust.expected_return, within)
        losses = (centred @ weights.unsqueeze(-1)).squeeze(-1) ** 2  # (B, T)
        mean = (robust.scenarios.mean(dim=1) * weights).sum(dim=1)
        bound = losses.amax(dim=1) + losses.std(dim=1) / radius.sqrt()
        return torch.cat([weights, mean[:, None], bound[:, None]], dim=1)

    def _solve(
        self, robust: _Robust, radius: Tensor, within: Problem
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The minimum (B, N + 2), the steps it took (B,) and the last change of a weight (B,)."""
        point = self._start(robust, radius, within)
        steps = torch.zeros(len(point), dtype=torch.int64)
        change = torch.full((len(point),), torch.inf, dtype=point.dtype)
        going = torch.arange(len(point))
        for _ in range(self.max_steps):
            part, here = robust.of(going), point[going]
            slope, curvature = part.gradient(here), part.hessian(here)
            target, rest = self._step(here, slope, curvature, within.of_samples(going))
            move = torch.cat([target, rest], dim=1) - here
            length = _line_search(part, here, move, slope)
            point[going] = here + length[:, None] * move
            steps[going] += 1
            change[going] = torch.where(length == 1, move[:, :-2].abs().amax(dim=1), torch.inf)
            going = going[change[going] > self.tolerance]
            if not len(going):
                break
        return point, steps, change

    def _step(
        self, point: Tensor, slope: Tensor, curvature: Tensor, within: Problem
    ) -> tuple[Tensor, Tensor]:
        """Where a full Newton step leads: weights (B, N), and c and s (B, 2), eliminated."""
        n = point.shape[1] - 2
        cross, corner = curvature[:, :n, n:], curvature[:, n:, n:]  # (B, N, 2), (B, 2, 2)
        gain = torch.cholesky_solve(cross.mT, torch.linalg.cholesky(corner)).mT  # (B, N, 2)
        risk = curvature[:, :n, :n] - gain @ cross.mT  # (B, N, N)
        risk = _positive((risk + risk.mT) / 2)
        reduced = slope[:, :n] - (gain @ slope[:, n:, None]).squeeze(-1)
        linear = (risk @ point[:, :n, None]).squeeze(-1) - reduced
        weights = self._weights(risk, linear, within)
        pull = slope[:, n:] + (cross.mT @ (weights - point[:, :n]).unsqueeze(-1)).squeeze(-1)
        rest = point[:, n:] - torch.cholesky_solve(
            pull.unsqueeze(-1), torch.linalg.cholesky(corner)
        ).squeeze(-1)
        return weights, rest

    def _weights(self, risk: Tensor, linear: Tensor, within: Problem) -> Tensor:
        """The mean-variance weights within the limits of a problem."""
        aim = replace(within, risk=risk.double(), expected_return=linear.double())
        return self.optimiser.reported(aim, self.optimiser.solver.solve(aim, None))

    def _report(self, steps: Tensor, change: Tensor) -> None:
        converged = change <= self.tolerance
        record = open_record()
        if record is not None:
            record.add("robust mean-variance", steps, change, converged)
        if not converged.all():
            missed = (~converged).nonzero().flatten().tolist()
            raise SolveError(
                f"Newton's method missed its tolerance {self.tolerance:.0e} in {self.max_steps} "
                f"steps on {len(missed)} samples, {', '.join(map(str, missed[:5]))}: a radius "
                "further from its limits, or scenarios that span all assets, may help",
                missed,
            )


class _Robust(NamedTuple):
    """F and its derivatives at points (z, c, s), (B, N + 2)."""

    scenarios: Tensor  # (B, T, N)
    expected_return: Tensor  # (B, N)
    kappa: Tensor  # (B,)

    def of(self, samples: Tensor) -> _Robust:
        if len(samples) == len(self.kappa):
            return self
        return _Robust(*(tensor[samples] for tensor in self))

    def losses(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """u and u^2, (B, T) each."""
        n = self.scenarios.shape[-1]
        u = (self.scenarios @ point[:, :n, None]).squeeze(-1) - point[:, n, None]
        return u, u**2

    def value(self, point: Tensor) -> Tensor:
        """F (B,); infinite outside of the domain."""
        gap = point[:, -1:] - self.losses(point)[1]
        inverse = (1 / gap).mean(dim=1)
        earned = (self.expected_return * point[:, :-2]).sum(dim=1)
        value = point[:, -1] - self.kappa / inverse - earned
        return torch.where((gap > 0).all(dim=1), value, torch.inf)

    def gap(self, point: Tensor) -> Tensor:
        """Distance (B,) of s to the edge of the domain."""
        return point[:, -1] - self.losses(point)[1].amax(dim=1)

    def gradient(self, point: Tensor) -> Tensor:
        u, squared = self.losses(point)
        inverse = 1 / (point[:, -1:] - squared)
        ratio = (self.kappa / inverse.mean(dim=1) ** 2).unsqueeze(-1)
        weight = 2 * u * inverse**2 / u.shape[1] * ratio  # (B, T)
        by_weights = (self.scenarios.mT @ weight.unsqueeze(-1)).squeeze(-1) - self.expected_return
        by_mean = -weight.sum(dim=1, keepdim=True)
        by_bound = 1 - ratio * (inverse**2).mean(dim=1, keepdim=True)
        return torch.cat([by_weights, by_mean, by_bound], dim=1)

    @torch.no_grad()
    def hessian(self, point: Tensor) -> Tensor:
        """(B, N + 2, N + 2): that of -kappa / m, with a_t = (e_t, -1) the derivative of u_t."""
        u, squared = self.losses(point)
        inverse = 1 / (point[:, -1:] - squared)
        mean = inverse.mean(dim=1)
        a = torch.cat([self.scenarios, -torch.ones_like(u).unsqueeze(-1)], dim=-1)  # (B, T, N+1)
        count = u.shape[1]
        gram = 8 * squared * inverse**3 + 2 * inverse**2
        first = (a.mT * (gram / count).unsqueeze(1)) @ a
        mixed = (a.mT @ (-4 * u * inverse**3 / count).unsqueeze(-1)).squeeze(-1)
        last = 2 * (inverse**3).mean(dim=1)
        slope = torch.cat(  # of m
            [
                (a.mT @ (2 * u * inverse**2 / count).unsqueeze(-1)).squeeze(-1),
                -(inverse**2).mean(dim=1, keepdim=True),
            ],
            dim=1,
        )
        second = torch.cat(  # of m
            [
                torch.cat([first, mixed.unsqueeze(-1)], dim=2),
                torch.cat([mixed, last.unsqueeze(-1)], dim=1).unsqueeze(1),
            ],
            dim=1,
        )
        outer = slope.unsqueeze(-1) * slope.unsqueeze(-2)
        ratio = (self.kappa / mean**2)[:, None, None]
        return ratio * (second - 2 * outer / mean[:, None, None])


def _line_search(robust: _Robust, point: Tensor, move: Tensor, slope: Tensor) -> Tensor:
    """Step lengths (B,), halved until F falls enough (Armijo) and the domain is kept."""
    before = robust.value(point)
    nearest = EDGE * robust.gap(point)
    fall = (slope * move).sum(dim=1)
    length = torch.ones_like(before)
    rounding = 1e-13 * (1 + before.abs())
    for _ in range(HALVINGS):
        reached = point + length[:, None] * move
        after = robust.value(reached)
        short = ~(after <= before + ARMIJO * length * fall + rounding)
        short |= robust.gap(reached) < nearest
        if not short.any():
            break
        length = torch.where(short, length / 2, length)
    return length


def _positive(risk: Tensor) -> Tensor:
    """With variance 1 for assets that have none: they do not trade, their bounds hold them."""
    diagonal = risk.diagonal(dim1=-2, dim2=-1)
    rounding = ROUNDING * diagonal.mean(dim=-1, keepdim=True)
    return risk + torch.diag_embed(torch.where(diagonal > 0, rounding, 1.0))
