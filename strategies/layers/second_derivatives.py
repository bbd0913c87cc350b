"""Layers that are differentiated once refuse to be differentiated again."""

from __future__ import annotations

import torch


def refuse_second_derivative(what: str, instead: str) -> None:
    """Raises RuntimeError in a backward pass that keeps a graph; for the first line of a backward.

    torch's ``once_differentiable`` lets ``torch.autograd.grad(..., inputs)`` pass in silence: it
    cuts the graph, and a path that is cut is not an error there.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{what} is not differentiable (create_graph=True): {instead} for second derivatives"
        )
