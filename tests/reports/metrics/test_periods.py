"""Trailing returns and crises, by hand."""

import numpy as np
import pandas as pd
import pytest

from reports.metrics.periods import STRESS, TRAILING, stress_returns, trailing_returns


def line(begin, end, rate=0.001, **jumps):
    dates = pd.bdate_range(begin, end)
    found = pd.Series(rate, dates)
    for date, value in jumps.items():
        found[pd.Timestamp(date.replace("d", "").replace("_", "-"))] = value
    return found


def test_trailing_returns_by_hand():
    own = line("2019-06-03", "2024-02-14", 0.0, d2024_02_01=0.1, d2023_12_29=0.5, d2024_01_02=-0.2)
    own["2021-02-12"], own["2021-02-15"] = 7.0, 0.3  # before, and within three years
    short = line("2023-11-01", "2024-02-14", 0.0, d2024_02_14=0.02)
    table = trailing_returns({"own": own, "short": short})
    assert table.loc["Month to date", "own"] == pytest.approx(0.1)
    assert table.loc["Year to date", "own"] == pytest.approx(0.8 * 1.1 - 1)
    assert table.loc["3 months", "own"] == pytest.approx(1.5 * 0.8 * 1.1 - 1)
    assert table.loc["1 year", "own"] == pytest.approx(1.5 * 0.8 * 1.1 - 1)
    assert table.loc["3 years a year", "own"] == pytest.approx(
        (1.3 * 1.5 * 0.8 * 1.1) ** (1 / 3) - 1
    )
    assert table["short"].dropna().to_dict() == pytest.approx(
        {"Month to date": 0.02, "Year to date": 0.02, "3 months": 0.02}
    )
    assert "5 years a year" not in table.index


def test_a_month_that_has_just_ended_is_to_date():
    own = line("2023-01-02", "2024-01-31", 0.0, d2024_01_02=0.1, d2023_12_29=0.5)
    assert trailing_returns({"a": own}).loc["Month to date", "a"] == pytest.approx(0.1)
    bars = pd.Series(0.0, pd.date_range("2024-01-30", periods=48, freq="h"))
    bars["2024-01-31 00:00"] = 0.1  # of the same month
    assert trailing_returns({"a": bars}).empty


def test_crises_within_the_dates_by_hand():
    own = line("2020-01-02", "2020-12-31", 0.0, d2020_02_19=0.5, d2020_02_20=-0.1, d2020_03_23=-0.2)
    own["2020-03-24"] = 0.3
    later = line("2020-03-02", "2020-12-31")
    table = stress_returns({"own": own, "later": later})
    assert list(table.index) == ["COVID crash"]
    assert table.loc["COVID crash", "own"] == pytest.approx(0.9 * 0.8 - 1)
    assert table.loc["COVID crash", "deepest"] == pytest.approx(0.9 * 0.8 - 1)
    assert np.isnan(table.loc["COVID crash", "later"])
    assert stress_returns({"later": later}).empty


def test_crises_are_in_order_and_end_after_they_begin():
    spans = [tuple(map(pd.Timestamp, span)) for span in STRESS.values()]
    assert all(start < end for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert len(TRAILING) == 7
