"""The device that networks are trained on, and decide on."""

from __future__ import annotations

import torch

KINDS = ("cpu", "cuda")


def checked_name(name: object) -> str:
    """The name of a device as torch takes it, here or on another machine.

    Raises:
        ValueError: it is none of ours.
    """
    kind, colon, number = str(name).partition(":")
    if kind not in KINDS or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"device is 'cpu', 'cuda' or 'cuda:0', ..., got {name!r}")
    return str(name)


def device_here(name: str) -> torch.device:
    """The device of that name on this machine.

    Raises:
        ValueError: there is none.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        reason = (
            "torch finds no GPU that it can use (see nvidia-smi)"
            if torch.backends.cuda.is_built()
            else f"this torch, {torch.__version__}, is built without CUDA (see pytorch.org)"
        )
        raise ValueError(f"device={name!r}: {reason}; leave device out to train on the CPU")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"device={name!r}: this machine has {count} GPUs, counted from 0")
    return device
