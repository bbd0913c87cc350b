"""A device that is not there: its tensors compute on the CPU, and behave as those of a GPU do.

Inside ``elsewhere()`` the device "meta" stands for it. An operation that mixes its tensors with
those of the CPU is an error, as on a GPU, and each look of the host at a value is counted: what
makes a GPU wait. So that code for GPUs is tested where there is none, numbers included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
LOOKS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "item")
CHECKED = ("_linalg_eigh", "linalg_inv_ex", "_linalg_svd")  # torch reads whether they succeeded


class Elsewhere(torch.Tensor):
    """A tensor that says it is on another device; ``here`` is what it holds."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            dtype=here.dtype,
            device=DEVICE,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(function, args, kwargs or {})

    def tolist(self) -> list:  # which torch has for its own tensors only
        _looks["tolist"] += 1
        return self.here.tolist()


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(function, args, kwargs or {})


class _Made(TorchFunctionMode):
    """``torch.tensor`` makes its tensors below the dispatcher: here it makes them on the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return function(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


_looks: Counter[str] = Counter()


@contextmanager
def elsewhere() -> Iterator[Counter[str]]:
    """The device is there; yields how often the host looked at a value on it, by operation."""
    _looks.clear()
    with _Device(), _Made():
        yield _looks


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function.overloadpacket.__name__
    leaves = tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, Elsewhere)]
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    moved = name in ("_to_copy", "copy_") or bool(asked)
    stray = [
        leaf
        for leaf in leaves
        if isinstance(leaf, Tensor) and not isinstance(leaf, Elsewhere) and leaf.dim()
    ]
    if ours and stray and not moved and not name.startswith("index"):
        raise RuntimeError(f"{name} mixes devices: {[tuple(leaf.shape) for leaf in stray]}")
    masks = name.startswith("index") and any(leaf.dtype == torch.bool for leaf in ours[1:])
    out_of_there = ours and (DEVICE not in asked) and bool(asked)
    if (ours and (name in LOOKS or name in CHECKED or masks)) or out_of_there:
        _looks[name] += 1

    def inner(leaf: Any) -> Any:
        if isinstance(leaf, Elsewhere):
            return leaf.here
        return torch.device("cpu") if isinstance(leaf, torch.device) and leaf == DEVICE else leaf

    found = function(*tree_map(inner, args), **tree_map(inner, kwargs))
    stays = DEVICE in asked or (ours and not out_of_there)
    in_place = args and isinstance(args[0], Tensor) and name.endswith("_") and name[0] != "_"
    if in_place:
        return args[0]
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) and stays else x, found)
