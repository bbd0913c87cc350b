"""The inputs of a network: tensors by name, those of a date or a batch of dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

if TYPE_CHECKING:
    from torch import Tensor

Inputs: TypeAlias = "dict[str, Tensor]"


def stack(prepared: list[Inputs]) -> Inputs:
    """Stack the inputs of single dates to one batch, (B, ...) each.

    Raises:
        ValueError: an input has another shape on another date.
    """
    import torch

    try:
        return {name: torch.stack([row[name] for row in prepared]) for name in prepared[0]}
    except RuntimeError as error:
        for name in prepared[0]:
            shapes = list(dict.fromkeys(tuple(row[name].shape) for row in prepared))
            if len(shapes) > 1:
                raise ValueError(
                    f"the input {name!r} has the shape {shapes[0]} on one date and {shapes[1]} on "
                    "another: prepare, and any features, give the same numbers on every date"
                ) from error
        raise


def holdings_input(holdings: pd.Series) -> Inputs:
    """Holdings (N,) as the input of one decision."""
    import torch

    return {"holdings": torch.tensor(holdings.to_numpy(dtype="float64"))[None]}
