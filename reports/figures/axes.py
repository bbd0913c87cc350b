"""The drawing surface of a figure: a rectangle with scales, written as SVG.

Marks are given in the units of the data. Colours are names in ``PALETTE``, CSS variables of the
page, so that one figure serves light, dark and print. Names of strategies and assets are never
drawn: legends belong to the page, so no name can break a figure.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import ArrayLike

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 58, 14, 12, 34  # of every figure, in its own units
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
STEPS = (1, 2, 2.5, 5, 10)
MINUS = "\N{MINUS SIGN}"


def round_ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most ``most``; of ``whole`` ones only."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(span / most))
    for step in (step * scale for scale in (power, 10 * power) for step in STEPS):
        if whole and step != round(step):
            continue
        first = np.ceil(low / step - 1e-9)
        count = int(np.floor(high / step + 1e-9) - first) + 1
        if count <= most:
            return [float(f"{(first + k) * step:.12g}") for k in range(count)]
    return [low, high]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone, or plain ticks over a short span."""
    if high / low < 4:
        return round_ticks(low, high, 5)
    parts = (1, 2, 5) if high / low < 200 else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    found = [part * 10.0**power for power in powers for part in parts]
    found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found[:: max(1, -(-len(found) // 7))]


def days(index: pd.Index) -> np.ndarray:
    """Dates as days since 1970."""
    return ((pd.DatetimeIndex(index) - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy()


def date_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """(place, text) of starts of years, months, days or hours between two ``days``; at most 9."""
    start, end = (pd.Timestamp(0) + pd.Timedelta(days=float(day)) for day in (low, high))
    years, span = (high - low) / 365.25, high - low
    if years > 2.2:
        step = _step((1, 2, 5, 10, 20, 50, 100), years, 9)
        first = -(-(start.year + (start > pd.Timestamp(start.year, 1, 1))) // step) * step
        stamps = [pd.Timestamp(year, 1, 1) for year in range(first, end.year + 1, step)]
        form = "%Y"
    elif span > 45:
        step = _step((1, 2, 3, 6), 12 * years, 5)
        months = pd.date_range(start.normalize(), end, freq="MS")
        stamps = [month for month in months if (month.month - 1) % step == 0]
        form = "%Y-%m"
    elif span > 2:
        step = max(1, int(np.ceil(span / 4)))
        stamps = list(pd.date_range(start.ceil("D"), end, freq=f"{step}D"))
        form = "%Y-%m-%d"
    else:
        step = _step((1, 2, 4, 6, 12, 24), 24 * span, 4)
        stamps = list(pd.date_range(start.ceil("h"), end, freq=f"{step}h"))
        form = "%m-%d %H:%M"
    index = pd.DatetimeIndex(stamps)
    return list(zip(days(index).tolist(), index.strftime(form), strict=True))


def _step(steps: tuple[int, ...], span: float, most: int) -> int:
    """The smallest step that divides the span into at most ``most`` parts, or the largest."""
    return next((step for step in steps if span / step <= most), steps[-1])


def percent_text(value: float) -> str:
    return f"{100 * value:.3g}%".replace("-", MINUS)


def number_text(value: float) -> str:
    return f"{value:,.6g}".replace("-", MINUS)


def power_text(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


@dataclass
class Axes:
    """A rectangle with scales, of a figure that is ``WIDTH`` wide.

    x and y are (lowest, highest) of the data, widened by ``margin``, shares of the two ranges; left
    and right are the edges of the rectangle; ``log`` is about y.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: int
    left: float = LEFT
    right: float = WIDTH - RIGHT
    log: bool = False
    margin: tuple[float, float] = (0.01, 0.05)
    marks: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = _widened(self.x, self.margin[0], log=False)
        self.y = _widened(self.y, self.margin[1], self.log)
        self.bottom = self.height - BOTTOM

    # Positions, in the figure's own units

    def across(self, values: ArrayLike) -> np.ndarray:
        low, high = self.x
        share = (np.asarray(values, float) - low) / (high - low)
        return np.asarray(self.left + share * (self.right - self.left))

    def up(self, values: ArrayLike) -> np.ndarray:
        (low, high), given = self.y, np.asarray(values, float)
        if self.log:
            low, high, given = np.log(low), np.log(high), np.log(given)
        return np.asarray(self.bottom - (given - low) / (high - low) * (self.bottom - TOP))

    # Marks

    def line(
        self, x: np.ndarray, y: np.ndarray, colour: str, width: float = 1.2, opacity: float = 1
    ) -> None:
        """A line; it is broken where y is NaN."""
        known = np.isfinite(y)
        cuts = np.flatnonzero(np.diff(known.astype(int))) + 1
        parts = [p for p in np.split(np.arange(len(y)), cuts) if len(p) and known[p[0]]]
        path = "".join(_path(self.across(x[p]), self.up(y[p])) for p in parts)
        if path:
            style = f"fill:none;stroke:var(--{colour});stroke-width:{width:g}"
            self.marks.append(_mark(path, style, opacity))

    def area(
        self, x: np.ndarray, y: np.ndarray, colour: str, opacity: float = 1, edge: str = ""
    ) -> None:
        """The area between y and 0; ``edge`` is the colour of its outline."""
        x = np.concatenate([x[:1], x, x[-1:]])
        y = np.concatenate([[0.0], np.nan_to_num(y), [0.0]])
        stroke = f";stroke:var(--{edge});stroke-width:.35" if edge else ""
        path = f"{_path(self.across(x), self.up(y))}Z"
        self.marks.append(_mark(path, f"fill:var(--{colour}){stroke}", opacity))

    def bars(
        self, x: np.ndarray, y: np.ndarray, width: float, colour: str, opacity: float = 1
    ) -> None:
        """Bars from 0 to y, (left edges) x, all of one width."""
        left, right = self.across(x), self.across(np.asarray(x) + width)
        top, foot = self.up(np.maximum(y, 0)), self.up(np.minimum(y, 0))
        path = "".join(
            f"M{a:.1f} {d:.1f}H{b:.1f}V{c:.1f}H{a:.1f}Z"
            for a, b, c, d in zip(left, right, top, foot, strict=True)
        )
        self.marks.append(_mark(path, f"fill:var(--{colour})", opacity))

    def dots(
        self, x: np.ndarray, y: np.ndarray, colour: str, radius: float = 2, opacity: float = 1
    ) -> None:
        self.marks += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}" '
            f'style="fill:var(--{colour}){_opacity(opacity)}"/>'
            for a, b in zip(self.across(x), self.up(y), strict=True)
            if np.isfinite(b)
        ]

    def band(
        self, first: float, last: float, colour: str, top: float, height: float, opacity: float = 1
    ) -> None:
        """A rectangle from ``first`` to ``last``; its top and height are in the figure's units."""
        a, b = self.across([first, last])
        self.background.append(
            f'<rect x="{a:.1f}" y="{top:.1f}" width="{max(b - a, 0.5):.1f}" '
            f'height="{height:.1f}" style="fill:var(--{colour}){_opacity(opacity)}"/>'
        )

    def level(self, y: float, colour: str, front: bool = False) -> None:
        """A horizontal line through the whole rectangle."""
        if self.y[0] <= y <= self.y[1]:
            place = float(self.up(y))
            stroke = _stroke(self.left, place, self.right, place, colour)
            (self.marks if front else self.background).append(stroke)

    def dashed(self, x: float, colour: str) -> None:
        """A dashed vertical line."""
        place = float(self.across(x))
        dashes = ";stroke-dasharray:3 3"
        self.background.append(_stroke(place, TOP, place, self.bottom, colour, dashes))

    # The axes themselves

    def mark_y(self, text: Callable[[float], str], most: int = 6, whole: bool = False) -> None:
        """Grid lines at round numbers, at most ``most``, each with its text on the left."""
        low, high = self.y
        places = log_ticks(low, high) if self.log else round_ticks(low, high, most, whole)
        for place in places:
            y = float(self.up(place))
            self.background.append(_stroke(self.left, y, self.right, y, "grid"))
            self.label_y(place, text(place))

    def label_y(self, y: float, words: str) -> None:
        if words:
            self.background.append(
                f'<text text-anchor="end" x="{self.left - 6:g}" y="{float(self.up(y)):.1f}" '
                f'dy=".35em">{words}</text>'
            )

    def mark_x(self, marks: Iterable[tuple[float, str]]) -> None:
        """The baseline, and (place, text) of each mark on it."""
        self.background.append(_stroke(self.left, self.bottom, self.right, self.bottom, "axis"))
        for value, words in marks:
            place = float(self.across(value))
            if not self.left - 0.5 <= place <= self.right + 0.5:
                continue
            self.background.append(_stroke(place, self.bottom, place, self.bottom + 4, "axis"))
            self.background.append(
                f'<text text-anchor="middle" x="{place:.1f}" y="{self.bottom + 8:g}" dy=".8em">'
                f"{words}</text>"
            )

    def number_x(
        self, text: Callable[[float], str] = number_text, most: int = 7, whole: bool = False
    ) -> None:
        """The baseline with round numbers."""
        self.mark_x([(x, text(x)) for x in round_ticks(*self.x, most, whole)])

    def drawn(self) -> str:
        """The SVG of all marks, those in the background first."""
        return "".join([*self.background, *self.marks])


def svg(label: str, *panels: Axes, readings: Mapping | None = None) -> Markup:
    """The figure as an element of the page: with a text for screen readers, and the ``readings``
    that the page's script shows under the pointer (see ``charts.readings_of``).
    """
    data = Markup(' data-readings="{}"').format(packed(readings)) if readings else ""
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}"{}>{}</svg>').format(
        label, WIDTH, panels[0].height, data, Markup("".join(panel.drawn() for panel in panels))
    )


def packed(value: Any) -> str:
    """JSON, deflated, in base64, that the function ``unpacked`` of page/script.js reads."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _widened(span: tuple[float, float], margin: float, log: bool) -> tuple[float, float]:
    low, high = float(span[0]), float(span[1])
    if not np.isfinite(low) or not np.isfinite(high) or (log and low <= 0):
        low = high = 1.0
    if log:
        room = (high / low) ** margin if high > low else 1.1
        return low / room, high * room
    room = margin * (high - low) if high > low else max(abs(high) * 0.1, 0.5) * (margin > 0)
    if not high > low and not margin:
        high = low + 1
    return low - room, high + room


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Coordinates to a tenth of a unit, finer than a pixel."""
    pairs = [f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return f"M{pairs[0]}h.1" if len(pairs) == 1 else "M" + "L".join(pairs)


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
    return _mark(path, f"fill:none;stroke:var(--{colour});stroke-width:.8{more}")


def _mark(path: str, style: str, opacity: float = 1) -> str:
    return f'<path d="{path}" style="{style}{_opacity(opacity)}"/>'


def _opacity(value: float) -> str:
    return "" if value == 1 else f";opacity:{value:g}"
