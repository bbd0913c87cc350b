"""The walk-forward plan as a timeline: what each fold trains, validates and tests on.

write_plan(WalkForward(train="5Y"), panel, "plan.svg")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from data_loaders import Panel
from engine.planning.walk_forward import WalkForward
from reports import ticks
from reports.axes import Axes
from reports.formats import day
from reports.svg import PALETTE, days, svg

PHASES = {"training": "s4", "validation": "s6", "left out": "other", "test": "s1"}
ROW, TALLEST = 18, 420  # height of a fold, and of the figure


def timeline(folds: pd.DataFrame) -> Markup:
    """One row a fold, from the top down; see ``PHASES`` for the colours.

    Left out is what lies between the last training label and the first test decision: the purge,
    and the holding periods that were not over.

    Args:
        folds: as ``WalkForward.describe`` gives, or ``BacktestResult.folds``.
    """
    dates = {
        name: pd.to_datetime(folds[name]) for name in folds if str(folds[name].dtype) != "int64"
    }
    learned = dates.get("labels_end", dates["train_end"]).fillna(dates["train_start"])
    validated = dates.get("validation_start", learned).fillna(learned)
    held = dates.get("last_fill", dates["test_end"])
    edges = {
        "training": (dates["train_start"], validated),
        "validation": (validated, learned),
        "left out": (learned, dates["test_start"]),
        "test": (dates["test_start"], held),
    }
    count = len(folds)
    height = min(46 + ROW * count, TALLEST)
    span = days(pd.Index([dates["train_start"].min(), held.max()]))
    axes = Axes((span[0], span[1]), (count - 0.5, -0.5), height, margin=(0.01, 0))
    axes.y = (count - 0.5, -0.5)  # the first fold on top
    every = -(-count // 20)
    thick = 0.62 * (axes.up(1) - axes.up(0)).item()
    for place, number in enumerate(folds.index[::every]):
        y = float(axes.up(place * every))
        axes.ground.append(
            f'<text text-anchor="end" x="{axes.left - 6:g}" y="{y:.1f}" dy=".35em">{number}</text>'
        )
    for phase, (start, end) in edges.items():
        axes.marks += [
            f'<rect x="{a:.1f}" y="{y - thick / 2:.1f}" width="{max(b - a, 0.5):.1f}" '
            f'height="{thick:.1f}" style="fill:var(--{PHASES[phase]})"/>'
            for a, b, y in zip(
                axes.across(days(pd.Index(start))),
                axes.across(days(pd.Index(end))),
                axes.up(np.arange(count)),
                strict=True,
            )
            if b > a
        ]
    axes.mark_x(ticks.dates(*axes.x))
    first, last = dates["test_start"].min(), held.max()
    label = f"{count} folds in time. Tests run from {day(first)} to {day(last)}."
    return svg(label, axes)


def write_plan(
    plan: WalkForward, panel: Panel, path: str | Path, lookback: int = 1, validation: float = 0.2
) -> Path:
    """Draw a plan's folds on a panel to an SVG file that any browser shows.

    Args:
        lookback: rows that the strategies need.
        validation: share of the training decisions kept for early stopping (``Training``); 0
            for rules.
    """
    drawn = timeline(plan.describe(panel, lookback, validation))
    colours = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
    keys = "".join(
        f'<rect x="{58 + 120 * n}" y="-22" width="11" height="11" style="fill:var(--{colour})"/>'
        f'<text x="{74 + 120 * n}" y="-12">{phase}</text>'
        for n, (phase, colour) in enumerate(PHASES.items())
    )
    start, _, rest = str(drawn).partition(">")
    _, _, size = start.partition('viewBox="0 0 ')
    width, height = (float(word) for word in size.rstrip('"').split())
    start = start.replace(f"0 0 {size}", f'0 -30 {width:g} {height + 30:g}"')
    target = Path(path)
    target.write_text(
        start.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
        + f' style="{colours}background:var(--page)">'
        + "<style>text{font:12px sans-serif;fill:var(--ink)}</style>"
        + keys
        + rest
    )
    return target
