"""What all figures share: colours, thinning, what can be read off, the element of the page.

Colours are names in ``PALETTE``, CSS variables of the page, so that one figure serves light, dark
and print. Names of strategies and assets are never drawn: legends are the page's, so no name can
break a figure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from reports.axes import WIDTH, Axes

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


def days(index: pd.Index) -> np.ndarray:
    """Dates as days since 1970."""
    return ((pd.DatetimeIndex(index) - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy()


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
    first, *others = (line.index for line in lines.values())
    if all(index.equals(first) for index in others):
        index = first
    else:
        index = pd.Index(sorted(set().union(first, *others)))
    keep = np.unique(np.linspace(0, len(index) - 1, min(READINGS, len(index))).astype(int))
    shown = index[keep]
    places = days(shown) if dates else shown.to_numpy(dtype=float)
    rows = []
    for name, line in lines.items():
        values = (line.iloc[keep] if line.index is index else line.reindex(shown)).to_numpy(float)
        own = [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]
        rows.append([name, colours[name], own])
    return {
        "x": [round(float(place), 4) for place in places],
        "lines": rows,
        "unit": unit,
        "span": list(axes.x),
        "dates": dates,
    }


def svg(label: str, axes: Axes | list[Axes], readings: Mapping | None = None) -> Markup:
    """The figure as an element of the page.

    ``readings`` (see ``readings_of``) are what the page's script shows under the pointer.
    """
    panels = axes if isinstance(axes, list) else [axes]
    data = Markup(' data-readings="{}"').format(json.dumps(readings)) if readings else ""
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}"{}>{}</svg>').format(
        label, WIDTH, panels[0].height, data, Markup("".join(part.written() for part in panels))
    )
