"""Deep equilibrium encoders over assets, well-posed by construction.

``DEQEncoder(features, hidden)(x)`` is the fixed point Z (B, N, H) of a cell driven by x (B, N, F).
Every cell has exactly one fixed point whatever its parameters, since they pass through a bound.
A cell is a module with ``problem(x, present)``, the map f of the solver's state and the tensors it
takes after that state, and ``read(state)``, which gives Z.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from strategies.layers.equilibrium import compilable, mean_field_equilibrium
from strategies.layers.fixed_point import (
    Adjoint,
    Implicit,
    OnFailure,
    Picard,
    Solution,
    Solver,
    fixed_point,
)
from strategies.layers.together import each, spread

Map = Callable[..., Tensor]


class MeanFieldCell(nn.Module):
    """``f(Z) = tanh(Z W1 + mean(Z) W2 + x U + b)``, the mean over the assets that trade.

    W1 maps deviations from the mean, W1 + W2 the mean itself, and the two are orthogonal: so the
    linear part's 2-norm is exactly max(s(W1), s(W1 + W2)), with s the largest singular value, and
    tanh adds nothing to it. These two matrices are the parameters, each scaled to ``bound``.
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.deviation = nn.Parameter(_square(hidden))
        self.mean = nn.Parameter(_square(hidden))

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each."""
        deviation, mean = bounded(self.deviation, self.bound), bounded(self.mean, self.bound)
        return deviation, mean - deviation

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W1, W2 = self.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, share: Tensor) -> Tensor:
            return _mean_field(z, injected, present, share, W1, W2)

        return f, (self.inject(x), present, _share(present))

    def read(self, state: Tensor) -> Tensor:
        return state

    @staticmethod
    def weights_together(cells: Sequence[MeanFieldCell]) -> tuple[Tensor, Tensor]:
        """W1 and W2 of S cells, (S, H, H) each."""
        bound = cells[0].bound
        deviation = bounded(torch.stack([cell.deviation for cell in cells]), bound)
        mean = bounded(torch.stack([cell.mean for cell in cells]), bound)
        return deviation, mean - deviation


def _mean_field(
    z: Tensor, injected: Tensor, present: Tensor, share: Tensor, W1: Tensor, W2: Tensor
) -> Tensor:
    """The mean-field map of z (B, N, H); W1 and W2 are (H, H), or (B, H, H) for each sample."""
    mean = share.mT @ z  # (B, 1, H)
    return torch.tanh(z @ W1 + (mean @ W2 + injected)) * present


class GraphCell(nn.Module):
    """``f(Z) = tanh(Z W1 + A Z W2 + x U + b)``, with A (N, N) computed from x, rows summing to one.

    Each row of A Z is a mean of rows of Z. So in the norm max_i |z_i|_2 the map contracts by
    s(W1) + s(W2), held at ``bound``; attention on the state itself would not be Lipschitz (Kim,
    Papamakarios & Mnih, arXiv 2006.04710). A is dot-product attention over x, among the assets
    that trade.
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.query = nn.Linear(features, hidden)
        self.key = nn.Linear(features, hidden, bias=False)
        self.own = nn.Parameter(_square(hidden))
        self.others = nn.Parameter(_square(hidden))

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each."""
        return _bounded_pair(self.own, self.others, self.bound)

    def graph(self, x: Tensor, present: Tensor) -> Tensor:
        """A (B, N, N); [b, i, j] is the weight of asset j for asset i on sample b."""
        scores = self.query(x) @ self.key(x).mT / self.key.out_features**0.5
        # Not minus infinity, which would make a row of NaN where nothing trades.
        absent = (present == 0).mT  # (B, 1, N)
        return torch.softmax(scores.masked_fill(absent, torch.finfo(x.dtype).min), dim=2)

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W1, W2 = self.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, graph: Tensor) -> Tensor:
            return torch.tanh(z @ W1 + graph @ (z @ W2) + injected) * present

        return f, (self.inject(x), present, self.graph(x, present))

    def read(self, state: Tensor) -> Tensor:
        return state


class PairCell(nn.Module):
    """``f(Z) = tanh(Z W1 + M Z W2 + x U + b)``, with M (N, N) a parameter: who follows whom.

    M_ij is what asset i takes from asset j, of either sign, scaled so that no row of |M| sums to
    more than one. So in the norm max_i |z_i|_2 the map contracts by s(W1) + s(W2), held at
    ``bound``, as the graph cell's. M starts at zero, and is of these N assets alone.
    """

    def __init__(self, features: int, hidden: int, bound: float, assets: int):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.own = nn.Parameter(_square(hidden))
        self.others = nn.Parameter(_square(hidden))
        self.pairs = nn.Parameter(torch.zeros(assets, assets))

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each."""
        return _bounded_pair(self.own, self.others, self.bound)

    def graph(self) -> Tensor:
        """M (N, N)."""
        return self.pairs / self.pairs.abs().sum(1, keepdim=True).clamp_min(1)

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W1, W2 = self.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, graph: Tensor) -> Tensor:
            return torch.tanh(z @ W1 + graph @ (z @ W2) + injected) * present

        return f, (self.inject(x), present, self.graph().expand(len(x), -1, -1))

    def read(self, state: Tensor) -> Tensor:
        return state


class MonotoneCell(nn.Module):
    """``Z = relu(Z W1 + mean(Z) (W2 - W1) + x U + b)``, W of any norm (Winston & Kolter, 2020).

    W1 and W2 are each ``(1 - m) I - A'A + B - B'`` with m = 1 - bound (arXiv 2006.08591, eq. 9), so
    that I minus the linear part is monotone by m, and Z exists and is unique. The state that is
    solved for is that of Peaceman-Rachford splitting (section 3.2 there): a contraction, which
    `Picard` iterates, and which ``Picard(damping=0.5)`` turns into Douglas-Rachford.
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.margin = 1 - bound
        self.inject = nn.Linear(features, hidden)
        # From A'A of about one half the splitting takes a third of the steps it takes from zero.
        start = 0.7 * torch.eye(hidden)
        self.gram = nn.Parameter(torch.stack([start + _square(hidden), start + _square(hidden)]))
        self.skew = nn.Parameter(torch.stack([_square(hidden), _square(hidden)]))

    def weights(self) -> Tensor:
        """W1, for deviations from the mean, and W2, for the mean: (2, H, H)."""
        identity = torch.eye(self.gram.shape[1], dtype=self.gram.dtype, device=self.gram.device)
        skew = self.skew - self.skew.mT
        return (1 - self.margin) * identity - self.gram.mT @ self.gram + skew

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W = self.weights()
        identity = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        # The step 1 / |I - W| contracts fastest; Z does not depend on it, so no gradient does.
        step = 1 / torch.linalg.matrix_norm((identity - W).detach(), ord=2).max()
        Q, R = torch.linalg.qr(identity + step * (identity - W))
        resolvent = torch.linalg.solve_triangular(R, Q.mT, upper=True)  # (2, H, H)

        def f(v: Tensor, injected: Tensor, present: Tensor, share: Tensor) -> Tensor:
            reflected = v.abs()  # 2 relu(v) - v
            drive = reflected + step * injected
            mean = share.mT @ drive  # (B, 1, H)
            solved = (drive - mean) @ resolvent[0] + mean @ resolvent[1]
            return (2 * solved - reflected) * present

        return f, (self.inject(x) * present, present, _share(present))

    def read(self, state: Tensor) -> Tensor:
        return torch.relu(state)


_CELLS: dict[str, type[MeanFieldCell | GraphCell | MonotoneCell]] = {
    "mean_field": MeanFieldCell,
    "graph": GraphCell,
    "monotone": MonotoneCell,
}
CELLS = (*_CELLS, "pairs")  # the last one needs the number of assets


class DEQEncoder(nn.Module):
    """Features of the assets (B, N, F) to their joint equilibrium (B, N, H).

    Treats all assets alike, any number of them, unless they are given embeddings or the cell is
    "pairs": then "asset 3 follows asset 7" can be learned, and only those assets can be encoded.

    Args:
        features: F.
        hidden: H.
        cell: "mean_field", "graph", "monotone", or "pairs", which needs ``assets``.
        solver: see `fixed_point`; by default `Picard`.
        adjoint: see `fixed_point`; by default `Implicit` with the same solver.
        bound: of the cell's contraction, in (0, 1); for the monotone cell one minus its margin.
        assets: N, where assets have embeddings, or the cell is "pairs".
        embedding: length of the vector learned for each asset, appended to its features.
        on_failure: "raise" or "flag", see `fixed_point`.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        cell: str = "mean_field",
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        bound: float = 0.95,
        assets: int | None = None,
        embedding: int = 0,
        on_failure: OnFailure = "raise",
    ):
        super().__init__()
        if cell not in CELLS:
            near = difflib.get_close_matches(cell, CELLS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"cell must be one of {list(CELLS)}, got {cell!r}{hint}")
        if not 0 < bound < 1:
            raise ValueError(f"bound must lie in (0, 1), got {bound}")
        if (embedding > 0 or cell == "pairs") != (assets is not None):
            raise ValueError(
                "assets go together with an embedding or the cell 'pairs', got "
                f"assets={assets}, embedding={embedding}, cell={cell!r}"
            )
        self.features = features
        self.assets = assets
        self.embedding = (
            nn.Parameter(torch.randn(assets, embedding)) if assets and embedding else None
        )
        make = partial(PairCell, assets=assets or 0) if cell == "pairs" else _CELLS[cell]
        self.cell = make(features + embedding, hidden, bound)
        # The splitting contracts slowly once its weights have grown.
        self.solver: Solver = solver or Picard(max_steps=5000 if cell == "monotone" else 500)
        self.adjoint: Adjoint = adjoint or Implicit(self.solver)
        self.on_failure: OnFailure = on_failure

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, F) and mask (B, N), true where an asset trades -> (B, N, H)."""
        return self.equilibrium(x, mask).value

    def equilibrium(self, x: Tensor, mask: Tensor | None = None) -> Solution:
        """The whole `Solution`; its value (B, N, H) is zero where an asset does not trade.

        Features of assets that do not trade are not read. The residual is that of the cell's state.

        Raises:
            ConvergenceError: see `fixed_point`.
            ValueError, TypeError: where x or mask do not fit, or x is not finite where not masked.
        """
        return self._equilibrium([self], x, mask, [len(x)])

    @staticmethod
    def together(
        encoders: Sequence[DEQEncoder], x: Tensor, mask: Tensor | None, sizes: Sequence[int]
    ) -> Tensor:
        """The states (M, N, H) of several encoders of one kind, each of its own samples.

        On the CPU in float64 to the same bits as one by one.

        Args:
            x, mask: (M, N, F) and (M, N), the samples of the first encoder first.
            sizes: how many samples each has.
        """
        return DEQEncoder._equilibrium(encoders, x, mask, sizes).value

    @staticmethod
    def _equilibrium(
        encoders: Sequence[DEQEncoder], x: Tensor, mask: Tensor | None, sizes: Sequence[int]
    ) -> Solution:
        first, cells = encoders[0], [encoder.cell for encoder in encoders]
        adjoint, solver = first.adjoint, first.solver
        inner = adjoint.solver if isinstance(adjoint, Implicit) else None
        compiled = inner is not None and compilable(x, solver, inner)
        if not isinstance(first.cell, MeanFieldCell) or (len(cells) == 1 and not compiled):
            return _joined([own._solved(*part) for own, *part in each(encoders, sizes, x, mask)])
        x, present = first._check(x, mask)
        x = torch.cat([own._embedded(part) for own, part in each(encoders, sizes, x)])
        drive = torch.cat([cell.inject(part) for cell, part in each(cells, sizes, x)])
        W1, W2 = MeanFieldCell.weights_together(cells)  # type: ignore[arg-type]
        if compiled:
            assert inner is not None
            return mean_field_equilibrium(
                W1, W2, sizes, drive, present, solver, inner, first.on_failure
            )
        W1, W2 = (spread(W.unbind(), sizes) for W in (W1, W2))  # (M, H, H)
        return fixed_point(
            _mean_field,
            torch.zeros_like(drive),
            inputs=(drive, present, _share(present), W1, W2),
            solver=solver,
            adjoint=adjoint,
            on_failure=first.on_failure,
        )

    def _solved(self, x: Tensor, mask: Tensor | None) -> Solution:
        solution, _ = self._solve(x, mask)
        return replace(solution, value=self.cell.read(solution.value))

    def _embedded(self, x: Tensor) -> Tensor:
        if self.embedding is None:
            return x
        return torch.cat([x, self.embedding.expand(x.shape[0], -1, -1)], dim=2)

    def regularised(
        self, x: Tensor, mask: Tensor | None = None, probes: int = 1
    ) -> tuple[Solution, Tensor]:
        """The equilibrium, and `jacobian_penalty` there, to be added to a loss with a weight."""
        solution, f = self._solve(x, mask)
        penalty = jacobian_penalty(f, solution.value, probes)
        return replace(solution, value=self.cell.read(solution.value)), penalty

    def spectral_radius(self, x: Tensor, mask: Tensor | None = None, steps: int = 100) -> Tensor:
        """(B,) `spectral_radius` of the cell's map at the equilibrium: a monitor, no gradient."""
        with torch.no_grad():
            solution, f = self._solve(x, mask)
        return spectral_radius(f, solution.value, steps)

    def _solve(self, x: Tensor, mask: Tensor | None) -> tuple[Solution, Callable[[Tensor], Tensor]]:
        x, present = self._check(x, mask)
        f, inputs = self.cell.problem(self._embedded(x), present)
        solution = fixed_point(
            f,
            torch.zeros_like(inputs[0]),
            inputs=inputs,
            solver=self.solver,
            adjoint=self.adjoint,
            on_failure=self.on_failure,
        )
        return solution, lambda z: f(z, *inputs)

    def _check(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, N, F), zero where an asset does not trade, and the mask as numbers (B, N, 1)."""
        if x.ndim != 3 or x.shape[2] != self.features:
            raise ValueError(f"x must have shape (B, N, {self.features}), got {tuple(x.shape)}")
        if x.dtype != self.cell.inject.weight.dtype:
            raise TypeError(
                f"x is {x.dtype} and the parameters are {self.cell.inject.weight.dtype}: cast one "
                f"of them, as in encoder.double()"
            )
        if self.assets is not None and x.shape[1] != self.assets:
            raise ValueError(
                f"x holds {x.shape[1]} assets and the encoder knows {self.assets} apart: "
                f"give just those, masking what does not trade"
            )
        if mask is None:
            present = x.new_ones(x.shape[0], x.shape[1], 1)
        else:
            if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
                raise ValueError(
                    f"mask must be bool of shape {tuple(x.shape[:2])}, got {mask.dtype} of "
                    f"{tuple(mask.shape)}"
                )
            present = mask.unsqueeze(2).to(x.dtype)
            if not mask.all():
                x = x.masked_fill(~mask.unsqueeze(2), 0.0)
        if not x.detach().sum().isfinite():  # the cheap test first: it is made at every step
            broken = (~x.isfinite()).any(2).nonzero().tolist()
            if broken:
                raise ValueError(
                    f"x is not finite for {len(broken)} (sample, asset) pairs, the first "
                    f"{broken[:5]}: fill them, or mask the assets that do not trade"
                )
        return x, present


def _joined(solutions: Sequence[Solution]) -> Solution:
    """One solution of all samples."""
    parts = ("value", "converged", "steps", "residual")
    return Solution(*(torch.cat([getattr(s, part) for s in solutions]) for part in parts))


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Each matrix (..., H, H) whose largest singular value exceeds ``bound``, scaled to it."""
    return raw * (bound / _SpectralNorm.apply(raw).clamp_min(bound))


class _SpectralNorm(torch.autograd.Function):
    """The largest singular value (..., 1, 1) of each matrix, with its gradient u v'.

    As torch.linalg.matrix_norm(ord=2), but of each matrix to the same bits as alone: LAPACK's last
    bits depend on where in memory a matrix begins.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        parts = [torch.linalg.svd(each.clone()) for each in raw.reshape(-1, *raw.shape[-2:])]
        U, values, Vh = (torch.stack(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward((U[:, :, :1] * Vh[:, :1]).view_as(raw))
        return values[:, 0].view(*raw.shape[:-2], 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


def _bounded_pair(first: Tensor, second: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Both scaled alike, so that their largest singular values sum to ``bound`` at most."""
    sizes = torch.linalg.matrix_norm(first, 2) + torch.linalg.matrix_norm(second, 2)
    scale = bound / sizes.clamp_min(bound)
    return first * scale, second * scale


def jacobian_penalty(f: Callable[[Tensor], Tensor], z: Tensor, probes: int = 1) -> Tensor:
    """Hutchinson's estimate of the mean squared entry sum |J|_F^2 / D per sample, a scalar.

    Differentiable in what f depends on; z (B, ...), D numbers a sample, counts as given. Source:
    Bai, Koltun & Kolter, Stabilizing Equilibrium Models, arXiv 2106.14342, eq. 5.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        image = f(z)
        total = image.new_zeros(())
        for _ in range(probes):
            (product,) = torch.autograd.grad(
                image, z, torch.randn_like(image), create_graph=True, materialize_grads=True
            )
            total = total + product.square().mean()
    return total / probes


def spectral_radius(f: Callable[[Tensor], Tensor], z: Tensor, steps: int = 100) -> Tensor:
    """(B,) the largest modulus of an eigenvalue of df/dz at z (B, ...), by power iteration.

    The mean growth over the second half of the steps, so that a complex pair is measured as well.
    Below one, the plain iteration converges near z; close to one, slowly.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        image = f(z)
    g = torch.randn_like(image)
    growth = []
    for _ in range(steps):
        (g,) = torch.autograd.grad(image, z, g, retain_graph=True, materialize_grads=True)
        size = torch.linalg.vector_norm(g.flatten(1), dim=1)
        growth.append(size)
        g = g / size.clamp_min(torch.finfo(g.dtype).tiny).view(-1, *[1] * (g.ndim - 1))
    return torch.stack(growth[steps // 2 :]).log().mean(0).exp()


def _square(hidden: int) -> Tensor:
    """Random (H, H) with a largest singular value of about one half."""
    return torch.randn(hidden, hidden) * (0.25 / hidden**0.5)


def _share(present: Tensor) -> Tensor:
    """Weights (B, N, 1) that make a sum over the assets the mean over those that trade."""
    return present / present.sum(1, keepdim=True).clamp_min(1)
