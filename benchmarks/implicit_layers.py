"""Implicit layers side by side with torchdeq 0.1.0: time, evaluations, memory, exactness.

    python benchmarks/implicit_layers.py [--quick]

Needs the extra "bench". Times are medians in ms of interleaved rounds, in float64: what is
compared runs within the same second, on the same f, to the same relative residual of 1e-8.
f is the mean-field cell ``tanh(Z W1 + mean(Z) W2 + u)`` with max(s(W1), s(W1 + W2)) as given.

What the defaults follow from these tables: `Picard`, since mixing costs about as much a step as
this f and saves few of its evaluations; `Anderson` pays from a rate of about 0.8 on, and where f is
costly. Starting from a sample's equilibrium of the last epoch saved 3 to 5 evaluations of 25 and 6
to 12 % of the forward time, for a stored state each sample: the encoder does not do it; `z0` can.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchdeq
from torch import Tensor

from strategies.layers import (
    Anderson,
    Broyden,
    Implicit,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)
from strategies.layers.equilibrium.deq_encoder import DEQEncoder
from strategies.layers.equilibrium.encoder_cells import bounded
from strategies.layers.equilibrium.fixed_point_solvers import Solver
from strategies.layers.solve_record import SolveTally, record_solves


@dataclass
class Problem:
    """A mean-field cell, counting its evaluations."""

    W1: Tensor
    W2: Tensor
    u: Tensor
    evaluations: int = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.evaluations += 1
        return torch.tanh(z @ self.W1 + z.mean(1, keepdim=True) @ self.W2 + self.u)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self.W1, self.W2, self.u


def mean_field(shape: tuple[int, int, int], contraction: float, seed: int = 0) -> Problem:
    """Random weights; the slow cases of the plain iteration are in `anderson`."""
    generator = torch.Generator().manual_seed(seed)
    H = shape[2]
    W1, total = (
        bounded(100 * torch.randn(H, H, generator=generator, dtype=torch.float64), contraction)
        for _ in range(2)
    )
    u = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return Problem(*(t.requires_grad_() for t in (W1, (total - W1), u)))


# What is compared with torchdeq; the defaults are tighter.
PICARD, ANDERSON = Picard(rtol=1e-8), Anderson(rtol=1e-8)


def medians(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """ms of each case, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for count in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if count:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, head: str, rows: list[list[object]]) -> None:
    cells = [head.split("|")] + [
        [f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows
    ]
    widths = [max(len(row[i].strip()) for row in cells) for i in range(len(cells[0]))]
    print(f"\n{title}\n")
    for row in cells:
        print("  ".join(c.strip().rjust(w) for c, w in zip(row, widths, strict=True)))


def their_layer(solver: str) -> torch.nn.Module:
    return torchdeq.get_deq(
        ift=True, f_solver=solver, b_solver=solver, f_tol=1e-8, b_tol=1e-8, f_stop_mode="rel",
        b_stop_mode="rel", f_max_iter=500, b_max_iter=500,
    )  # fmt: skip


def run_ours(problem: Problem, solver: Solver) -> dict[str, SolveTally]:
    """Forward and backward; returns the tallies of both solves."""
    with record_solves() as record:
        value = fixed_point(
            problem, torch.zeros_like(problem.u), solver=solver, adjoint=Implicit(solver)
        ).value
        torch.autograd.grad(value.sum(), problem.leaves)
    return record.tallies


def run_theirs(problem: Problem, layer: torch.nn.Module) -> int:
    """Forward and backward; returns the evaluations of the forward pass."""
    before = problem.evaluations
    value = layer(problem, torch.zeros_like(problem.u))[0][-1]
    evaluations = problem.evaluations - before
    torch.autograd.grad(value.sum(), problem.leaves)
    return evaluations


def against_torchdeq(shapes: list[tuple[int, int, int]], rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    rows = []
    for shape in shapes:
        for contraction in (0.5, 0.9, 0.99):
            problem = mean_field(shape, contraction)
            plain, anderson = their_layer("fixed_point_iter"), their_layer("anderson")
            tallies = run_ours(problem, PICARD)
            forward, backward = (tallies[k].most_steps for k in ("fixed point", "adjoint"))
            cases = {
                "picard": lambda p=problem: run_ours(p, PICARD),
                "anderson": lambda p=problem: run_ours(p, ANDERSON),
                "their plain": lambda p=problem, layer=plain: run_theirs(p, layer),
                "their anderson": lambda p=problem, layer=anderson: run_theirs(p, layer),
                "f": bare_forward(problem, forward),
                "vjp": bare_backward(problem, backward),
            }
            few = max(3, rounds // 8) if shape[1] > 100 else rounds
            ms = medians(cases, few)
            rows.append(
                [
                    shape, contraction, ms["picard"], ms["anderson"], ms["their plain"],
                    ms["their anderson"], ms["their plain"] / ms["picard"],
                    ms["their anderson"] / ms["picard"], forward,
                    run_ours(problem, ANDERSON)["fixed point"].most_steps,
                    run_theirs(problem, plain), run_theirs(problem, anderson), ms["f"], ms["vjp"],
                    ms["picard"] / (ms["f"] + ms["vjp"]),
                ]
            )  # fmt: skip
    table(
        f"Forward + backward to 1e-8, threads: {threads}. P, A: Picard, Anderson; td: torchdeq "
        f"with ift=True; bare f, vjp: as many of them as P takes; bare: P / (bare f + bare vjp)",
        "(B, N, H)|contraction|P|A|td P|td A|td P / P|td A / P|evaluations P|A|td P|td A|"
        "bare f|bare vjp|bare",
        rows,
    )


def bare_forward(problem: Problem, steps: int) -> Callable[[], object]:
    def run() -> None:
        z = torch.zeros_like(problem.u)
        with torch.no_grad():
            for _ in range(steps):
                z = problem(z)

    return run


def bare_backward(problem: Problem, steps: int) -> Callable[[], object]:
    z = torch.zeros_like(problem.u).requires_grad_()
    image = problem(z)

    def run() -> None:
        g = torch.ones_like(image)
        for _ in range(steps):
            (g,) = torch.autograd.grad(image, z, g, retain_graph=True)

    return run


def exactness() -> None:
    """Gradients of W1 and u against dense solves of (I - J)' g = v, one per sample."""
    rows = []
    for contraction in (0.5, 0.9, 0.99):
        problem = mean_field((4, 20, 32), contraction)
        v = torch.randn(4, 20, 32, dtype=torch.float64)
        z0 = torch.zeros_like(problem.u)
        exact = dense_gradient(problem, v)

        def error(value: Tensor, problem=problem, v=v, exact=exact) -> float:
            found = torch.autograd.grad(value, (problem.W1, problem.u), v)
            return max(
                float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)
            )  # fmt: skip

        row: list[object] = [contraction]
        for solver in (Picard(), Anderson(), Broyden()):
            adjoint = Implicit(solver)
            row.append(error(fixed_point(problem, z0, solver=solver, adjoint=adjoint).value))
        row.append(error(fixed_point(problem, z0, adjoint=Unrolled()).value))
        row += [error(fixed_point(problem, z0, adjoint=Phantom(k)).value) for k in (1, 5)]
        default = torchdeq.get_deq(ift=True)
        row += [error(layer(problem, z0)[0][-1]) for layer in (their_layer("anderson"), default)]
        rows.append(row)
    table(
        "Relative error of the gradient against the dense solve, (4, 20, 32), default tolerances",
        "contraction|Picard|Anderson|Broyden|Unrolled|Phantom(1)|Phantom(5)|torchdeq 1e-8|"
        "torchdeq default",
        rows,
    )


def dense_gradient(problem: Problem, v: Tensor) -> tuple[Tensor, Tensor]:
    fine = Picard(rtol=1e-14, max_steps=5000)
    with torch.no_grad():
        z = fixed_point(problem, torch.zeros_like(v), solver=fine).value
    solved = []
    for i in range(len(v)):
        one = Problem(problem.W1, problem.W2, problem.u[i : i + 1])
        J = torch.autograd.functional.jacobian(one, z[i : i + 1]).view(v[i].numel(), -1)
        Q, R = torch.linalg.qr((torch.eye(len(J)).to(J) - J).mT)
        g = torch.linalg.solve_triangular(R, (Q.mT @ v[i].reshape(-1, 1)), upper=True)
        solved.append(g.view_as(v[i]))
    return torch.autograd.grad(problem(z), (problem.W1, problem.u), torch.stack(solved))


def memory(shapes: list[tuple[int, int, int]]) -> None:
    rows = []
    for shape in shapes:
        problem = mean_field(shape, 0.9)
        z0 = torch.zeros_like(problem.u).requires_grad_()
        once = kept(lambda p=problem, z0=z0: p(z0))
        row: list[object] = [shape, once]
        for rtol in (1e-3, 1e-13):
            solver = Picard(rtol=rtol)
            row.append(
                kept(lambda p=problem, z0=z0, s=solver: fixed_point(p, z0, solver=s).value)
            )  # fmt: skip
        row.append(row[-1] / once)
        tied = Picard(rtol=1e-14, max_steps=40)
        solution = fixed_point(problem, z0, solver=tied, adjoint=Unrolled(), on_failure="flag")
        row.append(int(solution.steps.max()))
        del solution
        row.append(
            kept(
                lambda p=problem, z0=z0, s=tied: (
                    fixed_point(p, z0, solver=s, adjoint=Unrolled(), on_failure="flag").value
                )
            )
        )
        rows.append(row)
    table(
        "MiB kept for backward",
        "(B, N, H)|one f|implicit, 1e-3|implicit, 1e-13|ratio|unrolled steps|unrolled",
        rows,
    )


def kept(run: Callable[[], Tensor]) -> float:
    """MiB of the distinct storages that autograd keeps, the result's own included."""
    sizes: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        note(run())
    return sum(sizes.values()) / 2**20


def anderson(rounds: int) -> None:
    """Where mixing pays: against the rate of a contraction that is slow, and a costly f."""
    torch.set_num_threads(1)
    shape = (64, 20, 32)
    rows = []
    for contraction in (0.5, 0.8, 0.9, 0.95, 0.99):
        generator = torch.Generator().manual_seed(0)
        M = torch.randn(32, 32, generator=generator, dtype=torch.float64)
        M = M @ M.T  # symmetric, so that its norm is its rate
        u = 0.01 * torch.randn(*shape, generator=generator, dtype=torch.float64)  # tanh as a line
        W = bounded(100 * M, contraction)
        for layers in (1, 8):

            def f(z: Tensor, W=W, u=u, layers=layers) -> Tensor:
                for _ in range(layers - 1):  # more work, the same value
                    torch.tanh(z @ W)
                return torch.tanh(z @ W + u)

            solvers = {
                "Picard": Picard(max_steps=5000),
                "Anderson": Anderson(max_steps=5000),
                "Broyden": Broyden(max_steps=5000),
            }
            cases: dict[str, Callable[[], object]] = {
                name: lambda f=f, s=s, u=u: fixed_point(f, torch.zeros_like(u), solver=s)
                for name, s in solvers.items()
            }
            cases["f"] = lambda f=f, u=u: f(u)
            with torch.no_grad():
                ms = medians(cases, max(3, rounds // 3))
                row: list[object] = [contraction, ms["f"]]
                for name, solver in solvers.items():
                    steps = int(fixed_point(f, torch.zeros_like(u), solver=solver).steps.max())
                    row += [ms[name], steps, ms[name] / steps - ms["f"]]
            rows.append([*row, ms["Picard"] / ms["Anderson"]])
    table(
        "Slow contraction (symmetric weights, nearly linear), (64, 20, 32), forward, one thread; "
        "own: ms a step beyond f; times: Picard / Anderson",
        "contraction|f|Picard|steps|own|Anderson|steps|own|Broyden|steps|own|times",
        rows,
    )


def warm_start(epochs: int) -> None:
    """Each sample's solve from zero, and from its own equilibrium of the last epoch."""
    torch.set_num_threads(1)
    rows = []
    for rate in (1e-2, 1e-3):
        torch.manual_seed(0)
        module = DEQEncoder(8, 32).double()
        with torch.no_grad():
            module.cell.deviation *= 4  # at its bound, as it is after some training
        read = torch.nn.Linear(32, 1).double()
        x = torch.randn(256, 20, 8, dtype=torch.float64)
        y = x[:, :, :1].roll(1, 1) * x[:, :, 1:2]
        optimiser = torch.optim.Adam([*module.parameters(), *read.parameters()], lr=rate)
        last = torch.zeros(256, 20, 32, dtype=torch.float64)
        seconds, steps, solves = {"cold": 0.0, "warm": 0.0}, {"cold": 0.0, "warm": 0.0}, 0
        for epoch in range(epochs):
            for rows_ in torch.arange(256).split(64):
                present = torch.ones(64, 20, 1, dtype=torch.float64)
                f, inputs = module.cell.problem(x[rows_], present)
                starts = {"cold": torch.zeros_like(last[rows_]), "warm": last[rows_]}
                for name, z0 in starts.items():
                    begin = time.perf_counter()
                    solution = fixed_point(f, z0, inputs=inputs)
                    if epoch:
                        seconds[name] += time.perf_counter() - begin
                        steps[name] += float(solution.steps.double().mean())
                solves += epoch > 0
                last[rows_] = solution.value.detach()
                loss = (read(solution.value) - y[rows_]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        rows.append(
            [
                rate, steps["cold"] / solves, steps["warm"] / solves,
                1e3 * seconds["cold"] / solves, 1e3 * seconds["warm"] / solves,
                256 * 20 * 32 * 8 / 2**20,
            ]
        )  # fmt: skip
    table(
        f"Start from the last epoch's equilibrium, forward, {epochs} epochs of 4 batches of "
        f"(64, 20, 32), Adam",
        "learning rate|steps cold|steps warm|ms cold|ms warm|MiB to keep",
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shape, few rounds")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")  # torchdeq's own
    torch.manual_seed(0)
    shapes = [(64, 20, 32)] if quick else [(64, 20, 32), (256, 20, 32), (64, 500, 64)]
    rounds = 7 if quick else 30
    for threads in (1, 2):
        against_torchdeq(shapes, rounds, threads)
    exactness()
    memory(shapes)
    anderson(rounds)
    warm_start(3 if quick else 15)


if __name__ == "__main__":
    main()
