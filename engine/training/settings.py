"""The settings of training, their checks, and the device that networks are trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from engine.losses.returns import Loss, NegativeSharpe

DEVICES = ("cpu", "cuda")
MOST_SEEDS = 10_000
SCHEDULES = ("constant", "cosine")  # of the learning rate


@dataclass(frozen=True)
class Training:
    """How learned strategies are trained.

    Args:
        loss: what to minimise over a block of decisions.
        first: a loss to minimise before it, such as ``RealizedVariance(log=True)``: for as many
            epochs, and validated in the same way, in the rows before a network's validation block.
            The training on ``loss`` starts from its best epoch, and is shrunk towards that.
        epochs: passes over the training rows, at most; 0 is the untrained start.
        block: decisions in a block, a contiguous stretch of time; about 100 for weekly ones.
        learning_rate, weight_decay: of AdamW, the decay of matrices alone. A strong one keeps a
            network from memorising noise; both were chosen on four planted markets of
            ``data_loaders/synthetic.py``, where the truth is known, and not on a real one.
        schedule: of the learning rate: "constant", or "cosine", which falls to zero over the
            epochs.
        warmup: epochs over which the learning rate rises to its full value.
        bootstrap: every epoch draws its blocks from random places, not the same ones in another
            order.
        noise: multiplies training growth by random factors of this share of each asset's
            deviation; 0.5 = half. Validation never sees it.
        mirrors: how many mirrored panels blocks are drawn from as well, each as often as from the
            true one. In a mirrored panel some assets go down when they went up, and all inputs are
            prepared again from its prices; of an odd number of mirrors every asset is turned in
            half of the panels. Validation never sees them.
        mirrored_features: the panel's asset features that change sign with an asset's returns, a
            forecast for example, by name. Others stay as they are, and so does the market's.
        clip: largest norm of the gradient of a step.
        validation: share of the training rows in a block that is kept for validation; training
            rows whose label reaches into it are left out.
        validation_blocks: how many blocks there are, one before the other, the last of the latest
            rows. For each a network of its own is trained on the rows before it, at the same
            time, and the mean of their losses stops training. What is kept is the last network,
            a share of the way from its untrained state to its best: the share that the evidence
            of all blocks supports, see ``evidence.py``. Blocks that leave fewer than 10 decisions
            to train on are left out. Of 1 block the best epoch is kept as it is.
        patience: epochs without a better validation loss before training stops.
        cost_factor: costs in the training loss are the true costs times this. More than 1
            counters overtrading; validation and the backtest charge the true costs.
        seed: of the initial parameters and the order of blocks.
        ensemble: how many seeds, from ``seed`` on, are trained in each fold; the weights held are
            the mean of theirs.
        warm_start: a refit starts from the parameters of the fold before it. It has seen all
            blocks but the last, so that there is only that one.
        device: where networks are trained and decide: "cpu", or "cuda" for a GPU, whose weights
            are the same to 1e-8 and not to the last bit.
    """

    loss: Loss = field(default_factory=NegativeSharpe)
    first: Loss | None = None
    epochs: int = 40
    block: int = 100
    learning_rate: float = 5e-3
    weight_decay: float = 5.0
    schedule: str = "constant"
    warmup: int = 0
    bootstrap: bool = False
    noise: float = 0.0
    mirrors: int = 0
    mirrored_features: tuple[str, ...] = ()
    clip: float = 1.0
    validation: float = 0.2
    validation_blocks: int = 3
    patience: int = 10
    cost_factor: float = 2.0
    seed: int = 0
    ensemble: int = 1
    warm_start: bool = False
    device: str = "cpu"

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, from 1 on: a linear warm-up, then constant, or a half
        cosine towards zero. Loshchilov and Hutter (2017), without restarts.
        """
        if epoch <= self.warmup:
            return self.learning_rate * epoch / (self.warmup + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (epoch - self.warmup - 1) / max(1, self.epochs - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    @property
    def within(self) -> bool:
        """Whether a loss reads the rows within holding periods."""
        return self.loss.within or (self.first is not None and self.first.within)

    def __post_init__(self) -> None:
        kind, colon, number = str(self.device).partition(":")
        if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
            raise ValueError(f"device is 'cpu', 'cuda' or 'cuda:0', ..., got {self.device!r}")
        for name, low in (
            ("epochs", 0),
            ("block", 3),
            ("validation_blocks", 1),
            ("patience", 1),
            ("warmup", 0),
            ("mirrors", 0),
            ("seed", 0),
            ("ensemble", 1),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= low):
                raise ValueError(f"{name} is a whole number from {low} on, got {value!r}")
        if self.ensemble > MOST_SEEDS:
            raise ValueError(f"ensemble is {MOST_SEEDS:,} at most, got {self.ensemble:,}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("weight_decay", "cost_factor", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        named = self.mirrored_features
        if isinstance(named, str) or not all(isinstance(name, str) for name in named):
            raise ValueError(f"mirrored_features is a list of names, got {named!r}")
        object.__setattr__(self, "mirrored_features", tuple(named))  # TOML has lists
        if named and not self.mirrors:
            raise ValueError("mirrored_features says how to mirror, and mirrors = 0")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.warmup and self.warmup >= self.epochs:
            raise ValueError(f"warmup = {self.warmup} leaves no epoch of {self.epochs} to train")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is a share between 0 and 1, got {self.validation!r}")
        if not self.validation * self.validation_blocks < 1:
            raise ValueError(
                f"validation_blocks = {self.validation_blocks} of {self.validation:.0%} leave no "
                "rows to train on: take fewer, or a smaller share"
            )


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
