"""Sensitivity of a trained network: how far its weights move when one input is shuffled.

Permutation importance (Breiman 2001, Random Forests, section 10), measured on the weights and
not on a score, so that noise in returns cannot hide it: a feature takes the values of another test
date, the same one for all assets, all else stays. Of a network that looks at the current holdings,
these are the weights that it aims at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from data_loaders import Panel
from strategies.base import ConvergenceError, Inputs, LearnedStrategy

DECISIONS = 48  # of a fold at most, evenly spread over it


def sensitivity(
    strategy: LearnedStrategy, inputs: Inputs, seed: int = 0, history: Panel | None = None
) -> list[dict[str, object]]:
    """One row an input: feature, change, decisions; the largest change first.

    change is the mean over the decisions of ``sum |w - w'| / 2``: the share of the portfolio that
    is held in other assets when the feature is shuffled; 0 where the network does not look at it.

    An input whose last axis ``strategy.feature_names`` names, or that is called "features", is
    split along that axis, any other of real numbers as a whole. What is the same on all dates
    is left out, and what the network cannot be asked about, as no portfolio exists for the mixture.

    Args:
        inputs: stacked inputs of test decisions, (B, ...) each.
        seed: of the permutation.
        history: what was known at the last decision, for strategies whose ``feature_names`` is a
            method of it.
    """
    count = len(next(iter(inputs.values())))
    chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, DECISIONS)).round()))
    few = {name: value[chosen.long()] for name, value in inputs.items()}
    if len(chosen) < 2:
        return []
    try:
        usual = strategy.weights(few)  # (B, N)
    except (ConvergenceError, ValueError, RuntimeError):
        return []  # a network that decides date by date, because it cannot decide several at once
    order = _derangement(len(chosen), seed)
    names = _names(strategy, history)
    rows: list[dict[str, object]] = []
    for name, value in few.items():
        if not value.is_floating_point() or bool((value == value[:1]).all()):
            continue
        for label, place in _parts(name, value, names.get(name)):
            mixed = value.clone()
            mixed[place] = value[order][place]
            if bool((mixed == value).all()):
                continue
            try:
                moved = strategy.weights(few | {name: mixed})
            except (ConvergenceError, ValueError, RuntimeError):
                continue
            change = float((moved - usual).abs().sum(dim=-1).mean() / 2)
            rows.append({"feature": label, "change": change, "decisions": len(chosen)})
    return sorted(rows, key=lambda row: -float(row["change"]))  # type: ignore[arg-type]


def _names(strategy: LearnedStrategy, history: Panel | None) -> dict[str, list[str]]:
    """By input: the names along its last axis, where the strategy says them."""
    asked = getattr(strategy, "feature_names", {})
    said: Mapping[str, Sequence[str]] | Sequence[str] = asked
    if callable(asked):
        said = asked(history) if history is not None else {}
    return {
        k: list(v) for k, v in (said if isinstance(said, Mapping) else {"features": said}).items()
    }


def _parts(name: str, value: Tensor, names: list[str] | None) -> list[tuple[str, tuple]]:
    """Labels of the parts of an input that are shuffled one by one, and where they are."""
    size = value.shape[-1]
    if names is not None and len(names) == size:
        labels = names
    elif name == "features":
        labels = [f"feature {number}" for number in range(1, size + 1)]
    else:
        return [(name, (...,))]
    return [(label, (..., number)) for number, label in enumerate(labels)]


def _derangement(count: int, seed: int) -> Tensor:
    """A permutation that leaves no date in its place: a random cycle."""
    cycle = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order
