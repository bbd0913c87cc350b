"""Implicit layers by example: what each system is, what it costs, and that their gradients agree.

1. an explicit network of three layers, with three times the parameters,
2. the simple implicit layer: iterate tanh(Z W1 + mean(Z) W2 + x U + b) until it rests,
3. the DEQ: Anderson forward without a graph, the implicit function theorem backward,
4. the same layer, trained through its unrolled iterations,
5. the differentiable QP: the equilibrium is the expected return of a mean-variance portfolio.

Writes implicit_layers.png.
"""

import torch
from matplotlib.figure import Figure
from torch import nn

from deqfolio import (
    Anderson,
    Broyden,
    DEQEncoder,
    Implicit,
    MeanVarianceLayer,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)
from strategies.layers.equilibrium.encoder_cells import MeanFieldCell

B, N, F, H = 32, 10, 4, 16


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Regression(nn.Module):
    """Any encoder (B, N, F) -> (B, N, H), read out to one number an asset."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.read = encoder, nn.Linear(H, 1)

    def forward(self, x):
        return self.read(self.encoder(x)).squeeze(2)  # (B, N)


class Explicit(nn.Module):
    """Three layers of the same kind as the implicit one's cell, each with its own weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(MeanFieldCell(F, H, bound=0.95) for _ in range(3))

    def forward(self, x):
        z = x.new_zeros(len(x), N, H)
        for layer in self.layers:
            f, inputs = layer.problem(x, present=x.new_ones(len(x), N, 1))
            z = f(z, *inputs)
        return z


def systems():
    """Models by name, all from one initial state."""
    encoders = {
        "explicit": Explicit(),
        "implicit, Picard": DEQEncoder(F, H, solver=Picard()),
        "DEQ, Anderson": DEQEncoder(F, H, solver=Anderson()),
        "unrolled": DEQEncoder(F, H, adjoint=Unrolled()),
    }
    models = {name: Regression(encoder).double() for name, encoder in encoders.items()}
    first = models["implicit, Picard"]
    for model in models.values():
        model.read.load_state_dict(first.read.state_dict())
        for cell in getattr(model.encoder, "layers", None) or [model.encoder.cell]:
            cell.load_state_dict(first.encoder.cell.state_dict())
    return models


def train(model, inputs, target, steps=60):
    """Mean squared error at each step."""
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(steps):
        loss = (model(inputs) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


class Portfolio(nn.Module):
    """Features to weights: the equilibrium, read out, is the expected return."""

    def __init__(self, risk):
        super().__init__()
        self.returns, self.risk = Regression(DEQEncoder(F, H)), risk
        self.layer = MeanVarianceLayer()

    def forward(self, x):
        return self.layer(self.risk.expand(len(x), -1, -1), self.returns(x))


def kept(run):
    """kB that autograd keeps for the backward pass of what ``run`` returns."""
    sizes = {}

    def note(t):
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        note(run())
    return sum(sizes.values()) / 1e3


def main():
    torch.manual_seed(0)
    x = random(B, N, F)
    target = torch.tanh(x[:, :, 0] + x[:, :, 1].mean(1, keepdim=True))  # own and common news
    losses = {}
    for name, model in systems().items():
        losses[name] = loss = train(model, x, target)
        print(f"{name:18s} loss {loss[0]:.3f} -> {loss[-1]:.4f}")

    # A slow cell: everything at the bound, and nearly linear.
    M = random(H, H)
    W = 0.95 * M @ M.T / torch.linalg.matrix_norm(M @ M.T, ord=2)
    W.requires_grad_()
    drive = 0.1 * random(B, N, H)
    z0 = torch.zeros_like(drive)

    def f(z):
        return torch.tanh(z @ W + drive)

    solvers = {"Picard": Picard(), "Anderson": Anderson(), "Broyden": Broyden()}
    histories = {}
    for name, solver in solvers.items():
        solution = fixed_point(f, z0, solver=solver, history=True)
        histories[name] = solution.history.amax(1)
        print(f"{name:18s} {int(solution.steps.max())} evaluations of f")

    fine = Picard(rtol=1e-13, max_steps=5000)

    def gradient(**how):
        value = fixed_point(f, z0, on_failure="flag", **how).value
        return torch.autograd.grad(value.square().sum(), W)[0]

    exact = gradient(solver=fine, adjoint=Implicit(fine))
    counts = [1, 2, 5, 10, 20, 50, 100, 200]
    errors = {"unrolled": [], "phantom": []}
    memory = {"unrolled": [], "implicit": []}
    for k in counts:
        tied = Picard(max_steps=k)
        found = {
            "unrolled": gradient(solver=tied, adjoint=Unrolled()),
            "phantom": gradient(solver=fine, adjoint=Phantom(k)),
        }
        for name, g in found.items():
            errors[name].append(float((g - exact).norm() / exact.norm()))
        for name, adjoint in (("unrolled", Unrolled()), ("implicit", Implicit())):
            memory[name].append(
                kept(
                    lambda s=tied, a=adjoint: (
                        fixed_point(f, z0, solver=s, adjoint=a, on_failure="flag").value
                    )
                )
            )
    implicit = float((gradient(solver=Anderson()) - exact).norm() / exact.norm())
    last = {name: values[-1] for name, values in errors.items()}
    print(f"gradient error     implicit {implicit:.0e}; through 200 steps: "
          f"unrolled {last['unrolled']:.0e}, phantom {last['phantom']:.0e}")  # fmt: skip

    A = random(N, N)
    risk = A @ A.T / N + torch.eye(N, dtype=A.dtype)
    ideal = MeanVarianceLayer()(risk.expand(B, -1, -1), target)  # the weights of perfect foresight
    weights = train(Portfolio(risk).double(), x, ideal)
    print(f"{'QP':18s} loss {weights[0]:.1e} -> {weights[-1]:.1e} (of weights)")

    figure = Figure(figsize=(10, 7), layout="constrained")
    (left, right), (low, end) = figure.subplots(2, 2)
    for name, history in histories.items():
        left.semilogy(range(1, len(history) + 1), history, label=name)
    left.set(title="Residual", xlabel="evaluations of f", ylabel="relative, worst sample")
    for name, values in errors.items():
        right.loglog(counts, values, marker="o", label=name)
    right.axhline(implicit, color="black", label="implicit")
    right.set(title="Error of the gradient", xlabel="steps differentiated", ylabel="relative")
    for name, values in memory.items():
        low.loglog(counts, values, marker="o", label=name)
    low.set(title="Memory kept for backward", xlabel="steps of the solver", ylabel="kB")
    for name, loss in losses.items():
        end.semilogy(loss, label=name, linestyle="--" if name == "unrolled" else "-")
    end.semilogy(weights, label="QP (weights)")
    end.set(title="Training", xlabel="step", ylabel="mean squared error")
    for axes in (left, right, low, end):
        axes.legend()
    figure.savefig("implicit_layers.png", dpi=120)
    print("wrote implicit_layers.png")


if __name__ == "__main__":
    main()
