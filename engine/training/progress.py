"""The progress of a training: what the steps of an epoch came to, all epochs until now, and the
file from which a training that was interrupted resumes.

Several networks may be in training at once, a ``Part`` each, the last of which is kept.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import pickle
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_loaders.writing import atomic
from engine.accounting.costs import Account, Costs
from engine.losses.returns import Loss
from engine.training.dataset import Block, Dataset
from engine.training.evidence import Compared, Evidence, evidence
from engine.training.fit_records import TrainingError
from engine.training.rollout import rollout
from engine.training.settings import Training
from strategies.layers.equilibrium.fixed_point_loop import ConvergenceError
from strategies.layers.solve_record import SolveRecord, SolveTally

LOG = logging.getLogger("deqfolio")
HASH = hashlib.sha256().digest_size  # bytes at the end of the file
SECONDS = 1.0  # between two writings of a file, so that short epochs take no longer for it


@dataclass
class Part:
    """A network in training, on the blocks before the one that it is validated on.

    Attributes:
        data: where it is trained, on its device; ``blocks`` and ``validation`` are of it.
        measure: the loss, bound to the assets of ``data``.
        untrained: the account of its validation at epoch 0.
        trained: the same at the epoch that is best on the blocks of the other parts, whose mean
            loss there is ``others``.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    data: Dataset
    measure: Loss
    blocks: list[Block]
    validation: Block
    untrained: Account | None = None
    trained: Account | None = None
    others: float = math.inf

    def held(self, block: Block, costs: Costs, noise: float = 0.0) -> Account:
        """The account of holding its weights over a block."""
        return rollout(self.module, self.data, block, costs, self.measure.forecasts, noise)

    def loss(self, account: Account) -> Tensor:
        return self.measure(account, self.data.per_year)

    def state_dict(self) -> dict[str, Any]:
        kept = {"untrained": self.untrained, "trained": self.trained}
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "accounts": {k: None if a is None else list(a) for k, a in kept.items()},
            "others": self.others,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, fields in state["accounts"].items():
            setattr(self, name, None if fields is None else Account(*fields))
        self.others = state["others"]


@dataclass
class Steps:
    """What the steps of an epoch came to.

    Attributes:
        norms: of the gradients, before they are clipped.
        unsolved: the errors of steps that were left out, as a solve did not converge.
        no_gradient: how many were left out, as the gradient was not finite.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    unsolved: list[ConvergenceError] = field(default_factory=list)
    no_gradient: int = 0
    solves: SolveRecord = field(default_factory=SolveRecord)


class Progress:
    """How far a training is: all that the next epoch depends on.

    Attributes:
        epoch: the next, or the one that is being trained; 0 evaluates the untrained module.
        history: a row for each epoch that has ended.
        module: of the last part, which is kept.
        start: its state before the first step.
        best_state: of the module, at the lowest validation loss until now.
        solves: of all epochs.
        checks: comparisons with the reference solver.
        first_gain: what ``Training.first`` gained before.
    """

    def __init__(self, parts: Sequence[Part], first_gain: float = math.nan):
        self.parts, self.module = parts, parts[-1].module
        self.device = next(self.module.parameters()).device
        self.epoch, self.finished = 0, False
        self.history: list[dict] = []
        self.best_loss, self.best_epoch = math.inf, 0
        self.start = copy.deepcopy(self.module.state_dict())
        self.best_state = self.start
        self.first_gain = first_gain
        self.solves = SolveRecord()
        self.checks: list[dict] = []

    def end_epoch(
        self,
        steps: Steps,
        accounts: Sequence[Account],
        training: Training,
    ) -> dict[str, Any]:
        """Add the row of an epoch; training is finished after the last, or without patience.

        Args:
            accounts: of the validation of each part.
        """
        losses = [
            part.loss(account).item() for part, account in zip(self.parts, accounts, strict=True)
        ]
        validated = float(np.mean(losses))
        for k, (part, account) in enumerate(zip(self.parts, accounts, strict=True)):
            others = float(np.mean(losses[:k] + losses[k + 1 :])) if len(losses) > 1 else math.nan
            part.untrained = account if self.epoch == 0 else part.untrained
            if others < part.others:
                part.others, part.trained = others, account
        better = validated < self.best_loss
        if better:
            self.best_loss, self.best_epoch = validated, self.epoch
            self.best_state = copy.deepcopy(self.module.state_dict())
        row = {
            "epoch": self.epoch,
            "loss": float(np.mean(steps.losses)),
            "validation_loss": validated,
            "best": better,
            "gradient_norm": float(np.mean(steps.norms)) if steps.norms else float("nan"),
            "skipped": len(steps.unsolved) + steps.no_gradient,
            "contraction": steps.solves.contraction,
        }
        self.history.append(row)
        self.solves.take(steps.solves)
        waited = self.epoch - self.best_epoch
        self.finished = self.epoch == training.epochs or waited >= training.patience
        self.epoch += 1
        return row

    def evidence(self, pooled: bool = False) -> Evidence:
        """What the validation blocks say of the gain by training.

        Of one block the share is 1: the best state is kept as it is. Where no epoch is better than
        the untrained state, it is 0.

        Args:
            pooled: the blocks are of several markets at the same time, not of one in turn.
        """
        known = [
            Compared(part.loss, part.untrained, part.trained)
            for part in self.parts
            if part.untrained is not None and part.trained is not None
        ]
        if self.best_epoch == 0 or len(known) < 2:
            gain = self.history[0]["validation_loss"] - self.best_loss
            return Evidence(gain, math.nan, float(self.best_epoch > 0))
        return evidence(known, pooled)

    def slowest(self, steps: Steps) -> str:
        """How fast the epoch's slowest fixed point converged, and that of the epoch before."""
        now = steps.solves.contraction
        if math.isnan(now):
            return ""
        before = f", after {self.history[-1]['contraction']:.3f} in the epoch before"
        return (
            f": the residual of the slowest changed by a factor of {now:.3f} a step{before}; at 1 "
            "the map has a spectral radius of one, and its equilibrium is lost"
        )

    def failure(self, why: str) -> TrainingError:
        """The error that says why training stops, with the last good state."""
        if not math.isfinite(self.best_loss):
            return TrainingError(f"{why}; there is no good state before it")
        kept = (
            f"the last good state is that of epoch {self.best_epoch}, "
            f"validation {self.best_loss:.4g}"
        )
        state = {name: value.cpu() for name, value in self.best_state.items()}
        return TrainingError(f"{why}; {kept}", state, self.best_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, between two epochs; with torch's random numbers."""
        random = [torch.random.get_rng_state()]
        if self.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.device))
        return {
            "epoch": self.epoch,
            "finished": self.finished,
            "parts": [part.state_dict() for part in self.parts],
            "start": self.start,
            "random": random,
            "history": self.history,
            "best": [self.best_loss, self.best_epoch, self.best_state],
            "solves": {kind: vars(tally) for kind, tally in self.solves.tallies.items()},
            "checks": self.checks,
            "first_gain": self.first_gain,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from there; what follows is bitwise identical."""
        finished, random = state["finished"], state["random"]
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)
        self.start = state["start"]
        self.epoch, self.finished = state["epoch"], finished
        self.history, self.checks = state["history"], state["checks"]
        self.best_loss, self.best_epoch, self.best_state = state["best"]
        self.first_gain = state["first_gain"]
        self.solves.tallies = {k: SolveTally(**tally) for k, tally in state["solves"].items()}
        torch.random.set_rng_state(random[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random[1], self.device)


class Checkpoint:
    """The file of one training's progress.

    Args:
        path: of the file; None keeps nothing, nor does a folder that is not there, as on another
            machine of a cluster.
    """

    def __init__(self, path: Path | None):
        self.path = path if path is not None and path.parent.is_dir() else None
        self.written = time.monotonic()

    def load(self, progress: Progress) -> bool:
        """Whether there was a file, and the training stands where it left off."""
        if self.path is None or not self.path.exists():
            return False
        try:
            stored = self.path.read_bytes()
            content, own = stored[:-HASH], stored[-HASH:]
            if hashlib.sha256(content).digest() != own:
                raise ValueError("it does not hold what was written")
            state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
            progress.load_state_dict(state)
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError,
                zipfile.BadZipFile) as error:  # fmt: skip
            LOG.warning("%s cannot be read, its training restarts: %s", self.path, error)
            self.path.unlink(missing_ok=True)
            return False
        return True

    def save(self, progress: Progress) -> None:
        """Keep the progress, all of it or, if the process dies, what was there before."""
        if self.path is None or (
            not progress.finished and time.monotonic() - self.written < SECONDS
        ):
            return
        self.written = time.monotonic()
        try:
            content = BytesIO()
            torch.save(progress.state_dict(), content)
            own = hashlib.sha256(content.getbuffer()).digest()
            with atomic(self.path) as scratch:
                scratch.write_bytes(content.getvalue() + own)
        except (OSError, RuntimeError) as error:  # a full disk: torch says it in its own words
            reason = getattr(error, "strerror", None) or "its disk is full, or gone"
            LOG.warning(
                "%s cannot be written, training continues without it: %s", self.path, reason
            )
            self.path = None
