"""The timeline of a plan: what is drawn lies where the table says."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from engine import WalkForward
from reports import write_plan
from reports.figures.axes import LEFT, RIGHT, WIDTH
from reports.figures.ticks import days
from reports.figures.timeline import PHASES, timeline

RECT = re.compile(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" .*?var\(--(\w+)\)')


def drawn(figure, table):
    """{phase: (first days, last days)} of the bars, read back from their places."""
    ends = days(pd.Index([table["train_start"].min(), table["last_fill"].max()]))
    room = 0.01 * (ends[1] - ends[0])
    low, high = ends[0] - room, ends[1] + room

    def at(place):
        return low + (place - LEFT) / (WIDTH - RIGHT - LEFT) * (high - low)

    found = {phase: ([], []) for phase in PHASES}
    phases = {colour: phase for phase, colour in PHASES.items()}
    for left, width, colour in RECT.findall(str(figure)):
        found[phases[colour]][0].append(at(float(left)))
        found[phases[colour]][1].append(at(float(left) + float(width)))
    return found


@pytest.mark.parametrize("window", ["expanding", "rolling"])
def test_bars_lie_where_the_table_says(window):
    panel = random_walks(1500, 2)
    plan = WalkForward("2Y", "6M", "W-FRI", window, purge=40)
    table = plan.describe(panel, 21, validation=0.25)
    bars = drawn(timeline(table), table)
    expected = {
        "training": ("train_start", "validation_start"),
        "validation": ("validation_start", "labels_end"),
        "left out": ("labels_end", "test_start"),
        "test": ("test_start", "last_fill"),
    }
    for phase, columns in expected.items():
        for found, column in zip(bars[phase], columns, strict=True):
            np.testing.assert_allclose(found, days(pd.Index(table[column])), atol=0.6)
    share = (table["labels_end"] - table["validation_start"]) / (
        table["labels_end"] - table["train_start"]
    )
    assert share.between(0.2, 0.3).all()  # a quarter of the decisions, the last ones


def test_a_rule_has_no_validation_and_a_fold_may_have_no_training():
    panel = random_walks(900, 2)
    table = WalkForward(train="1Y", refit="1Y").describe(panel, lookback=300)
    assert table["validation_start"].isna().all()
    assert table["labels_end"].isna().tolist() == [True, False, False]
    bars = drawn(timeline(table), table)
    assert [len(bars[phase][0]) for phase in PHASES] == [2, 0, 3, 3]


def test_a_plan_is_drawn_to_a_file_of_its_own(tmp_path):
    panel = random_walks(900, 2)
    path = write_plan(WalkForward(train="1Y", refit="6M"), panel, tmp_path / "plan.svg", 21)
    root = ET.fromstring(path.read_text())
    assert root.tag.endswith("svg")
    written = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {*PHASES, "0", "4"} <= written
    used = set(re.findall(r"var\(--(\w+)\)", path.read_text()))
    assert all(f"--{name}:#" in path.read_text() for name in used)
