"""The active-set solver: exactness at any scale, gradients of everything, warm starts, hard cases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strategies.layers.mean_variance import (
    ActiveSet,
    MeanVarianceLayer,
)

LAYER = MeanVarianceLayer(ActiveSet())


def check_gradients(solve: Any, inputs: list[Tensor]) -> None:
    assert torch.autograd.gradcheck(solve, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)
