"""What portfolios earn while a network's weights are held, of several networks at once.

Each has its own stretch of decisions. All that is computed row by row is computed for all of them
in one go, to the same bits as for each alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.accounting.costs import Account, Costs, settle
from engine.training.dataset import Samples
from engine.training.errors import TrainingError
from strategies.base import Inputs, drift

Stretch = tuple[int, int]  # decisions from the first up to the second, which is not one of them


def hold(
    modules: Sequence[nn.Module],
    samples: Samples,
    stretches: Sequence[Stretch],
    costs: Costs,
    forecasts: bool = False,
    shocks: Sequence[Tensor] | None = None,
) -> list[Account]:
    """The account of each module over its stretch, entered with the decision before it held.

    So that the turnover across the edge of a block is charged, to both sides of it.

    Args:
        modules: one, or several of a kind that computes ``together``.
        stretches: from 1 on.
        forecasts: whether the loss needs expected returns.
        shocks: of each module, what its growth is multiplied by, (rows of its stretch, N).

    Raises:
        TrainingError: weights of the wrong shape, or no expected returns where they are needed.
    """
    owned = [rows_held(samples, *stretch) for stretch in stretches]
    sizes = [len(rows) for rows, _ in owned]
    first = np.concatenate([entry for _, entry in owned])
    rows = _index(np.concatenate([rows for rows, _ in owned]))
    growth = samples.growth[rows]  # (M, N)
    if shocks is not None:
        growth = growth * torch.cat(list(shocks))
    inputs = {name: values[rows] for name, values in samples.inputs.items()}
    weights, expected = _weights(modules, inputs, sizes, forecasts)
    if weights.shape != growth.shape:
        raise TrainingError(
            f"the module gave weights of shape {tuple(weights.shape)}, "
            f"expected {tuple(growth.shape)}"
        )
    carried = torch.zeros_like(weights[:, 0])
    if samples.years is not None:
        carried = costs.carry(weights) * samples.years[rows]
    after = drift(weights, growth, carried)
    kept = torch.from_numpy(np.flatnonzero(~first))  # an entry is held, and not counted
    kept = kept.to(weights.device)
    earned = settle(
        weights[kept],
        growth[kept],
        after[kept - 1],
        carried[kept],
        costs,
        None if samples.illiquidity is None else samples.illiquidity[rows][kept],
    )
    if expected is not None:
        earned = earned._replace(expected_return=expected[kept])
    counts = [int((~entry).sum()) for _, entry in owned]
    fields = [[None] * len(counts) if f is None else f.split(counts) for f in earned]
    return [Account._make(own) for own in zip(*fields, strict=True)]


def rows_held(samples: Samples, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a stretch, those included from which its runs are entered; which those are."""
    parts = [np.arange(a - 1, b) for a, b in samples.runs(start, stop)]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    entry = np.zeros(len(rows), dtype=bool)
    begin = 0
    for part in parts:
        entry[begin] = True
        begin += len(part)
    return rows, entry


def _index(rows: np.ndarray) -> Tensor | slice:
    """Of a tensor's rows, without a copy where they follow each other."""
    if (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows)


def joint(modules: Sequence[nn.Module]) -> bool:
    """Whether these modules can be computed at once: see ``LearnedStrategy.build``."""
    kinds = {type(module) for module in modules}
    return len(kinds) == 1 and hasattr(kinds.pop(), "together")


def _weights(
    modules: Sequence[nn.Module], inputs: Inputs, sizes: Sequence[int], forecasts: bool
) -> tuple[Tensor, Tensor | None]:
    """Weights (M, N) and, where they are asked for, expected returns (M, N)."""
    module = modules[0]
    if len(modules) > 1:
        weights, expected = type(module).together(modules, inputs, sizes)  # type: ignore[attr-defined]
        return weights, expected if forecasts else None
    if not forecasts:
        return module(inputs), None
    method = getattr(module, "weights_and_forecast", None)
    if method is None:
        raise TrainingError(
            f"the loss needs expected returns, and {type(module).__name__} has no method "
            "weights_and_forecast(inputs) that gives them beside the weights"
        )
    return method(inputs)
