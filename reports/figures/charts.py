"""The kinds of figures in the report: each is one SVG element.

``label`` is the text of a figure for readers who do not see it, and a colour a name in
``axes.PALETTE``. Heights are those of a figure that is ``axes.WIDTH`` wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.stats import norm
from scipy.stats import t as student

from data_loaders import Panel
from engine.planning.walk_forward import WalkForward
from reports.figures.axes import (
    ASSET_COLOURS,
    LEFT,
    PALETTE,
    RIGHT,
    TOP,
    WIDTH,
    Axes,
    date_ticks,
    days,
    number_text,
    percent_text,
    power_text,
    svg,
)
from reports.formats import day
from reports.metrics.gains_and_losses import student_t

POINTS = 1500  # at most, in one line
READINGS = 24_000  # at most, values that can be read off a figure; beyond, places are left out
EXACT = -6  # power of ten to which they are given; less exact beyond 1e9
DATES = 400  # at most, in one area
PHASES = {"training": "s4", "validation": "s6", "left out": "other", "test": "s1"}
ROW, TALLEST = 18, 420  # height of a fold, and of the figure
HEAD = 30  # height of the legend in a file of its own


def line_chart(
    label: str,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    percent: bool = False,
    log: bool = False,
    fill: str | None = None,
    shade: Sequence[tuple[pd.Timestamp, pd.Timestamp]] = (),
    mark: float | None = None,
    height: int = 270,
) -> Markup:
    """Lines over dates or numbers (their index), the first on top; a log axis ends them at 0.

    Args:
        fill: the name of the line whose distance from 0 is shaded.
        shade: (first, last) dates of grey bands.
        mark: where a dashed vertical line stands.
    """
    dated = not any(pd.api.types.is_numeric_dtype(line.index) for line in lines.values())
    points = min(POINTS, 4 * POINTS // len(lines))
    positive = {name: line.where(line > 0) for name, line in lines.items()} if log else lines
    shown = {name: thin(line, points) for name, line in positive.items()}
    across = {
        name: days(line.index) if dated else line.index.to_numpy(float)
        for name, line in shown.items()
    }
    axes = Axes(_span(across.values()), _span(shown.values()), height, log=log)
    for first, last in shade:
        start, end = days(pd.DatetimeIndex([first, last]))
        axes.band(start, end, "grid", TOP, axes.bottom - TOP, 0.6)
    axes.mark_y(percent_text if percent else number_text)
    axes.level(0, "axis")
    if mark is not None:
        axes.dashed(mark, "axis")
    if fill is not None:
        axes.area(across[fill], shown[fill].to_numpy(float), colours[fill], 0.12)
    for number, (name, line) in reversed(list(enumerate(shown.items()))):
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.4
        axes.line(across[name], line.to_numpy(float), colours[name], width)
    if dated:
        axes.mark_x(date_ticks(*axes.x))
    else:
        axes.number_x()
    readings = readings_of(axes.x, lines, colours, "percent" if percent else "number", dated)
    bands = [days(pd.DatetimeIndex(band)).round(4).tolist() for band in shade]
    return svg(label, axes, readings=readings | {"log": log, "fill": fill, "bands": bands})


def thin(line: pd.Series, points: int = POINTS) -> pd.Series:
    """At most ``points`` of the line, extremes kept: lowest and highest of equal stretches."""
    if len(line) <= points:
        return line
    values = np.nan_to_num(line.to_numpy(dtype=float))
    edges = np.linspace(0, len(line), points // 2).astype(int)
    keep = {0, len(line) - 1}
    for start, stop in pairwise(edges):
        keep.add(start + int(values[start:stop].argmin()))
        keep.add(start + int(values[start:stop].argmax()))
    return line.iloc[sorted(keep)]


def readings_of(
    span: tuple[float, float],
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    unit: str,
    dated: bool = True,
) -> dict[str, Any]:
    """What the page's script reads off a figure of lines, and draws it anew from: for JSON.

    x are the places shared by all lines (``days`` or numbers), as differences in units of 1e-4;
    lines are [name, colour, scale, values], these as differences of whole numbers, which times the
    scale are the values, or null; span is x at the two ends of the axis. Of more than ``READINGS``
    values the extremes of each line are kept.
    """
    first, *others = (line.index for line in lines.values())
    if all(index.equals(first) for index in others):
        index = first
    else:
        index = pd.Index(sorted(set().union(first, *others)))
    most = max(2, READINGS // len(lines))
    if len(index) > most:
        kept = [thin(line, max(2, most // len(lines))).index for line in lines.values()]
        index = pd.Index(sorted(set().union(*kept)))
    places = days(index) if dated else index.to_numpy(dtype=float)
    rows = []
    for name, line in lines.items():
        values = (line if line.index.equals(index) else line.reindex(index)).to_numpy(float)
        known = np.isfinite(values)
        largest = float(np.abs(values[known]).max()) if known.any() else 0.0
        scale = 10.0 ** max(EXACT, int(np.ceil(np.log10(max(largest, 1.0)))) - 15)
        whole = np.rint(values[known] / scale).astype(np.int64)
        steps = iter(np.diff(whole, prepend=0).tolist())
        rows.append([name, colours[name], scale, [next(steps) if k else None for k in known]])
    x = np.diff(np.rint(places * 1e4).astype(np.int64), prepend=0).tolist()
    return {"x": x, "lines": rows, "unit": unit, "span": list(span), "dates": dated}


def bars(
    label: str,
    values: pd.DataFrame,
    colours: Mapping[str, str],
    percent: bool = True,
) -> Markup:
    """Bars by row (a year or a fold), side by side, one colour per column, at most three."""
    width = 0.78 / values.shape[1]
    known = values.fillna(0)
    axes = Axes((-0.5, len(values) - 0.5), _span([[0.0], known]), 260)
    axes.mark_y(percent_text if percent else number_text)
    for number, name in enumerate(known.columns):
        left = np.arange(len(known)) - 0.39 + number * width
        axes.bars(left, known[name].to_numpy(float), 0.94 * width, colours[name])
    axes.level(0, "axis", front=True)
    step = max(1, -(-len(values) // 8))
    axes.mark_x([(place, str(values.index[place])) for place in range(0, len(values), step)])
    return svg(label, axes)


def histogram(label: str, returns: pd.Series) -> Markup:
    """Density of the returns, with a normal of their moments and the most likely Student-t; returns
    beyond five standard deviations are counted in the outermost bars.
    """
    mean, deviation = float(returns.mean()), float(returns.std(ddof=1))
    low, high = mean - 5 * deviation, mean + 5 * deviation
    shown = returns.clip(low, high).to_numpy(dtype=float)
    bins = int(np.clip(4 * np.sqrt(len(shown)), 20, 90))
    density, edges = np.histogram(shown, bins=bins, range=(low, high), density=True)
    grid = np.linspace(low, high, 240)
    normal = norm.pdf(grid, mean, deviation)
    heavy = student.pdf(grid, *student_t(returns))
    top = float(max(density.max(), normal.max(), heavy.max()))
    axes = Axes((low, high), (0.0, top), 260, margin=(0.01, 0.0))
    axes.bars(edges[:-1], density, float(0.92 * (edges[1] - edges[0])), "s1", 0.35)
    axes.line(grid, normal, "s2", 1.3)
    axes.line(grid, heavy, "s3", 1.5)
    axes.number_x(percent_text)
    return svg(label, axes)


def stacked_weights(label: str, weights: pd.DataFrame) -> Markup:
    """Weights over time, (T, at most 14), columns from 0 outwards: longs above, shorts below; in
    ``ASSET_COLOURS``, a 13th and 14th in grey.
    """
    rows = np.unique(np.linspace(0, len(weights) - 1, DATES).astype(int))
    shown = weights.iloc[rows].fillna(0)
    names = [*ASSET_COLOURS, "other", "other"][: shown.shape[1]]
    values, across = shown.to_numpy(float), days(shown.index)
    sides = [np.clip(values, 0, None), np.clip(values, None, 0)]
    tops = [side.cumsum(axis=1) for side in sides]
    axes = Axes(_span([across]), _span([[0.0], *tops]), 290, margin=(0.01, 0.0))
    axes.mark_y(percent_text, most=5)
    for side, top in zip(sides, tops, strict=True):  # each band reaches to 0: the next hides it
        for column in reversed(range(len(names))):
            if np.any(side[:, column]):
                axes.area(across, top[:, column], names[column], edge="page")
    if values.min(initial=0) < 0:
        axes.level(0, "ink", front=True)
    axes.mark_x(date_ticks(*axes.x))
    return svg(label, axes)


def training_curves(label: str, training: pd.DataFrame) -> Markup:
    """Loss by epoch, training left, validation right: a line a fold and seed, the latest strongest,
    with a dot at the epoch whose state was kept.
    """
    epochs, losses = _span([training["epoch"]]), ("loss", "validation_loss")
    span = _span(training[name] for name in losses)
    panels = _pair(epochs, span, span, 260, gap=40)
    panels[0].mark_y(number_text)
    panels[1].mark_y(lambda _: "")
    last = max(int(training["fold"].max()), 1)
    for (fold, *_), rows in training.groupby(["fold", *(["seed"] if "seed" in training else [])]):
        strength = round(0.25 + 0.75 * int(fold) / last, 2) if last > 1 else 1.0
        kept = rows[rows["best"].astype(bool)].tail(1)
        for axes, loss, colour in zip(panels, losses, ("s1", "s3"), strict=True):
            x, y = rows[["epoch", loss]].to_numpy(float).T
            axes.line(x, y, colour, 1.1, strength)
            x, y = kept[["epoch", loss]].to_numpy(float).T
            axes.dots(x, y, colour, 2.2, strength)
    for axes in panels:
        axes.number_x(most=5, whole=True)
    return svg(label, *panels)


def solver_steps(label: str, solves: pd.DataFrame, colours: Mapping[str, str]) -> Markup:
    """Of the iterative solves by fold: the mean steps, and the most as a thin line; residuals.

    ``solves`` has a row a fold and kind of solve, for which ``colours`` are.
    """
    positive = solves["residual"][solves["residual"] > 0]
    left, right = _pair(
        _span([solves["fold"]]),
        (0.0, float(max(solves["most_steps"].max(), 1))),
        _span([positive]) if len(positive) else (0.0, 1.0),
        230,
        gap=70,
        log=len(positive) > 0,
    )
    left.mark_y(number_text, most=5, whole=True)
    if len(positive):
        right.mark_y(power_text)
    for kind, colour in colours.items():
        rows = solves[solves["solve"] == kind].sort_values("fold")
        fold, most = rows["fold"].to_numpy(float), rows["most_steps"].to_numpy(float)
        residual = rows["residual"].where(rows["residual"] > 0).to_numpy(float)
        left.line(fold, most, colour, 0.8, 0.6)
        for axes, y in ((left, rows["mean_steps"].to_numpy(float)), (right, residual)):
            axes.line(fold, y, colour, 1.4)
            axes.dots(fold, y, colour, 2.2)
    for axes in (left, right):
        axes.number_x(most=6, whole=True)
    return svg(label, left, right)


def _pair(
    x: tuple[float, float],
    y_left: tuple[float, float],
    y_right: tuple[float, float],
    height: int,
    gap: float,
    log: bool = False,
) -> tuple[Axes, Axes]:
    """Two rectangles side by side; the right one may be logarithmic."""
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        Axes(x, y_left, height, LEFT, middle - gap / 2, margin=(0.03, 0.05)),
        Axes(x, y_right, height, middle + gap / 2, WIDTH - RIGHT, log, margin=(0.03, 0.05)),
    )


def _span(parts: Iterable) -> tuple[float, float]:
    """Lowest and highest of all finite values."""
    values = np.concatenate([np.asarray(part, float).ravel() for part in parts])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


def timeline(folds: pd.DataFrame) -> tuple[str, Axes]:
    """The walk-forward plan, what each fold trains, validates and tests on, for ``svg``.

    One row a fold, from the top down; see ``PHASES`` for the colours. Left out is what lies between
    the last training label and the first test decision: the purge, and the holding periods that
    were not over. ``folds`` are those of ``WalkForward.describe``; older runs have fewer columns.
    """
    dates, count = folds.select_dtypes(exclude="int64").astype("datetime64[ns]"), len(folds)
    learned = dates.get("labels_end", dates["train_end"]).fillna(dates["train_start"])
    validated = dates.get("validation_start", learned).fillna(learned)
    last_test = dates.get("last_fill", dates["test_end"])
    phases = {
        "training": (dates["train_start"], validated),
        "validation": (validated, learned),
        "left out": (learned, dates["test_start"]),
        "test": (dates["test_start"], last_test),
    }
    span = days(pd.Index([dates["train_start"].min(), last_test.max()]))
    height = min(46 + ROW * count, TALLEST)
    axes = Axes(tuple(span), (0.5 - count, 0.5), height, margin=(0.01, 0))  # fold k stands at -k
    for place in range(0, count, -(-count // 20)):
        axes.label_y(-place, str(folds.index[place]))
    thick = 0.62 * float(axes.up(0) - axes.up(1))
    for phase, (start, end) in phases.items():
        places = zip(days(pd.Index(start)), days(pd.Index(end)), strict=True)
        for fold, (first, last) in enumerate(places):
            if last > first:
                top = float(axes.up(-fold)) - thick / 2
                axes.band(first, last, PHASES[phase], top, thick)
    axes.mark_x(date_ticks(*axes.x))
    tested = f"{day(dates['test_start'].min())} to {day(last_test.max())}"
    return f"{count} folds in time. Tests run from {tested}.", axes


def write_plan(
    plan: WalkForward, panel: Panel, path: str | Path, lookback: int = 1, validation: float = 0.2
) -> Path:
    """Draw a plan's folds on a panel to an SVG file that any browser shows.

    ``write_plan(WalkForward(train="5Y"), panel, "plan.svg")``

    Args:
        lookback: rows that the strategies need.
        validation: share of the training decisions kept for early stopping (``Training``); 0
            for rules.
    """
    folds = plan.describe(panel, lookback, validation)
    label, axes = timeline(folds)
    colours = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
    legend = "".join(
        f'<rect x="{58 + 120 * n}" y="-22" width="11" height="11" style="fill:var(--{colour})"/>'
        f'<text x="{74 + 120 * n}" y="-12">{phase}</text>'
        for n, (phase, colour) in enumerate(PHASES.items())
    )
    target = Path(path)
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 {-HEAD} {WIDTH} {axes.height + HEAD}" '
        f'style="{colours}background:var(--page)">'
        "<style>text{font:12px sans-serif;fill:var(--ink)}</style>"
        f"{legend}{axes.drawn()}</svg>"
    )
    return target
