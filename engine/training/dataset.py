"""The decisions that a strategy is trained on, and where its validation begins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from engine.training.errors import TrainingError
from engine.training.settings import Training
from engine.training.unpriced import Steps, moved_steps
from strategies.base import Inputs


@dataclass(frozen=True)
class Dataset:
    """K consecutive decisions, each held from its fill to the next decision's fill.

    With mirrors (see ``mirrors.py``) inputs, growth, years, illiquidity and risk_free have as many
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
        steps: of the decisions whose orders may meet an asset without a price.
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
    steps: Steps = field(default_factory=dict)
    paths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Dataset:
        """The same with its tensors on another device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            inputs={name: values.to(device) for name, values in self.inputs.items()},
            growth=self.growth.to(device),
            years=moved(self.years),
            illiquidity=moved(self.illiquidity),
            risk_free=moved(self.risk_free),
            steps=moved_steps(self.steps, device),
            paths=moved(self.paths),
        )

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
        return self._purged(max(0, round(len(self) * (1 - validation * (before + 1)))))

    def split_before(self, end: int, validation: float) -> tuple[int, int, int]:
        """The same of the decisions before ``end`` alone: last, cut and end."""
        return *self._purged(max(0, round(end * (1 - validation)))), end

    def _purged(self, cut: int) -> tuple[int, int]:
        last = int(np.sum(self.ends[:cut] <= self.rows[min(cut, len(self) - 1)]))
        return last, cut


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
