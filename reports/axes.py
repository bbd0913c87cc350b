"""Axes of a figure, written as SVG: a baseline and quiet horizontal lines, nothing else.

Marks are added in the units of the data; colours are names in ``svg.PALETTE``, which the page
resolves, so that one figure serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from reports import ticks

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 58, 14, 12, 34  # of every figure, in its own units


@dataclass
class Axes:
    """A rectangle with scales.

    Args:
        x, y: (lowest, highest) of the data; spans of nothing are widened.
        height: of the figure, while it is ``WIDTH`` wide.
        left, right: edges of the rectangle.
        log: whether the axis of y is logarithmic.
        margin: room beyond the data, shares of the spans (x, y).
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: int
    left: float = LEFT
    right: float = WIDTH - RIGHT
    log: bool = False
    margin: tuple[float, float] = (0.01, 0.05)
    marks: list[str] = field(default_factory=list)
    ground: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = _widened(self.x, self.margin[0], log=False)
        self.y = _widened(self.y, self.margin[1], self.log)

    # Places

    def across(self, values: ArrayLike) -> np.ndarray:
        low, high = self.x
        share = (np.asarray(values, float) - low) / (high - low)
        return np.asarray(self.left + share * (self.right - self.left))

    def up(self, values: ArrayLike) -> np.ndarray:
        (low, high), given = self.y, np.asarray(values, float)
        if self.log:
            low, high, given = np.log(low), np.log(high), np.log(given)
        return np.asarray(self.bottom - (given - low) / (high - low) * (self.bottom - TOP))

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

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
            self.marks.append(
                f'<path d="{path}" style="fill:none;stroke:var(--{colour});stroke-width:{width:g}'
                f'{_opacity(opacity)}"/>'
            )

    def area(
        self,
        x: np.ndarray,
        y: np.ndarray,
        colour: str,
        opacity: float = 1,
        edge: str | None = None,
    ) -> None:
        """What lies between y and 0."""
        x = np.concatenate([x[:1], x, x[-1:]])
        y = np.concatenate([[0.0], np.nan_to_num(y), [0.0]])
        stroke = f";stroke:var(--{edge});stroke-width:.35" if edge else ""
        self.marks.append(
            f'<path d="{_path(self.across(x), self.up(y))}Z" '
            f'style="fill:var(--{colour}){stroke}{_opacity(opacity)}"/>'
        )

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
        self.marks.append(f'<path d="{path}" style="fill:var(--{colour}){_opacity(opacity)}"/>')

    def dots(
        self, x: np.ndarray, y: np.ndarray, colour: str, radius: float = 2, opacity: float = 1
    ) -> None:
        self.marks += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}" '
            f'style="fill:var(--{colour}){_opacity(opacity)}"/>'
            for a, b in zip(self.across(x), self.up(y), strict=True)
            if np.isfinite(b)
        ]

    def span(self, first: float, last: float, colour: str, opacity: float) -> None:
        """A vertical band behind everything."""
        a, b = self.across([first, last])
        self.ground.append(
            f'<rect x="{a:.1f}" y="{TOP}" width="{max(b - a, 0.5):.1f}" '
            f'height="{self.bottom - TOP:.1f}" style="fill:var(--{colour}){_opacity(opacity)}"/>'
        )

    def level(self, y: float, colour: str, front: bool = False) -> None:
        """A horizontal line through the whole rectangle."""
        if self.y[0] <= y <= self.y[1]:
            place = float(self.up(y))
            stroke = _stroke(self.left, place, self.right, place, colour)
            (self.marks if front else self.ground).append(stroke)

    def post(self, x: float, colour: str) -> None:
        """A dashed vertical line."""
        place = float(self.across(x))
        self.ground.append(_stroke(place, TOP, place, self.bottom, colour, ";stroke-dasharray:3 3"))

    # Axes

    def mark_y(self, text: Callable[[float], str], most: int = 6, whole: bool = False) -> None:
        low, high = self.y
        places = ticks.logarithmic(low, high) if self.log else ticks.linear(low, high, most, whole)
        self.name_y([(place, text(place)) for place in places])

    def name_y(self, marks: Iterable[tuple[float, str]]) -> None:
        for value, words in marks:
            place = float(self.up(value))
            self.ground.append(_stroke(self.left, place, self.right, place, "grid"))
            if words:
                self.ground.append(
                    f'<text text-anchor="end" x="{self.left - 6:g}" y="{place:.1f}" dy=".35em">'
                    f"{words}</text>"
                )

    def mark_x(self, marks: Iterable[tuple[float, str]]) -> None:
        self.ground.append(_stroke(self.left, self.bottom, self.right, self.bottom, "axis"))
        for value, words in marks:
            place = float(self.across(value))
            if not self.left - 0.5 <= place <= self.right + 0.5:
                continue
            self.ground.append(_stroke(place, self.bottom, place, self.bottom + 4, "axis"))
            self.ground.append(
                f'<text text-anchor="middle" x="{place:.1f}" y="{self.bottom + 8:g}" dy=".8em">'
                f"{words}</text>"
            )

    def number_x(self, most: int = 7, whole: bool = False, percent: bool = False) -> None:
        text = ticks.percent_text if percent else ticks.number_text
        self.mark_x([(x, text(x)) for x in ticks.linear(*self.x, most, whole)])

    def written(self) -> str:
        """The marks, those in the back first."""
        return "".join([*self.ground, *self.marks])


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
    if len(pairs) == 1:
        return f"M{pairs[0]}h.1"
    return "M" + "L".join(pairs)


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return (
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" '
        f'style="fill:none;stroke:var(--{colour});stroke-width:.8{more}"/>'
    )


def _opacity(value: float) -> str:
    return "" if value == 1 else f";opacity:{value:g}"
