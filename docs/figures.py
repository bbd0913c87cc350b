"""The figures of the documentation, each from the code it is about. Writes docs/figures/*.svg.

python docs/figures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from data_loaders import load
from engine import WalkForward
from strategies.layers import (
    Anderson,
    Broyden,
    Implicit,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer

DOUBLE = torch.float64


def iteration() -> Figure:
    """A fixed point in one dimension, and the residuals of three solvers on a slow cell."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    z = np.linspace(-0.2, 1.6, 200)
    left.plot(z, np.tanh(0.9 * z + 0.5), label="f(z) = tanh(0.9 z + 0.5)")
    left.plot(z, z, color="grey", linewidth=1, label="z")
    path = [0.0]
    for _ in range(8):
        path.append(float(np.tanh(0.9 * path[-1] + 0.5)))
    corners = [(a, b) for i in range(8) for a, b in ((path[i], path[i]), (path[i], path[i + 1]))]
    left.plot(*zip(*corners, strict=True), color="tab:red", linewidth=1, label="iteration")
    left.set(title="f(z) == z at the solution", xlabel="z")
    left.legend()

    f, z0, _ = slow_cell()
    for name, solver in {"Picard": Picard(), "Anderson": Anderson(), "Broyden": Broyden()}.items():
        with torch.no_grad():
            history = fixed_point(f, z0, solver=solver, history=True).history.amax(1)
        right.semilogy(range(1, len(history) + 1), history, label=name)
    right.set(title="A cell near its bound", xlabel="evaluations of f", ylabel="relative residual")
    right.legend()
    return figure


def gradients() -> Figure:
    """Errors of three gradients of a loss at the same fixed point."""
    f, z0, weight = slow_cell()
    fine = Picard(rtol=1e-13, max_steps=5000)

    def gradient(**how: object) -> torch.Tensor:
        value = fixed_point(f, z0, on_failure="flag", **how).value  # type: ignore[arg-type]
        return torch.autograd.grad(value.square().sum(), weight)[0]

    exact = gradient(solver=fine, adjoint=Implicit(fine))
    steps = [1, 2, 5, 10, 20, 50, 100]
    found = {
        "through k unrolled steps": [
            gradient(solver=Picard(max_steps=k), adjoint=Unrolled()) for k in steps
        ],
        "phantom, k steps": [gradient(solver=fine, adjoint=Phantom(k)) for k in steps],
    }
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, gradients in found.items():
        axes.loglog(
            steps, [float((g - exact).norm() / exact.norm()) for g in gradients], label=name
        )
    ours = float((gradient(solver=Anderson()) - exact).norm() / exact.norm())
    axes.axhline(ours, color="black", label="implicit, default tolerances")
    axes.set(title="Error of the gradient", xlabel="k", ylabel="relative")
    axes.legend()
    return figure


def slow_cell():
    """tanh(z W + b) with W of norm 0.95: f, z0 and W."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(16, 16, dtype=DOUBLE, generator=generator)
    weight = 0.95 * half @ half.T / torch.linalg.matrix_norm(half @ half.T, ord=2)
    drive = 0.1 * torch.randn(8, 16, dtype=DOUBLE, generator=generator)
    weight.requires_grad_()
    return lambda z: torch.tanh(z @ weight + drive), torch.zeros_like(drive), weight


def active_set() -> Figure:
    """Weights of three assets as one expected return grows, and the layer's derivative of them."""
    risk = torch.tensor([[4.0, 1, 0.5], [1, 3, 0.8], [0.5, 0.8, 2]], dtype=DOUBLE)
    grid = torch.linspace(-2, 4, 241, dtype=DOUBLE)
    expected = torch.stack([grid, torch.zeros_like(grid), torch.zeros_like(grid)], 1)
    expected.requires_grad_()
    weights = MeanVarianceLayer()(risk.expand(len(grid), 3, 3), expected, upper=0.7)
    slope = torch.autograd.grad(weights[:, 0].sum(), expected)[0][:, 0]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, name in enumerate("ABC"):
        left.plot(grid, weights[:, i].detach(), label=name)
    left.set(title="Weights, long-only, cap 70 %", xlabel="expected return of A", ylabel="weight")
    left.legend()
    between = (weights[2:, 0] - weights[:-2, 0]).detach() / (grid[2:] - grid[:-2])
    right.plot(grid[1:-1], between, color="lightgrey", linewidth=5, label="finite differences")
    right.plot(grid, slope, label="from the KKT system")
    right.set(title="Derivative of A's weight", xlabel="expected return of A")
    right.legend()
    return figure


def walk_forward() -> Figure:
    """What each refit learns from and decides, on the bundled prices."""
    folds = WalkForward(train="5Y", refit="3Y").describe(load("sp500", start="2000-01-01"), 253)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for number, fold in folds.iterrows():
        learned = (fold["train_start"], fold["labels_end"] - fold["train_start"])
        decided = (fold["test_start"], fold["test_end"] - fold["test_start"])
        axes.broken_barh([learned], (number - 0.4, 0.8), color="tab:blue")
        axes.broken_barh([decided], (number - 0.4, 0.8), color="tab:orange")
    axes.set(title="Learned from (blue), decided (orange)", ylabel="refit", yticks=folds.index)
    axes.invert_yaxis()
    return figure


def best_of_many() -> Figure:
    """The best Sharpe ratio of K strategies without skill, over ten years of weekly returns."""
    rng = np.random.default_rng(0)
    counts, years = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], 10
    returns = rng.standard_normal((2000, 52 * years))
    sharpe = returns.mean(1) / returns.std(1, ddof=1) * 52**0.5
    draws = {k: rng.choice(sharpe, (1000, k)).max(1) for k in counts}
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    low, middle, high = (
        [np.quantile(draws[k], share) for k in counts] for share in (0.05, 0.5, 0.95)
    )
    axes.fill_between(counts, low, high, alpha=0.3, label="90 % of cases")
    axes.semilogx(counts, middle, label="median")
    axes.axhline(0, color="grey", linewidth=1, label="the truth")
    axes.set(title="The luckiest of K without skill", xlabel="K tried", ylabel="Sharpe, 10 years")
    axes.legend()
    return figure


FIGURES = (iteration, gradients, active_set, walk_forward, best_of_many)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    # The same bytes on every run: no date, no random identifiers, text as text.
    with matplotlib.rc_context({"svg.hashsalt": "deqfolio", "svg.fonttype": "none"}):
        for draw in FIGURES:
            name = draw.__name__.replace("_", "-")
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures")
