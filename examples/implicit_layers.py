# %% [markdown]
# # Implicit layers, from a network of three layers to a portfolio
#
# An explicit layer says how to compute its output. An implicit layer says which equation its output
# satisfies: a fixed point, or an optimum. How it is solved is another matter, and so is its
# gradient, which follows from the equation alone. Five systems, from one initial state:
#
# 1. an explicit network,
# 2. the simple implicit layer: iterate until nothing changes,
# 3. faster solvers of the same equation: Newton, Anderson, Broyden,
# 4. the DEQ: any solver forward, without a graph, and the implicit function theorem backward,
# 5. the differentiable QP: a portfolio as a layer, on top of the equilibrium.
#
# Letters: B = 32 dates, N = 10 assets, F = 4 features, H = 16 hidden numbers an asset.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

from deqfolio import Anderson, Broyden, Implicit, MeanVarianceLayer, Picard, Unrolled, fixed_point

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
B, N, F, H = 32, 10, 4, 16
x = torch.randn(B, N, F)
target = torch.tanh(x[:, :, 0] + x[:, :, 1].mean(1, keepdim=True))  # own news and common news

# %% [markdown]
# ## The cell
#
# The state z of all assets, (N, H), mixes with the mean over the assets and with the features:
#
# $$f(z, x)_i = \tanh\left(z_i W_1 + \bar z W_2 + x_i U + b\right)$$
#
# Deviations from the mean are mapped by $W_1$ and the mean by $W_1 + W_2$. Both are scaled to a
# norm of at most 0.9, and the slope of tanh is at most 1: f is a contraction. So $z = f(z, x)$ has
# one solution, whatever the parameters.


# %%
class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.A, self.C = nn.Parameter(torch.randn(H, H)), nn.Parameter(torch.randn(H, H) / 3)
        self.U, self.b = nn.Parameter(torch.randn(F, H) / 8), nn.Parameter(torch.zeros(H))

    def forward(self, z, x):
        norms = torch.linalg.matrix_norm(torch.stack([self.A, self.A + self.C]), ord=2)
        A, C = 0.9 * self.A / norms.max(), 0.9 * self.C / norms.max()
        return torch.tanh(z @ A + z.mean(1, keepdim=True) @ C + x @ self.U + self.b)  # (B, N, H)


cell, read, zero = Cell(), nn.Linear(H, 1), torch.zeros(B, N, H)

# %% [markdown]
# ## 1. An explicit network
#
# $z^{(k+1)} = f_k(z^{(k)}, x)$ for k = 0, 1, 2, each with parameters of its own. All three start
# here as copies of the one cell, so that every system on this page has the same initial state.


# %%
class Explicit(nn.Module):
    def __init__(self, cell, read):
        super().__init__()
        self.layers, self.read = nn.ModuleList(copy(cell, Cell()) for _ in range(3)), copy(read)

    def forward(self, x):
        z = zero
        for layer in self.layers:
            z = layer(z, x)
        return self.read(z).squeeze(2)  # (B, N)


def copy(module, into=None):
    into = nn.Linear(H, 1) if into is None else into
    into.load_state_dict(module.state_dict())
    return into


# %% [markdown]
# ## 2. The simple implicit layer
#
# One cell, applied until nothing changes: $z \leftarrow f(z, x)$. The residual
# $|f(z, x) - z| / |f(z, x)|$ falls by the same factor at every step.


# %%
def iterate(f, z, steps=400, rtol=1e-12):
    residuals = []
    for _ in range(steps):
        image = f(z)
        residuals.append(float((image - z).norm() / image.norm()))
        z = image
        if residuals[-1] < rtol:
            break
    return z, residuals


with torch.no_grad():
    z_star, by_iteration = iterate(lambda z: cell(z, x), zero)
print(f"{len(by_iteration)} steps, residual {by_iteration[-1]:.0e}")

# %% [markdown]
# ## 3. Faster solvers of the same equation
#
# Newton's method solves the linear equation at each iterate, with the Jacobian
# $J = \partial f / \partial z$, here of one date (160 x 160):
#
# $$z \leftarrow z + (I - J)^{-1}\left(f(z, x) - z\right)$$
#
# The residual is squared at every step. Anderson's and Broyden's methods come near to that with
# evaluations of f alone. All of them reach the same point.


# %%
def newton(f, z, steps=8):
    residuals = []
    for _ in range(steps):
        image = f(z)
        residuals.append(float((image - z).norm() / image.norm()))
        if residuals[-1] < 1e-14:
            break
        J = torch.autograd.functional.jacobian(f, z).reshape(z.numel(), z.numel())
        gap = (image - z).reshape(-1)
        z = z + torch.linalg.solve(torch.eye(z.numel()) - J, gap).reshape(z.shape)
    return z, residuals


with torch.no_grad():
    z_newton, by_newton = newton(lambda z: cell(z, x[:1]), zero[:1])
    found = {
        name: fixed_point(lambda z: cell(z, x), zero, solver=solver, history=True)
        for name, solver in (("Anderson", Anderson(rtol=1e-12)), ("Broyden", Broyden(rtol=1e-12)))
    }
for name, z in (("Newton", z_newton), *((k, each.value) for k, each in found.items())):
    print(f"{name:9s} differs from the iteration by {(z - z_star[: len(z)]).abs().max():.0e}")
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.semilogy(by_iteration, label="iteration")
for name, each in found.items():
    axes.semilogy(each.history.amax(1), label=name)
axes.semilogy(by_newton, marker="o", label="Newton (one date)")
axes.set(title="One equation, four solvers", xlabel="step", ylabel="relative residual")
axes.legend()
figure.savefig("implicit_layers_1.png")

# %% [markdown]
# ## 4. The gradient, from the equation
#
# Differentiate $z = f_\theta(z, x)$ at the solution: $dz = J\,dz + \partial_\theta f\,d\theta$.
# With g the gradient of the loss with respect to z,
#
# $$u = J^\top u + g, \qquad \frac{\partial \ell}{\partial \theta} =
# \left(\frac{\partial f}{\partial \theta}\right)^{\!\top} u$$
#
# Backward is again a fixed point, linear and with the same contraction. Three times the same:
# by hand (solve for u, then one product), by a hook on the output of one more evaluation, and as
# `fixed_point` does it. And through all the steps of the iteration, which is what they must equal.


# %%
parameters = list(cell.parameters())


def f(z):
    return cell(z, x)


def loss(z):
    return (read(z).squeeze(2) - target).square().mean()


def adjoint(image, z, g):
    """u = J'u + g, by iteration; J'u is a product of vector and Jacobian, which autograd gives."""

    def pull(u):
        return torch.autograd.grad(image, z, u, retain_graph=True)[0] + g

    return iterate(pull, g)[0]


def by_hand():
    z = z_star.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(z), z)
    image = f(z)
    return torch.autograd.grad(image, parameters, adjoint(image, z, g))


def by_hook():
    with torch.no_grad():
        z = fixed_point(f, zero, solver=Anderson(rtol=1e-12)).value
    z = f(z)  # one evaluation with a graph, whose incoming gradient becomes u
    before = z.detach().requires_grad_()
    image = f(before)
    z.register_hook(lambda g: adjoint(image, before, g))
    return torch.autograd.grad(loss(z), parameters)


def by_fixed_point():
    return torch.autograd.grad(
        loss(fixed_point(f, zero, solver=Anderson(rtol=1e-12)).value), parameters
    )


def through(steps):
    z = zero
    for _ in range(steps):
        z = f(z)
    return torch.autograd.grad(loss(z), parameters)


def flat(gradients):
    return torch.cat([each.flatten() for each in gradients])


exact = flat(through(300))


def error(gradients):
    return float((flat(gradients) - exact).norm() / exact.norm())


for way in (by_hand, by_hook, by_fixed_point):
    print(f"{way.__name__:14s} differs from 300 unrolled steps by {error(way()):.0e}")

# %% [markdown]
# What autograd keeps for the backward pass grows with every step until the solve ends. The
# implicit gradient keeps one evaluation, however many steps the solver took.


# %%
def kept(run):
    """kB that autograd keeps for the backward pass of what ``run`` computes."""
    sizes = {}

    def note(t):
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        run()
    return sum(sizes.values()) / 1e3


depths = [1, 2, 5, 10, 20, 50, 100]
memory = {
    name: [
        kept(
            lambda k=k, adjoint=adjoint: fixed_point(
                f, zero, solver=Picard(max_steps=k), adjoint=adjoint, on_failure="flag"
            )
        )
        for k in depths
    ]
    for name, adjoint in (("unrolled", Unrolled()), ("implicit", Implicit()))
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.loglog(depths, [error(through(k)) for k in depths], marker="o", label="unrolled")
left.axhline(error(by_fixed_point()), color="C1", label="implicit")
left.set(title="Error of the gradient", xlabel="steps differentiated", ylabel="relative")
for name, sizes in memory.items():
    right.loglog(depths, sizes, marker="o", label=name)
right.set(title="Memory kept for backward", xlabel="steps of the solver", ylabel="kB")
for axes in (left, right):
    axes.legend()
figure.savefig("implicit_layers_2.png")

# %% [markdown]
# ## Training
#
# The explicit network has three times the parameters. The equilibrium is trained once through its
# implicit gradient and once through its unrolled iteration: the same curve, as the gradients agree.


# %%
class Equilibrium(nn.Module):
    def __init__(self, cell, read, **how):
        super().__init__()
        self.cell, self.read, self.how = copy(cell, Cell()), copy(read), how

    def forward(self, x):
        z = fixed_point(lambda z: self.cell(z, x), zero, **self.how).value
        return self.read(z).squeeze(2)


def train(model, target, steps=40):
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(steps):
        loss = (model(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


models = {
    "explicit": Explicit(cell, read),
    "DEQ, Anderson": Equilibrium(cell, read, solver=Anderson()),
    "unrolled": Equilibrium(cell, read, adjoint=Unrolled()),
}
losses = {name: train(model, target) for name, model in models.items()}
for name, each in losses.items():
    print(f"{name:14s} loss {each[0]:.4f} -> {each[-1]:.4f}")

# %% [markdown]
# ## 5. A portfolio as a layer
#
# $$w(q, P) = \arg\min_w\ \tfrac12 w^\top P w - q^\top w \quad\text{subject to}\quad
# \mathbf 1^\top w = 1,\ 0 \le w_i \le 0.4$$
#
# Where the free weights F are known, the optimum is a linear system (Karush, Kuhn and Tucker), and
# differentiating that system gives the gradient: with g the gradient of the loss with respect to w,
#
# $$\begin{bmatrix} P_{FF} & \mathbf 1 \\ \mathbf 1^\top & 0 \end{bmatrix}
# \begin{bmatrix} u_F \\ \eta \end{bmatrix} = \begin{bmatrix} g_F \\ 0 \end{bmatrix}, \qquad
# \frac{\partial \ell}{\partial q} = u, \qquad
# \frac{\partial \ell}{\partial P} = -\tfrac12\left(u w^\top + w u^\top\right)$$
#
# As the expected return of one asset grows, weights move along straight lines, with a kink where
# one reaches a limit; between kinks the derivative is constant.

# %%
M = torch.randn(N, N)
P = M @ M.T / N + torch.eye(N) / 2
layer = MeanVarianceLayer()

q = (torch.randn(1, N) / 2).requires_grad_()
w = layer(P, q, upper=0.4)
(ours,) = torch.autograd.grad(w[0, 0], q)
free = (w[0] > 1e-9) & (w[0] < 0.4 - 1e-9)
g = torch.eye(N)[0]
K = torch.ones(int(free.sum()) + 1, int(free.sum()) + 1)
K[:-1, :-1], K[-1, -1] = P[free][:, free], 0
u = torch.zeros(N)
u[free] = torch.linalg.solve(K, torch.cat([g[free], torch.zeros(1)]))[:-1]
print(f"gradient by hand and of the layer differ by {(u - ours[0]).abs().max():.0e}")

grid = torch.linspace(-1.5, 1.5, 201)
moved = q.detach().expand(len(grid), N).clone()
moved[:, 0] = grid
moved.requires_grad_()
weights = layer(P, moved, upper=0.4)
slope = torch.autograd.grad(weights[:, 0].sum(), moved)[0][:, 0]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(grid, weights.detach())
left.set(title="All weights as one q grows", xlabel="q of the first asset", ylabel="weight")
right.plot(grid, slope, label="of the layer")
right.plot(
    grid, torch.gradient(weights[:, 0].detach(), spacing=(grid,))[0], "--", label="differences"
)
right.set(title="Derivative of the first weight", xlabel="q of the first asset")
right.legend()
figure.savefig("implicit_layers_3.png")

# %% [markdown]
# ## The chain
#
# Features, equilibrium, expected returns, portfolio: two implicit layers, one gradient. It learns
# the weights that perfect foresight of the target would hold.


# %%
class Portfolio(nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.returns = returns

    def forward(self, x):
        return layer(P, self.returns(x), upper=0.4)


ideal = layer(P, target, upper=0.4)
losses["portfolio"] = train(Portfolio(Equilibrium(cell, read, solver=Anderson())), ideal)
print(
    f"portfolio      loss {losses['portfolio'][0]:.4f} -> {losses['portfolio'][-1]:.4f}, of weights"
)
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, each in losses.items():
    axes.semilogy(each, "--" if name == "unrolled" else "-", label=name)
axes.set(title="Training, from one initial state", xlabel="step", ylabel="mean squared error")
axes.legend()
figure.savefig("implicit_layers_4.png")
