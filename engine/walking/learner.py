"""The learner: what all fits and decisions of a run share, and what each of them sees; and whether
it fits in memory, checked before hours are spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.machine import GIGABYTE, free_memory
from data_loaders.validation import day
from engine.accounting.costs import Costs
from engine.accounting.market import Market, illiquidity
from engine.accounting.risk_free import RiskFree
from engine.planning.walk_forward import Fold, WalkForward
from engine.training.dataset import Dataset, check_mirrored, mirrored, steps_of, with_mirrors
from engine.training.fit_records import FitKey, Fitted
from engine.training.settings import Training
from engine.training.trainer import build
from strategies.base import LearnedStrategy
from strategies.contract_types import Inputs

STEP = 4  # times the inputs of its rows is what a step takes: benchmarks/scaling.py --only step


def _kind(value: object) -> object:
    """What two strategies have the same of if they are of one class with the same parameters, and
    so prepare the same inputs; objects among the parameters are known by identity."""
    if isinstance(value, LearnedStrategy):
        return type(value), _kind(tuple(value.get_params().values()))
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    return value if isinstance(value, (bool, int, float, str)) else ("object", id(value))


class Learner:
    """Panel, folds, costs and settings; prepares the inputs of each date once.

    It is sent to each worker once, and kept there for all tasks that it runs.
    """

    def __init__(
        self,
        panel: Panel,
        folds: list[Fold],
        plan: WalkForward,
        costs: Costs,
        training: Training,
        threads: int,
        risk_free: RiskFree | None = None,
    ):
        for loss in filter(None, (training.loss, training.first)):
            loss.bound(tuple(map(str, panel.assets)))  # an error before hours are spent
        check_mirrored(panel, training.mirrored_features)
        self.panel, self.folds, self.plan = panel, folds, plan
        self.costs, self.training, self.threads = costs, training, threads
        self.risk_free = risk_free or RiskFree(costs.cash_rate)
        self.market = Market(panel, costs, plan.fill)
        self.illiquidity = self.market.illiquidity  # refuses a panel without volumes, before a fit
        self._inputs: dict[str, InputCache] = {}  # strategies of one kind share one
        self._kinds: dict[object, InputCache] = {}
        self._first: dict[str, Inputs] = {}
        self._fitting: set[str] = set()  # strategies whose inputs have room in memory

    def __reduce__(self) -> tuple:
        """To other processes goes what it was made from, and nothing that was prepared."""
        plan = self.plan
        if callable(plan.rebalance):  # a function written at a prompt cannot be sent: its dates can
            dates = self.panel.dates
            plan = replace(plan, rebalance=dates[plan.decisions(dates)])
        parts = self.panel, self.folds, plan, self.costs, self.training, self.threads
        return Learner, (*parts, self.risk_free)

    @cached_property
    def mirrors(self) -> list[Learner]:
        """The same on each of the mirrored panels, see ``mirrored``."""
        settings, features = self.training, self.training.mirrored_features
        plain = replace(settings, mirrors=0, mirrored_features=())
        return [
            Learner(
                mirrored(self.panel, number, features, self.plan.fill),
                self.folds,
                self.plan,
                self.costs,
                plain,
                self.threads,
                self.risk_free,
            )
            for number in range(settings.mirrors)
        ]

    @cached_property
    def measured(self) -> pd.DataFrame:
        """How illiquid each asset was at each close, (T, N); empty without volumes."""
        return illiquidity(self.panel)

    @cached_property
    def asset_returns(self) -> pd.DataFrame:
        """Simple returns (T, N) at valuation prices: zero where an asset does not trade."""
        valuation = torch.from_numpy(self.market.closes)
        returns = torch.ones_like(valuation)
        torch.div(valuation[1:], valuation[:-1], out=returns[1:])
        known = self.panel.prices.notna().to_numpy()
        ever = np.logical_or.accumulate(known)  # before its first price an asset has no return
        returns[1:][torch.from_numpy(~ever[:-1])] = 1
        returns -= 1
        return pd.DataFrame(returns.numpy(), self.panel.dates, self.panel.assets)

    def restored(
        self, name: str, strategy: LearnedStrategy, fold: Fold, fits: Mapping[FitKey, Fitted]
    ) -> list[LearnedStrategy]:
        """The fitted strategies of a fold, one for each of its fits, in order of their seeds."""
        restored: list[LearnedStrategy] = []
        data = self.dataset(name, strategy, fold)
        for key in sorted(key for key in fits if (key.name, key.fold) == (name, fold.number)):
            own = clone(strategy)
            own.module_ = build(own, data, self.training)
            own.module_.load_state_dict(fits[key].state)
            own.module_.eval()
            restored.append(own)
        return restored

    def training_data(self, name: str, strategy: LearnedStrategy, fold: Fold) -> Dataset:
        """The training decisions of a fold, and those of its mirrored panels."""
        true = self.dataset(name, strategy, fold)
        return with_mirrors(true, [each.dataset(name, strategy, fold) for each in self.mirrors])

    def dataset(self, name: str, strategy: LearnedStrategy, fold: Fold) -> Dataset:
        """The training decisions of a fold; their labels end at the refit or before."""
        if not len(fold.train):
            raise ValueError(
                f"fold {fold.number} has no training decision before "
                f"{day(self.panel.dates[fold.refit])}: the plan trains on "
                f"{fold.refit - fold.start + 1} rows there, and a decision looks back over "
                f"{strategy.lookback}; give the plan a longer train span, or the strategy a "
                "shorter lookback"
            )
        fills = fold.train + self.plan.execution_lag
        periods = torch.from_numpy(self.market.clock[fold.ends] - self.market.clock[fills])
        rows = (fold.ends - fills).mean()  # of a holding period
        accrued = self.risk_free.accrued(self.panel.dates)
        inputs = self.stacked(name, strategy, fold.train)
        at_fills = self.market.at_fills
        known = replace(self.market, panel=self.panel.rows(0, int(fold.ends.max()) + 1))
        return Dataset(
            inputs=inputs | self.drift(fold),
            growth=torch.from_numpy(at_fills[fold.ends] / at_fills[fills]),
            rows=fold.train,
            ends=fold.ends,
            per_year=self.panel.periods_per_year / rows,
            years=periods if self.costs.holding else None,
            illiquidity=None if self.illiquidity is None else self.illiquidity[fills],
            assets=tuple(map(str, self.panel.assets)),
            risk_free=torch.from_numpy(accrued[fold.ends] - accrued[fills]),
            steps=steps_of(known, fold.train, fills, fold.ends, self.plan.unpriced),
            paths=self.paths(fills, fold.ends) if self.training.within else None,
        )

    def paths(self, fills: np.ndarray, ends: np.ndarray) -> torch.Tensor:
        """Growth (K, D, N) from each fill to the closes before the end, and to the end."""
        rows = fills[:, None] + np.arange((ends - fills).max() + 1)
        prices = self.market.closes[np.minimum(rows, ends[:, None])]  # (K, D, N)
        at_fills = self.market.at_fills
        prices = np.where((rows < ends[:, None])[..., None], prices, at_fills[ends][:, None])
        return torch.from_numpy(prices / at_fills[fills][:, None])

    def drift(self, fold: Fold) -> Inputs:
        """What current holdings follow from, for the K training decisions of a fold.

        ``drift`` (K, N): growth of prices from the fill of the decision before to the close of
        each; NaN of the first, and of those after a gap in time, where the holdings are unknown;
        one where that fill is still to come. And, where holding costs or earns anything,
        ``carry_rates`` (K, 3): cash rate, financing and borrow fee for the same time.
        """
        rows = fold.train
        fills = np.minimum(rows[:-1] + self.plan.execution_lag, rows[1:])
        closes = self.market.closes[rows[1:]]
        growth = torch.full((len(rows), closes.shape[1]), torch.nan, dtype=torch.float64)
        at_fills = self.market.at_fills[fills]
        since = np.where(
            (rows[:-1] + self.plan.execution_lag <= rows[1:])[:, None], at_fills, closes
        )
        growth[1:] = torch.from_numpy(closes / since)
        lags = fold.ends[:-1] - rows[1:]  # all the same where decisions are consecutive
        growth[1:][torch.from_numpy(lags < lags.max(initial=0))] = torch.nan
        if not self.costs.holding:
            return {"drift": growth}
        costs = self.costs
        rates = torch.tensor([costs.cash_rate, costs.financing, costs.borrow], dtype=torch.float64)
        years = self.market.clock[rows] - self.market.clock[np.append(rows[:1], fills)]
        return {"drift": growth, "carry_rates": torch.from_numpy(years).unsqueeze(1) * rates}

    def known(self, row: int, rows: int) -> Panel:
        """The last ``rows`` rows up to ``row``: ``panel.until(date).last(rows)`` in one cut."""
        return self.panel.rows(max(0, row + 1 - rows), row + 1)

    @cached_property
    def dates(self) -> np.ndarray:
        """(D,) rows of the panel at which anything is decided, in training or test."""
        return np.unique(
            np.concatenate([r for fold in self.folds for r in (fold.train, fold.test)])
        )

    def stacked(self, name: str, strategy: LearnedStrategy, rows: np.ndarray) -> Inputs:
        """The inputs (B, ...) of some dates, each from the rows up to it alone."""
        if name not in self._inputs:
            cache = InputCache(
                name, self.dates, lambda row: strategy.prepare(self.known(row, strategy.lookback))
            )
            self._inputs[name] = self._kinds.setdefault(_kind(strategy), cache)
        return self._inputs[name](rows)

    def first_inputs(self, name: str, strategy: LearnedStrategy) -> Inputs:
        """The inputs of the first date."""
        if name not in self._first:
            known = self.known(int(self.dates[0]), strategy.lookback)
            self._first[name] = strategy.prepare(known)
        return self._first[name]

    def check_memory(self, strategies: Mapping[str, LearnedStrategy], copies: int = 1) -> None:
        """Refuse what will not fit so many times, before the first fit; asked again, say nothing.

        Raises:
            ValueError: see ``check_memory``.
        """
        strategies = {name: s for name, s in strategies.items() if name not in self._fitting}
        self._fitting |= set(strategies)
        panels = 1 + self.training.mirrors
        # Rows of inputs that training in a fold takes besides: of its steps and, where there are
        # gaps between its dates or mirrored panels beside the true one, of all of them.
        copied = 0
        for fold in self.folds:
            rows = len(fold.train)
            gaps = (np.diff(np.searchsorted(self.dates, fold.train)) > 1).any()
            a_step = STEP * min(rows, self.training.block + 1)
            copied = max(copied, a_step + (panels * rows if gaps or panels > 1 else 0))
        free = free_memory()
        for name, strategy in strategies.items():
            first, dates = self.first_inputs(name, strategy), panels * len(self.dates)
            taken = check_memory(name, first, dates, copied, free, copies)
            free = None if free is None else free - taken


class InputCache:
    """The inputs of a strategy on the dates of a run, made when they are first asked for.

    Consecutive dates are handed out as a view, so the training rows of folds, which overlap, take
    no memory of their own. Dates that nobody asked for take none either.
    """

    def __init__(self, name: str, rows: np.ndarray, make: Callable[[int], Inputs]):
        """
        Args:
            name: of the strategy, for messages.
            rows: (D,) rows of the panel, increasing: the dates that can be asked for.
            make: prepares one of them.
        """
        self.name, self.make = name, make
        self._place = {int(row): number for number, row in enumerate(rows)}
        self._values: Inputs = {}  # (D, ...) each
        self._known = np.zeros(len(rows), bool)
        self._written: list[int] = []

    def __call__(self, rows: np.ndarray) -> Inputs:
        """The inputs (B, ...) of some of the dates.

        Raises:
            ValueError: two dates have inputs of other names or shapes.
        """
        if self._written != self._versions():  # a module wrote to a view: it may keep it
            self._values, self._written = {}, []
            self._known[:] = False
        places = [self._place[int(row)] for row in rows]
        for row, place in zip(rows, places, strict=True):
            if not self._known[place]:
                self._keep(place, self.make(int(row)))
        first, last = places[0], places[-1] + 1
        if places == list(range(first, last)):
            return {name: values[first:last] for name, values in self._values.items()}
        chosen = torch.tensor(places)
        return {name: values[chosen] for name, values in self._values.items()}

    def _keep(self, place: int, inputs: Inputs) -> None:
        if not self._values:
            dates = len(self._place)
            self._values = {k: v.new_empty((dates, *v.shape)) for k, v in inputs.items()}
        expected = {name: tuple(values.shape[1:]) for name, values in self._values.items()}
        found = {name: tuple(values.shape) for name, values in inputs.items()}
        if found != expected:
            raise ValueError(
                f"{self.name}.prepare() should give the same names and shapes on all dates, got "
                f"{found} after {expected}"
            )
        for name, values in self._values.items():
            values[place] = inputs[name]
        self._known[place] = True
        self._written = self._versions()

    def _versions(self) -> list[int]:
        """How often each was written to; a view shares the count with what it is a view of."""
        return [values._version for values in self._values.values()]


def check_memory(
    name: str, prepared: Inputs, dates: int, copied: int, free: int | None, copies: int = 1
) -> int:
    """The number of bytes that the prepared inputs of a strategy take; refused if they do not fit.

    The inputs of each date are kept, and a training step copies those of its rows several times.

    Args:
        name: of the strategy, for the message.
        prepared: its inputs of one date.
        dates: how many dates are prepared.
        copied: how many dates' inputs a training step takes in addition.
        free: bytes, or None if that is not known: then nothing is refused.
        copies: number of processes that each hold all of it.

    Raises:
        ValueError: with how much is needed, how much is free, and the remedy.
    """
    sizes = {key: value.numel() * value.element_size() for key, value in prepared.items()}
    per_date = sum(sizes.values())
    needed = copies * per_date * (dates + copied)
    if free is None or needed <= free:
        return needed
    largest = max(sizes, key=sizes.__getitem__)
    shape = " x ".join(map(str, prepared[largest].shape))
    raise ValueError(
        f"{name} would keep {needed / GIGABYTE:.3g} GB of inputs in memory, and "
        f"{free / GIGABYTE:.3g} GB are free: {per_date / 1e6:.3g} MB a date, most of it "
        f"{largest!r} ({shape}), for {dates} dates and, for steps of training, {copied} more"
        f"{f', in each of {copies} processes: take fewer workers' * (copies > 1)}; take a smaller "
        'form of the risk where the strategy has one (risk="factor"), fewer assets, rarer '
        "decisions or a rolling window of training"
    )
