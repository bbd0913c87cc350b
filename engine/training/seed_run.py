"""The training of one seed: its module, optimiser, random numbers, history and best state.

What it does does not depend on which other seeds are trained beside it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from engine.training.dataset import Samples
from engine.training.device import device_here
from engine.training.errors import TrainingError, TrainingWarning
from engine.training.rollout import Stretch, rows_held
from engine.training.schedule import (
    epoch_blocks,
    learning_rate,
    shocks,
    warn_before,
)
from engine.training.settings import Training
from strategies.base import (
    ConvergenceError,
    LearnedStrategy,
    SolveRecord,
    SolveTally,
    remember,
    remembered,
)


class Trained(NamedTuple):
    """What training leaves behind.

    Attributes:
        history: one row an epoch: epoch, loss, validation_loss, best, gradient_norm, skipped, and
            contraction, the factor by which the residual of the epoch's slowest fixed point fell in
            a step (NaN without fixed points).
        solves: the summary of all solves made.
        checks: differences to qpth: when, samples, weights, gradients; empty where the module
            holds no mean-variance layer.
        module: in its best state, in eval mode.
    """

    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]
    module: nn.Module


class SeedRun:
    """One seed's training.

    Attributes:
        going: whether there is anything left to do.
        error: why it failed, where it did.
        alone: whether its module is no longer computed together with others.
    """

    def __init__(
        self,
        strategy: LearnedStrategy,
        samples: Samples,
        here: Samples,
        training: Training,
        blocks: list[Stretch],
        initial: dict[str, Tensor] | None = None,
    ):
        """``here`` are the samples on the device that it trains on."""
        self.samples, self.training, self.blocks = here, training, blocks
        self.record, self.recent = SolveRecord(), SolveRecord()  # of all epochs, of this one
        self.epoch = 0  # the next, or the one that is being trained
        self.checks: list[dict] = []
        self.history: list[dict] = []
        self.best_loss, self.best_epoch = float("inf"), 0
        self.going, self.error = True, None  # type: bool, Exception | None
        self.alone = False
        self.device = device_here(training.device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(training.seed)
            self.module = build(strategy, samples, training)
            self.random = self._random_states()
        if initial is not None:
            with torch.no_grad():
                for name, parameter in self.module.named_parameters():
                    parameter.copy_(initial[name])
        self.best_state = copy.deepcopy(self.module.state_dict())
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise TrainingError(f"{type(strategy).__name__}'s module has no parameter to train")
        labels = blocks[-1][1] * samples.growth.shape[-1]
        warn_before(self.module, labels, min(b - a for a, b in blocks))
        self.optimiser = _optimiser(self.parameters, training)

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Inside, torch's global generator is this seed's; outside, nothing has changed."""
        before = self._random_states()
        self._set_random(self.random)
        try:
            yield
        finally:
            self.random = self._random_states()
            self._set_random(before)

    def _random_states(self) -> list[Tensor]:
        """Of the generators of the CPU and, where it trains on one, of the GPU."""
        states = [torch.random.get_rng_state()]
        return states + (
            [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        )

    def _set_random(self, states: list[Tensor]) -> None:
        torch.random.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], self.device)

    def begin(self) -> list[Stretch]:
        """Make ready for the epoch; its blocks, in their order."""
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.skipped = 0
        self.unsolved: list[ConvergenceError] = []
        if not self.epoch:
            return self.blocks
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, self.epoch)
        with self.own_random():
            return epoch_blocks(
                self.blocks, self.training.bootstrap, self.samples.mirrors, len(self.samples)
            )

    def shocks(self, stretch: Stretch) -> Tensor:
        """The noise on the growth of a block's rows."""
        rows, _ = rows_held(self.samples, *stretch)
        with self.own_random():
            return shocks(self.samples.growth[rows], self.training.noise)

    def skip(self, error: ConvergenceError) -> None:
        """Leave out a step: a gradient from an unfinished solve is never applied."""
        self.skipped += 1
        self.unsolved.append(error)

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of a block's loss."""
        if not torch.isfinite(loss):
            self.fail(self.stopped(f"the loss is {loss.item()} at epoch {self.epoch}"))
            return
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        if not torch.isfinite(norm):
            self.skipped += 1
            return
        self.optimiser.step()
        self.losses.append(loss.item())
        self.norms.append(norm.item())

    def check_steps(self) -> None:
        """Whether the epoch's steps were any use.

        Where most of them met an equilibrium that could not be solved, the map has ceased to be a
        contraction, and more steps would only be left out.
        """
        epoch = self.epoch
        if 2 * len(self.unsolved) > len(self.blocks):
            self.fail(
                self.stopped(
                    f"{len(self.unsolved)} of {len(self.blocks)} steps of epoch {epoch} had a "
                    f"solve that did not converge{self.slowest()}; bound the weights of the map, "
                    f"lower the learning_rate, or raise max_steps. {self.unsolved[-1]}"
                )
            )
        elif not self.losses:
            self.fail(
                self.stopped(
                    f"no step of epoch {epoch} had a solve and a gradient that converged; "
                    "a lower learning_rate, or more max_steps in the solver, may help"
                )
            )
        elif max(self.norms) == 0:
            self.going = False
            warnings.warn(
                f"every gradient of epoch {epoch} is zero: the weights do not depend on the "
                "parameters (a dead layer, or limits that leave one portfolio only); training "
                f"ends, and the state of epoch {self.best_epoch} is kept",
                TrainingWarning,
                stacklevel=2,
            )

    def slowest(self) -> str:
        """How fast the epoch's slowest fixed point converged, and that of the epoch before."""
        now = self.recent.contraction
        if math.isnan(now):
            return ""
        before = f", after {self.history[-1]['contraction']:.3f} in the epoch before"
        return (
            f": the residual of the slowest changed by a factor of {now:.3f} a step{before}; at 1 "
            "the map has a spectral radius of one, and its equilibrium is lost"
        )

    def close(self, validated: float) -> dict[str, Any]:
        """The row of the epoch, after which training may be over."""
        epoch = self.epoch
        better = validated < self.best_loss
        if better:
            self.best_loss, self.best_epoch = validated, epoch
            self.best_state = copy.deepcopy(self.module.state_dict())
        row = {
            "epoch": epoch,
            "loss": float(np.mean(self.losses)),
            "validation_loss": validated,
            "best": better,
            "gradient_norm": float(np.mean(self.norms)) if self.norms else float("nan"),
            "skipped": self.skipped,
            "contraction": self.recent.contraction,
        }
        self.history.append(row)
        self.record.take(self.recent)
        self.recent = SolveRecord()
        last = epoch == self.training.epochs
        self.going = not last and epoch - self.best_epoch < self.training.patience
        self.epoch += 1
        return row

    def fail(self, error: Exception) -> None:
        self.going, self.error = False, error

    def stopped(self, why: str) -> TrainingError:
        """The error that says why, with the last good state."""
        if not np.isfinite(self.best_loss):
            return TrainingError(f"{why}; there is no good state before it")
        kept = (
            f"the last good state is that of epoch {self.best_epoch}, "
            f"validation {self.best_loss:.4g}"
        )
        state = {name: value.cpu() for name, value in self.best_state.items()}
        return TrainingError(f"{why}; {kept}", state, self.best_epoch)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, between two of them: tensors and plain values."""
        return {
            "epoch": self.epoch,
            "going": self.going,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.random,
            "remembered": remembered(self.module),
            "history": self.history,
            "best": [self.best_loss, self.best_epoch, self.best_state],
            "solves": {kind: vars(tally) for kind, tally in self.record.tallies.items()},
            "checks": self.checks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, to the same bits."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        remember(self.module, state["remembered"])
        self.epoch, self.going, self.random = state["epoch"], state["going"], state["random"]
        self.history, self.checks = state["history"], state["checks"]
        self.best_loss, self.best_epoch, self.best_state = state["best"]
        self.record.tallies = {k: SolveTally(**tally) for k, tally in state["solves"].items()}

    def restore(self) -> None:
        """Put the module into its best state, if training came to an end."""
        if self.error is not None:
            return
        if not np.isfinite(self.best_loss):
            self.fail(TrainingError("the validation loss was never finite"))
            return
        self.module.load_state_dict(self.best_state)
        self.module.eval()

    def outcome(self) -> Trained | Exception:
        if self.error is not None:
            return self.error
        compared = [check for check in self.checks if check["samples"]]
        return Trained(pd.DataFrame(self.history), self.record.summary(), compared, self.module)


def build(strategy: LearnedStrategy, samples: Samples, training: Training) -> nn.Module:
    """The strategy's untrained module, in float64, which has seen the rows to train on only.

    It is built on the CPU, so that it begins with the same numbers whatever the device.
    """
    last, _ = samples.split(training.validation)
    module = strategy.build(samples.rows_until(last))
    return module.to(device_here(training.device), torch.float64)


def _optimiser(parameters: list[nn.Parameter], training: Training) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.ndim > 1]  # a decay of offsets would be a bias
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = parameters[0].device.type in ("cpu", "cuda")  # a quarter of the time
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
