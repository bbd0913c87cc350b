"""The decisions that a strategy is trained on: blocks, validation rows and mirrored panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_loaders import Panel
from engine.accounting.market import Market
from engine.training.fit_records import TrainingError
from engine.training.settings import Training
from strategies.contract_types import Inputs

Block = tuple[int, int]  # decisions from the first up to the second, which is not one of them


class Step(NamedTuple):
    """A fill of a part of an answer, and what follows until the next fill."""

    ordered: Tensor  # (N,) bool: assets that have a price
    delisted: Tensor  # (N,) bool: these can be sold, at their last price, and not be bought
    growth: Tensor  # (N,) of prices until the next step, or the end of the holding period
    illiquidity: Tensor | None  # (N,) at the fill, if there is market impact
    years: float  # until the next step, or the end of the holding period


@dataclass(frozen=True)
class Dataset:
    """K consecutive decisions, each held from its fill to the next decision's fill.

    With mirrors (see ``mirrored``) inputs, growth, years, illiquidity and risk_free have as many
    times K rows more, those of one mirrored panel after the other; all else is of the true panel.

    Attributes:
        inputs: prepared inputs, (K, ...) each.
        growth: (K, N) growth factors of prices over the holding periods.
        rows: (K,) rows of the panel at which the decisions are made.
        ends: (K,) rows at which the holding periods end.
        per_year: holding periods a year.
        years: (K,) lengths of the holding periods, if holding costs or earns anything.
        illiquidity: (K, N) at the fills, if there is market impact (see ``Costs.charge``).
        assets: (N,) names, for losses that name one as their benchmark.
        mirrors: how many mirrored panels there are.
        risk_free: (K,) risk-free returns of the holding periods; None is 0.
        steps: by number, those of the decisions whose orders may meet an asset without a price.
        paths: (K, D, N) growth of prices from the fill to each close of the holding period and to
            its end, which is repeated where a period has fewer rows; for losses on risk.
    """

    inputs: Inputs
    growth: Tensor
    rows: np.ndarray
    ends: np.ndarray
    per_year: float
    years: Tensor | None = None
    illiquidity: Tensor | None = None
    assets: tuple[str, ...] = ()
    mirrors: int = 0
    risk_free: Tensor | None = None
    steps: Mapping[int, list[Step]] = field(default_factory=dict)
    paths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Dataset:
        """The same with its tensors on another device."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, Mapping):
                return {key: moved(each) for key, each in value.items()}
            if isinstance(value, list):  # of steps
                return [each._make(map(moved, each)) for each in value]
            return value

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})

    def segments(self, start: int, stop: int) -> list[tuple[int, int]]:
        """``start`` to ``stop`` without the decisions that come after a gap in time.

        Cross-validation cuts gaps. The holdings after one are unknown, so a rollout is entered
        with the decision after the gap, as it is entered with ``start - 1``. Blocks of a mirrored
        panel lie K rows further on, or a multiple of it.
        """
        edges = self._after_gaps + start // len(self) * len(self)
        edges = edges[(edges >= start) & (edges < stop)]
        segments = zip([start, *(edges + 1)], [*edges, stop], strict=True)
        return [(int(a), int(b)) for a, b in segments if a < b]

    def follows(self, number: int) -> bool:
        """Whether the holdings at a decision are known: those of the decision before it."""
        return number % len(self) != 0 and number % len(self) not in self._after_gaps

    @cached_property
    def _after_gaps(self) -> np.ndarray:
        """The decisions that come after a gap."""
        lags = self.ends[:-1] - self.rows[1:]  # all the same where decisions are consecutive
        return np.flatnonzero(lags < lags.max()) + 1

    def rows_until(self, last: int) -> Inputs:
        """The inputs of the decisions before ``last``."""
        return {name: values[:last] for name, values in self.inputs.items()}

    def split(self, validation: float, before: int = 0) -> tuple[int, int]:
        """The decisions before the first number are trained on, those from the second validate.

        Between them lie those whose label reaches into the validation rows.

        Args:
            before: how many validation blocks lie after this one, 0 for the last.
        """
        cut = max(0, round(len(self) * (1 - validation * (before + 1))))
        return self.purged(cut), cut

    def purged(self, cut: int) -> int:
        """How many decisions end their holding period before the decision number ``cut``."""
        return int(np.sum(self.ends[:cut] <= self.rows[min(cut, len(self) - 1)]))


def steps_of(
    market: Market, decided: np.ndarray, fills: np.ndarray, ends: np.ndarray, unpriced: str
) -> dict[int, list[Step]]:
    """By number, the steps of the decisions (K,) that may meet an asset without a price.

    Args:
        market: what is known when training ends, so that an asset that trades again later is not
            told from one that does not.
        decided, fills, ends: rows of the decisions, of their fills and of the fills after these.
    """
    quoted, following = market.quoted, market.next_quoted
    started = np.logical_or.accumulate(~np.isnan(quoted), axis=0)
    lack = market.illiquidity
    found: dict[int, list[Step]] = {}
    for k in np.flatnonzero(~market.all_quoted[fills]):
        row, end = int(fills[k]), int(ends[k])
        missing, gone = np.isnan(quoted[row]), row >= market.delisted
        late = missing & ~gone
        known = late & (started[row] | (following[row] < end))
        if not (known | (gone & (decided[k] < market.delisted))).any():
            continue  # nobody orders an asset that is not there yet, or buys one that is gone
        waits = following[row][late] if unpriced == "wait" else np.empty(0, int)
        rows = [row, *np.unique(waits[waits < end]).tolist(), end]
        found[int(k)] = [
            Step(
                torch.from_numpy(~late if at == row else late & (following[row] == at)),
                torch.from_numpy(gone if at == row else np.zeros_like(gone)),
                torch.from_numpy(market.at_fills[after] / market.at_fills[at]),
                None if lack is None else lack[at],
                float(market.clock[after] - market.clock[at]),
            )
            for at, after in pairwise(rows)
        ]
    return found


def check_dataset(data: Dataset, training: Training) -> None:
    """Refuse what cannot be trained on.

    Raises:
        ValueError: an input has more than one row a decision, which may be rows of the future, or
            fewer; or other mirrors than training asks for.
        TrainingError: too few decisions.
    """
    panels = 1 + data.mirrors
    for name, values in data.inputs.items():
        if len(values) != panels * len(data):
            raise ValueError(
                f"input {name!r} has {len(values) / panels:g} rows for {len(data)} decisions: "
                "prepare() gives what is known at one date, and the engine stacks the dates"
            )
    if data.mirrors != training.mirrors:
        raise ValueError(
            f"training asks for {training.mirrors} mirrored panels, and the dataset has "
            f"{data.mirrors}: Learner.training_data gives those"
        )
    last, cut = data.split(training.validation)
    if last < 4 or len(data) - cut < 3:
        raise TrainingError(
            f"{len(data)} training decisions are too few: a loss over a block needs 4 to train "
            "and 3 to validate; give the plan a longer train span or more frequent decisions"
        )


def equal_blocks(last: int, length: int) -> list[Block]:
    """The decisions from 1 up to ``last`` in contiguous blocks of about ``length``, at least 3."""
    count = max(1, min(round((last - 1) / length), (last - 1) // 3))
    parts = np.array_split(np.arange(1, last), count)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def epoch_blocks(
    blocks: list[Block], bootstrap: bool, mirrors: int = 0, decisions: int = 0
) -> list[Block]:
    """The blocks of an epoch in random order, of torch's global generator.

    With ``bootstrap`` each is moved to a random place in the training rows, so that they overlap
    and leave gaps: the moving-block bootstrap. Kuensch (1989). With ``mirrors`` each is taken from
    the true panel, or from one of the mirrored ones that follow it, ``decisions`` rows each.
    """
    order = torch.randperm(len(blocks)).tolist()
    first, last = blocks[0][0], blocks[-1][1]
    drawn = []
    for index in order:
        start, stop = blocks[index]
        if bootstrap:
            length = stop - start
            start = int(torch.randint(first, last - length + 1, ()).item())
            stop = start + length
        shift = int(torch.randint(mirrors + 1, ()).item()) * decisions if mirrors else 0
        drawn.append((start + shift, stop + shift))
    return drawn


def check_mirrored(panel: Panel, features: Sequence[str]) -> None:
    """Raise a ValueError where there is no asset feature of one of these names."""
    unknown = [name for name in features if name not in panel.asset_features]
    if unknown:
        known = ", ".join(map(repr, panel.asset_features)) or "none"
        raise ValueError(
            f"mirrored_features names {', '.join(map(repr, unknown))}, and the panel's asset "
            f"features are {known}"
        )


def mirrored(panel: Panel, number: int, features: Sequence[str] = (), fill: str = "close") -> Panel:
    """The panel with log returns of the opposite sign, of some assets.

    Prices p of these assets become 1 / p, row by row, so that a row of the result is known when
    that of the panel is.

    Args:
        number: which assets they are. Of the first mirror all; of each pair that follows about
            every second one at random (the seed is the pair's number), and those that it left. So
            every asset is turned in half of the panels, where the mirrors are odd in number.
        features: asset features that change sign with the returns, a forecast for example. Others,
            and those of the market, stay as they are.
        fill: the asset feature that is the price of fills, see ``WalkForward``.
    """
    turned = np.random.default_rng((number + 1) // 2).random(len(panel.assets)) < 0.5
    turned = np.ones_like(turned) if number == 0 else turned ^ (number % 2 == 0)
    prices = panel.prices.copy()
    prices.loc[:, turned] = 1 / prices.loc[:, turned]
    own = {}
    for name, frame in panel.asset_features.items():
        own[name] = frame * np.where(turned, -1.0, 1.0) if name in features else frame
        if name == fill:
            own[name] = frame.where(~turned, 1 / frame)
    return panel.replaced(
        prices=prices,
        asset_features=own,
        source=f"{panel.source}, mirrored",
    )


def with_mirrors(true: Dataset, copies: Sequence[Dataset]) -> Dataset:
    """The dataset with those of mirrored panels after it, from which blocks are drawn as well."""
    if not copies:
        return true
    every = [true, *copies]
    inputs = {name: torch.cat([each.inputs[name] for each in every]) for name in true.inputs}

    def repeated(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.cat([values] * len(every))

    return replace(
        true,
        inputs=inputs,
        growth=torch.cat([each.growth for each in every]),
        years=repeated(true.years),
        illiquidity=repeated(true.illiquidity),
        mirrors=len(copies),
        risk_free=repeated(true.risk_free),
        paths=None
        if true.paths is None
        else torch.cat([each.paths for each in every if each.paths is not None]),
        steps={k + n * len(true): s for n, each in enumerate(every) for k, s in each.steps.items()},
    )
