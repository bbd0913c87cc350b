"""train(): fit a learned strategy's module on a loss net of costs. Read ``train`` top to bottom.

The settings are in ``settings.py``, the decisions to train on in ``dataset.py``, what portfolios
earn in ``rollout.py``, blocks, learning rate and noise in ``schedule.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from engine.accounting.costs import Costs
from engine.training.checkpoint import Checkpoint
from engine.training.dataset import Dataset, check_dataset
from engine.training.device import device_here
from engine.training.errors import TrainingError, TrainingWarning
from engine.training.progress import Progress, Steps
from engine.training.rollout import Block, rollout
from engine.training.schedule import epoch_blocks, equal_blocks, learning_rate
from engine.training.settings import Training
from strategies.base import (
    ConvergenceError,
    LearnedStrategy,
    cross_check,
    record_solves,
)

FEWEST = 10  # decisions in a block, below which a Sharpe ratio is mostly noise


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


def train(
    strategy: LearnedStrategy,
    data: Dataset,
    costs: Costs,
    training: Training,
    on_epoch: Callable[[dict], None] = lambda row: None,
    initial: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Build the strategy's module, train it and leave the best state in ``strategy.module_``.

    Epoch 0 is the untrained module, with the parameters of ``initial`` if that is given: it stays
    unless training does better on the validation rows.

    Before the first step and after the last, a handful of the optimisations is solved by qpth
    as well, and the run stops where the solvers disagree.

    Args:
        on_epoch: called with the row of each epoch.
        checkpoint: a file to keep the progress in, at most once a second. Training resumes from
            what is found there, and ends bitwise identical; the caller removes the file.

    Raises:
        SolverMismatch: they disagree.
        TrainingError: too few rows, a loss that is not finite, or no step that
            converges. It carries the best state until then.
        ValueError: a loss without its benchmark, inputs that are not one row a decision, or a
            device that is not there.

    Warns:
        TrainingWarning: no parameter moves the weights; training ends with the best state.
    """
    measure = training.loss.bound(data.assets)
    check_dataset(data, training)
    last, cut = data.split(training.validation)
    blocks, validation = equal_blocks(last, training.block), (cut, len(data))
    charged = costs.times(training.cost_factor)
    device = device_here(training.device)
    here = data.to(device)

    def loss(block: Block, costs: Costs, noise: float = 0.0) -> Tensor:
        account = rollout(module, here, block, costs, measure.forecasts, noise)
        return measure(account, data.per_year)

    def training_loss(block: Block) -> Tensor:
        return loss(block, charged, training.noise)

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):  # outside, nothing has changed
        torch.manual_seed(training.seed)
        module = build(strategy, data, training)
        if initial is not None:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(initial[name])
        parameters = [p for p in module.parameters() if p.requires_grad]
        check_size(strategy, parameters, blocks, data)
        progress = Progress(module, _optimiser(parameters, training))
        file = Checkpoint(checkpoint)
        if not file.load(progress):
            with torch.random.fork_rng(gpus):
                progress.checks += _solver_check(progress, here, "before training", slice(0, 4))

        while not progress.finished:
            steps = Steps()
            with record_solves(into=steps.solves):
                if progress.epoch == 0:
                    module.eval()
                    with torch.no_grad():
                        steps.losses = [loss(block, charged).item() for block in blocks]
                else:
                    drawn = epoch_blocks(blocks, training.bootstrap, data.mirrors, len(data))
                    take_steps(steps, progress, training, drawn, training_loss)
                    if max(steps.norms) == 0:
                        warn_of_zero_gradients(progress)
                        break
                validated = validation_loss(steps, progress, lambda: loss(validation, costs))
            row = progress.end_epoch(steps, validated, training)
            with torch.random.fork_rng(gpus):  # what a callback draws is none of ours
                on_epoch({**row, "solves": progress.solves.summary()})
            file.save(progress)

        if not math.isfinite(progress.best_loss):
            raise TrainingError("the validation loss was never finite")
        module.load_state_dict(progress.best_state)
        module.eval()
        progress.checks += _solver_check(progress, here, "after training", slice(-4, None))
    strategy.module_ = module
    history = pd.DataFrame(progress.history)
    return Trained(history, progress.solves.summary(), progress.checks, module)


def build(strategy: LearnedStrategy, data: Dataset, training: Training) -> nn.Module:
    """The strategy's untrained module, in float64, which has seen the rows to train on only.

    It is built on the CPU, so that it begins with the same numbers whatever the device.
    """
    last, _ = data.split(training.validation)
    module = strategy.build(data.rows_until(last))
    return module.to(device_here(training.device), torch.float64)


def take_steps(
    steps: Steps,
    progress: Progress,
    training: Training,
    blocks: list[Block],
    loss: Callable[[Block], Tensor],
) -> None:
    """One step of the optimiser for each block.

    Raises:
        TrainingError: a loss is not finite; or no step was of use. Where most of them met an
            equilibrium that could not be solved, the map is no contraction any more, and more
            steps would only be left out.
    """
    epoch, module, optimiser = progress.epoch, progress.module, progress.optimiser
    parameters = [p for p in module.parameters() if p.requires_grad]
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(training, epoch)
    module.train()
    for block in blocks:
        optimiser.zero_grad(set_to_none=True)
        try:
            value = loss(block)
            if not torch.isfinite(value):
                raise progress.failure(f"the loss is {value.item()} at epoch {epoch}")
            value.backward()
        except ConvergenceError as error:  # a gradient from an unfinished solve is never applied
            steps.unsolved.append(error)
            continue
        norm = nn.utils.clip_grad_norm_(parameters, training.clip)
        if not torch.isfinite(norm):
            steps.no_gradient += 1
            continue
        optimiser.step()
        steps.losses.append(value.item())
        steps.norms.append(norm.item())
    if 2 * len(steps.unsolved) > len(blocks):
        raise progress.failure(
            f"{len(steps.unsolved)} of {len(blocks)} steps of epoch {epoch} had a solve that did "
            f"not converge{progress.slowest(steps)}; bound the weights of the map, lower the "
            f"learning_rate, or raise max_steps. {steps.unsolved[-1]}"
        )
    if not steps.losses:
        raise progress.failure(
            f"no step of epoch {epoch} had a solve and a gradient that converged; "
            "a lower learning_rate, or more max_steps in the solver, may help"
        )


def warn_of_zero_gradients(progress: Progress) -> None:
    warnings.warn(
        f"every gradient of epoch {progress.epoch} is zero: the weights do not depend on the "
        "parameters (a dead layer, or limits that leave one portfolio only); training "
        f"ends, and the state of epoch {progress.best_epoch} is kept",
        TrainingWarning,
        stacklevel=3,
    )


def validation_loss(steps: Steps, progress: Progress, loss: Callable[[], Tensor]) -> float:
    """The loss over the validation rows, at the true costs.

    Raises:
        TrainingError: a solve of an epoch's network does not converge.
    """
    progress.module.eval()
    try:
        with torch.no_grad():
            return loss().item()
    except ConvergenceError as error:
        if progress.epoch == 0:
            raise
        why = f"epoch {progress.epoch} cannot be validated{progress.slowest(steps)}. {error}"
        raise progress.failure(why) from error


def _optimiser(parameters: list[nn.Parameter], training: Training) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.ndim > 1]  # a decay of offsets would be a bias
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = parameters[0].device.type in ("cpu", "cuda")  # a quarter of the time
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)


def _solver_check(progress: Progress, data: Dataset, when: str, chosen: slice) -> list[dict]:
    """Compare the module's optimisations of a few decisions with another solver's; rows."""
    few = {name: values[chosen] for name, values in data.rows_until(len(data)).items()}
    with record_solves(into=progress.solves), torch.no_grad(), cross_check() as check:
        progress.module(few)
    row = {"when": when, "samples": check.samples, "weights": check.weights}
    return [row | {"gradients": check.gradients, "peer": check.peer}] if check.samples else []


def check_size(
    strategy: LearnedStrategy, parameters: list[nn.Parameter], blocks: list[Block], data: Dataset
) -> None:
    """Warn of what will cost hours and teach nothing; a TrainingError without parameters."""
    if not parameters:
        raise TrainingError(f"{type(strategy).__name__}'s module has no parameter to train")
    count = sum(parameter.numel() for parameter in parameters)
    returns = blocks[-1][1] * data.growth.shape[-1]
    if count > returns:
        warnings.warn(
            f"{count} parameters are trained on {returns} returns: they can be memorised; "
            "a smaller network or a longer train span is needed",
            TrainingWarning,
            stacklevel=3,
        )
    smallest = min(stop - start for start, stop in blocks)
    if smallest < FEWEST:
        warnings.warn(
            f"the smallest block has {smallest} decisions: a ratio of so few is mostly noise; "
            f"a larger block or a longer train span gives it {FEWEST} or more",
            TrainingWarning,
            stacklevel=3,
        )
