"""Problems on which active-set methods fail: degenerate, nearly singular, with very many rows.

    python benchmarks/hard_problems.py [--count 20000]

Ten kinds, all feasible by construction. Of every kind: how many were refused, how many wrong, the
largest residual of the optimality conditions, which proves an optimum without another solver, and
the mean time. Then a problem of 1,001 rows on 20 variables, beside quadprog.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import build_problem

KINDS = (
    "exposures at zero",
    "rows through the start",
    "dollar-neutral",
    "130/30",
    "twice the same rows",
    "hardly any room",
    "nearly singular",
    "many rows",
    "kinks",
    "integers",
)
EXACT = 1e-10  # relative residual of an optimum


def hard_problem(kind: str, batch: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Risk (B, N, N), expected returns (B, N) and the layer's other arguments."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=draw).double()

    n = int(integers(3, 31, 1))
    root = normal(batch, n, n)
    unit = torch.eye(n, dtype=torch.float64)
    risk = root @ root.mT / n + 0.1 * unit
    q = 0.5 * normal(batch, n)
    if kind == "exposures at zero":  # betas equal 0, exposures at most 0, beside a cash asset
        rows = normal(20, n) * (uniform(20, n) < 0.3)
        rows[:, -1] = 0
        risk[:, -1] = risk[:, :, -1] = 0
        risk[:, -1, -1] = 1e-3
        q[:, -1] = 0
        low = torch.full((20,), -torch.inf)
        low[: min(10, n // 3)] = 0
        return risk, q, {"rows": rows, "row_lower": low, "row_upper": 0.0}
    if kind == "rows through the start":  # the optimum is often the corner where all of them meet
        rows = integers(-1, 3, 2 * n, n)
        limits = {"rows": rows, "row_lower": -torch.inf, "row_upper": 0.0}
        return risk, q, {"lower": 0.0, "upper": 1.0, "budget": (0.0, 1.0)} | limits
    if kind == "dollar-neutral":
        weak = 10.0 ** -integers(0, 20, batch, 1)  # from a clear signal to none at all
        limits = {"lower": -0.3, "upper": 0.3, "budget": 0.0, "gross_limit": 1.0}
        return risk, q * weak * (weak > 1e-17), limits
    if kind == "130/30":
        cap = max(0.2, 2.5 / n)
        return risk, q, {"lower": -cap, "upper": cap, "gross_limit": 1.6}
    if kind == "twice the same rows":
        groups = (uniform(4, n) < 0.5).double()
        rows = torch.cat([groups, groups, groups[:1] + groups[1:2], -groups])
        inside = rows @ (torch.ones(n, dtype=torch.float64) / n)
        slack = integers(0, 2, len(rows)) * 0.1
        limits = {"rows": rows, "row_lower": -torch.inf, "row_upper": inside + slack}
        return risk, q, {"lower": 0.0, "upper": 1.0} | limits
    if kind == "hardly any room":
        caps = 0.5 + uniform(batch, n)
        caps = caps / caps.sum(1, keepdim=True) * (1 + 10 ** -integers(4, 14, batch, 1))
        return risk, q, {"lower": caps * 0.5 * integers(0, 2, batch, n), "upper": caps}
    if kind == "nearly singular":
        root = normal(batch, n, max(1, n // 3))
        ridge = 10.0 ** -integers(6, 14, batch, 1, 1)
        return root @ root.mT / n + ridge * unit, q * 0.1, {"upper": max(0.2, 2.0 / n)}
    if kind == "many rows":
        rows, inside = normal(200, n), uniform(n)
        limits = {"rows": rows, "row_lower": -torch.inf}
        limits["row_upper"] = rows @ (inside / inside.sum()) + 0.05 * uniform(200)
        return risk, 3 * q, {"lower": -1.0, "upper": 1.0} | limits
    if kind == "kinks":
        held = uniform(batch, n) * integers(0, 2, batch, n)
        held[:, 0] += 0.1
        held = held / held.sum(1, keepdim=True)
        limit = integers(0, 3, batch) * 0.2
        limits = {"holdings": held, "turnover_limit": limit, "turnover_cost": 0.01}
        return risk, q, {"lower": -1.0, "upper": 1.0, "gross_limit": 1.0 + limit} | limits
    assert kind == "integers"
    few = integers(-1, 2, batch, n, 2)
    risk, q = few @ few.mT + 2 * unit, integers(-2, 3, batch, n)
    rows = integers(-1, 2, n, n)
    limits = {"rows": rows, "row_lower": -torch.inf, "row_upper": integers(0, 2, n)}
    return risk, q, {"lower": -1.0, "upper": 1.0, "budget": 0.0} | limits


def semi_infinite() -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A semi-infinite problem, as KSIP of Maros and Meszaros is one: the polynomial of degree 19
    with small coefficients, ``min sum x_i^2 / 2i + x_i / i``, that is at least tan t on [0, 1]."""
    i = torch.arange(1, 21, dtype=torch.float64)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64).unsqueeze(1)
    limits = {"rows": t ** (i - 1), "row_lower": torch.tan(t).squeeze(1), "row_upper": torch.inf}
    limits |= {"lower": -torch.inf, "upper": torch.inf, "budget": (-torch.inf, torch.inf)}
    return torch.diag(1 / i), -1 / i.unsqueeze(0), limits


def outcome(kind: str, batch: int, seed: int) -> tuple[int, int, float, float]:
    """Of a batch: how many are refused, wrong; the largest residual; seconds."""
    risk, q, limits = hard_problem(kind, batch, seed)
    begin = time.perf_counter()
    try:
        solution = MeanVarianceLayer(ActiveSet()).solve(risk, q, **limits)
    except (ValueError, RuntimeError) as error:
        return len(getattr(error, "samples", range(batch))), 0, 0.0, time.perf_counter() - begin
    taken = time.perf_counter() - begin
    solved = solution.converged
    problem = build_problem(risk, q, **limits)
    residual = kkt_residual(problem, solution.weights, solution.duals)
    wrong = solved & ~(residual <= EXACT)
    return int((~solved).sum()), int(wrong.sum()), float(residual[solved].max()), taken


def report(count: int, batch: int = 10) -> None:
    each = count // len(KINDS)
    print(
        f"{'kind':24s} {'problems':>9s} {'refused':>8s} {'wrong':>6s} {'residual':>9s} {'ms':>7s}"
    )
    for kind in KINDS:
        found = [outcome(kind, batch, seed) for seed in range(each // batch)]
        refused, wrong, residual, taken = (list(column) for column in zip(*found, strict=True))
        print(
            f"{kind:24s} {each:9d} {sum(refused):8d} {sum(wrong):6d} {max(residual):9.1e} "
            f"{1e3 * sum(taken) / each:7.2f}"
        )


def compare_with_quadprog() -> None:
    import quadprog

    risk, q, limits = semi_infinite()
    best = [np.inf, np.inf]
    for _ in range(3):
        begin = time.perf_counter()
        weights = MeanVarianceLayer(ActiveSet())(risk, q, **limits)
        best[0] = min(best[0], time.perf_counter() - begin)
        begin = time.perf_counter()
        rows, least = limits["rows"].numpy().T.copy(), limits["row_lower"].numpy()
        theirs = quadprog.solve_qp(risk.numpy(), q[0].numpy(), rows, least)[0]
        best[1] = min(best[1], time.perf_counter() - begin)
    apart = np.abs(weights[0].numpy() - theirs).max()
    print(
        f"1,001 rows on 20 variables: {1e3 * best[0]:.1f} ms, quadprog {1e3 * best[1]:.1f} ms; the "
        f"weights are {apart:.0e} apart"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="problems, over all kinds")
    report(parser.parse_args().count)
    compare_with_quadprog()
