"""How results are shown, in a notebook or at a prompt: those of a run and of seeds, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import pandas as pd

FRAMES = (  # of a result, stored or computed
    "targets", "weights", "net_returns", "gross_returns", "excess_returns", "risk_free",
    "benchmark", "turnover", "costs", "carry", "orders", "round_trips", "positions_by_decision",
    "reasons", "decisions", "limits", "folds", "training", "training_summary", "solves", "checks",
    "sensitivity", "asset_returns", "fractional_returns", "illiquidity", "fills", "most_invested",
    "delays", "levels",
)  # fmt: skip
PERCENT = ("annual return", "volatility", "max drawdown", "costs paid")


class Summarised(Protocol):
    """A ``BacktestResult``, as far as is needed here."""

    @property
    def net_returns(self) -> pd.Series: ...
    @property
    def failure(self) -> dict | None: ...
    @property
    def ruined(self) -> bool: ...
    def summary(self) -> pd.Series: ...


R = TypeVar("R", bound=Summarised)


class Frames(dict[str, "pd.DataFrame | pd.Series"]):
    """Tables by name; shown as a list of their sizes."""

    @classmethod
    def of(cls, result: object) -> Frames:
        """All that are known of a result, without what is empty."""
        found = {name: getattr(result, name) for name in FRAMES}
        found = {name: frame() if callable(frame) else frame for name, frame in found.items()}
        return cls({name: frame for name, frame in found.items() if len(frame)})

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
        return "\n".join([self.summary().apply(as_text, axis=1).to_string(), *failed])

    def _repr_html_(self) -> str:
        return self.summary().apply(as_text, axis=1).to_html()

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


def as_text(summary: pd.Series) -> pd.Series:
    """The figures of a summary as texts."""
    texts: Mapping[object, str] = {
        name: "" if pd.isna(value) else f"{100 * value:.1f}%" if name in PERCENT else f"{value:.2f}"
        for name, value in summary.items()
    }
    return pd.Series(texts, dtype=object, name=summary.name)


def span(result: Summarised) -> str:
    """From when to when its returns are, in words."""
    dates = result.net_returns.index
    if not len(dates):
        return "no returns"
    ended = " (did not finish)" if result.failure is not None else ""
    return f"{dates[0].date()} to {dates[-1].date()}, {len(dates):,} periods{ended}"


def outcome(results: Mapping[str, R]) -> str:
    """How many strategies finished, and which failed, when and why; empty if none did."""
    failed = {name: r for name, r in results.items() if r.failure is not None}
    if not failed:
        return ""
    counted = f"{len(results) - len(failed)} of {len(results)} strategies finished"
    return "; ".join([counted, *(f"{name} {why_failed(r)}" for name, r in failed.items())])


def why_failed(result: Summarised) -> str:
    """What happened to the strategy of a failed result, when and why, in words."""
    failure = result.failure or {}
    happened = "was ruined" if result.ruined else f"failed in {failure['stage']}"
    when = f" on {failure['date']}" if failure["date"] else ""
    return f"{happened}{when}: {failure['reason']}"
