"""The report's figures: each a piece of SVG that takes its colours and fonts from the page.

Figures are drawn with the light colours of ``PALETTE``; ``_svg`` puts CSS variables in their
place, so that one figure serves light, dark and print. Names of strategies and assets are never
drawn: legends are the page's, so no name can break a figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateFormatter, AutoDateLocator, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

PALETTE = {  # name: (light, dark); the series stand 3:1 against the page, in both
    "page": ("#ffffff", "#15181d"),
    "grid": ("#e4e7eb", "#2a3038"),
    "axis": ("#8b95a1", "#6f7985"),
    "ink": ("#1b2027", "#e6e9ed"),
    "rest": ("#8a949f", "#6b7480"),
    "other": ("#dadfe4", "#363d46"),
    "s1": ("#0b62c4", "#5aa9ff"),
    "s2": ("#4c5560", "#b4bcc6"),
    "s3": ("#c4500f", "#ff935c"),
    "s4": ("#00806a", "#35c4a5"),
    "s5": ("#8547b5", "#c293ee"),
    "s6": ("#946c00", "#dcb02f"),
    "s7": ("#bf3273", "#f57fb2"),
    "s8": ("#0c7f9e", "#4fc3e0"),
    "a1": ("#1f5fa8", "#4c8fdc"),
    "a2": ("#7fb2e5", "#a5cdf5"),
    "a3": ("#b8560f", "#d97a35"),
    "a4": ("#f0b27a", "#f3c79f"),
    "a5": ("#0b7763", "#2b9d86"),
    "a6": ("#84cdb9", "#a8e0d1"),
    "a7": ("#75409f", "#9a68c4"),
    "a8": ("#c3a3de", "#d6bfea"),
    "a9": ("#8a6508", "#b28a2a"),
    "a10": ("#e0c469", "#ecd891"),
    "a11": ("#a62c64", "#cf5a8f"),
    "a12": ("#e8a0c0", "#f1bdd4"),
}
STRATEGY_COLOURS = [name for name in PALETTE if name.startswith("s")]
ASSET_COLOURS = [name for name in PALETTE if name.startswith("a") and name != "axis"]
POINTS = 1500  # at most, in one line
DATES = 400  # at most, in one area
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 58, 14, 12, 34  # of every figure, in its own units


def time_lines(
    key: str,
    label: str,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    percent: bool = False,
    log: bool = False,
    fill: str | None = None,
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
        height: of the figure, while it is ``WIDTH`` wide.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = _axes(figure, height)
    for number, (name, line) in enumerate(lines.items()):
        line = line.where(line > 0) if log else line
        shown = thin(line, min(POINTS, 8 * POINTS // len(lines)))
        days = date2num(shown.index.to_numpy())
        style: dict[str, Any] = {"color": PALETTE[colours[name]][0], "zorder": 50 - number}
        width = 0.6 if colours[name] == "rest" else 1.0 if number else 1.4
        axes.plot(days, shown, linewidth=width, **style)
        if name == fill:
            axes.fill_between(days, shown, 0, alpha=0.12, linewidth=0, **style)
    if log:
        _log_ticks(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent if percent else _number))
        axes.axhline(0, color=PALETTE["axis"][0], linewidth=0.8, zorder=1)
    _date_ticks(axes)
    return _svg(figure, key, label)


def stacked_weights(key: str, label: str, weights: pd.DataFrame, height: int = 290) -> Markup:
    """Weights over time, (T, at most 14), columns from 0 outwards: longs above, shorts below.

    The colours are ``ASSET_COLOURS`` in the order of the columns; a 13th and 14th are grey.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = _axes(figure, height)
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
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.margins(y=0)
    if shown.to_numpy().min(initial=0) < 0:
        axes.axhline(0, color=PALETTE["ink"][0], linewidth=0.8, zorder=40)
    _date_ticks(axes)
    return _svg(figure, key, label)


def training_curves(key: str, label: str, training: pd.DataFrame, height: int = 260) -> Markup:
    """Loss by epoch, one line a fold, the latest strongest: training left, validation right.

    A dot marks the epoch whose state was kept, the last one marked best.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    half = (WIDTH - LEFT - RIGHT - 40) / 2
    left = _axes(figure, height, width=half)
    right = _axes(figure, height, left=LEFT + half + 40, width=half, sharey=left)
    right.tick_params(labelleft=False)
    folds = training.groupby("fold")
    for number, (_, rows) in enumerate(folds):
        kept = rows[rows["best"].astype(bool)].tail(1)
        strength = 1.0 if len(folds) == 1 else 0.25 + 0.75 * number / (len(folds) - 1)
        for axes, column, colour in ((left, "loss", "s1"), (right, "validation_loss", "s3")):
            style: dict[str, Any] = {"color": PALETTE[colour][0], "alpha": strength}
            axes.plot(rows["epoch"], rows[column], linewidth=1.1, **style)
            axes.plot(kept["epoch"], kept[column], "o", markersize=4, **style)
    left.yaxis.set_major_locator(MaxNLocator(5))
    left.yaxis.set_major_formatter(FuncFormatter(_number))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, key, label)


def solver_steps(
    key: str,
    label: str,
    solves: pd.DataFrame,
    colours: Mapping[str, str],
    height: int = 220,
) -> Markup:
    """Mean steps of the iterative solves by fold, with the most taken as a thin line above.

    Args:
        solves: the rows of ``BacktestResult.solves`` to show.
        colours: {kind of solve: a name in ``PALETTE``}.
    """
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = _axes(figure, height)
    for kind, colour in colours.items():
        rows = solves[solves["solve"] == kind].sort_values("fold")
        style: dict[str, Any] = {"color": PALETTE[colour][0]}
        axes.plot(rows["fold"], rows["mean_steps"], "o-", markersize=3.5, linewidth=1.4, **style)
        axes.plot(rows["fold"], rows["most_steps"], linewidth=0.8, alpha=0.6, **style)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return _svg(figure, key, label)


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


def _axes(
    figure: Figure,
    height: int,
    left: float = LEFT,
    width: float = WIDTH - LEFT - RIGHT,
    sharey: Axes | None = None,
) -> Axes:
    """Axes with a baseline and quiet horizontal lines, nothing else."""
    box = (left / WIDTH, BOTTOM / height, width / WIDTH, (height - TOP - BOTTOM) / height)
    axes = figure.add_axes(box, sharey=sharey)
    axes.patch.set_visible(False)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set(color=PALETTE["axis"][0], linewidth=0.8)
    axes.grid(axis="y", color=PALETTE["grid"][0], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.tick_params(axis="x", length=4, pad=7, color=PALETTE["axis"][0])
    axes.margins(x=0.01)
    return axes


def _date_ticks(axes: Axes) -> None:
    axes.xaxis_date()
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(AutoDateFormatter(locator))


def _log_ticks(axes: Axes) -> None:
    """Ticks at round numbers, few enough to read, at least two."""
    axes.set_yscale("log")
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if not 0 < low <= high:
        low = high = 1.0
    if high / low < 4:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _shortened(attribute: re.Match) -> str:
    """Coordinates to a tenth of a unit, finer than a pixel."""
    return re.sub(r"(\d\.\d)\d+", r"\1", attribute[0])


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.3g}%".replace("-", "\N{MINUS SIGN}")


def _number(value: float, _: object) -> str:
    return f"{value:,.3g}".replace("-", "\N{MINUS SIGN}")


def _svg(figure: Figure, key: str, label: str) -> Markup:
    """The figure as an element of the page: own ids, the page's colours and fonts, no dates."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "path.simplify": True}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 :]
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<text style="[^"]*text-anchor: (\w+)[^"]*"', r'<text text-anchor="\1"', text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to groups
    text = re.sub(r' id="(\w+)"', rf' id="{key}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
    text = re.sub(r' (d|x|y)="[^"]*"', _shortened, text)
    text = re.sub(r"\s*\n\s*", " ", text)
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{name})")
    height = round(figure.get_figheight() * 72)
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">{}').format(
        label, WIDTH, height, Markup(text)
    )
