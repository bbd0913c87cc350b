"""Figures: where things stand on the axes, and what is written there."""

from __future__ import annotations

import base64
import json
import re
import zlib
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from engine import WalkForward
from reports import write_plan
from reports.figures import charts
from reports.figures.axes import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axes,
    date_ticks,
    days,
    log_ticks,
    round_ticks,
    svg,
)
from reports.figures.charts import PHASES, readings_of, timeline

COLOURS = {"one": "s1", "two": "s2"}
RECT = re.compile(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" .*?var\(--(\w+)\)')


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.03, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (-7, 21, [-5, 0, 5, 10, 15, 20]),
        (3, 3, [3]),
        (1e-15, 3e-15, [1e-15, 1.5e-15, 2e-15, 2.5e-15, 3e-15]),
    ],
)
def test_linear_ticks_are_round(low, high, expected):
    assert round_ticks(low, high) == expected


def test_whole_ticks_are_whole():
    assert round_ticks(0, 3, 6, whole=True) == [0, 1, 2, 3]
    assert round_ticks(0.2, 1.4, 6, whole=True) == [1]


def test_logarithmic_ticks():
    assert log_ticks(0.7, 10) == [1, 2, 5, 10]
    assert log_ticks(0.5, 5000) == [1, 10, 100, 1000]
    assert log_ticks(1, 1.1) == [1, 1.025, 1.05, 1.075, 1.1]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ("1900-12-01", "2022-12-02", ["1920", "1940", "1960", "1980", "2000", "2020"]),
        ("2019-06-01", "2022-12-02", ["2020", "2021", "2022"]),
        ("2022-01-03", "2022-12-28", ["2022-04", "2022-07", "2022-10"]),
        ("2022-12-01", "2022-12-04", ["2022-12-01", "2022-12-02", "2022-12-03", "2022-12-04"]),
        ("2022-12-28 09:30", "2022-12-28 14:00", ["12-28 10:00", "12-28 12:00", "12-28 14:00"]),
    ],
)
def test_dates_are_marked_where_they_begin(low, high, words):
    found = date_ticks(*days(pd.DatetimeIndex([low, high])))
    assert [text for _, text in found] == words
    form = {4: "%Y", 7: "%Y-%m", 10: "%Y-%m-%d"}.get(len(words[0]), "%m-%d %H:%M")
    for place, text in found:
        assert (pd.Timestamp(0) + pd.Timedelta(days=place)).strftime(form) == text


def test_a_line_stands_where_its_values_say():
    axes = Axes((0, 10), (0, 100), 200, margin=(0, 0))
    axes.line(np.array([0.0, 5, 10]), np.array([0.0, 50, 100]), "s1")
    path = re.search(r'd="M(.*?)"', axes.drawn())[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    middle = ((LEFT + WIDTH - RIGHT) / 2, (TOP + 200 - BOTTOM) / 2)
    assert points == [(LEFT, 200 - BOTTOM), middle, (WIDTH - RIGHT, TOP)]


def test_equal_ratios_are_equally_far_apart_on_a_log_axis():
    axes = Axes((0, 1), (1, 100), 300, log=True, margin=(0, 0))
    assert axes.up([1, 10, 100]) == pytest.approx([300 - BOTTOM, (300 - BOTTOM + TOP) / 2, TOP])


def test_a_line_is_broken_where_a_value_is_missing():
    axes = Axes((0, 4), (0, 4), 200)
    axes.line(np.arange(5.0), np.array([1, 2, np.nan, 3, 4]), "s1")
    path = re.search(r'd="(.*?)"', axes.drawn())[1]
    assert (path.count("M"), path.count("L")) == (2, 2)
    assert "nan" not in path
    empty = Axes((0, 4), (0, 4), 200)
    empty.line(np.arange(2.0), np.full(2, np.nan), "s1")
    assert empty.drawn() == ""


def test_lines_of_different_dates_are_read_at_all_of_them():
    dates = pd.bdate_range("2020-01-01", periods=4)
    lines = {"one": pd.Series([1.0, 2, 3], dates[:3]), "two": pd.Series([5.0, 6], dates[2:])}
    told = readings_of((0, 1), lines, COLOURS, "number")
    assert (np.cumsum(told["x"]) / 1e4).tolist() == days(dates).tolist()
    (*one, first), (*two, second) = told["lines"]
    assert (one, two) == (["one", "s1", 1e-6], ["two", "s2", 1e-6])
    assert first == [1_000_000, 1_000_000, 1_000_000, None]
    assert second == [None, None, 5_000_000, 1_000_000]


def test_values_are_read_to_the_last_digit_shown_and_extremes_are_kept():
    """The first values of a line that grows by thousands are as exact as the last ones."""
    dates = pd.bdate_range("1950-01-02", periods=25_000)
    line = np.exp(pd.Series(np.linspace(0, 9, 25_000), dates)) + 0.00123
    line.iloc[[777, 12_345]] = [-3.21, 1e5]
    told = readings_of((0, 1), {"one": line, "two": line}, COLOURS, "number")
    assert 5_000 < len(told["x"]) <= 12_001
    x = np.cumsum(told["x"]) / 1e4
    for _, _, scale, steps in told["lines"]:
        values = pd.Series(np.cumsum(steps) * scale, x)
        expected = line.set_axis(days(dates)).loc[x]
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert {values.min(), values.max()} == {-3.21, 1e5}


ODD = {
    "one value": [1.0],
    "all alike": [2.0] * 30,
    "nothing known": [np.nan] * 30,
    "gone at once": [1.0, 0.0, 0.0],
    "huge and tiny": [1e-9, 1e9, 1.0],
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("log", [False, True])
def test_odd_lines_are_still_a_figure(case, log):
    dates = pd.bdate_range("2020-01-01", periods=len(ODD[case]))
    drawn = charts.line_chart("x", {"one": pd.Series(ODD[case], dates)}, COLOURS, log=log)
    root = ElementTree.fromstring(drawn)
    numbers = " ".join(part for node in root.iter() for part in node.attrib.values())
    assert not re.search(r"\b(nan|inf)\b", numbers.replace("NaN", "null"))
    told = json.loads(zlib.decompress(base64.b64decode(root.attrib["data-readings"])))
    assert told["lines"][0][0] == "one"


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
    bars = drawn(svg(*timeline(table)), table)
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
    bars = drawn(svg(*timeline(table)), table)
    assert [len(bars[phase][0]) for phase in PHASES] == [2, 0, 3, 3]


def test_a_plan_is_drawn_to_a_file_of_its_own(tmp_path):
    panel = random_walks(900, 2)
    path = write_plan(WalkForward(train="1Y", refit="6M"), panel, tmp_path / "plan.svg", 21)
    root = ElementTree.fromstring(path.read_text())
    assert root.tag.endswith("svg")
    written = {text.text for text in root.iter() if text.tag.endswith("text")}
    assert {*PHASES, "0", "4"} <= written
    used = set(re.findall(r"var\(--(\w+)\)", path.read_text()))
    assert all(f"--{name}:#" in path.read_text() for name in used)
