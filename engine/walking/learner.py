"""The learner: which fits a backtest needs, what each sees, and the strategies they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.accounting.liquidity import illiquidity, measured
from engine.compute.memory import check_memory, free_memory
from engine.planning.walk_forward import Fold, WalkForward
from engine.runs.run_directory import RunDirectory
from engine.training.callbacks import Callback, ProgressBar
from engine.training.fit_records import FitKey, Fitted
from engine.training.mirrors import beside, check_mirrored, mirrored
from engine.training.rollout import joint
from engine.training.trainer import Samples, Training, build
from engine.walking.fitting import FitTask, run_fits
from engine.walking.input_cache import Prepared
from engine.walking.sensitivity import sensitivity
from strategies.base import Inputs, LearnedStrategy, Strategy

if TYPE_CHECKING:
    from engine.compute.broadcast import Submit

FEW = 32
STEP = 4  # times the inputs of its rows is what a step takes: benchmarks/scaling.py --only step
TOGETHER = 64e6  # bytes of inputs in a step: more seeds at once would only wait for memory


class Learner:
    """Fits and restores learned strategies, and prepares the inputs of each date once."""

    def __init__(
        self,
        panel: Panel,
        folds: list[Fold],
        plan: WalkForward,
        costs: Costs,
        training: Training,
        threads: int,
    ):
        training.loss.bound(tuple(map(str, panel.assets)))  # an error before hours are spent
        check_mirrored(panel, training.mirrored_features)
        self.panel, self.folds, self.plan = panel, folds, plan
        self.costs, self.training, self.threads = costs, training, threads
        self.valuation = torch.tensor(panel.prices.ffill().fillna(1.0).to_numpy())
        self.valuation_array = self.valuation.numpy()
        self.illiquidity = illiquidity(panel, costs)
        self.seeds = range(training.seed, training.seed + training.ensemble)
        self._prepared: dict[str, Prepared] = {}
        self._fitting: set[str] = set()  # strategies whose inputs have room in memory

    def __reduce__(self) -> tuple:
        """To other processes goes what it was made from, and nothing that was prepared."""
        parts = self.panel, self.folds, self.plan, self.costs, self.training, self.threads
        return Learner, parts

    def of_seed(self, seed: int) -> Learner:
        """The same for one of the seeds alone; what was prepared is shared."""
        own = object.__new__(Learner)  # copy.copy would do as __reduce__ says, and share nothing
        own.__dict__.update(self.__dict__)
        own.training = replace(self.training, seed=seed, ensemble=1)
        own.seeds = range(seed, seed + 1)
        return own

    @cached_property
    def mirrors(self) -> list[Learner]:
        """The same on each of the mirrored panels, see ``mirrors.py``."""
        settings, features = self.training, self.training.mirrored_features
        plain = replace(settings, mirrors=0, mirrored_features=())
        return [
            Learner(
                mirrored(self.panel, number, features),
                self.folds,
                self.plan,
                self.costs,
                plain,
                self.threads,
            )
            for number in range(settings.mirrors)
        ]

    @cached_property
    def measured(self) -> pd.DataFrame:
        """How illiquid each asset was at each close, (T, N); empty without volumes."""
        return measured(self.panel)

    @cached_property
    def asset_returns(self) -> pd.DataFrame:
        """Simple returns (T, N) at valuation prices: zero where an asset does not trade."""
        returns = torch.ones_like(self.valuation)
        torch.div(self.valuation[1:], self.valuation[:-1], out=returns[1:])
        known = self.panel.prices.notna().to_numpy()
        ever = np.logical_or.accumulate(known)  # before its first price an asset has no return
        returns[1:][torch.from_numpy(~ever[:-1])] = 1
        returns -= 1
        return pd.DataFrame(returns.numpy(), self.panel.dates, self.panel.assets)

    def fit(
        self,
        strategies: dict[str, LearnedStrategy],
        submit: Submit | None,
        run: RunDirectory | None,
        progress: bool | None,
        on_last: Callable[[], None] = lambda: None,
        copies: int = 1,
        callbacks: Sequence[Callback] = (),
    ) -> dict[FitKey, Fitted]:
        """All fits of the strategies, those already in the run directory read from there.

        Args:
            submit: where they are made, see ``broadcast.py``; None is this process.
            on_last: called once the last of them is submitted.
            copies: how many processes of this machine prepare inputs; others count their own.
            callbacks: told of every epoch and fit.
        """
        keys = [
            FitKey(name, fold.number, seed)
            for name in strategies
            for seed in self.seeds
            for fold in self.folds
        ]
        if copies:
            self.check_memory(strategies, copies)
        done = run.finished(keys) if run is not None else {}

        def make(
            group: tuple[FitKey, ...], initial: Mapping[int, dict[str, torch.Tensor]]
        ) -> FitTask:
            files = {key.seed: run.checkpoint(key) for key in group} if run is not None else {}
            return FitTask(group, clone(strategies[group[0].name]), initial, files)

        live: set[FitKey] = set()
        bar = ProgressBar(len(keys), len(done), len(self.folds), progress)

        def on_epoch(key: FitKey, row: dict) -> None:
            live.add(key)
            for callback in told:
                callback.epoch(key, row)

        def on_done(key: FitKey, fitted: Fitted) -> None:
            if run is not None:
                run.store(key, fitted)
            rows = [] if key in live else fitted.history.to_dict("records")
            for callback in told:
                for row in rows if callback is not bar else rows[-1:]:
                    callback.epoch(key, {**row, "solves": fitted.solves})
                callback.fitted(key)

        with ExitStack() as open_:
            told = [open_.enter_context(callback) for callback in (bar, *callbacks)]
            chained = self.training.warm_start
            groups = [
                group
                for name, strategy in strategies.items()
                for group in self._groups(name, strategy)
            ]
            run_fits(groups, make, self, submit, done, on_done, on_epoch, chained, on_last)
        if run is not None:
            run.tidy()
        return done

    def _groups(self, name: str, strategy: LearnedStrategy) -> list[tuple[FitKey, ...]]:
        """The fits of a strategy: those together that are trained side by side.

        As many as fit into ``TOGETHER`` bytes of inputs at a time; one by one where the strategy's
        module cannot be computed together with others.
        """
        seeds = list(self.seeds)
        most = 1
        if len(seeds) > 1:
            rows = self.folds[0].train[:FEW]  # enough to see what kind of module it is
            few = self.stacked(name, strategy, rows)
            try:
                module = clone(strategy).build(few)
            except (ValueError, RuntimeError):  # its fits will say what is wrong
                module = None
            if module is not None and joint([module]):
                a_row = sum(v[0].numel() * v.element_size() for v in few.values())
                most = max(1, int(TOGETHER // (self.training.block * a_row)))
        parts = [seeds[i : i + most] for i in range(0, len(seeds), most)]
        return [
            tuple(FitKey(name, fold.number, seed) for seed in part)
            for part in parts
            for fold in self.folds
        ]

    def restored(
        self, name: str, strategy: LearnedStrategy, fold: Fold, fits: dict[FitKey, Fitted]
    ) -> list[Strategy]:
        """The fitted strategies of a fold, one a seed."""
        restored: list[Strategy] = []
        samples = self.samples(name, strategy, fold)
        for seed in self.seeds:
            own = clone(strategy)
            own.module_ = build(own, samples, self.training)
            own.module_.load_state_dict(fits[FitKey(name, fold.number, seed)].state)
            own.module_.eval()
            restored.append(own)
        return restored

    def sensitivity(self, name: str, fitted: list[Strategy], fold: Fold) -> list[dict]:
        """What the fitted networks of a fold look at in its test rows, see ``sensitivity.py``."""
        rows: list[dict] = []
        for seed, strategy in zip(self.seeds, fitted, strict=False):
            if isinstance(strategy, LearnedStrategy) and len(fold.test):
                inputs = self.stacked(name, strategy, fold.test)
                known = self.known(int(fold.test[-1]), strategy.lookback)
                found = sensitivity(strategy, inputs, seed, known)
                rows += [{"fold": fold.number, "seed": seed, **row} for row in found]
        return rows

    def training_samples(self, name: str, strategy: LearnedStrategy, fold: Fold) -> Samples:
        """The training decisions of a fold, and those of its mirrored panels."""
        true = self.samples(name, strategy, fold)
        return beside(true, [each.samples(name, strategy, fold) for each in self.mirrors])

    def samples(self, name: str, strategy: LearnedStrategy, fold: Fold) -> Samples:
        """The training decisions of a fold; their labels end at the refit or before."""
        if not len(fold.train):
            raise ValueError(
                f"fold {fold.number} has no training decision before "
                f"{self.panel.dates[fold.refit].date()}: the plan trains on "
                f"{fold.refit - fold.start + 1} rows there, and a decision looks back over "
                f"{strategy.lookback}; give the plan a longer train span, or the strategy a "
                "shorter lookback"
            )
        fills = fold.train + self.plan.execution_lag
        dates = self.panel.dates
        years = (dates[fold.ends] - dates[fills]).days.to_numpy().sum() / 365.25
        inputs = self.stacked(name, strategy, fold.train)
        return Samples(
            inputs=inputs | {"row": torch.from_numpy(fold.train)} | self.drift(fold),
            growth=self.valuation[fold.ends] / self.valuation[fills],
            rows=fold.train,
            ends=fold.ends,
            per_year=len(fold.train) / years,
            years=self.years(fills, fold.ends) if self.costs.holding else None,
            illiquidity=None if self.illiquidity is None else self.illiquidity[fills],
            assets=tuple(map(str, self.panel.assets)),
        )

    def drift(self, fold: Fold) -> Inputs:
        """What current holdings follow from, for the K training decisions of a fold.

        ``drift`` (K, N): growth of prices from the fill of the decision before to the close of
        each; NaN of the first, and of those after a gap in time, where the holdings are unknown;
        one where that fill is still to come. And, where holding costs or earns anything,
        ``carry_rates`` (K, 3): cash rate, financing and borrow fee for the same time.
        """
        rows = fold.train
        fills = np.minimum(rows[:-1] + self.plan.execution_lag, rows[1:])
        growth = torch.full((len(rows), self.valuation.shape[1]), torch.nan, dtype=torch.float64)
        growth[1:] = self.valuation[rows[1:]] / self.valuation[fills]
        lags = fold.ends[:-1] - rows[1:]  # all the same, where decisions are in a row
        growth[1:][torch.from_numpy(lags < lags.max(initial=0))] = torch.nan
        if not self.costs.holding:
            return {"drift": growth}
        costs = self.costs
        rates = torch.tensor([costs.cash_rate, costs.financing, costs.borrow], dtype=torch.float64)
        years = self.years(np.append(rows[:1], fills), rows)
        return {"drift": growth, "carry_rates": years.unsqueeze(1) * rates}

    def years(self, start: np.ndarray, end: np.ndarray) -> torch.Tensor:
        """From rows ``start`` to rows ``end``, (K,) each."""
        return torch.from_numpy((end - start) / self.panel.periods_per_year)

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
        if name not in self._prepared:
            self._prepared[name] = Prepared(
                name, self.dates, lambda row: strategy.prepare(self.known(row, strategy.lookback))
            )
        return self._prepared[name](rows)

    def check_memory(self, strategies: Mapping[str, LearnedStrategy], copies: int = 1) -> None:
        """Refuse what will not fit so many times, before the first fit; asked again, say nothing.

        Raises:
            ValueError: see ``check_memory``.
        """
        strategies = {name: s for name, s in strategies.items() if name not in self._fitting}
        self._fitting |= set(strategies)
        dates = (1 + self.training.mirrors) * len(self.dates)
        copied = max(self._copied(fold) for fold in self.folds)
        free = free_memory()
        for name, strategy in strategies.items():
            prepared = strategy.prepare(self.known(int(self.dates[0]), strategy.lookback))
            taken = check_memory(name, prepared, dates, copied, free, copies)
            free = None if free is None else free - taken

    def _copied(self, fold: Fold) -> int:
        """Rows of inputs that training in a fold takes besides: of its steps and, where there are
        gaps between its dates or mirrored panels beside the true one, of all of them."""
        mirrors = self.training.mirrors
        gaps = (np.diff(np.searchsorted(self.dates, fold.train)) > 1).any()
        a_step = STEP * min(len(fold.train), self.training.block + 1)
        return a_step + ((1 + mirrors) * len(fold.train) if gaps or mirrors else 0)
