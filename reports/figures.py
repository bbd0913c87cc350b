"""The report's figures: each a piece of SVG that takes its colours and fonts from the page.

``axes`` draws, ``svg`` has what they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.stats import norm
from scipy.stats import t as student

from reports import ticks
from reports.axes import LEFT, RIGHT, WIDTH, Axes
from reports.distribution import student_t
from reports.svg import ASSET_COLOURS, POINTS, days, readings_of, svg, thin

DATES = 400  # at most, in one area


def time_lines(
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
        label: the text for those who do not see it.
        lines: {name: values by date}; on a log axis a line ends where it reaches 0.
        colours: {name: a name in ``PALETTE``}.
        percent: the values are fractions to be read as percentages.
        log: whether the axis of the values is logarithmic.
        fill: the name of the line whose distance from 0 is shaded.
        shade: (first, last) dates of spans with a grey ground.
        height: of the figure, while it is ``WIDTH`` wide.
    """
    shown = {
        name: thin(line.where(line > 0) if log else line, min(POINTS, 8 * POINTS // len(lines)))
        for name, line in lines.items()
    }
    across = {name: days(line.index) for name, line in shown.items()}
    axes = Axes(_span(across.values()), _span(shown.values()), height, log=log)
    for first, last in shade:
        start, end = days(pd.DatetimeIndex([first, last]))
        axes.span(start, end, "grid", 0.6)
    axes.mark_y(ticks.percent_text if percent else ticks.number_text)
    if not log:
        axes.level(0, "axis")
    if fill is not None:
        axes.area(across[fill], shown[fill].to_numpy(float), colours[fill], 0.12)
    for number, (name, line) in reversed(list(enumerate(shown.items()))):
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.4
        axes.line(across[name], line.to_numpy(float), colours[name], width)
    axes.mark_x(ticks.dates(*axes.x))
    return svg(label, axes, readings_of(axes, lines, colours, "percent" if percent else "number"))


def curves(
    label: str,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    mark: float | None = None,
    height: int = 270,
) -> Markup:
    """Lines over a number (the index), the first on top; a dashed line at ``mark``."""
    places = {name: line.index.to_numpy(float) for name, line in lines.items()}
    axes = Axes(_span(places.values()), _span(lines.values()), height)
    axes.mark_y(ticks.number_text)
    axes.level(0, "axis")
    if mark is not None:
        axes.post(mark, "axis")
    for number, (name, line) in reversed(list(enumerate(lines.items()))):
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.6
        axes.line(places[name], line.to_numpy(float), colours[name], width)
    axes.number_x()
    return svg(label, axes, readings_of(axes, lines, colours, "number", dates=False))


def bars(
    label: str,
    years: pd.DataFrame,
    colours: Mapping[str, str],
    percent: bool = True,
    height: int = 260,
) -> Markup:
    """Bars by year or fold, side by side, one colour a column of ``years`` (Y, at most 3)."""
    width = 0.78 / years.shape[1]
    values = years.fillna(0)
    axes = Axes((-0.5, len(years) - 0.5), _span([[0.0], values]), height)
    axes.mark_y(ticks.percent_text if percent else ticks.number_text)
    for number, name in enumerate(years.columns):
        left = np.arange(len(years)) - 0.39 + number * width
        axes.bars(left, values[name].to_numpy(float), 0.94 * width, colours[name])
    axes.level(0, "axis", front=True)
    step = max(1, -(-len(years) // 8))
    axes.mark_x([(place, str(years.index[place])) for place in range(0, len(years), step)])
    return svg(label, axes)


def histogram(label: str, returns: pd.Series, height: int = 260) -> Markup:
    """Density of the returns, with a normal of their moments and the likeliest Student-t.

    What lies beyond five standard deviations is counted in the outermost bars.
    """
    mean, deviation = float(returns.mean()), float(returns.std(ddof=1))
    low, high = mean - 5 * deviation, mean + 5 * deviation
    shown = returns.clip(low, high).to_numpy(dtype=float)
    bins = int(np.clip(4 * np.sqrt(len(shown)), 20, 90))
    density, edges = np.histogram(shown, bins=bins, range=(low, high), density=True)
    grid = np.linspace(low, high, 240)
    degrees, location, scale = student_t(returns)
    normal = norm.pdf(grid, mean, deviation)
    heavy = student.pdf(grid, degrees, location, scale)
    top = max(density.max(), normal.max(), heavy.max())
    axes = Axes((low, high), (0.0, float(top)), height, margin=(0.01, 0.0))
    axes.bars(edges[:-1], density, float(0.92 * (edges[1] - edges[0])), "s1", 0.35)
    axes.line(grid, normal, "s2", 1.3)
    axes.line(grid, heavy, "s3", 1.5)
    axes.number_x(percent=True)
    return svg(label, axes)


def stacked_weights(label: str, weights: pd.DataFrame, height: int = 290) -> Markup:
    """Weights over time, (T, at most 14), columns from 0 outwards: longs above, shorts below.

    The colours are ``ASSET_COLOURS`` in the order of the columns; a 13th and 14th are grey.
    """
    rows = np.unique(np.linspace(0, len(weights) - 1, DATES).astype(int))
    shown = weights.iloc[rows].fillna(0)
    names = [*ASSET_COLOURS, "other", "other"][: shown.shape[1]]
    values, across = shown.to_numpy(float), days(shown.index)
    sides = [np.clip(values, 0, None), np.clip(values, None, 0)]
    tops = [side.cumsum(axis=1) for side in sides]
    axes = Axes(_span([across]), _span([[0.0], *tops]), height, margin=(0.01, 0.0))
    axes.mark_y(ticks.percent_text, most=5)
    for side, top in zip(sides, tops, strict=True):  # each band reaches to 0: the next hides it
        for column in reversed(range(len(names))):
            if np.any(side[:, column]):
                axes.area(across, top[:, column], names[column], edge="page")
    if values.min(initial=0) < 0:
        axes.level(0, "ink", front=True)
    axes.mark_x(ticks.dates(*axes.x))
    return svg(label, axes)


def training_curves(label: str, training: pd.DataFrame, height: int = 260) -> Markup:
    """Loss by epoch, training left, validation right: a line a fold and seed, the latest strongest.

    A dot marks the epoch whose state was kept, the last one marked best.
    """
    epochs = (float(training["epoch"].min()), float(training["epoch"].max()))
    span = _span([training["loss"], training["validation_loss"]])
    panels = _pair(epochs, epochs, span, span, height, gap=40)
    panels[0].mark_y(ticks.number_text, most=6)
    panels[1].name_y((value, "") for value in ticks.linear(*panels[1].y, 6))
    last = max(int(training["fold"].max()), 1)
    for (fold, *_), rows in training.groupby(["fold", *(["seed"] if "seed" in training else [])]):
        kept = rows[rows["best"].astype(bool)].tail(1)
        strength = round(0.25 + 0.75 * int(fold) / last, 2) if last > 1 else 1.0
        for axes, column, colour in zip(
            panels, ("loss", "validation_loss"), ("s1", "s3"), strict=True
        ):
            x, y = rows["epoch"].to_numpy(float), rows[column].to_numpy(float)
            axes.line(x, y, colour, 1.1, strength)
            x, y = kept["epoch"].to_numpy(float), kept[column].to_numpy(float)
            axes.dots(x, y, colour, 2.2, strength)
    for axes in panels:
        axes.number_x(5, whole=True)
    return svg(label, panels)


def solver_steps(
    label: str, solves: pd.DataFrame, colours: Mapping[str, str], height: int = 230
) -> Markup:
    """By fold: mean steps of the iterative solves with the most as a thin line above, left;
    the largest residual, logarithmic, right.

    Args:
        solves: the rows of ``BacktestResult.solves`` to show.
        colours: {kind of solve: a name in ``PALETTE``}.
    """
    folds = _span([solves["fold"]])
    positive = solves["residual"][solves["residual"] > 0]
    left, right = _pair(
        folds,
        folds,
        (0.0, float(max(solves["most_steps"].max(), 1))),
        _span([positive]) if len(positive) else (0.0, 1.0),
        height,
        gap=70,
        logs=(False, len(positive) > 0),
    )
    left.mark_y(ticks.number_text, most=5, whole=True)
    if len(positive):
        right.mark_y(ticks.power_text)
    for kind, colour in colours.items():
        rows = solves[solves["solve"] == kind].sort_values("fold")
        x, most = rows["fold"].to_numpy(float), rows["most_steps"].to_numpy(float)
        residual = rows["residual"].where(rows["residual"] > 0).to_numpy(float)
        left.line(x, most, colour, 0.8, 0.6)
        for axes, y in ((left, rows["mean_steps"].to_numpy(float)), (right, residual)):
            axes.line(x, y, colour, 1.4)
            axes.dots(x, y, colour, 2.2)
    for axes in (left, right):
        axes.number_x(6, whole=True)
    return svg(label, [left, right])


def _pair(
    x_left: tuple[float, float],
    x_right: tuple[float, float],
    y_left: tuple[float, float],
    y_right: tuple[float, float],
    height: int,
    gap: float,
    logs: tuple[bool, bool] = (False, False),
) -> list[Axes]:
    """Two rectangles side by side."""
    half = (WIDTH - LEFT - RIGHT - gap) / 2
    margin = (0.03, 0.05)
    return [
        Axes(x_left, y_left, height, LEFT, LEFT + half, logs[0], margin),
        Axes(x_right, y_right, height, LEFT + half + gap, WIDTH - RIGHT, logs[1], margin),
    ]


def _span(parts: Iterable) -> tuple[float, float]:
    """Lowest and highest of all finite values."""
    values = np.concatenate([np.asarray(part, float).ravel() for part in parts])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
