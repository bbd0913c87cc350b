"""train(): fit a learned strategy's module on a loss net of costs. Read ``train`` top to bottom."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from engine.costs import Account, Costs, account, drift
from engine.device import checked_name, device_here
from engine.losses import Loss, NegativeSharpe
from engine.training_plan import (
    SCHEDULES,
    TrainingWarning,
    check_samples,
    epoch_blocks,
    learning_rate,
    warn_before,
    with_noise,
)
from strategies.base import ConvergenceError, Inputs, LearnedStrategy, cross_check, record_solves


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which epoch and why.

    Attributes:
        state: the best state until then, if there was one: what ``load_state_dict`` takes.
        epoch: the epoch it is of; 0 is the untrained module.
    """

    def __init__(
        self, message: str, state: dict[str, Tensor] | None = None, epoch: int | None = None
    ):
        super().__init__(message)
        self.state, self.epoch = state, epoch

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.state, self.epoch)


@dataclass(frozen=True)
class Training:
    """How learned strategies are trained.

    Args:
        loss: what to minimise over a block of decisions.
        epochs: passes over the training rows, at most.
        block: decisions in a block, a contiguous stretch of time; about 100 for weekly ones.
        learning_rate, weight_decay: of AdamW, the decay of matrices alone. A strong one keeps a
            network from learning noise by heart; both were chosen on four planted markets of
            ``data_loaders/synthetic.py``, where the truth is known, and not on a real one.
        schedule: of the learning rate: "constant", or "cosine", which falls to zero over the
            epochs.
        warmup: epochs over which the learning rate rises to its full value.
        bootstrap: every epoch draws its blocks from random places, not the same ones in another
            order.
        noise: multiplies training growth by random factors of this share of each asset's
            deviation; 0.5 = half. Validation never sees it.
        clip: largest norm of the gradient of a step.
        validation: share of the training rows, the latest, kept for early stopping; training
            rows whose label reaches into them are left out.
        patience: epochs without a better validation loss before training stops.
        cost_factor: costs in the training loss are the true costs times this. More than 1
            counters overtrading; validation and the backtest charge the true costs.
        seed: of the initial parameters and the order of blocks.
        ensemble: how many seeds, from ``seed`` on, are trained in each fold; the weights held are
            the mean of theirs.
        warm_start: a refit starts from the parameters of the fold before it.
        device: where networks are trained and decide: "cpu", or "cuda" for a GPU, whose weights
            are the same to 1e-8 and not to the last bit.
    """

    loss: Loss = field(default_factory=NegativeSharpe)
    epochs: int = 40
    block: int = 100
    learning_rate: float = 5e-3
    weight_decay: float = 5.0
    schedule: str = "constant"
    warmup: int = 0
    bootstrap: bool = False
    noise: float = 0.0
    clip: float = 1.0
    validation: float = 0.2
    patience: int = 10
    cost_factor: float = 5.0
    seed: int = 0
    ensemble: int = 1
    warm_start: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        checked_name(self.device)
        for name, low in (
            ("epochs", 1),
            ("block", 3),
            ("patience", 1),
            ("warmup", 0),
            ("seed", 0),
            ("ensemble", 1),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= low):
                raise ValueError(f"{name} is a whole number from {low} on, got {value!r}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("weight_decay", "cost_factor", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup = {self.warmup} leaves no epoch of {self.epochs} to train")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is a share between 0 and 1, got {self.validation!r}")


@dataclass(frozen=True)
class Samples:
    """K decisions in a row, each held from its fill to the next decision's fill.

    Attributes:
        inputs: prepared inputs, (K, ...) each.
        growth: (K, N) growth factors of prices over the holding periods.
        rows: (K,) rows of the panel at which the decisions are made.
        ends: (K,) rows at which the holding periods end.
        per_year: holding periods a year.
        years: (K,) lengths of the holding periods, if holding costs or earns anything.
        illiquidity: (K, N) at the fills, if there is market impact (see ``Costs.charge``).
        assets: (N,) names, for losses that name one as their benchmark.
    """

    inputs: Inputs
    growth: Tensor
    rows: np.ndarray
    ends: np.ndarray
    per_year: float
    years: Tensor | None = None
    illiquidity: Tensor | None = None
    assets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Samples:
        """The same with its tensors on another device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            inputs={name: values.to(device) for name, values in self.inputs.items()},
            growth=self.growth.to(device),
            years=moved(self.years),
            illiquidity=moved(self.illiquidity),
        )

    def runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """``start`` to ``stop`` without the decisions that come after a gap in time.

        Cross-validation cuts gaps; what is held across one is unknown, so the decision after it
        is where a run is entered, as ``start - 1`` is.
        """
        lags = self.ends[:-1] - self.rows[1:]  # all the same, where decisions are in a row
        edges = np.flatnonzero(lags < lags.max()) + 1
        edges = edges[(edges >= start) & (edges < stop)]
        runs = zip([start, *(edges + 1)], [*edges, stop], strict=True)
        return [(int(a), int(b)) for a, b in runs if a < b]


class Trained(NamedTuple):
    """What training leaves behind, besides the strategy's module.

    Attributes:
        history: one row an epoch: epoch, loss, validation_loss, best, gradient_norm, skipped.
        solves: the summary of all solves made.
        checks: differences to qpth: when, samples, weights, gradients; empty where the module
            holds no mean-variance layer.
    """

    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]


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
    measure = training.loss.bound(samples.assets)
    check_samples(samples)
    last, cut = _split(samples, training)
    if last < 4 or len(samples) - cut < 3:
        raise TrainingError(
            f"{len(samples)} training decisions are too few: a loss over a block needs 4 to train "
            "and 3 to validate; give the plan a longer train span or more frequent decisions"
        )
    blocks = [
        (int(part[0]), int(part[-1]) + 1)
        for part in np.array_split(np.arange(1, last), max(1, round((last - 1) / training.block)))
    ]
    charged = costs.times(training.cost_factor)

    device = device_here(training.device)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        record_solves() as record,
    ):
        torch.manual_seed(training.seed)
        module = build(strategy, samples, training)
        samples = samples.to(device)
        if initial is not None:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(initial[name])
        checks = [{"when": "before training", **_cross_checked(module, samples, slice(0, 4))}]
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise TrainingError(f"{type(strategy).__name__}'s module has no parameter to train")
        warn_before(module, last * samples.growth.shape[-1], min(b - a for a, b in blocks))
        matrices = [p for p in parameters if p.ndim > 1]  # a decay of offsets would be a bias
        groups = [
            {"params": matrices, "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=training.learning_rate
        )
        history: list[dict] = []
        best_loss, best_state, best_epoch = float("inf"), module.state_dict(), 0

        def stopped(why: str) -> TrainingError:
            if not np.isfinite(best_loss):
                return TrainingError(f"{why}; there is no good state before it")
            kept = f"the last good state is that of epoch {best_epoch}, validation {best_loss:.4g}"
            return TrainingError(f"{why}; {kept}", best_state, best_epoch)

        for epoch in range(training.epochs + 1):
            losses, norms, skipped = [], [], 0
            module.train()
            for group in optimiser.param_groups if epoch else []:
                group["lr"] = learning_rate(training, epoch)
            for start, stop in epoch_blocks(blocks, training.bootstrap) if epoch else []:
                optimiser.zero_grad(set_to_none=True)
                try:
                    earned = _hold(
                        module, samples, start, stop, charged, measure.forecasts, training.noise
                    )
                    loss = measure(earned, samples.per_year)
                    loss.backward()
                except ConvergenceError:
                    skipped += 1  # a gradient from an unfinished solve is never applied
                    continue
                if not torch.isfinite(loss):
                    raise stopped(f"the loss is {loss.item()} at epoch {epoch}")
                norm = nn.utils.clip_grad_norm_(parameters, training.clip)
                if not torch.isfinite(norm):
                    skipped += 1
                    continue
                optimiser.step()
                losses.append(loss.item())
                norms.append(norm.item())
            if epoch and not losses:
                raise stopped(
                    f"no step of epoch {epoch} had a solve and a gradient that converged; "
                    "a lower learning_rate, or more max_steps in the solver, may help"
                )
            if norms and max(norms) == 0:
                warnings.warn(
                    f"every gradient of epoch {epoch} is zero: the weights do not depend on the "
                    "parameters (a dead layer, or limits that leave one portfolio only); training "
                    f"ends, and the state of epoch {best_epoch} is kept",
                    TrainingWarning,
                    stacklevel=2,
                )
                break

            module.eval()
            with torch.no_grad():
                asked = measure.forecasts
                validated = measure(
                    _hold(module, samples, cut, len(samples), costs, asked), samples.per_year
                ).item()
                if not epoch:
                    held = [_hold(module, samples, a, b, charged, asked) for a, b in blocks]
                    losses = [measure(one, samples.per_year).item() for one in held]
            better = validated < best_loss
            if better:
                best_loss, best_epoch = validated, epoch
                best_state = copy.deepcopy(module.state_dict())
            row = {
                "epoch": epoch,
                "loss": float(np.mean(losses)),
                "validation_loss": validated,
                "best": better,
                "gradient_norm": float(np.mean(norms)) if norms else float("nan"),
                "skipped": skipped,
            }
            history.append(row)
            on_epoch({**row, "solves": record.summary()})
            if epoch - best_epoch >= training.patience:
                break
    if not np.isfinite(best_loss):
        raise TrainingError("the validation loss was never finite")
    module.load_state_dict(best_state)
    module.eval()
    strategy.module_ = module
    checks.append({"when": "after training", **_cross_checked(module, samples, slice(-4, None))})
    compared = [check for check in checks if check["samples"]]
    return Trained(pd.DataFrame(history), record.summary(), compared)


def build(strategy: LearnedStrategy, samples: Samples, training: Training) -> nn.Module:
    """The strategy's untrained module, in float64, which has seen the rows to train on only.

    It is built on the CPU, so that it begins with the same numbers whatever the device.
    """
    last, _ = _split(samples, training)
    rows = {name: values[:last] for name, values in samples.inputs.items()}
    return strategy.build(rows).to(device_here(training.device), torch.float64)


def _split(samples: Samples, training: Training) -> tuple[int, int]:
    """Samples before the first number are trained on, those from the second on validate.

    Between them lie those whose label reaches into the validation rows.
    """
    cut = round(len(samples) * (1 - training.validation))
    last = int(np.sum(samples.ends[:cut] <= samples.rows[min(cut, len(samples) - 1)]))
    return last, cut


def _cross_checked(module: nn.Module, samples: Samples, chosen: slice) -> dict:
    """Differences to qpth on some samples; no samples where the module solves no problem."""
    with torch.no_grad(), cross_check() as check:
        module({name: values[chosen] for name, values in samples.inputs.items()})
    return {"samples": check.samples, "weights": check.weights, "gradients": check.gradients}


def _hold(
    module: nn.Module,
    samples: Samples,
    start: int,
    stop: int,
    costs: Costs,
    forecasts: bool = False,
    noise: float = 0.0,
) -> Account:
    """The account of decisions ``start`` to ``stop``, entered with the one before them held.

    So that the turnover across the edge of a block is charged, to both sides of it.
    """
    accounts = [
        _run(module, samples, a, b, costs, forecasts, noise) for a, b in samples.runs(start, stop)
    ]
    if len(accounts) == 1:
        return accounts[0]
    fields = zip(*accounts, strict=True)
    return Account._make(None if each[0] is None else torch.cat(each) for each in fields)


def _run(
    module: nn.Module,
    samples: Samples,
    start: int,
    stop: int,
    costs: Costs,
    forecasts: bool,
    noise: float,
) -> Account:
    held = slice(start - 1, stop)
    growth = with_noise(samples.growth[held], noise)
    inputs = {name: values[held] for name, values in samples.inputs.items()}
    weights, expected = (
        _weights_and_forecast(module, inputs) if forecasts else (module(inputs), None)
    )
    if weights.shape != growth.shape:  # (stop - start + 1, N)
        raise TrainingError(
            f"the module gave weights of shape {tuple(weights.shape)}, "
            f"expected {tuple(growth.shape)}"
        )
    years = None if samples.years is None else samples.years[held]
    illiquidity = None if samples.illiquidity is None else samples.illiquidity[start:stop]
    carried = 0.0 if years is None else costs.carry(weights[0]) * years[0]
    before = drift(weights[0], growth[0], carried)
    later = None if years is None else years[1:]
    earned = account(weights[1:], growth[1:], costs, before, later, illiquidity)
    return earned if expected is None else earned._replace(expected_return=expected[1:])


def _weights_and_forecast(module: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    method = getattr(module, "weights_and_forecast", None)
    if method is None:
        raise TrainingError(
            f"the loss needs expected returns, and {type(module).__name__} has no method "
            "weights_and_forecast(inputs) that gives them beside the weights"
        )
    return method(inputs)
