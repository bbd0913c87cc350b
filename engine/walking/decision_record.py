"""What each decision was made of: holdings, forecast, risk, limits and their prices; and how far
a network's weights move when one of its inputs is shuffled.

Solves are kept while a fold is decided, and looked at together (``reasons.py`` of the layers): one
call for all its dates takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loaders import Panel
from strategies.base import LearnedStrategy
from strategies.contract_types import Inputs
from strategies.layers.equilibrium.fixed_point_loop import ConvergenceError
from strategies.layers.optimisation.reasons import joined_solves, solve_reasons
from strategies.layers.solve_record import EXPOSURE, FIXED_POINT, MEAN_VARIANCE, SolveRecord

CELLS = 200_000  # dates times assets that are recorded; beyond, dates are left out
SHUFFLED = 48  # decisions of a fold at most, evenly spread over it
HELD = 64 * 2**20  # bytes of problems that wait to be looked at


class _Waiting(NamedTuple):
    """A batch of solves that is not yet looked at, and the exposure that its weights have."""

    rows: np.ndarray  # (B,)
    solved: Any
    scale: np.ndarray | float = 1.0  # (B,) product of all exposures
    volatility: np.ndarray | float = np.nan  # (B,) of the innermost


class DecisionRecord:
    """The record of a task's decisions.

    Args:
        dates: of the panel.
        assets: of the panel.
        rows: (K,) of all decisions. Where they and the assets are many, the assets are recorded
            on ``CELLS / N`` of them, evenly spread, the first and the last among them.

    Attributes:
        limits: rows of ``BacktestResult.limits``.
    """

    def __init__(self, dates: pd.DatetimeIndex, assets: pd.Index, rows: np.ndarray):
        self.dates, self.assets = dates, assets
        most = max(2, CELLS // max(len(assets), 1))
        places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int))
        self.detailed = {int(rows[place]) for place in places} if len(rows) else set()
        self.limits: list[dict] = []
        self._decisions: list[pd.DataFrame] = []
        self._reasons: list[pd.DataFrame] = []
        self._held: dict[int, np.ndarray] = {}
        self._wanted: dict[int, np.ndarray] = {}
        self._waiting: list[_Waiting] = []
        self._steps: dict[int, tuple[float, float, float]] = {}
        self._bytes = 0

    def decided(self, row: int, held: np.ndarray, wanted: np.ndarray, record: SolveRecord) -> None:
        """Note a decision: holdings and answer, (N,) each, and the solves since the last one."""
        if row in self.detailed:
            self._held[row], self._wanted[row] = held.astype(np.float32), wanted.astype(np.float32)
        self.solves(np.array([row]), record)

    def solves(self, rows: np.ndarray, record: SolveRecord) -> None:
        """Take the solves of decisions: samples of one row, or one for each of ``rows``."""
        for kind, kept in record.details or []:
            if kind == FIXED_POINT and len(kept.steps) % len(rows) == 0:
                self._equilibria(np.resize(rows, len(kept.steps)), kept.steps, kept.residual)
            elif kind == MEAN_VARIANCE and (count := len(kept.solution.weights)) % len(rows) == 0:
                own = rows if count == len(rows) else np.resize(rows, count)
                self._waiting.append(_Waiting(own, kept))
                risk = kept.problem.risk
                self._bytes += 8 * getattr(risk, "loadings", risk).numel()
            elif kind == EXPOSURE and self._waiting:
                last = self._waiting[-1]
                if len(kept[0]) == len(last.rows):
                    first = np.where(np.isnan(last.volatility), kept[1], last.volatility)
                    self._waiting[-1] = last._replace(scale=last.scale * kept[0], volatility=first)
        if self._bytes > HELD:
            self.look()

    def look(self) -> None:
        """Turn the solves that wait into rows of tables."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return

        def joined(values: list[Any]) -> np.ndarray:
            spread = (np.resize(v, len(each.rows)) for v, each in zip(values, waiting, strict=True))
            return np.concatenate(list(spread))

        rows = np.concatenate([each.rows for each in waiting])
        scale = joined([each.scale for each in waiting])
        volatility = joined([each.volatility for each in waiting])
        samples = pd.Series(rows).groupby(rows).cumcount().to_numpy()
        first = 0
        for solved in joined_solves([each.solved for each in waiting]):
            part = slice(first, first + len(solved.solution.weights))
            first = part.stop
            own, number = rows[part], samples[part]
            detailed = np.isin(own, list(self.detailed))
            found = solve_reasons(solved, detailed)
            for date, sample in zip(self.dates[own], found.limits, strict=True):
                self.limits += [{"date": date, **line} for line in sample]
            about = {"date": self.dates[own], "sample": number.astype(np.int16)}
            about |= {"scale": scale[part], "volatility": volatility[part]}
            for name in ("exposure", "gross"):
                found.samples[name] = found.samples[name] * about["scale"]
            self._decisions.append(pd.DataFrame(about | found.samples))
            self._reasons.append(self._long(own[detailed], number[detailed], found.assets))

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """``decisions`` and ``reasons`` of ``BacktestResult``."""
        self.look()
        self.limits.sort(key=lambda line: line["date"])
        solved = [frame for frame in self._decisions if len(frame)]
        decisions = pd.concat(solved, ignore_index=True) if solved else pd.DataFrame()
        if len(decisions) and self._steps:
            steps = pd.DataFrame.from_dict(
                {self.dates[row]: found for row, found in self._steps.items()},
                orient="index",
                columns=["steps", "contraction", "residual"],
            )
            decisions = decisions.join(steps, on="date")
        if len(decisions):
            decisions = decisions.sort_values(["date", "sample"], ignore_index=True)
        explained = [frame for frame in self._reasons if len(frame)]
        known = {date for frame in explained for date in frame["date"].unique()}
        rest = [row for row in self._held if self.dates[row] not in known]
        if rest:
            wanted = {"aimed": np.array([self._wanted[row] for row in rest])}
            explained.append(self._long(np.array(rest), np.zeros(len(rest)), wanted))
        if not explained:
            return decisions, pd.DataFrame()
        reasons = pd.concat(explained, ignore_index=True)
        order = ["date", "sample", "asset"]
        reasons = reasons.sort_values(order[:2], kind="stable", ignore_index=True)
        return decisions, reasons[[*order, *(c for c in reasons if c not in order)]]

    def _long(
        self, rows: np.ndarray, samples: np.ndarray, values: dict[str, np.ndarray]
    ) -> pd.DataFrame:
        """One row a sample and asset, of values (D, N)."""
        count = len(self.assets)
        held = [self._held.get(int(row), np.full(count, np.nan, np.float32)) for row in rows]
        names = pd.Categorical.from_codes(np.tile(np.arange(count), len(rows)), self.assets)
        columns = {name: value.astype(np.float32).ravel() for name, value in values.items()}
        return pd.DataFrame(
            {
                "date": np.repeat(self.dates[rows.astype(int)], count),
                "sample": np.repeat(samples.astype(np.int16), count),
                "asset": names,
                "held": np.array(held, np.float32).ravel(),
                **columns,
            }
        )

    def _equilibria(self, rows: np.ndarray, steps: Any, residual: Any) -> None:
        """The most steps, the slowest contraction and the largest residual of a decision."""
        steps, residual = steps.cpu().numpy(), residual.detach().cpu().numpy()
        rates = np.where(steps > 1, residual.astype(float) ** (1 / np.maximum(steps - 1, 1)), 0.0)
        for row, *found in zip(rows, steps, rates, residual, strict=True):
            before = self._steps.get(int(row), (0.0, 0.0, 0.0))
            self._steps[int(row)] = tuple(map(max, before, map(float, found)))  # type: ignore


def sensitivity(
    strategy: LearnedStrategy, inputs: Inputs, seed: int = 0, history: Panel | None = None
) -> list[dict[str, object]]:
    """Of a trained network, one row an input: feature, change, decisions; the largest change first.

    Permutation importance (Breiman 2001, Random Forests, section 10), measured on the weights and
    not on a score, so that noise in returns cannot hide it: a feature takes the values of another
    test date, the same one for all assets, all else stays. Of a network that looks at the current
    holdings, these are the weights that it aims at.

    change is the mean over the decisions of ``sum |w - w'| / 2``: the share of the portfolio that
    is held in other assets when the feature is shuffled; 0 where the network does not look at it.

    An input whose last axis ``strategy.feature_names`` names, or that is called "features", is
    split along that axis, any other of real numbers as a whole. What is the same on all dates
    is left out, and what the network cannot be asked about, as no portfolio exists for the mixture.

    Args:
        inputs: stacked inputs of test decisions, (B, ...) each.
        seed: of the permutation.
        history: what was known at the last decision, for strategies whose ``feature_names`` is a
            method of it.
    """
    count = len(next(iter(inputs.values())))
    chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, SHUFFLED)).round()))
    few = {name: value[chosen.long()] for name, value in inputs.items()}
    if len(chosen) < 2:
        return []
    try:
        usual = strategy.weights(few)  # (B, N)
    except (ConvergenceError, ValueError, RuntimeError):
        return []  # a network that decides date by date, because it cannot decide several at once
    cycle = torch.from_numpy(np.random.default_rng(seed).permutation(len(chosen)))
    order = torch.empty_like(cycle)  # a random cycle: no date stays in its place
    order[cycle] = cycle.roll(1)
    names = _names(strategy, history)
    rows: list[dict[str, object]] = []
    for name, value in few.items():
        if not value.is_floating_point() or bool((value == value[:1]).all()):
            continue
        for label, place in _parts(name, value, names.get(name)):
            mixed = value.clone()
            mixed[place] = value[order][place]
            if bool((mixed == value).all()):
                continue
            try:
                moved = strategy.weights(few | {name: mixed})
            except (ConvergenceError, ValueError, RuntimeError):
                continue
            change = float((moved - usual).abs().sum(dim=-1).mean() / 2)
            rows.append({"feature": label, "change": change, "decisions": len(chosen)})
    return sorted(rows, key=lambda row: -float(row["change"]))  # type: ignore[arg-type]


def _names(strategy: LearnedStrategy, history: Panel | None) -> dict[str, list[str]]:
    """By input: the names along its last axis, where the strategy says them."""
    asked = getattr(strategy, "feature_names", {})
    said: Mapping[str, Sequence[str]] | Sequence[str] = asked
    if callable(asked):
        said = asked(history) if history is not None else {}
    return {
        k: list(v) for k, v in (said if isinstance(said, Mapping) else {"features": said}).items()
    }


def _parts(name: str, value: Tensor, names: list[str] | None) -> list[tuple[str, tuple]]:
    """Labels of the parts of an input that are shuffled one by one, and where they are."""
    size = value.shape[-1]
    if names is not None and len(names) == size:
        labels = names
    elif name == "features":
        labels = [f"feature {number}" for number in range(1, size + 1)]
    else:
        return [(name, (...,))]
    return [(label, (..., number)) for number, label in enumerate(labels)]
