"""Deep equilibrium encoders over assets, well-posed by construction.

``DEQEncoder(features, hidden)(x)`` is the fixed point Z (B, N, H) of a cell driven by x (B, N, F).
Every cell of ``encoder_cells.py`` has exactly one fixed point whatever its parameters.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from data_loaders.suggestions import did_you_mean
from strategies.layers.equilibrium.compiled_mean_field import compilable, mean_field_equilibrium
from strategies.layers.equilibrium.encoder_cells import (
    Cell,
    GraphCell,
    MeanFieldCell,
    MonotoneCell,
    PairCell,
)
from strategies.layers.equilibrium.fixed_point import Adjoint, Implicit, fixed_point
from strategies.layers.equilibrium.fixed_point_loop import OnFailure, Solution
from strategies.layers.equilibrium.fixed_point_solvers import (
    Anderson,
    Picard,
    Solver,
    tolerance_of,
)

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
        cell: "mean_field", "graph", "monotone", or "pairs", which needs ``assets``; or a `Cell` of
            your own, made for F and the embedding's length, and H.
        solver: see `fixed_point`; by default `Anderson`, mixing once plain steps are slow, for the
            mean-field cell, and `Picard` for the others or an adjoint that needs it.
        adjoint: see `fixed_point`; by default `Implicit`.
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
        cell: str | Cell = "mean_field",
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        bound: float = 0.95,
        assets: int | None = None,
        embedding: int = 0,
        on_failure: OnFailure = "raise",
    ):
        super().__init__()
        if not isinstance(cell, str | Cell):
            raise TypeError(
                f"cell must be one of {list(CELLS)} or a Cell of encoder_cells.py, got "
                f"{type(cell).__name__}: write its map as the method problem of a Cell"
            )
        if isinstance(cell, str) and cell not in CELLS:
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
        if isinstance(cell, str):
            make = partial(PairCell, assets=assets or 0) if cell == "pairs" else _CELLS[cell]
            self.cell: Cell = make(features + embedding, hidden, bound)
        else:
            self.cell = cell
        if solver is None:
            implicit = adjoint is None or isinstance(adjoint, Implicit)
            if cell == "mean_field" and implicit:
                solver = Anderson(onset=ONSET)
            else:  # the monotone cell's splitting contracts slowly once its weights have grown
                solver = Picard(max_steps=5000 if cell == "monotone" else 500)
        self.solver: Solver = solver
        tolerance_of(solver, torch.float64)  # raises where it is no solver
        self.adjoint: Adjoint = Implicit() if adjoint is None else adjoint
        self.on_failure: OnFailure = on_failure

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, F) and mask (B, N), true where an asset trades -> (B, N, H)."""
        return self.equilibrium(x, mask).value

    def equilibrium(self, x: Tensor, mask: Tensor | None = None, history: bool = False) -> Solution:
        """The whole `Solution`; its value (B, N, H) is zero where an asset does not trade.

        Features of assets that do not trade are not read. The residual is that of the cell's state;
        with ``history``, that of every evaluation is kept.

        Raises:
            ConvergenceError: see `fixed_point`.
            ValueError, TypeError: where x or mask do not fit, or x is not finite where not masked.
        """
        x, present = self._check(x, mask)
        if self.embedding is not None:
            x = torch.cat([x, self.embedding.expand(x.shape[0], -1, -1)], dim=2)
        cell, adjoint = self.cell, self.adjoint
        if (
            not history
            and type(cell) is MeanFieldCell  # a subclass may well have another map
            and "problem" not in vars(cell)
            and isinstance(adjoint, Implicit)
            and compilable(x, self.solver, adjoint.solver_beside(self.solver))
        ):
            return mean_field_equilibrium(
                *cell.weights(),
                cell.inject(x),
                present,
                self.solver,
                adjoint.solver_beside(self.solver),
                self.on_failure,
            )
        f, inputs = cell.problem(x, present)
        solution = fixed_point(
            f,
            torch.zeros_like(inputs[0]),
            inputs=inputs,
            solver=self.solver,
            adjoint=adjoint,
            on_failure=self.on_failure,
            history=history,
        )
        return replace(solution, value=cell.read(solution.value))

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
