"""The report's figures: each a piece of SVG that takes its colours and fonts from the page.

``svg`` has what they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.stats import norm
from scipy.stats import t as student

from reports.distribution import student_t
from reports.svg import (
    ASSET_COLOURS,
    LEFT,
    PALETTE,
    POINTS,
    RIGHT,
    WIDTH,
    date_ticks,
    log_ticks,
    new_axes,
    number_tick,
    percent_tick,
    power_tick,
    readings_of,
    svg,
    thin,
)

DATES = 400  # at most, in one area


def time_lines(
    key: str,
    label: str,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    percent: bool = False,
    log: bool = False,
    fill: str | None = None,
    shade: Sequence[tuple[pd.Timestamp, pd.Timestamp]] = (),
    height: int = 300,
) -> Markup:
    """Lines over dates, the first on top.

    Args:
        key: what makes the figure's ids unique on the page.
        label: the text for those who do not see it.
        lines: {name: values by date}; on a log axis a line ends where it reaches 0.
        colours: {name: a name in ``PALETTE``}.
        percent: the values are fractions to be read as percentages.
        log: whether the axis of the values is logarithmic.
        fill: the name of the line whose distance from 0 is shaded.
        shade: (first, last) dates of spans with a grey ground.
        height: of the figure, while it is ``WIDTH`` wide.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = new_axes(figure, height)
    for number, (name, line) in enumerate(lines.items()):
        line = line.where(line > 0) if log else line
        shown = thin(line, min(POINTS, 8 * POINTS // len(lines)))
        days = date2num(shown.index.to_numpy())
        style: dict[str, Any] = {"color": PALETTE[colours[name]][0], "zorder": 50 - number}
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.4
        axes.plot(days, shown, linewidth=width, **style)
        if name == fill:
            axes.fill_between(days, shown, 0, alpha=0.12, linewidth=0, **style)
    for first, last in shade:
        axes.axvspan(
            date2num(first), date2num(last), color=PALETTE["grid"][0], alpha=0.6, lw=0, zorder=0
        )
    if log:
        log_ticks(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(percent_tick if percent else number_tick))
        axes.axhline(0, color=PALETTE["axis"][0], linewidth=0.8, zorder=1)
    date_ticks(axes)
    unit = "percent" if percent else "number"
    return svg(figure, key, label, readings_of(axes, lines, colours, unit))


def curves(
    key: str,
    label: str,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    mark: float | None = None,
    height: int = 270,
) -> Markup:
    """Lines over a number (the index), the first on top; a vertical line at ``mark``."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = new_axes(figure, height)
    for number, (name, line) in enumerate(lines.items()):
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.6
        colour = PALETTE[colours[name]][0]
        axes.plot(line.index, line, linewidth=width, color=colour, zorder=50 - number)
    if mark is not None:
        axes.axvline(mark, color=PALETTE["axis"][0], linewidth=1, dashes=(3, 3), zorder=1)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(number_tick))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(number_tick))
    return svg(figure, key, label, readings_of(axes, lines, colours, "number", dates=False))


def year_bars(
    key: str,
    label: str,
    years: pd.DataFrame,
    colours: Mapping[str, str],
    height: int = 260,
) -> Markup:
    """Bars by year, side by side, one colour a column of ``years`` (Y, at most 3)."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = new_axes(figure, height)
    places, width = np.arange(len(years)), 0.78 / years.shape[1]
    for number, name in enumerate(years.columns):
        shift = (number - (years.shape[1] - 1) / 2) * width
        colour = PALETTE[colours[name]][0]
        axes.bar(places + shift, years[name].fillna(0), width * 0.94, color=colour, zorder=3)
    axes.axhline(0, color=PALETTE["axis"][0], linewidth=0.8, zorder=4)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))
    step = max(1, -(-len(years) // 12))
    axes.set_xticks(places[::step], [str(year) for year in years.index[::step]])
    return svg(figure, key, label)


def histogram(key: str, label: str, returns: pd.Series, height: int = 260) -> Markup:
    """Density of the returns, with a normal of their moments and the likeliest Student-t.

    What lies beyond five standard deviations is counted in the outermost bars.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = new_axes(figure, height)
    mean, deviation = float(returns.mean()), float(returns.std(ddof=1))
    low, high = mean - 5 * deviation, mean + 5 * deviation
    shown = returns.clip(low, high).to_numpy(dtype=float)
    bins = int(np.clip(4 * np.sqrt(len(shown)), 20, 90))
    density, edges = np.histogram(shown, bins=bins, range=(low, high), density=True)
    colour = PALETTE["s1"][0]
    axes.bar(edges[:-1], density, np.diff(edges) * 0.92, align="edge", color=colour, alpha=0.35)
    grid = np.linspace(low, high, 240)
    degrees, location, scale = student_t(returns)
    axes.plot(grid, norm.pdf(grid, mean, deviation), color=PALETTE["s2"][0], linewidth=1.3)
    axes.plot(grid, student.pdf(grid, degrees, location, scale), color=PALETTE["s3"][0], lw=1.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(percent_tick))
    return svg(figure, key, label)


def stacked_weights(key: str, label: str, weights: pd.DataFrame, height: int = 290) -> Markup:
    """Weights over time, (T, at most 14), columns from 0 outwards: longs above, shorts below.

    The colours are ``ASSET_COLOURS`` in the order of the columns; a 13th and 14th are grey.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = new_axes(figure, height)
    rows = np.unique(np.linspace(0, len(weights) - 1, DATES).astype(int))
    shown = weights.iloc[rows].fillna(0)
    names = [*ASSET_COLOURS, "other", "other"][: shown.shape[1]]
    days = date2num(shown.index.to_numpy())
    days = np.concatenate([days[:1], days, days[-1:]])
    for side in (shown.clip(lower=0), shown.clip(upper=0)):
        tops = side.cumsum(axis=1).to_numpy()  # each band reaches to 0: the next hides its foot
        for column in reversed(range(len(names))):
            if np.any(side.to_numpy()[:, column]):
                edge = np.concatenate([[0.0], tops[:, column], [0.0]])
                axes.fill(
                    days,
                    edge,
                    facecolor=PALETTE[names[column]][0],
                    edgecolor=PALETTE["page"][0],
                    linewidth=0.35,
                    zorder=5 + len(names) - column,
                )
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))
    axes.margins(y=0)
    if shown.to_numpy().min(initial=0) < 0:
        axes.axhline(0, color=PALETTE["ink"][0], linewidth=0.8, zorder=40)
    date_ticks(axes)
    return svg(figure, key, label)


def training_curves(key: str, label: str, training: pd.DataFrame, height: int = 260) -> Markup:
    """Loss by epoch, training left, validation right: a line a fold and seed, the latest strongest.

    A dot marks the epoch whose state was kept, the last one marked best.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    half = (WIDTH - LEFT - RIGHT - 40) / 2
    left = new_axes(figure, height, width=half)
    right = new_axes(figure, height, left=LEFT + half + 40, width=half, sharey=left)
    right.tick_params(labelleft=False)
    last = max(int(training["fold"].max()), 1)
    for (fold, *_), rows in training.groupby(["fold", *(["seed"] if "seed" in training else [])]):
        kept = rows[rows["best"].astype(bool)].tail(1)
        strength = 0.25 + 0.75 * int(fold) / last if last > 1 else 1.0
        for axes, column, colour in ((left, "loss", "s1"), (right, "validation_loss", "s3")):
            style: dict[str, Any] = {"color": PALETTE[colour][0], "alpha": strength}
            axes.plot(rows["epoch"], rows[column], linewidth=1.1, **style)
            axes.plot(kept["epoch"], kept[column], "o", markersize=4, **style)
    left.yaxis.set_major_locator(MaxNLocator(5))
    left.yaxis.set_major_formatter(FuncFormatter(number_tick))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg(figure, key, label)


def solver_steps(
    key: str,
    label: str,
    solves: pd.DataFrame,
    colours: Mapping[str, str],
    height: int = 230,
) -> Markup:
    """By fold: mean steps of the iterative solves with the most as a thin line above, left;
    the largest residual, logarithmic, right.

    Args:
        solves: the rows of ``BacktestResult.solves`` to show.
        colours: {kind of solve: a name in ``PALETTE``}.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    half = (WIDTH - LEFT - RIGHT - 70) / 2
    left = new_axes(figure, height, width=half)
    right = new_axes(figure, height, left=LEFT + half + 70, width=half)
    for kind, colour in colours.items():
        rows = solves[solves["solve"] == kind].sort_values("fold")
        style: dict[str, Any] = {"color": PALETTE[colour][0]}
        left.plot(rows["fold"], rows["mean_steps"], "o-", markersize=3.5, linewidth=1.4, **style)
        left.plot(rows["fold"], rows["most_steps"], linewidth=0.8, alpha=0.6, **style)
        positive = rows[rows["residual"] > 0]
        right.plot(positive["fold"], positive["residual"], "o-", ms=3.5, linewidth=1.4, **style)
    left.set_ylim(bottom=0)
    left.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    if (solves["residual"] > 0).any():
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(numticks=6))
        right.yaxis.set_minor_locator(NullLocator())
        right.yaxis.set_major_formatter(FuncFormatter(power_tick))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return svg(figure, key, label)
