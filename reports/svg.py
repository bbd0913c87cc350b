"""What all figures share: colours, axes, ticks, and a piece of SVG that follows the page.

Figures are drawn with the light colours of ``PALETTE``; ``svg`` puts CSS variables in their
place, so that one figure serves light, dark and print. Names of strategies and assets are never
drawn: legends are the page's, so no name can break a figure.
"""

from __future__ import annotations

import io
import json
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
READINGS = 500  # at most, dates that can be read off a figure
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 58, 14, 12, 34  # of every figure, in its own units


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
    axes: Axes,
    lines: Mapping[str, pd.Series],
    colours: Mapping[str, str],
    unit: str,
    dates: bool = True,
) -> dict[str, Any]:
    """What can be read off a figure of lines: {x, lines, unit, span, dates}, for JSON.

    x are at most ``READINGS`` places shared by all lines, true dates (days since 1970) or
    numbers, and span those at the two ends of the axis; the values are the lines' own, or null.
    """
    index = pd.Index(sorted(set().union(*(line.index for line in lines.values()))))
    keep = np.unique(np.linspace(0, len(index) - 1, min(READINGS, len(index))).astype(int))
    shown = index[keep]
    places = date2num(shown.to_numpy()) if dates else shown.to_numpy(dtype=float)
    rows = []
    for name, line in lines.items():
        values = line.reindex(shown).to_numpy(dtype=float)
        own = [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]
        rows.append([name, colours[name], own])
    return {
        "x": [round(float(place), 4) for place in places],
        "lines": rows,
        "unit": unit,
        "span": [float(end) for end in axes.get_xlim()],
        "dates": dates,
    }


def new_axes(
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


def date_ticks(axes: Axes) -> None:
    axes.xaxis_date()
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(AutoDateFormatter(locator))


def log_ticks(axes: Axes) -> None:
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


def percent_tick(value: float, _: object) -> str:
    return f"{100 * value:.3g}%".replace("-", "\N{MINUS SIGN}")


def number_tick(value: float, _: object) -> str:
    return f"{value:,.3g}".replace("-", "\N{MINUS SIGN}")


def power_tick(value: float, _: object) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}")


def svg(figure: Figure, key: str, label: str, readings: Mapping | None = None) -> Markup:
    """The figure as an element of the page: own ids, the page's colours and fonts, no dates.

    ``readings`` (see ``readings_of``) are what the page's script shows under the pointer.
    """
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
    data = Markup(' data-readings="{}"').format(json.dumps(readings)) if readings else ""
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}"{}>{}').format(
        label, WIDTH, height, data, Markup(text)
    )
