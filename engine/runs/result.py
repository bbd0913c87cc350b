"""BacktestResult: everything one strategy did in one backtest, stored without pickle."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from data_loaders.calendars import elapsed_years
from data_loaders.writing import remove_abandoned
from engine.accounting import performance
from engine.accounting.risk_free import risk_free_of
from engine.accounting.round_trips import CAPITAL, profit_by_asset, round_trips
from engine.runs.explanations import explained, positions_by_decision
from engine.runs.result_views import Frames, as_text, span
from engine.runs.run_files import FILES, contents, sealed_folder, unsealed
from engine.training.fit_records import training_summary

if TYPE_CHECKING:
    from torch import Tensor

    from data_loaders import Panel
    from engine.runs.result_plots import Plots
    from strategies.base import Strategy

FORMAT = 1
RESULT = "result.json"


@dataclass(frozen=True, repr=False)
class BacktestResult:
    """Decisions, holdings, costs and returns of a strategy; fractions, and dates of closes.

    ``frames``, ``summary()``, ``explain(date)`` and ``plot()`` show them.

    Attributes:
        name: of the strategy, as shown in reports.
        strategy: {"class": import path, "parameters": {...}, "learned": whether it is trained,
            "code": sha256 of its source}.
        targets: (K, N) target weights by decision date; NaN where an asset is left as it is.
        weights: (T, N) weights held after the close of each date, drifting between fills.
        gross_returns: (T,) simple returns before costs; the first row is the first fill.
        net_returns: (T,) the same after costs.
        turnover: (K,) traded value over portfolio value, sum |w - w+|, by fill date.
        costs: (K,) cost over portfolio value before the trade, by fill date.
        orders: one row per order: date, asset, side, size (shares filled), price, fees (money),
            decided (date), ordered (shares, before purchases were scaled down to the cash, and
            before rounding to whole ones), paid (money out of cash, fees included; negative: in),
            reason ("decision", "limit", "stop", "trailing", "take_profit"; of what was not filled
            at all, of size 0, "cash_short" or "below_one_share"). What found no price is in
            ``delays``. The portfolio starts with the costs' capital, 1,000,000 by default.
        folds: one row per refit, see ``WalkForward.describe``: train_start, train_end, labels_end,
            training, validation_start, test_start, test_end, last_fill, decisions.
        training: one row per epoch of a fold and seed: fold, seed, epoch, loss,
            validation_loss, best, gradient_norm, skipped, contraction (of the epoch's slowest
            fixed point, per step); empty if nothing is trained. ``training_summary`` has one row
            per fit.
        solves: one row per fold, seed, phase and kind of solve: fold, seed (NaN in allocation),
            phase ("training" or "allocation"), solve, samples, mean_steps, most_steps,
            residual, failures.
        checks: one row per fold, seed and time of a comparison of the optimiser with another
            solver: fold, seed, when, samples, weights, gradients (the largest differences), peer
            ("qpth", or "reference" where it is not installed).
        states: {(fold, seed): state of the trained module}.
        settings: what reproduces the run: panel (source, fingerprint, snapshots, quality,
            caveats, start, end, assets), plan, costs, risk_free (a number, or what tells a series
            apart), training, seed, periods_per_year, versions; and "simulation_difference", the
            largest difference between our net returns and those of the order-level simulation.
        asset_returns: (T, N) simple returns of the assets, 0 after an asset stopped trading;
            weights of the row before, times these, sum to the gross return.
        fractional_returns: (T,) net returns if fractions of shares could be traded; they differ
            from ``net_returns`` only if ``backtest`` was asked for whole shares.
        limits: one row per decision, seed and constraint of an optimising strategy: date, limit,
            held, of, price, variance (see ``strategies.layers.optimisation.explanation``).
        decisions: one row per decision and solve (sample) of an optimising strategy: date, sample,
            those of ``Reasons.samples`` (``strategies.layers.optimisation.reasons``), of an
            equilibrium steps, contraction, residual, and of weights that are scaled by an exposure
            (cash) scale, and volatility, the one predicted without it; exposure is the product.
        reasons: one row per decision, sample and asset, float32: date, sample, asset, held (before
            the trade), aimed, and of an optimising strategy those of ``Reasons.assets``. Of many
            assets, on fewer dates than there were decisions. ``explain`` reads it.
        sensitivity: one row per fold, seed and feature of a learned strategy: fold, seed, feature,
            change, decisions (see ``engine.walking.decision_record``).
        risk_free: (T,) simple risk-free returns of the same periods as ``net_returns``, see
            ``accounting.risk_free``; by default what the rate in the settings comes to.
        illiquidity: (K, N) daily volatility over the root of the money traded a day, by fill date;
            empty if the panel has no volume.
        benchmark: (T,) simple returns of the panel's benchmark, 0 in the first row, NaN where it
            has no price; empty without one. Its name is in settings, panel, benchmark.
        fills: (E, N) targets by fill date, NaN where there was no order. A decision has none where
            it orders nothing, and several where orders wait for a price.
        most_invested: (E,) what weights might sum to at these fills where assets were left alone.
        delays: one row per order that found no price when it was due: decided, due, filled (dates),
            asset, outcome ("waited", "waiting", "replaced", "cancelled", "delisted").
        levels: one row per decision and asset with protective orders, see ``strategies.Bracket``:
            date (of the decision), asset, stop, trailing, take_profit, limit; empty without any.
        failure: None, or why the strategy did not finish: date (ISO; None where there is none),
            stage ("fit", "training", "decision" or "simulation") and reason (a sentence). The rest
            is then what was decided and earned before that date. A strategy that was ruined has a
            return of -1 on that date, and zeros after it to the end of the run.
    """

    name: str
    strategy: dict
    targets: pd.DataFrame
    weights: pd.DataFrame
    gross_returns: pd.Series
    net_returns: pd.Series
    turnover: pd.Series
    costs: pd.Series
    orders: pd.DataFrame
    folds: pd.DataFrame
    training: pd.DataFrame
    solves: pd.DataFrame
    settings: dict
    checks: pd.DataFrame = field(default_factory=pd.DataFrame)
    states: dict[tuple[int, int], dict[str, Tensor]] = field(default_factory=dict)
    asset_returns: pd.DataFrame = field(default_factory=pd.DataFrame)
    fractional_returns: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    limits: pd.DataFrame = field(default_factory=pd.DataFrame)
    sensitivity: pd.DataFrame = field(default_factory=pd.DataFrame)
    illiquidity: pd.DataFrame = field(default_factory=pd.DataFrame)
    benchmark: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    risk_free: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    fills: pd.DataFrame = field(default_factory=pd.DataFrame)
    most_invested: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    delays: pd.DataFrame = field(default_factory=pd.DataFrame)
    levels: pd.DataFrame = field(default_factory=pd.DataFrame)
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    reasons: pd.DataFrame = field(default_factory=pd.DataFrame)
    failure: dict | None = None

    def __post_init__(self) -> None:
        if self.risk_free.index.equals(self.net_returns.index) or not len(self.net_returns):
            return
        dates = pd.DatetimeIndex(self.net_returns.index)
        fills = dates.intersection(pd.DatetimeIndex(self.turnover.index))
        object.__setattr__(self, "risk_free", risk_free_of(self.settings).returns(dates, fills))

    @property
    def ruined(self) -> bool:
        """Whether the portfolio lost all of its value."""
        return self.failure is not None and bool((self.net_returns == -1).any())

    @property
    def complete(self) -> bool:
        """Whether its returns reach to the end of the run: it finished, or was ruined."""
        return self.failure is None or self.ruined

    @property
    def carry(self) -> pd.Series:
        """(T,) what interest on cash, financing and borrow fees add to the return of each row.

        ``net_returns == (1 + gross_returns + carry) * (1 - costs) - 1``, and ``costs`` are those of
        trading alone.
        """
        paid = self.costs.reindex(self.net_returns.index, fill_value=0.0)
        return ((1 + self.net_returns) / (1 - paid) - 1 - self.gross_returns).rename("carry")

    @property
    def rows_per_year(self) -> float:
        """Rows over elapsed years, by which growth, turnover and costs are of a year.

        The first row takes no time where it is the first fill, elsewhere as long as the others.
        ``settings["periods_per_year"]``, by which ratios and volatility are annualised, leaves out
        missing rows, and is that of a usual calendar. So it is here of a single row.
        """
        dates = pd.DatetimeIndex(self.net_returns.index)
        years = float(elapsed_years(dates).sum())
        if not years > 0:
            return float(self.settings["periods_per_year"])
        bought = len(self.turnover) > 0 and self.turnover.index[0] == dates[0]
        return (len(dates) if bought else len(dates) - 1) / years

    @property
    def excess_returns(self) -> pd.Series:
        """(T,) net returns less the risk-free ones, from which ratios are computed."""
        return self.in_excess(self.net_returns)

    def in_excess(self, returns: pd.Series) -> pd.Series:
        """Returns (T,) of the strategy, at other costs for example, less the risk-free ones.

        Their mean in every row, so that no ratio is defined, where they vary by rounding only or
        nothing but cash was ever held: interest above the risk-free rate rewards no risk.
        """
        if not len(returns):
            return returns
        found = performance.excess(returns, self.risk_free)
        only_cash = self.weights.size and not self.weights.fillna(0.0).to_numpy().any()
        return performance.level(found, returns.abs().max()) if only_cash else found

    @cached_property
    def round_trips(self) -> pd.DataFrame:
        """One row for each order that closes a position, or a part of it, and for each open one.

        A purchase and a sale are matched by average cost: entry_price is the average price of the
        position, which a partial sale leaves as it is. An order beyond the holding closes the
        position, and opens another. Columns: asset, side ("long" or "short"), shares, entry_date
        (when the position was opened), entry_price, exit_date (NaT: open at the end), exit_price
        (then the last close), fees (of the exit, and their share of the entry's), profit (money,
        after fees; interest and borrowing fees belong to the portfolio), return (profit over what
        the shares cost), bars (rows held), adverse, favourable (largest moves from the entry price
        at the closes before the exit and at the exit, fractions: not above and not below 0), reason
        (of the exit; "open").
        """
        capital = (self.settings.get("costs") or {}).get("capital") or CAPITAL
        value = capital * (1 + self.net_returns).cumprod()
        rows = int((value > 0).sum()) + 1  # up to a ruin
        weights, moved = self.weights.iloc[:rows], self.asset_returns.iloc[:rows]
        return round_trips(self.orders, weights, moved, value.iloc[:rows])

    def profit_by_asset(self, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Sums of the round trips by asset, or by group as {asset: group}; largest profit first.

        Columns: round trips (closed), won, realised, open, fees, profit = realised + open (money).
        """
        return profit_by_asset(self.round_trips, groups)

    def replay(
        self,
        panel: Panel,
        strategy: Strategy | None = None,
        dates: Iterable[pd.Timestamp | str] | None = None,
    ) -> Any:
        """q, P, the equilibrium, residuals, weights and multipliers by date, computed again.

        Arguments, errors and the ``Replay`` that is returned: see ``engine.research.replay``.
        """
        # By name: to decide again takes the rooms to the right, which know results.
        return import_module("engine.research.replay").replay(self, panel, strategy, dates)

    def training_summary(self) -> pd.DataFrame:
        """One row per fit, see ``engine.training.fit_records``."""
        return training_summary(self.training)

    def summary(self) -> pd.Series:
        """The figures that are looked at first; ``reports.summary_table`` has all.

        annual return (geometric, after costs), volatility and Sharpe (annual), max drawdown,
        turnover/year (times the portfolio) and costs paid (share of it, in all).
        """
        if not len(self.net_returns):
            return pd.Series(dtype=float, name=self.name)
        yearly = self.yearly
        found = {
            "annual return": yearly["annual_return"],
            "volatility": yearly["volatility"],
            "Sharpe": yearly["sharpe"],
            "max drawdown": performance.max_drawdown(self.net_returns),
            "turnover/year": yearly["turnover"],
            "costs paid": float(self.costs.sum()),
        }
        return pd.Series(found, name=self.name)

    @property
    def yearly(self) -> dict[str, float]:
        """Sharpe ratio, return, volatility and turnover of a year, net, as far as it came."""
        year, net = self.settings["periods_per_year"], self.net_returns
        traded = self.turnover if len(net) else float("nan")
        return {
            "sharpe": performance.sharpe(self.excess_returns, year),
            "annual_return": performance.annual_return(net, self.rows_per_year),
            "volatility": performance.volatility(net, year),
            "turnover": performance.yearly(traded, len(net) or 1, self.rows_per_year),
        }

    @property
    def figures(self) -> dict[str, float]:
        """``yearly``; NaN where it did not finish, as they are then of another period."""
        return self.yearly if self.complete else dict.fromkeys(self.yearly, float("nan"))

    @property
    def frames(self) -> Frames:
        """{name: DataFrame or Series} of everything that is known, without what is empty."""
        return Frames.of(self)

    @property
    def plot(self) -> Plots:
        """Figures of matplotlib: ``plot()`` growth and drawdowns, ``plot.weights()``, ..."""
        from engine.runs.result_plots import Plots

        return Plots(self)

    def explain(self, date: pd.Timestamp | str | None = None) -> pd.DataFrame:
        """Why a decision's portfolio is what it is: one row an asset, the largest first.

        Forecast, beta (what the asset adds to the risk; the portfolio's own is 1) and limit_price
        are over the variance of the portfolio. A sentence for each asset is in the column "why".
        The other columns are those of ``positions_by_decision``; the date is in ``attrs``.

        Args:
            date: the last recorded decision up to it; default the last of all.

        Raises ValueError where nothing is recorded, or nothing up to that date.
        """
        return explained(self.positions_by_decision, date, self.name)

    @cached_property
    def positions_by_decision(self) -> pd.DataFrame:
        """One row per recorded decision and asset, indexed by both; weights are fractions.

        Columns: held (before), aimed (by the optimiser, or the rule), ordered (NaN: nothing),
        traded (bought less sold, by all fills of this decision) and the cost of that, over the
        portfolio's value at the fill; kind (of its sentence, ``engine.runs.explanations.WHY``); and
        of an optimising strategy forecast, beta, limit_price (positive of a cap, negative of a
        floor), risk (share of the variance), no_forecast, no_trading_cost, no_cap: the weight there
        would be. Of several seeds or strategies inside, the means.
        """
        return positions_by_decision(
            self.reasons, self.decisions, self.targets, self.orders, self.turnover
        )

    def __repr__(self) -> str:
        said = ", ".join(f"{k} {v}" for k, v in as_text(self.summary()).items())
        return f"<BacktestResult {self.name}: {span(self)}; {said or 'nothing was earned'}>"

    def _repr_html_(self) -> str:
        table = as_text(self.summary()).to_frame(self.name)
        return f"<p>{html.escape(span(self))}</p>{table.to_html()}"

    def save(self, directory: str | Path) -> Path:
        """Write the result to ``directory``: all of it or, on an error, nothing.

        Frames are stored as Parquet, settings as JSON, states as safetensors. An older result in
        the same place is replaced; a directory that holds anything else is refused.
        """
        from safetensors.torch import save_file

        target = Path(directory)
        own = {RESULT, *(f"{name}.parquet" for name in FRAMES)}
        found = {each.name for each in target.iterdir()} if target.exists() else set()
        if not all(re.fullmatch(r"state-.*\.safetensors", name) for name in found - own):
            raise FileExistsError(f"{target} holds files that are no result; choose another place")
        plain = ("name", "strategy", "settings", "failure")
        text = {"format": FORMAT, **{name: getattr(self, name) for name in plain}}
        remove_abandoned(target)
        with sealed_folder(target, RESULT, text) as scratch:
            for name in FRAMES:
                frame = getattr(self, name)
                frame = frame.to_frame(name) if isinstance(frame, pd.Series) else frame
                frame.to_parquet(scratch / f"{name}.parquet")
            for (fold, seed), state in self.states.items():
                tensors = {key: value.detach().contiguous().clone() for key, value in state.items()}
                save_file(tensors, scratch / f"state-{fold}-{seed}.safetensors")
        return target

    @classmethod
    def load(cls, directory: str | Path) -> BacktestResult:
        """Read what ``save`` wrote; nothing is unpickled.

        Raises:
            FileNotFoundError: there is no result.
            RunDamaged: it is not what was written.
        """
        from safetensors.torch import load

        source = Path(directory)
        if not (source / RESULT).is_file():
            raise FileNotFoundError(f"{source} holds no {RESULT}: it is not a saved result")
        text = unsealed(source / RESULT)
        if text.get("format") != FORMAT:
            raise ValueError(
                f"{source} has format {text.get('format')}, this version reads {FORMAT}"
            )
        frames: dict[str, pd.DataFrame | pd.Series] = {}
        for name, kind in FRAMES.items():
            file = f"{name}.parquet"
            if name in ADDED and file not in text.get(FILES, {}) and not (source / file).exists():
                continue
            frame = pd.read_parquet(BytesIO(contents(source, text, file)))
            frames[name] = frame[name] if kind == "Series" else frame
        stored = text.get(FILES) or [path.name for path in source.glob("state-*.safetensors")]
        states = {
            (int(fold), int(seed)): load(contents(source, text, name))
            for name in sorted(stored)
            if name.endswith(".safetensors")
            for _, fold, seed in [Path(name).stem.split("-")]
        }
        rest = {"settings": text["settings"], "failure": text.get("failure"), "states": states}
        return cls(text["name"], text["strategy"], **rest, **frames)


# Results of earlier versions may lack these.
ADDED = (
    "asset_returns", "fractional_returns", "limits", "sensitivity", "illiquidity", "benchmark",
    "risk_free", "fills", "most_invested", "delays", "levels", "decisions", "reasons",
)  # fmt: skip
FRAMES = {
    item.name: str(item.type).removeprefix("pd.")
    for item in fields(BacktestResult)
    if str(item.type) in ("pd.DataFrame", "pd.Series")
}
