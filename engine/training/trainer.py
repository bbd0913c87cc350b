"""train(): fit a learned strategy's module on a loss net of costs. Read ``train_seeds`` top down.

The settings are in ``training_settings.py``, what belongs to one seed in ``seed_run.py``, what its
portfolios earn in ``holding.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.accounting.costs import Costs
from engine.losses.returns import Loss
from engine.training.checkpoint import Checkpoint
from engine.training.checks import check_optimiser, check_together
from engine.training.dataset import Samples
from engine.training.device import device_here
from engine.training.errors import TrainingError, TrainingWarning
from engine.training.rollout import Stretch, hold, joint, rows_held
from engine.training.schedule import check_samples
from engine.training.seed_run import SeedRun, Trained, build
from engine.training.settings import Training
from strategies.base import (
    ConvergenceError,
    LearnedStrategy,
    SharedRecord,
    SolveRecord,
    record_solves,
)

LOG = logging.getLogger("deqfolio")

__all__ = [
    "Samples",
    "Trained",
    "Training",
    "TrainingError",
    "TrainingWarning",
    "build",
    "train",
    "train_seeds",
]


def train(
    strategy: LearnedStrategy,
    samples: Samples,
    costs: Costs,
    training: Training,
    on_epoch: Callable[[dict], None] = lambda row: None,
    initial: dict[str, Tensor] | None = None,
) -> Trained:
    """Build the strategy's module, train it and leave the best state in ``strategy.module_``.

    Epoch 0 is the untrained module, with the parameters of ``initial`` if that is given: it stays
    unless training does better on the validation rows.

    Before the first step and after the last, a handful of the optimisations is solved by qpth
    as well, and the run stops where the solvers disagree.

    Raises:
        SolverMismatch: they disagree.
        TrainingError: too few rows, a loss that is not finite, or no step that
            converges. It carries the best state until then.
        ValueError: a loss without its benchmark, inputs that are not one row a decision, or a
            device that is not there.

    Warns:
        TrainingWarning: no parameter moves the weights; training ends with the best state.
    """
    seed = training.seed
    starts = {} if initial is None else {seed: initial}
    found = train_seeds(
        strategy, samples, costs, training, [seed], lambda _, row: on_epoch(row), starts
    )[seed]
    if isinstance(found, Exception):
        raise found
    strategy.module_ = found.module
    return found


def train_seeds(
    strategy: LearnedStrategy,
    samples: Samples,
    costs: Costs,
    training: Training,
    seeds: Iterable[int],
    on_epoch: Callable[[int, dict], None] = lambda seed, row: None,
    initial: Mapping[int, dict[str, Tensor]] | None = None,
    checkpoints: Mapping[int, Path] | None = None,
) -> dict[int, Trained | Exception]:
    """Train several seeds as ``train`` does each of them, to the same bits.

    All steps are taken side by side, as one computation, where the module can (see
    ``LearnedStrategy.build``); if not, one seed after the other. Each has its own order of blocks,
    early stopping and best state; one that has stopped leaves the batch.

    Args:
        seeds: in place of ``training.seed``.
        on_epoch: called with the seed and the row of each epoch.
        initial: the state that a seed starts from, where it has one.
        checkpoints: files to keep each seed's progress in, at most once a second. What is found
            there is gone on from, to the same bits; the caller removes them.

    Returns:
        {seed: what it leaves, or the error that ended it}; errors as those that ``train`` raises.
    """
    measure = training.loss.bound(samples.assets)
    check_samples(samples)
    if samples.mirrors != training.mirrors:
        raise ValueError(
            f"training asks for {training.mirrors} mirrored panels, and the samples have "
            f"{samples.mirrors}: Learner.training_samples gives those"
        )
    last, cut = samples.split(training.validation)
    if last < 4 or len(samples) - cut < 3:
        raise TrainingError(
            f"{len(samples)} training decisions are too few: a loss over a block needs 4 to train "
            "and 3 to validate; give the plan a longer train span or more frequent decisions"
        )
    count = max(1, round((last - 1) / training.block))
    parts = np.array_split(np.arange(1, last), count)
    blocks = [(int(part[0]), int(part[-1]) + 1) for part in parts]
    charged = costs.times(training.cost_factor)

    here = samples.to(device_here(training.device))
    runs = [
        SeedRun(
            strategy,
            samples,
            here,
            replace(training, seed=seed),
            blocks,
            (initial or {}).get(seed),
        )
        for seed in seeds
    ]
    files = {id(run): Checkpoint((checkpoints or {}).get(run.training.seed)) for run in runs}
    groups = [runs] if joint([run.module for run in runs]) else [[run] for run in runs]
    for group in groups:
        fresh = [run for run in group if not files[id(run)].load(run)]
        check_optimiser(fresh, "before training", slice(0, 4))
        check_together(group)
        while going := [run for run in group if run.going]:
            epoch = min(run.epoch for run in going)  # one that went on from a file may be ahead
            going = [run for run in going if run.epoch == epoch]
            _epoch(going, charged, measure)
            left = [run for run in going if run.going]
            losses = _evaluate(left, [(cut, len(samples))] * len(left), costs, measure)
            for run, loss in zip(left, losses, strict=True):
                if loss is not None:
                    row = run.close(loss)
                    on_epoch(run.training.seed, {**row, "solves": run.record.summary()})
                    files[id(run)].save(run)
        for run in group:
            run.restore()
        check_optimiser(group, "after training", slice(-4, None))
    return {run.training.seed: run.outcome() for run in runs}


def _epoch(runs: Sequence[SeedRun], costs: Costs, measure: Loss) -> None:
    """A pass over the blocks; of epoch 0, without a step."""
    orders = [run.begin() for run in runs]
    for stretches in zip(*orders, strict=True):
        pairs = [(run, s) for run, s in zip(runs, stretches, strict=True) if run.going]
        going, theirs = [run for run, _ in pairs], [s for _, s in pairs]
        if not going:
            return
        if going[0].epoch:
            _step(going, theirs, costs, measure)
        else:
            for run, loss in zip(going, _evaluate(going, theirs, costs, measure), strict=True):
                run.losses += [loss] if loss is not None else []
    for run in runs:
        if run.going and run.epoch:
            run.check_steps()


def _step(
    runs: Sequence[SeedRun], stretches: Sequence[Stretch], costs: Costs, measure: Loss
) -> None:
    """One step of each seed, on its own block."""
    noise = None
    if runs[0].training.noise:
        noise = {id(run): run.shocks(s) for run, s in zip(runs, stretches, strict=True)}

    def gradients(runs: Sequence[SeedRun], stretches: Sequence[Stretch]) -> list[Tensor]:
        for run in runs:
            run.module.train()
            run.optimiser.zero_grad(set_to_none=True)
        shocks = None if noise is None else [noise[id(run)] for run in runs]
        with _recorded(runs, stretches):
            losses = _losses(runs, stretches, costs, measure, shocks)
            # No parameter is in more than one of them. What is not finite has no gradient, and
            # its solves backward would fail in its place.
            if finite := [loss for loss in losses if torch.isfinite(loss)]:
                torch.stack(finite).sum().backward()
        return losses

    for run, loss in zip(runs, _side_by_side(runs, stretches, gradients), strict=True):
        if isinstance(loss, ConvergenceError):
            run.skip(loss)
        elif isinstance(loss, Exception):
            run.fail(loss)
        else:
            run.step(loss)


def _evaluate(
    runs: Sequence[SeedRun], stretches: Sequence[Stretch], costs: Costs, measure: Loss
) -> list[float | None]:
    """The loss of each seed over its stretch; None of one that failed on the way."""

    def losses(runs: Sequence[SeedRun], stretches: Sequence[Stretch]) -> list[Tensor]:
        for run in runs:
            run.module.eval()
        with torch.no_grad(), _recorded(runs, stretches):
            return _losses(runs, stretches, costs, measure)

    found: list[float | None] = []
    for run, loss in zip(runs, _side_by_side(runs, stretches, losses), strict=True):
        if isinstance(loss, ConvergenceError) and run.epoch:
            run.fail(run.stopped(f"epoch {run.epoch} cannot be validated{run.slowest()}. {loss}"))
        elif isinstance(loss, Exception):
            run.fail(loss)
        found.append(None if isinstance(loss, Exception) else loss.item())
    return found


Work = Callable[[Sequence[SeedRun], Sequence[Stretch]], list[Tensor]]


def _side_by_side(
    runs: Sequence[SeedRun], stretches: Sequence[Stretch], work: Work
) -> list[Tensor | Exception]:
    """The losses that ``work`` gives of all seeds at once or, where that fails, of each alone.

    So that a seed's failure is its own, and what it is does not depend on the others.
    """
    failed: Exception | None = None
    if len(runs) > 1 and not any(run.alone for run in runs):
        try:
            return [*work(runs, stretches)]
        except Exception as error:  # whose it is shows when each is alone
            failed = error
    found: list[Tensor | Exception] = []
    for run, stretch in zip(runs, stretches, strict=True):
        try:
            with run.own_random():  # of a module that draws numbers
                found += work([run], [stretch])
        except Exception as error:
            found.append(error)
    if failed is not None and not any(isinstance(each, Exception) for each in found):
        kind = type(runs[0].module).__name__
        LOG.warning("%s.together failed where each alone did not: %s", kind, failed)
        for run in runs:
            run.alone = True  # from here on: no step is tried twice
    return found


def _losses(
    runs: Sequence[SeedRun],
    stretches: Sequence[Stretch],
    costs: Costs,
    measure: Loss,
    shocks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The loss of each seed over its stretch."""
    samples, modules = runs[0].samples, [run.module for run in runs]
    accounts = hold(modules, samples, stretches, costs, measure.forecasts, shocks)
    return [measure(account, samples.per_year) for account in accounts]


@contextmanager
def _recorded(runs: Sequence[SeedRun], stretches: Sequence[Stretch]) -> Iterator[None]:
    """Solves inside the block go to the record of the seed that they are for.

    Where there are several and one fails, they will be made again, and count then.
    """
    if len(runs) == 1:
        with record_solves(into=runs[0].recent):
            yield
        return
    sizes = [len(rows_held(runs[0].samples, *stretch)[0]) for stretch in stretches]
    records = [SolveRecord() for _ in runs]
    with record_solves(into=SharedRecord(shares=list(zip(records, sizes, strict=True)))):
        yield
    for run, record in zip(runs, records, strict=True):
        run.recent.take(record)
