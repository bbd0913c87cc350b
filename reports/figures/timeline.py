"""The walk-forward plan as a timeline: what each fold trains, validates and tests on.

write_plan(WalkForward(train="5Y"), panel, "plan.svg")
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from data_loaders import Panel
from engine.planning.walk_forward import WalkForward
from reports.figures import ticks
from reports.figures.axes import PALETTE, WIDTH, Axes, svg
from reports.figures.ticks import days
from reports.formats import day

PHASES = {"training": "s4", "validation": "s6", "left out": "other", "test": "s1"}
ROW, TALLEST = 18, 420  # height of a fold, and of the figure
HEAD = 30  # height of the legend in a file of its own


def timeline(folds: pd.DataFrame) -> Markup:
    """One row a fold, from the top down; see ``PHASES`` for the colours.

    Left out is what lies between the last training label and the first test decision: the purge,
    and the holding periods that were not over. ``folds`` are those of ``WalkForward.describe``.
    """
    return svg(_label(folds), _drawn(folds))


def write_plan(
    plan: WalkForward, panel: Panel, path: str | Path, lookback: int = 1, validation: float = 0.2
) -> Path:
    """Draw a plan's folds on a panel to an SVG file that any browser shows.

    Args:
        lookback: rows that the strategies need.
        validation: share of the training decisions kept for early stopping (``Training``); 0
            for rules.
    """
    folds = plan.describe(panel, lookback, validation)
    axes = _drawn(folds)
    colours = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
    legend = "".join(
        f'<rect x="{58 + 120 * n}" y="-22" width="11" height="11" style="fill:var(--{colour})"/>'
        f'<text x="{74 + 120 * n}" y="-12">{phase}</text>'
        for n, (phase, colour) in enumerate(PHASES.items())
    )
    target = Path(path)
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_label(folds)}" '
        f'viewBox="0 {-HEAD} {WIDTH} {axes.height + HEAD}" '
        f'style="{colours}background:var(--page)">'
        "<style>text{font:12px sans-serif;fill:var(--ink)}</style>"
        f"{legend}{axes.drawn()}</svg>"
    )
    return target


def _phases(folds: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """{phase: first and last dates, by fold}; runs of older versions have fewer columns."""
    dates = folds.select_dtypes(exclude="int64").astype("datetime64[ns]")
    learned = dates.get("labels_end", dates["train_end"]).fillna(dates["train_start"])
    validated = dates.get("validation_start", learned).fillna(learned)
    return {
        "training": (dates["train_start"], validated),
        "validation": (validated, learned),
        "left out": (learned, dates["test_start"]),
        "test": (dates["test_start"], dates.get("last_fill", dates["test_end"])),
    }


def _label(folds: pd.DataFrame) -> str:
    first, last = _phases(folds)["test"]
    return f"{len(folds)} folds in time. Tests run from {day(first.min())} to {day(last.max())}."


def _drawn(folds: pd.DataFrame) -> Axes:
    phases, count = _phases(folds), len(folds)
    span = days(pd.Index([phases["training"][0].min(), phases["test"][1].max()]))
    height = min(46 + ROW * count, TALLEST)
    axes = Axes(tuple(span), (0.5 - count, 0.5), height, margin=(0.01, 0))  # fold k stands at -k
    every = -(-count // 20)
    for place in range(0, count, every):
        axes.label_y(-place, str(folds.index[place]))
    thick = 0.62 * float(axes.up(0) - axes.up(1))
    for phase, (start, end) in phases.items():
        places = zip(days(pd.Index(start)), days(pd.Index(end)), strict=True)
        for fold, (first, last) in enumerate(places):
            if last > first:
                top = float(axes.up(-fold)) - thick / 2
                axes.band(first, last, PHASES[phase], top, thick)
    axes.mark_x(ticks.dates(*axes.x))
    return axes
