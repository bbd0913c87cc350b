"""How results are looked at: tables, sentences and figures, in a notebook or at a prompt."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import pandas as pd

from engine.accounting import performance
from engine.runs.explanations import explained, positions_by_decision

if TYPE_CHECKING:
    from engine.runs.result_plots import Plots

PERCENT = ("annual return", "volatility", "max drawdown", "costs paid")
FRAMES = (  # of a result, stored or computed
    "targets", "weights", "net_returns", "gross_returns", "excess_returns", "risk_free",
    "benchmark", "turnover", "costs", "carry", "orders", "round_trips", "positions_by_decision",
    "reasons", "decisions", "limits", "folds", "training", "training_summary", "solves", "checks",
    "sensitivity", "asset_returns", "fractional_returns", "illiquidity", "fills", "most_invested",
    "delays", "levels",
)  # fmt: skip


class ResultViews:
    """What ``BacktestResult`` has besides its data."""

    name: str
    targets: pd.DataFrame
    weights: pd.DataFrame
    net_returns: pd.Series
    turnover: pd.Series
    costs: pd.Series
    orders: pd.DataFrame
    decisions: pd.DataFrame
    reasons: pd.DataFrame
    settings: dict
    failure: dict | None

    if TYPE_CHECKING:

        @property
        def complete(self) -> bool: ...
        @property
        def rows_per_year(self) -> float: ...
        @property
        def excess_returns(self) -> pd.Series: ...

    def summary(self) -> pd.Series:
        """The figures that are looked at first; ``reports.summary_table`` has all.

        annual return (geometric, after costs), volatility and Sharpe (annual), max drawdown,
        turnover/year (times the portfolio) and costs paid (share of it, in all).
        """
        if not len(self.net_returns):
            return pd.Series(dtype=float, name=self.name)
        found = self.yearly
        return pd.Series(
            {
                "annual return": found["annual_return"],
                "volatility": found["volatility"],
                "Sharpe": found["sharpe"],
                "max drawdown": performance.max_drawdown(self.net_returns),
                "turnover/year": found["turnover"],
                "costs paid": float(self.costs.sum()),
            },
            name=self.name,
        )

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
        found = {name: getattr(self, name) for name in FRAMES}
        found = {name: frame() if callable(frame) else frame for name, frame in found.items()}
        return Frames({name: frame for name, frame in found.items() if len(frame)})

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
        said = ", ".join(f"{k} {v}" for k, v in _written(self.summary()).items())
        return f"<BacktestResult {self.name}: {_span(self)}; {said or 'nothing was earned'}>"

    def _repr_html_(self) -> str:
        table = _written(self.summary()).to_frame(self.name)
        return f"<p>{html.escape(_span(self))}</p>{table.to_html()}"


R = TypeVar("R", bound=ResultViews)


class Frames(dict[str, "pd.DataFrame | pd.Series"]):
    """Tables by name; shown as a list of their sizes."""

    def table(self) -> pd.DataFrame:
        """One row a frame: rows, columns, and the names of the first of these."""
        rows = {}
        for name, frame in self.items():
            named = frame.columns if isinstance(frame, pd.DataFrame) else [frame.name]
            columns = list(map(str, named))
            more = ", ..." if len(columns) > 6 else ""
            rows[name] = (len(frame), len(columns), ", ".join(columns[:6]) + more)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["rows", "columns", "first"])

    def __repr__(self) -> str:
        return self.table().to_string()

    def _repr_html_(self) -> str:
        return self.table().to_html(max_rows=None)


class Results(dict[str, R], Generic[R]):
    """{name: BacktestResult}, in the order given; shown as a table of their summaries."""

    def summary(self) -> pd.DataFrame:
        """One row a strategy, see ``BacktestResult.summary``."""
        return pd.DataFrame({name: result.summary() for name, result in self.items()}).T

    def __repr__(self) -> str:
        failed = [f"{name} failed" for name, result in self.items() if result.failure is not None]
        return "\n".join([self.summary().apply(_written, axis=1).to_string(), *failed])

    def _repr_html_(self) -> str:
        return self.summary().apply(_written, axis=1).to_html()

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))  # type: ignore[attr-defined]


class SeedResults(dict[int, Results[R]], Generic[R]):
    """{seed: {name: BacktestResult}}; shown as the mean over the seeds and their spread."""

    def summary(self) -> pd.DataFrame:
        """One row a strategy: mean and standard deviation (ddof 1) over the seeds."""
        stacked = pd.concat({seed: results.summary() for seed, results in self.items()})
        found = stacked.groupby(level=1, sort=False)
        return (
            pd.concat({"mean": found.mean(), "deviation": found.std()}, axis=1)
            .swaplevel(axis=1)
            .sort_index(axis=1, level=0, sort_remaining=False)
        )

    def __repr__(self) -> str:
        return f"{len(self)} seeds\n{self.summary().round(4).to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{len(self)} seeds</p>{self.summary().round(4).to_html()}"

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))  # type: ignore[attr-defined]


def _span(result: ResultViews) -> str:
    dates = result.net_returns.index
    if not len(dates):
        return "no returns"
    ended = " (did not finish)" if result.failure is not None else ""
    return f"{dates[0].date()} to {dates[-1].date()}, {len(dates):,} periods{ended}"


def _written(summary: pd.Series) -> pd.Series:
    """The figures as texts."""
    texts: Mapping[object, str] = {
        name: "" if pd.isna(value) else f"{100 * value:.1f}%" if name in PERCENT else f"{value:.2f}"
        for name, value in summary.items()
    }
    return pd.Series(texts, dtype=object, name=summary.name)
