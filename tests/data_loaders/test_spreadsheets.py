import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders import load
from data_loaders.files import write_prices
from data_loaders.spreadsheets import as_written, safe_csv, safe_text

SIGNS = "=+-@\t\r\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
SIGNS += "\N{FULLWIDTH COMMERCIAL AT}"


@pytest.mark.parametrize("sign", SIGNS)
def test_no_text_begins_as_a_formula(sign):
    evil = f"{sign}cmd|' /C calc'!A0"
    frame = pd.DataFrame({evil: [evil, "plain", -1.5]}, index=pd.Index([evil, "a", "b"], name=evil))
    rows = list(csv.reader(io.StringIO(safe_csv(frame), newline="")))
    assert [cell[:2] for cell in rows[0]] == ["'" + sign] * 2
    assert [cell[:2] for cell in rows[1]] == ["'" + sign] * 2
    assert rows[2:] == [["a", "plain"], ["b", "-1.5"]]


@given(st.text(max_size=8))
def test_a_text_comes_back_as_it_was(text):
    assert as_written(safe_text(text)) == text or text.startswith("'")


def test_prices_with_such_names_are_read_back(tmp_path):
    dates = pd.bdate_range("2020-01-01", periods=60, name="date").as_unit("ns")
    values = 100 + np.arange(120.0).reshape(60, 2)
    prices = pd.DataFrame(values, index=dates, columns=["=A", "@B"])
    write_prices(prices, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().startswith("date,'=A,'@B")
    pd.testing.assert_frame_equal(load(tmp_path / "x.csv").prices, prices, check_freq=False)
