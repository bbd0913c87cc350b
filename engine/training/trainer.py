"""train(): fit a learned strategy's module on a loss net of costs. Read ``train`` top to bottom.

The settings are in ``settings.py``, the decisions to train on in ``dataset.py``, what portfolios
earn in ``rollout.py``, how far the result is believed in ``evidence.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from engine.accounting.costs import Account, Costs
from engine.training.dataset import Dataset, check_dataset, epoch_blocks, equal_blocks
from engine.training.evidence import between
from engine.training.fit_records import TrainingError, TrainingWarning
from engine.training.progress import Checkpoint, Part, Progress, Steps
from engine.training.settings import Training, device_here
from strategies.base import LearnedStrategy
from strategies.layers.equilibrium.fixed_point_loop import ConvergenceError
from strategies.layers.optimisation.cross_check import cross_check
from strategies.layers.solve_record import record_solves

FEWEST = 10  # decisions in a block, below which a Sharpe ratio is mostly noise


class Trained(NamedTuple):
    """What training leaves behind.

    Attributes:
        history: one row an epoch: epoch, loss, validation_loss, best, gradient_norm, skipped, and
            contraction, the factor by which the residual of the epoch's slowest fixed point fell in
            a step (NaN without fixed points). The same in every row: validation_gain, its
            validation_error and share, see ``evidence.py``; with a first loss, first_gain, by how
            much that was lower in its own validation rows than untrained.
        solves: the summary of all solves made.
        checks: differences to qpth: when, samples, weights, gradients; empty where the module
            holds no mean-variance layer.
        module: in the state that is kept, in eval mode.
        best_state: of the best epoch, before the share was applied.
    """

    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]
    module: nn.Module
    best_state: Mapping[str, Tensor]


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
    check_dataset(data, training)
    device = device_here(training.device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):  # outside, nothing has changed
        parts = make_parts(strategy, data, training, initial)
        here = parts[-1].data
        check_size(strategy, parts[-1])
        progress = Progress(parts)
        file = Checkpoint(checkpoint)
        if not file.load(progress):
            if training.first is not None and training.epochs:
                gain = learn_first(parts, costs, training)
                progress = Progress(parts, gain)
            with torch.random.fork_rng(gpus):
                progress.checks += _solver_check(progress, here, "before training", slice(0, 4))

        def on_end(row: dict) -> None:
            with torch.random.fork_rng(gpus):  # what a callback draws is none of ours
                on_epoch({**row, "solves": progress.solves.summary()})
            file.save(progress)

        run_epochs(progress, costs, training, on_end)
        if not math.isfinite(progress.best_loss):
            raise TrainingError("the validation loss was never finite")
        found = progress.evidence()
        module = progress.module
        module.load_state_dict(between(progress.start, progress.best_state, found.share))
        module.eval()
        progress.checks += _solver_check(progress, here, "after training", slice(-4, None))
    strategy.module_ = module
    history = pd.DataFrame(progress.history).assign(
        validation_gain=found.gain, validation_error=found.error, share=found.share
    )
    if training.first is not None:
        history["first_gain"] = progress.first_gain
    best = progress.best_state
    return Trained(history, progress.solves.summary(), progress.checks, module, best)


def learn_first(parts: Sequence[Part], costs: Costs, training: Training) -> float:
    """Train each part on ``training.first``, and leave it in its best state.

    Of the rows that a part is trained on, the last are validated on: nothing is seen of its own
    validation block. Returns the last part's gain, 0 where no epoch was better than none.

    Raises:
        TrainingError: too few rows, or the loss is never finite.
    """
    assert training.first is not None
    gain = 0.0
    for part in parts:
        end = part.blocks[-1][1]
        cut = max(0, round(end * (1 - training.validation)))
        last = part.data.purged(cut)
        if last < 4 or end - cut < 3:
            raise TrainingError(
                f"{end} decisions before a validation block are too few for two losses, one after "
                "the other: give the plan a longer train span, or validation_blocks=1"
            )
        measure = training.first.bound(part.data.assets)
        optimiser = adamw([p for p in part.module.parameters() if p.requires_grad], training)
        blocks = equal_blocks(last, training.block)
        own = Part(part.module, optimiser, part.data, measure, blocks, (cut, end))
        progress = Progress([own])
        run_epochs(progress, costs, training)
        if not math.isfinite(progress.best_loss):
            raise TrainingError("the validation loss of the first training was never finite")
        part.module.load_state_dict(progress.best_state)
        gain = progress.history[0]["validation_loss"] - progress.best_loss
    return gain


def run_epochs(
    progress: Progress,
    costs: Costs,
    training: Training,
    on_end: Callable[[dict], None] = lambda row: None,
    unvalidated: Sequence[Part] = (),
) -> None:
    """Train the parts until patience or epochs end; ``on_end`` is called with each epoch's row.

    Args:
        unvalidated: further parts to take steps on.
    """
    charged = costs.times(training.cost_factor)
    while not progress.finished:
        steps = Steps()
        with record_solves(into=steps.solves):
            for part in (*progress.parts, *unvalidated):
                if progress.epoch == 0:
                    part.module.eval()
                    with torch.no_grad():
                        losses = [part.loss(part.held(each, charged)) for each in part.blocks]
                    steps.losses += [loss.item() for loss in losses]
                else:
                    take_steps(steps, progress, part, training, charged)
            if steps.norms and max(steps.norms) == 0:
                warnings.warn(
                    f"every gradient of epoch {progress.epoch} is zero: the weights do not depend "
                    "on the parameters (a dead layer, or limits that leave one portfolio only); "
                    f"training ends, and the state of epoch {progress.best_epoch} is kept",
                    TrainingWarning,
                    stacklevel=2,
                )
                break
            accounts = [validate(steps, progress, part, costs) for part in progress.parts]
        on_end(progress.end_epoch(steps, accounts, training))


def make_parts(
    strategy: LearnedStrategy,
    data: Dataset,
    training: Training,
    initial: Mapping[str, Tensor] | None,
) -> list[Part]:
    """The networks that are trained, one for each validation block; the last is the one kept."""
    parts: list[Part] = []
    here = data.to(device_here(training.device))
    measure = training.loss.bound(data.assets)
    alone = initial is not None or training.epochs == 0
    end = len(data)
    for before in range(1 if alone else training.validation_blocks):
        last, cut = data.split(training.validation, before)
        if before and (last < FEWEST or end - cut < 3):
            break
        torch.manual_seed(training.seed)
        module = build(strategy, data, training, before)
        if initial is not None:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(initial[name])
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise TrainingError(f"{type(strategy).__name__}'s module has no parameter to train")
        blocks = equal_blocks(last, training.block)
        optimiser = adamw(parameters, training)
        parts.insert(0, Part(module, optimiser, here, measure, blocks, (cut, end)))
        end = cut
    return parts


def build(
    strategy: LearnedStrategy, data: Dataset, training: Training, before: int = 0
) -> nn.Module:
    """The strategy's untrained module, in float64, which has seen the rows to train on only.

    It is built on the CPU, so that it begins with the same numbers whatever the device.

    Args:
        before: how many validation blocks lie after its own.
    """
    last, _ = data.split(training.validation, before)
    module = strategy.build(data.rows_until(last) | {"growth": data.growth[:last]})
    return module.to(device_here(training.device), torch.float64)


def take_steps(
    steps: Steps, progress: Progress, part: Part, training: Training, charged: Costs
) -> None:
    """One step of a part's optimiser for each of its blocks.

    Raises:
        TrainingError: a loss is not finite; or no step was of use. Where most of them met an
            equilibrium that could not be solved, the map is no contraction any more, and more
            steps would only be left out.
    """
    epoch, module, optimiser = progress.epoch, part.module, part.optimiser
    blocks = epoch_blocks(part.blocks, training.bootstrap, training.mirrors, len(part.data))
    unsolved, made = len(steps.unsolved), len(steps.losses)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for group in optimiser.param_groups:
        group["lr"] = training.rate(epoch)
    module.train()
    for block in blocks:
        optimiser.zero_grad(set_to_none=True)
        try:
            value = part.loss(part.held(block, charged, training.noise))
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
    if 2 * (failed := len(steps.unsolved) - unsolved) > len(blocks):
        raise progress.failure(
            f"{failed} of {len(blocks)} steps of epoch {epoch} had a solve that did "
            f"not converge{progress.slowest(steps)}; bound the weights of the map, lower the "
            f"learning_rate, or raise max_steps. {steps.unsolved[-1]}"
        )
    if len(steps.losses) == made:
        raise progress.failure(
            f"no step of epoch {epoch} had a solve and a gradient that converged; "
            "a lower learning_rate, or more max_steps in the solver, may help"
        )


def validate(steps: Steps, progress: Progress, part: Part, costs: Costs) -> Account:
    """The account of a part over its validation rows, at the true costs.

    Raises:
        TrainingError: a solve of an epoch's network does not converge.
    """
    part.module.eval()
    try:
        with torch.no_grad():
            return part.held(part.validation, costs)
    except ConvergenceError as error:
        if progress.epoch == 0:
            raise
        why = f"epoch {progress.epoch} cannot be validated{progress.slowest(steps)}. {error}"
        raise progress.failure(why) from error


def adamw(parameters: list[nn.Parameter], training: Training) -> torch.optim.AdamW:
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


def check_size(strategy: LearnedStrategy, part: Part) -> None:
    """Warn of what will cost hours and teach nothing."""
    parameters = [p for p in part.module.parameters() if p.requires_grad]
    blocks = part.blocks
    count = sum(parameter.numel() for parameter in parameters)
    returns = blocks[-1][1] * part.data.growth.shape[-1]
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
