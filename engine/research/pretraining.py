"""pretrain(): one state from several markets, for folds of other markets or later dates to start
from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from data_loaders import Panel
from data_loaders.validation import day
from data_loaders.writing import atomic, remove_abandoned
from engine.accounting.costs import Costs
from engine.compute.executors import limited_threads
from engine.planning.walk_forward import Fold, WalkForward
from engine.training.dataset import Dataset, equal_blocks
from engine.training.evidence import between
from engine.training.fit_records import TrainingError
from engine.training.progress import Part, Progress
from engine.training.settings import Training, device_here
from engine.training.trainer import FEWEST, adamw, run_epochs
from engine.walking.argument_checks import check_arguments, check_financing
from engine.walking.learner import Learner
from strategies.base import LearnedStrategy
from strategies.parameter_ranges import shown_parameters


def pretrain(
    strategy: LearnedStrategy,
    panels: Sequence[Panel],
    file: str | Path,
    *,
    until: str | pd.Timestamp,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    sub_universes: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Train one set of parameters on several markets; ``Pretrained(strategy, file)`` starts there.

    Steps are taken on the blocks of all markets in turn. The last decisions of all markets, a
    share ``training.validation`` of them, from one date on in all, are kept for validation: the
    mean of the markets' losses there stops training. What is kept is a share of the way from the
    untrained to the best parameters, as in any training (``training/evidence.py``), the error of
    the gain being that of all markets together. Scalers are those of each market.

    Args:
        strategy: it treats all assets alike (``equivariant``).
        panels: the markets, all with the same rows a year; synthetic ones may be among them.
        file: where the state is written, with the fingerprint of each market up to ``until``.
        until: the last date that is seen. A backtest that decides no later is refused.
        plan: when decisions are made and filled; its ``train`` and ``refit`` are not used.
        sub_universes: how many random subsets of each market's assets, from a half to all of
            them, steps are taken on as well.
        costs, training, threads: as in ``backtest``; ``validation_blocks``, ``warm_start`` and
            ``ensemble`` are not used.

    Returns:
        One row an epoch, as ``BacktestResult.training`` has them; the last three columns say what
        the validation supports.

    Raises:
        ValueError: a strategy that tells assets apart, markets of different calendars or features,
            or one without enough rows by then; TrainingError: training cannot continue.
    """
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    if training.first is not None:
        raise ValueError(
            "pretrain learns one loss: give first as its loss, and loss to the backtest after it"
        )
    panels = [panels] if isinstance(panels, Panel) else list(panels)
    _check(strategy, panels, file, sub_universes)
    file = Path(file)
    check_financing({strategy.shown_name(): strategy}, costs)
    seen = _known(panels, until)
    for panel in seen:
        check_arguments(panel, plan, costs, training, {"threads": threads})
    names = getattr(strategy, "feature_names", None)
    kinds = {
        "rows a year": [panel.periods_per_year for panel in seen],
        **({"features": [names(panel) for panel in seen]} if callable(names) else {}),
    }
    for kind, found in kinds.items():
        for panel, value in zip(seen, found, strict=True):
            if value != found[0]:
                raise ValueError(
                    f"markets that are pooled have the same {kind}: {seen[0].source} has "
                    f"{found[0]}, and {panel.source} {value}"
                )
    with limited_threads(threads), torch.random.fork_rng():
        torch.manual_seed(training.seed)
        subsets = [
            sub_universe(panel, training.seed, k) for panel in seen for k in range(sub_universes)
        ]
        given = [_dataset(strategy, each, plan, costs, training) for each in (*seen, *subsets)]
        # From one date on decisions validate: that share of those of all markets together.
        rows = [panel.dates[data.rows] for data, panel in zip(given, seen, strict=False)]
        every = np.sort(np.concatenate([each.to_numpy() for each in rows]))
        start = pd.Timestamp(every[int(len(every) * (1 - training.validation))])
        parts = _parts(strategy, given, [*seen, *subsets], start, training)
        progress = Progress(parts[: len(seen)])
        run_epochs(progress, costs, training, unvalidated=parts[len(seen) :])
        if not math.isfinite(progress.best_loss):
            raise TrainingError("the validation loss was never finite")
        evidence = progress.evidence(pooled=True)
        state = between(progress.start, progress.best_state, evidence.share)
    kept = {name: state[name] for name, _ in progress.module.named_parameters()}
    about = {
        "strategy": shown_parameters(strategy),
        **{kind: values[0] for kind, values in kinds.items()},
        "until": str(max(panel.dates[-1] for panel in seen)),
        "training": repr(training),
        "sub_universes": sub_universes,
        "markets": [
            {
                "source": panel.source,
                "fingerprint": panel.fingerprint,
                "first": day(panel.dates[0]),
                "last": day(panel.dates[-1]),
                "assets": len(panel.assets),
            }
            for panel in seen
        ],
    }
    _save(kept, about, file)
    return pd.DataFrame(progress.history).assign(
        validation_gain=evidence.gain, validation_error=evidence.error, share=evidence.share
    )


def _check(
    strategy: LearnedStrategy, panels: Sequence[Panel], file: str | Path, sub_universes: int
) -> None:
    if not isinstance(strategy, LearnedStrategy):
        raise ValueError(f"pretrain is for a learned strategy, got {strategy!r}")
    strategy.check_parameters()
    if not strategy.equivariant:
        raise ValueError(
            f"{strategy.shown_name()} tells assets apart, and other markets have other assets: "
            "pretrain it without embedding and with a cell other than 'pairs', or declare "
            "equivariant = True"
        )
    if not panels:
        raise ValueError("there is no market to pretrain on")
    for panel in panels:
        if not isinstance(panel, Panel):
            raise ValueError(f"a market to pretrain on is a Panel, as load() gives; got {panel!r}")
    if not isinstance(sub_universes, int) or sub_universes < 0:
        raise ValueError(f"sub_universes is a whole number from 0 on, got {sub_universes!r}")
    if not isinstance(file, str | Path) or not Path(file).name:
        raise ValueError(f"file is the name of the file that is written, got {file!r}")
    if not Path(file).parent.is_dir():
        raise ValueError(f"the folder of {file} does not exist")


def _known(panels: Sequence[Panel], until: str | pd.Timestamp) -> list[Panel]:
    """The panels up to a date, of which nothing depends on what came later; each of them once: a
    market that counted twice would make the evidence of all look stronger than it is."""
    try:
        last = pd.Timestamp(until)
    except (ValueError, TypeError):
        last = pd.NaT
    if isinstance(until, int | float) or last is pd.NaT:
        raise ValueError(
            f"until is the last date that is seen, such as '2012-12-31'; got {until!r}"
        )
    seen: dict[str, Panel] = {}  # by fingerprint
    for panel in panels:
        part = panel.without_benchmark().until(until)
        if not len(part):
            raise ValueError(f"{panel.source} begins after {until}: choose a later until")
        part = part.replaced()
        if part.fingerprint in seen:
            raise ValueError(
                f"{part.source} has the same prices as {seen[part.fingerprint].source}: give a "
                "market once"
            )
        seen[part.fingerprint] = part
    return list(seen.values())


def sub_universe(panel: Panel, seed: int, number: int) -> Panel:
    """The panel of a random subset of its assets, from a half of them to all."""
    rng = np.random.default_rng((seed, number, len(panel.assets)))
    count = len(panel.assets)
    size = int(rng.integers((count + 1) // 2, count + 1))
    chosen = panel.assets[np.sort(rng.permutation(count)[:size])]
    return panel.replaced(
        prices=panel.prices[chosen],
        asset_features={name: each[chosen] for name, each in panel.asset_features.items()},
        members=panel.members[chosen] if panel.has_universe else None,
    )


def _dataset(
    strategy: LearnedStrategy, panel: Panel, plan: WalkForward, costs: Costs, training: Training
) -> Dataset:
    """All decisions whose holding period ends in the panel, as those before one refit."""
    decisions = plan.decisions(panel.dates)
    usable = decisions[decisions + 1 >= strategy.lookback]
    ends = usable[1:] + plan.execution_lag
    fold = Fold(0, 0, usable[:-1][ends < len(panel)], ends[ends < len(panel)], len(panel) - 1,
                np.empty(0, int))  # fmt: skip
    if len(fold.train) < FEWEST:
        raise ValueError(
            f"{panel.source} has {len(fold.train)} decisions up to {day(panel.dates[-1])} after a "
            f"lookback of {strategy.lookback} rows: leave it out, or choose a later until"
        )
    learner = Learner(panel, [fold], plan, costs, training, 1)
    learner.check_memory({panel.source: strategy})
    return learner.training_data(panel.source, strategy, fold)


def _parts(
    strategy: LearnedStrategy,
    given: Sequence[Dataset],
    panels: Sequence[Panel],
    start: pd.Timestamp,
    training: Training,
) -> list[Part]:
    """A network for each market, with the parameters of the first and scalers of its own."""
    parts: list[Part] = []
    device = device_here(training.device)
    for data, panel in zip(given, panels, strict=True):
        cut = int(panel.dates[data.rows].searchsorted(start))
        last = data.purged(cut)
        if last < FEWEST or len(data) - cut < 3:
            raise ValueError(
                f"validation begins on {day(start)} in all markets, and {panel.source} has {last} "
                f"decisions before and {len(data) - cut} after: leave it out, or choose another "
                "until or share of validation"
            )
        module = strategy.build(data.rows_until(last) | {"growth": data.growth[:last]})
        module = module.to(device, torch.float64)
        optimiser = parts[0].optimiser if parts else adamw(list(module.parameters()), training)
        if parts:
            share_parameters(parts[0].module, module)
        measure = training.loss.bound(data.assets)
        blocks = equal_blocks(last, training.block)
        parts.append(Part(module, optimiser, data.to(device), measure, blocks, (cut, len(data))))
    return parts


def share_parameters(first: nn.Module, other: nn.Module) -> None:
    """Make the parameters of another module those of the first; buffers stay its own."""
    for name, parameter in first.named_parameters():
        owner, _, own = name.rpartition(".")
        setattr(other.get_submodule(owner), own, parameter)


def _save(state: dict[str, torch.Tensor], about: dict, file: Path) -> None:
    from safetensors.torch import save

    plain = {name: each.cpu().contiguous() for name, each in state.items()}
    content = save(plain)
    values = content[8 + int.from_bytes(content[:8], "little") :]  # the header is before them
    about = {"sha256": hashlib.sha256(values).hexdigest(), **about}
    remove_abandoned(file)
    with atomic(file) as scratch:
        scratch.write_bytes(save(plain, metadata={"about": json.dumps(about)}))
