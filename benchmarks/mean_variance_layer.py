"""The mean-variance layer side by side with its peers: time, exactness, hard problems.

    python benchmarks/mean_variance_layer.py [--quick]

Needs the extra "bench"; a peer that is not installed or does not do a problem says so in its row.
Times are medians in ms of forward + backward, float64, one thread, peers interleaved: what is
compared runs within the same seconds on the same problems. A factor below 1 is a faster peer.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._portfolio_problems import ADVERSARIAL, PORTFOLIO, make_problem
from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.mean_variance import FactorRisk, MeanVarianceLayer, Qpth
from strategies.layers.optimisation.problem import Problem, Solution, build_problem


def gradient_error(problem: Problem, solution: Solution, gradient: Tensor, w: Tensor) -> float:
    """Largest relative error of dL/dq (B, N) for the incoming gradient w, against a dense solve of
    the optimality conditions of each sample; every weight in units of its own volatility."""
    assert solution.states is not None
    assets = w.shape[1]
    worst = 0.0
    z = solution.weights.detach()
    held = torch.zeros_like(z) if problem.holdings is None else problem.holdings
    signs = torch.stack([torch.sign(z - held), torch.sign(z)], dim=1)
    rows = torch.cat([problem.rows.expand(len(z), -1, -1), signs], dim=1).numpy()
    matrix = problem.dense_risk().expand(len(z), -1, -1).detach().numpy()
    for sample, states in enumerate(solution.states.numpy()):
        free = states[:assets] % 2 == 1
        count = int(free.sum())
        active = rows[sample][states[assets:] != 0][:, free]
        block = matrix[sample][np.ix_(free, free)]
        unit = 1 / np.sqrt(block.diagonal())  # makes assets of different risk alike
        block, active = block * np.outer(unit, unit), active * unit
        active = active / np.abs(active).max(axis=1, initial=1e-300, keepdims=True)
        kkt = np.block([[block, active.T], [active, np.zeros((len(active),) * 2)]])
        right = np.append(w[sample].numpy()[free] * unit, np.zeros(len(active)))
        expected = np.linalg.lstsq(kkt, right, rcond=1e-13)[0][:count]
        found = gradient[sample].numpy()
        assert (found[~free] == 0).all()
        if count:
            error = np.abs(found[free] / unit - expected).max() / np.abs(right).max()
            worst = max(worst, float(error))
    return worst


def hard_problems(count: int, layer: MeanVarianceLayer) -> None:
    """Solve ``count`` problems of all kinds and sizes and print a row a kind."""
    columns = "solved, failures, most rounds, KKT residual (recomputed), error of dL/dq"
    print(f"\nhard problems: {columns}")
    kinds = PORTFOLIO + ADVERSARIAL
    sizes = (5, 12, 30, 60)
    batch = -(-count // (len(kinds) * len(sizes)))
    for number, kind in enumerate(kinds):
        residual, error, most, failed = 0.0, 0.0, 0, 0
        for size in sizes:
            risk, q, constraints = make_problem(kind, batch, size, seed=97 * number + size)
            q.requires_grad_()
            problem = build_problem(risk, q, **constraints)
            solution = layer.solve(risk, q, **constraints)
            incoming = torch.randn(batch, size, dtype=torch.float64)
            (gradient,) = torch.autograd.grad(solution.weights, q, incoming)
            found = kkt_residual(problem, solution.weights, solution.duals)
            residual = max(residual, float(found.nan_to_num(torch.inf).max()))
            error = max(error, gradient_error(problem, solution, gradient, incoming))
            most = max(most, int(solution.rounds.max()))
            failed += int((~solution.converged).sum())
        solved = batch * len(sizes)
        print(f"  {kind:12}{solved:8}{failed:8}{most:8}{residual:12.1e}{error:12.1e}")


# ---- Who solves them ----------------------------------------------------------------------------

Run = Callable[[], list[Tensor]]  # one forward, or forward and backward: weights, then gradients


def ours(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor, **how: Any) -> Run:
    """By the layer, gradients of q and of the risk; ``how``: solver, warm, factors, backward."""
    layer = MeanVarianceLayer(how.get("solver", ActiveSet()))
    parts = [part.detach().requires_grad_() for part in how.get("factors", (risk,))]
    model = FactorRisk(*parts) if len(parts) == 2 else parts[0]
    expected = q.detach().requires_grad_()
    start = layer.solve(model, expected, **constraints).states if how.get("warm") else None

    def run() -> list[Tensor]:
        z = layer(model, expected, start=start, **constraints)
        return [z.detach(), *torch.autograd.grad(z, [expected, *parts], incoming)]

    return run


def standard_form(q: Tensor, constraints: dict[str, Any]) -> tuple[Tensor, ...]:
    """A, b of the equalities and G, l, u of bounds and further rows, shared by the batch."""
    assets = q.shape[1]
    everyone = torch.ones(1, assets, dtype=torch.float64)
    budget = torch.tensor([constraints.get("budget", 1.0)], dtype=torch.float64)
    lower = torch.full((assets,), constraints.get("lower", 0.0), dtype=torch.float64)
    upper = torch.full((assets,), constraints.get("upper", 1.0), dtype=torch.float64)
    unit = torch.eye(assets, dtype=torch.float64)
    if "rows" not in constraints:
        return everyone, budget, unit, lower, upper
    rows, least, most = (constraints[name] for name in ("rows", "row_lower", "row_upper"))
    equal = least == most
    return (
        torch.cat([everyone, rows[equal]]),
        torch.cat([budget, most[equal]]),
        torch.cat([unit, rows[~equal]]),
        torch.cat([lower, least[~equal].clamp(min=-1e3)]),
        torch.cat([upper, most[~equal]]),
    )


def proxqp(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor) -> Run:
    from proxsuite.torch.qplayer import QPFunction

    scale = risk.diagonal(dim1=1, dim2=2).mean(1)
    inputs = [
        (risk / scale[:, None, None]).requires_grad_(),
        (q / scale[:, None]).requires_grad_(),
    ]
    batch = len(q)
    a, b, g, low, high = (
        t.expand(batch, *t.shape).contiguous() for t in standard_form(q, constraints)
    )
    solve = QPFunction(maxIter=1000)

    def run() -> list[Tensor]:
        z = solve(inputs[0], -inputs[1], a, b, g, low, high)[0]
        matrix, linear = torch.autograd.grad(z, inputs, incoming)
        return [z.detach(), linear / scale[:, None], matrix / scale[:, None, None]]

    return run


def cvxpylayers(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor) -> Run:
    import cvxpy
    from cvxpylayers.torch import CvxpyLayer

    assets = q.shape[1]
    a, b, g, low, high = (part.numpy() for part in standard_form(q, constraints))
    z, root, linear = (
        cvxpy.Variable(assets),
        cvxpy.Parameter((assets, assets)),
        cvxpy.Parameter(assets),
    )
    objective = cvxpy.Minimize(0.5 * cvxpy.sum_squares(root @ z) - linear @ z)
    problem = cvxpy.Problem(objective, [a @ z == b, g @ z >= low, g @ z <= high])
    layer = CvxpyLayer(problem, parameters=[root, linear], variables=[z])
    scale = risk.diagonal(dim1=1, dim2=2).mean(1)
    inputs = [
        (risk / scale[:, None, None]).requires_grad_(),
        (q / scale[:, None]).requires_grad_(),
    ]

    def run() -> list[Tensor]:
        root = torch.linalg.cholesky(inputs[0]).mT
        (weights,) = layer(root, inputs[1], solver_args={"eps": 1e-8, "n_jobs_forward": 1})
        matrix, linear = torch.autograd.grad(weights, inputs, incoming)
        return [weights.detach(), linear / scale[:, None], matrix / scale[:, None, None]]

    return run


def piqp_loop(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor) -> Run:
    import piqp

    scale = risk.diagonal(dim1=1, dim2=2).mean(1)
    matrices = (risk / scale[:, None, None]).numpy()
    linear = -(q / scale[:, None]).numpy()
    a, b, g, low, high = (part.numpy() for part in standard_form(q, constraints))
    assets = q.shape[1]

    def run() -> list[Tensor]:
        found = []
        for matrix, slope in zip(matrices, linear, strict=True):
            solver = piqp.DenseSolver()
            solver.settings.eps_abs = solver.settings.eps_rel = 1e-10
            rows, least, most = g[assets:], low[assets:], high[assets:]
            solver.setup(matrix, slope, a, b, rows, least, most, low[:assets], high[:assets])
            solver.solve()
            found.append(solver.result.x.copy())
        return [torch.from_numpy(np.stack(found))]

    return run


def quadprog_loop(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor) -> Run:
    import quadprog

    scale = risk.diagonal(dim1=1, dim2=2).mean(1)
    matrices = (risk / scale[:, None, None]).numpy()
    linear = (q / scale[:, None]).numpy()
    a, b, g, low, high = (part.numpy() for part in standard_form(q, constraints))
    rows, limits = np.vstack([a, g, -g]).T.copy(), np.concatenate([b, low, -high])

    def run() -> list[Tensor]:
        found = [
            quadprog.solve_qp(matrix, slope, rows, limits, len(b))[0]
            for matrix, slope in zip(matrices, linear, strict=True)
        ]
        return [torch.from_numpy(np.stack(found))]

    return run


def qpth(risk: Tensor, q: Tensor, constraints: dict[str, Any], incoming: Tensor) -> Run:
    return ours(risk, q, constraints, incoming, solver=Qpth(tolerance=1e-2))


PEERS: dict[str, tuple[str, Callable[..., Run]]] = {  # name: package, how to set it up
    "qpth": ("qpth", qpth),
    "ProxQP layer": ("proxsuite", proxqp),
    "cvxpylayers": ("cvxpylayers", cvxpylayers),
    "PIQP, forward only": ("piqp", piqp_loop),
    "quadprog, forward only": ("quadprog", quadprog_loop),
}


# ---- Measuring ----------------------------------------------------------------------------------


def medians(runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Median ms of each. They take turns of 30 ms, each after one run that is not timed, so that
    none is timed on the memory that another left behind; a slow one (0.5 s) runs three times."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or min(map(len, times.values())) < 3:
        for name, run in runs.items():
            slow = bool(times[name]) and times[name][-1] > 500
            if slow and len(times[name]) >= 3:
                continue
            if not slow:
                run()
            turn = time.perf_counter()
            while time.perf_counter() - turn < 0.03:
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def peers_for(assets: int, batch: int, constraints: dict[str, Any]) -> tuple[dict[str, Any], list]:
    """Peers to run, and why others are not."""
    runs, left_out = {}, []
    for name, (package, setup) in PEERS.items():
        kinks = any(key in constraints for key in ("holdings", "gross_limit"))
        if importlib.util.find_spec(package) is None:
            left_out.append(f"{name}: {package} is not installed")
        elif kinks and name != "qpth":
            left_out.append(f"{name}: no turnover or gross term")
        elif name == "cvxpylayers" and assets > 50:
            left_out.append(f"{name}: minutes at this size")
        elif name in ("qpth", "quadprog, forward only") and assets > 250:
            left_out.append(f"{name}: a minute a run at this size")
        else:
            runs[name] = setup
    return runs, left_out


def compare(kind: str, assets: int, batch: int, seconds: float) -> None:
    """Print one row a solver: time, and how many times longer than ours, cold and dense."""
    risk, q, constraints = make_problem(kind, batch, assets, seed=assets)
    incoming = torch.randn(batch, assets, dtype=torch.float64)
    runs = {
        "active set": ours(risk, q, constraints, incoming),
        "active set, warm": ours(risk, q, constraints, incoming, warm=True),
    }
    setups, left_out = peers_for(assets, batch, constraints)
    runs |= {name: setup(risk, q, constraints, incoming) for name, setup in setups.items()}
    runs["one batched Cholesky"] = lambda: [torch.linalg.cholesky(risk)]
    reference = runs["active set"]()
    found = medians(runs, seconds)
    print(f"\n{kind}, n = {assets}, B = {batch}")
    for name, milliseconds in found.items():
        line = f"  {name:24}{milliseconds:12.3f} ms{milliseconds / found['active set']:10.2f} x"
        if name in PEERS:
            result = runs[name]()
            line += f"   |dz| {float((result[0] - reference[0]).abs().max()):.0e}"
            if len(result) > 1:
                scale = reference[1].abs().max()
                line += (
                    f"  dL/dq off by {float((result[1] - reference[1]).abs().max() / scale):.0e}"
                )
        print(line)
    for reason in left_out:
        print(f"  {reason}")


def factor_form(assets: int, batch: int, factors: int, seconds: float) -> None:
    """Print the factor form beside the dense one, cold and warm."""
    draw = torch.Generator().manual_seed(0)
    loadings = 0.01 * torch.randn(batch, assets, factors, generator=draw, dtype=torch.float64)
    specific = 1e-4 * (0.2 + torch.rand(batch, assets, generator=draw, dtype=torch.float64))
    q = 1e-4 * torch.randn(batch, assets, generator=draw, dtype=torch.float64)
    incoming = torch.randn(batch, assets, generator=draw, dtype=torch.float64)
    constraints = {"upper": 0.1}
    form = {"factors": (loadings, specific)}
    runs = {
        "factor form": ours(q, q, constraints, incoming, **form),
        "factor form, warm": ours(q, q, constraints, incoming, warm=True, **form),
        "factor form, 2 threads": ours(
            q, q, constraints, incoming, solver=ActiveSet(threads=2), **form
        ),
    }
    if assets <= 500:
        risk = loadings @ loadings.mT + torch.diag_embed(specific)
        runs["dense"] = ours(risk, q, constraints, incoming)
        runs["dense, warm"] = ours(risk, q, constraints, incoming, warm=True)
    print(f"\nfactor form, n = {assets}, B = {batch}, K = {factors}")
    for name, milliseconds in medians(runs, seconds).items():
        print(f"  {name:24}{milliseconds:12.3f} ms")


def exactness() -> None:
    """Print the KKT residual and the gradient's error against a dense solve, by scale of P."""
    print("\nexactness by scale of P: relative KKT residual, relative error of dL/dq")
    for scale in (1e-8, 1e-4, 1.0, 1e4):
        residual = error = 0.0
        for kind in ("factor", "sample", "wishart", "sector"):
            risk, q, constraints = make_problem(kind, 32, 40, seed=5)
            risk, q = risk * scale, (q * scale).requires_grad_()
            problem = build_problem(risk, q, **constraints)
            solution = MeanVarianceLayer().solve(risk, q, **constraints)
            incoming = torch.randn(32, 40, dtype=torch.float64)
            (gradient,) = torch.autograd.grad(solution.weights, q, incoming)
            found = kkt_residual(problem, solution.weights, solution.duals)
            residual = max(residual, float(found.max()))
            error = max(error, gradient_error(problem, solution, gradient, incoming))
        print(f"  {scale:8.0e}{residual:12.1e}{error:12.1e}")


def compilation() -> None:
    """Print what the first call costs in a new installation and in a new process."""
    code = (
        "import time, numba, torch; from strategies.layers import MeanVarianceLayer; "
        "q = torch.ones(1, 1, requires_grad=True); t = time.perf_counter(); "
        "MeanVarianceLayer()(torch.ones(1, 1), q).sum().backward(); "
        "print(time.perf_counter() - t)"
    )
    print("\nfirst call, beyond imports")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("new installation", "new process"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"  {name:24}{float(done.stdout.split()[-1]):12.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    quick = parser.parse_args().quick
    seconds = 1.0 if quick else 5.0
    torch.set_num_threads(1)
    sizes = [(20, 1), (20, 32), (50, 32)]
    sizes += [] if quick else [(20, 128), (100, 32), (250, 32), (500, 32)]
    for assets, batch in sizes:
        compare("factor", assets, batch, seconds)
    for kind in ("sample", "wishart", "sector", "everything"):
        compare(kind, 20 if quick else 50, 32, seconds)
    factor_form(50, 32, 10, seconds)
    if not quick:
        factor_form(250, 32, 10, seconds)
        factor_form(500, 32, 10, seconds)
        factor_form(500, 128, 10, seconds)
        factor_form(3000, 8, 30, seconds)
    exactness()
    hard_problems(500 if quick else 10_000, MeanVarianceLayer())
    compilation()


if __name__ == "__main__":
    main()
