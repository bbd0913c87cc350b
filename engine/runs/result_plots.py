"""Figures of a result, by matplotlib, for papers and notebooks; the report draws its own."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from engine.accounting import performance

WIDE = (7.0, 3.2)  # inches
OTHERS = "0.85"  # grey


class Picture(Figure):
    """A figure that a notebook shows, without a backend or pyplot's list of open figures."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        return buffer.getvalue()


class Plots:
    """``result.plot()``, ``result.plot.weights()``: each returns a figure of matplotlib.

    ``figure.savefig("growth.pdf")`` writes it; ``figure.axes`` are there to be changed.
    """

    def __init__(self, result: Any):
        self._result = result

    def __call__(self) -> Picture:
        """Growth of 1 after costs on a logarithmic axis, and the drawdowns below it."""
        figure = _figure(1.6)
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[2, 1])
        self._growth(upper)
        self._drawdowns(lower)
        return _dated(figure)

    def growth(self) -> Picture:
        """Growth of 1 after costs, and before; logarithmic."""
        return self._one(self._growth)

    def drawdowns(self) -> Picture:
        """Loss since the highest value so far."""
        return self._one(self._drawdowns)

    def weights(self, top: int = 10) -> Picture:
        """Weights after each close, stacked: the ``top`` largest on average, the rest as one."""
        weights = self._known(self._result.weights, "weights").fillna(0.0)
        order = weights.abs().mean().sort_values(ascending=False, kind="stable").index
        shown = weights[order[:top]].copy()
        if len(order) > top:
            shown[f"{len(order) - top} others"] = weights[order[top:]].sum(axis=1)

        def draw(axes: Any) -> None:
            colours = [*(f"C{k % 10}" for k in range(min(top, len(order)))), OTHERS]
            for side in (shown.clip(lower=0), shown.clip(upper=0)):
                if side.to_numpy().any():
                    stack = side.to_numpy().T
                    axes.stackplot(shown.index, stack, colors=colours, linewidth=0)
            axes.legend(shown.columns, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
            axes.axhline(0, color="0.3", linewidth=0.6)
            axes.set_ylabel("weight")

        return self._one(draw)

    def turnover(self) -> Picture:
        """Value traded at each fill over the portfolio's, and the costs paid since the start."""
        turnover = self._known(self._result.turnover, "turnover")
        figure = _figure(1.4)
        upper, lower = figure.subplots(2, sharex=True)
        upper.vlines(turnover.index, 0, turnover, linewidth=0.8)
        upper.set_ylabel("turnover")
        lower.plot(self._result.costs.cumsum(), linewidth=1)
        lower.set_ylabel("costs paid")
        return _dated(figure)

    def rolling(self, periods: int | None = None) -> Picture:
        """Sharpe ratio over the trailing ``periods``; default a year."""
        year = self._result.settings["periods_per_year"]
        window = periods or max(2, round(year))
        excess = self._known(self._result.excess_returns, "returns").rolling(window)
        ratio = np.sqrt(year) * excess.mean() / excess.std()

        def draw(axes: Any) -> None:
            axes.plot(ratio, linewidth=1)
            axes.axhline(0, color="0.3", linewidth=0.6)
            axes.set_ylabel(f"Sharpe, {window} periods")

        return self._one(draw)

    def _growth(self, axes: Any) -> None:
        net = self._known(self._result.net_returns, "returns")
        axes.plot(performance.wealth(net), linewidth=1.2, label=self._result.name)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter("")
        axes.set_ylabel("growth of 1")
        axes.legend(frameon=False)

    def _drawdowns(self, axes: Any) -> None:
        losses = performance.drawdowns(self._known(self._result.net_returns, "returns"))
        axes.fill_between(losses.index, losses, 0, alpha=0.5, linewidth=0)
        axes.set_ylabel("drawdown")

    def _one(self, draw: Any) -> Picture:
        figure = _figure(1.0)
        draw(figure.subplots())
        return _dated(figure)

    def _known(self, frame: Any, what: str) -> Any:
        if not len(frame) or not np.size(frame.to_numpy()):
            raise ValueError(f"{self._result.name} has no {what} to draw")
        return frame


def _figure(height: float) -> Picture:
    figure = Picture(figsize=(WIDE[0], height * WIDE[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dated(figure: Picture) -> Picture:
    for axes in figure.axes:
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return figure
