"""Deep equilibrium encoders over assets, well-posed by construction.

``DEQEncoder(features, hidden)(x)`` is the fixed point Z (B, N, H) of a cell driven by x (B, N, F).
Every cell of ``cells.py`` has exactly one fixed point whatever its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from data_loaders.suggestions import did_you_mean
from strategies.layers.equilibrium.cells import (
    GraphCell,
    MeanFieldCell,
    MonotoneCell,
    PairCell,
    mean_field,
    mean_weights,
)
from strategies.layers.equilibrium.fixed_point import (
    Adjoint,
    Anderson,
    Implicit,
    OnFailure,
    Picard,
    Solution,
    Solver,
    fixed_point,
)
from strategies.layers.equilibrium.mean_field import compilable, mean_field_equilibrium
from strategies.layers.together import each, spread

_CELLS: dict[str, type[MeanFieldCell | GraphCell | MonotoneCell]] = {
    "mean_field": MeanFieldCell,
    "graph": GraphCell,
    "monotone": MonotoneCell,
}
ONSET = 0.4  # a mixed step takes 1.4 times as long as a plain one
CELLS = (*_CELLS, "pairs")  # the last one needs the number of assets


class DEQEncoder(nn.Module):
    """Features of the assets (B, N, F) to their joint equilibrium (B, N, H).

    Treats all assets alike, any number of them, unless they are given embeddings or the cell is
    "pairs": then "asset 3 follows asset 7" can be learned, and only those assets can be encoded.

    Args:
        features: F.
        hidden: H.
        cell: "mean_field", "graph", "monotone", or "pairs", which needs ``assets``.
        solver: see `fixed_point`; by default `Anderson`, mixing once plain steps are slow, for the
            mean-field cell, and `Picard` for the others or an adjoint that needs it.
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
            hint = did_you_mean(cell, CELLS)
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
        if solver is None:
            implicit = adjoint is None or isinstance(adjoint, Implicit)
            if cell == "mean_field" and implicit:
                solver = Anderson(onset=ONSET)
            else:  # the monotone cell's splitting contracts slowly once its weights have grown
                solver = Picard(max_steps=5000 if cell == "monotone" else 500)
        self.solver: Solver = solver
        self.adjoint: Adjoint = adjoint or Implicit(solver)
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
            mean_field,
            torch.zeros_like(drive),
            inputs=(drive, present, mean_weights(present), W1, W2),
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
