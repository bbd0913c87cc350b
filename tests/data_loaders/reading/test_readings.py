"""Two readings, marks, units, times and zones: read, or refused with advice that works."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from price_files import DAYS, ZZA, walk

from data_loaders import DataError, load

TWO_READINGS = {  # content: the message, then the options it names and the assets they give
    "Date,Last,Settle\n2020-01-01,1,2\n": (
        "price='Last' or price='Settle'", {"price": "Settle"}, {"p": 2.0},
    ),
    "Date,AAPL,MSFT,Volume\n2020-01-01,1,2,3\n": (
        "Volume like a field of one asset, AAPL, MSFT like assets: pass layout='wide'",
        {"layout": "wide"}, {"AAPL": 1.0, "MSFT": 2.0, "Volume": 3.0},
    ),
    "Date,Signal,Close\n2020-01-01,1,2\n": (
        "price='Close' if they are fields", {"price": "Close"}, {"p": 2.0},
    ),
    "date,permno,prc,ret\n2020-01-01,10107,2,.1\n": (
        "kind='returns' or price='prc'", {"price": "prc"}, {"10107": 2.0},
    ),
    "date,ticker,bid,ask\n2020-01-01,A,1,2\n": ("price='bid'", {"price": "bid"}, {"A": 1.0}),
    "date;A\n2020-01-01;30,006\n2020-01-02;31,125\n": (
        "'30,006' may be 30006 or 30.006: pass thousands=',' or decimal=','",
        {"decimal": ","}, {"A": 30.006},
    ),
    "date,A\n01/02/2020,1\n03/02/2020,2\n": (
        "date_format='%d/%m/%Y' or '%m/%d/%Y'", {"date_format": "%m/%d/%Y"}, {"A": 1.0},
    ),
    "date,A\n2020-01-01,1\n2020-01-02,2,3\n2020-01-03,2\n": (
        "line 3: has 3 columns.*pass skip='3-3'", {"skip": "3-3"}, {"A": 1.0},
    ),
    "date,A\n2020-01-01,1\n2020-01-02,n.v.\n2020-01-03,2\n": (
        "line 3, column 'A': 'n.v.' is not a number .*pass na=", {"na": "n.v."}, {"A": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", TWO_READINGS)
def test_two_readings_are_refused_with_advice_that_works(tmp_path, content):
    message, options, first = TWO_READINGS[content]
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        load(tmp_path / "p.csv")
    panel = load(tmp_path / "p.csv", **options)
    assert panel.prices.iloc[0].to_dict() == first
    again = load(tmp_path / "p.csv", start="2019-01-01", end="2020-02-29", **options)
    assert pickle.loads(pickle.dumps(again.last(1))).assets.equals(panel.assets)


def test_thousands_and_decimals_that_are_clear(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('date,A\n2020-01-01,"1,234.50"\n2020-01-02,"999.25"\n')
    assert load(path).prices["A"].tolist() == [1234.5, 999.25]
    path.write_text("date;A;B\n2020-01-01;1.234,5;7\n2020-01-02;999,25;8\n")
    assert load(path).prices["A"].tolist() == [1234.5, 999.25]
    path.write_text("date;A\n2020-01-01;1 234,5\n2020-01-02;999,25\n")
    assert load(path).prices["A"].tolist() == [1234.5, 999.25]
    path.write_text('date,A\n2020-01-01,"1,234,567"\n2020-01-02,"999"\n')
    assert load(path).prices["A"].tolist() == [1234567, 999]


def test_lines_around_the_table_are_left_out_and_said(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("A title\nand more\n\ndate,A,B\n2020-01-01,1,2\n2020-01-02,3,4\nSource: us\n")
    panel = load(path)
    assert panel.prices["B"].tolist() == [2, 4]
    assert panel.caveats == ("Lines 1 to 2 left out; line 7 left out.",)
    path.write_text("date,A,B\n2020-01-01,1,2\n2020-01-02,3\n")
    with pytest.raises(DataError, match="line 3: has 2 columns, expected 3"):
        load(path)


def test_marks_of_the_missing(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("date,A,B\n2020-01-01,.,1\n2020-01-02,#N/A N/A,2\n2020-01-03,5,-99.990\n")
    panel = load(path, na="-99.99")
    np.testing.assert_array_equal(panel.prices["A"], [np.nan, np.nan, 5])
    np.testing.assert_array_equal(panel.prices["B"], [1, 2, np.nan])
    marked = pd.DataFrame({"A": [1.0, -99.99], "B": 2.0}, DAYS[:2])
    marked.to_parquet(tmp_path / "p.parquet")
    assert load(tmp_path / "p.parquet", na=-99.99).prices["A"].isna().tolist() == [False, True]
    values = [-99.99, *np.random.default_rng(0).normal(0, 0.01, 39)]
    pd.DataFrame({"A": values}, DAYS).to_csv(path)
    with pytest.raises(DataError, match=r"A is -99.99 on .* pass na='-99.99'"):
        load(path, kind="returns", unit="percent")


def test_a_spreadsheet_is_refused_in_words(tmp_path):
    (tmp_path / "p.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a spreadsheet: save the sheet with the prices as CSV"):
        load(tmp_path / "p.xlsx")


def test_wrong_options_are_named(tmp_path):
    ZZA.to_csv(tmp_path / "ZZA.csv")
    for options, message in (
        ({"unit": "percents", "kind": "returns"}, "did you mean 'percent'"),
        ({"unit": "percent"}, "unit is for kind='returns'"),
        ({"layout": "tall"}, "unknown layout 'tall'"),
        ({"decimal": ",", "thousands": ","}, "are both ','"),
        ({"header": "none"}, "header is a number of lines, or names"),
        ({"skip": "top"}, "skip is a number of lines, or lines like"),
        ({"table": 0}, "table counts from 1"),
        ({"table": 3}, "there are 1 tables, asked for 3"),
        ({"price": "Clse"}, "price='Clse' names no column, there are Open, High"),
        ({"timezone": "Mars"}, ""),
    ):  # fmt: skip
        if message:
            with pytest.raises(ValueError, match=message):
                load(tmp_path / "ZZA.csv", **options)


def test_hours_of_interactive_brokers_and_of_offsets(tmp_path):
    """Two spaces before the hour; and the end of summer time, where 01:00 comes twice."""
    hours = pd.date_range("2023-11-04 20:00", periods=24, freq="h", tz="America/New_York")
    frame = pd.DataFrame({"A": walk(1, rows=24), "B": walk(2, rows=24)}, hours.rename("date"))
    frame.to_csv(tmp_path / "offsets.csv")
    panel = load(tmp_path / "offsets.csv")
    assert panel.dates.tolist() == hours.tz_convert("UTC").tz_localize(None).tolist()
    assert panel.prices["A"].tolist() == frame["A"].tolist()
    assert panel.caveats == ("Times are in UTC, as the clock goes back at 2023-11-05 01:00:00.",)
    naive = frame[:4].set_axis(hours[:4].strftime("%Y%m%d  %H:%M:%S")).rename_axis("date")
    naive.to_csv(tmp_path / "ib.csv")
    assert load(tmp_path / "ib.csv").dates.tolist() == hours[:4].tz_localize(None).tolist()
    with pytest.raises(DataError, match="occurs twice in America/New_York, where the clock goes"):
        load(tmp_path / "offsets.csv", timezone="America/New_York")


def test_times_in_a_column_of_their_own(tmp_path):
    hours = pd.date_range("2020-01-02 09:30", periods=6, freq="30min")
    for name, texts in (("a", hours.strftime("%H%M%S")), ("b", hours.strftime("%H:%M"))):
        frame = pd.DataFrame({"<DATE>": hours.strftime("%Y%m%d"), "<TIME>": texts, "A": 1.5})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        assert load(tmp_path / f"{name}.csv").dates.tolist() == hours.tolist()


def test_an_unfinished_session_is_left_out_and_said(tmp_path):
    text = pd.DataFrame({"A": walk(1), "B": walk(2)}, DAYS.tz_localize("America/New_York")).to_csv()
    (tmp_path / "p.csv").write_text(text + f"{DAYS[-1].date()} 13:45:10-05:00,101,102\n")
    panel = load(tmp_path / "p.csv")
    assert panel.dates.tolist() == DAYS.tolist()
    assert "unfinished session" in panel.caveats[0]


def test_prices_of_zero_and_below(tmp_path):
    frame = pd.DataFrame({"CL": walk(1), "NG": walk(2)}, DAYS)
    frame.iloc[5, 0] = -37.63
    frame.to_csv(tmp_path / "wti.csv")
    with pytest.raises(DataError, match="pass na='-37.63' to leave it out"):
        load(tmp_path / "wti.csv")
    assert load(tmp_path / "wti.csv", na="-37.63").prices["CL"].isna().sum() == 1
    frame.iloc[5, 0] = 1.0
    frame.iloc[25:, 0] = 0.0
    frame.to_csv(tmp_path / "dead.csv")
    with pytest.raises(DataError, match="na='0' to leave it out, and delisting_return=-0.99"):
        load(tmp_path / "dead.csv")
    panel = load(tmp_path / "dead.csv", na="0", delisting_return=-0.99)
    assert panel.prices["CL"].iloc[25] == pytest.approx(0.01 * frame["CL"].iloc[24])
    assert panel.prices["CL"].iloc[26:].isna().all()


@pytest.mark.parametrize("unit", ["percent", "gross", "bp"])
def test_units_of_returns(tmp_path, unit):
    returns = pd.DataFrame(np.random.default_rng(2).normal(0, 0.01, (40, 2)), DAYS, ["A", "B"])
    other = {"percent": returns * 100, "gross": 1 + returns, "bp": returns * 1e4}[unit]
    other.clip(lower=None if unit == "bp" else -0.9).to_csv(tmp_path / "r.csv")
    message = "unit='gross'" if unit == "gross" else "unit='percent'"
    with pytest.raises(DataError, match=message):
        load(tmp_path / "r.csv", kind="returns")
    if unit != "percent":
        panel = load(tmp_path / "r.csv", kind="returns", unit=unit)
        np.testing.assert_allclose(panel.returns.iloc[1:], returns, atol=1e-12)
    (100 * (1 + returns).cumprod()).to_csv(tmp_path / "p.csv")
    with pytest.raises(DataError, match="kind='prices'"):
        load(tmp_path / "p.csv", kind="returns")
    assert len(load(tmp_path / "p.csv", kind="prices")) == 40


def test_blocks_with_dates_of_their_own_are_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("Date,A,Date,B\n2020-01-01,1,2020-01-02,5\n2020-01-02,2,2020-01-03,6\n")
    with pytest.raises(
        DataError, match="columns 1 and 3 .* hold different dates.* load the folder"
    ):
        load(path)
    path.unlink()
    (tmp_path / "A.csv").write_text("Date,Close\n2020-01-01,1\n2020-01-02,2\n")
    (tmp_path / "B.csv").write_text("Date,Close\n2020-01-02,5\n2020-01-03,6\n")
    np.testing.assert_array_equal(load(tmp_path).prices, [[1, np.nan], [2, 5], [np.nan, 6]])
    same = tmp_path / "same"
    same.mkdir()
    (same / "p.csv").write_text("Date,A,Date,B\n2020-01-01,1,2020-01-01,5\n")
    assert load(same / "p.csv").prices.to_numpy().tolist() == [[1, 5]]


def test_text_beside_prices_is_left_out_of_long_files_and_refused_in_wide_ones(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("date,ticker,close,sector,name\n2020-01-01,A,1,Tech,Alpha\n")
    panel = load(path)
    assert panel.prices.to_numpy().tolist() == [[1]]
    assert panel.caveats == ("Columns sector, name left out.",)
    path.write_text("date,A,comment\n2020-01-01,1,fine\n2020-01-02,2,good\n")
    with pytest.raises(DataError, match="column 'comment': 'fine' is not a number"):
        load(path)


def test_dates_in_the_header_or_in_three_columns_are_refused_with_a_call_that_works(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    wide = pd.DataFrame({"A": walk(1), "B": walk(2)}, DAYS.rename("date"))
    wide.T.rename_axis("ticker").to_csv("p.csv")
    with pytest.raises(DataError, match="the dates are in the header") as caught:
        load("p.csv")
    eval(re.search(r"pd.read_csv.*csv'\)", str(caught.value))[0], {"pd": pd})
    assert load("turned.csv").prices.equals(load_wide(wide))
    parts = wide.assign(Year=DAYS.year, Month=DAYS.month, Day=DAYS.day)
    parts[["Year", "Month", "Day", "A", "B"]].to_csv("q.csv", index=False)
    with pytest.raises(DataError, match="in the columns Year, Month, Day") as caught:
        load("q.csv")
    exec(re.search(r"frame = .*False\)", str(caught.value))[0], {"pd": pd})
    assert load("dated.csv").prices.equals(load_wide(wide))


def load_wide(frame):
    frame.to_csv("wide.csv")
    return load("wide.csv").prices


def test_periods_are_known_at_their_end(tmp_path):
    path = tmp_path / "p.csv"
    for texts, last in (
        (["2020-01", "2020-02"], "2020-02-29"),
        (["202001", "202002"], "2020-02-29"),
        (["2020Q1", "2020Q2"], "2020-06-30"),
        (["2020-Q1", "2020-Q2"], "2020-06-30"),
        (["2019", "2020"], "2020-12-31"),
    ):
        path.write_text("date,A\n" + "".join(f"{text},1\n" for text in texts))
        assert load(path).dates[-1] == pd.Timestamp(last), texts


def test_columns_set_apart_by_blanks(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("  date      A       B\n2020-01-01  1.5   2\n2020-01-02   2.5  3\n")
    assert load(path).prices.to_numpy().tolist() == [[1.5, 2], [2.5, 3]]


def test_times_in_columns_of_other_names(tmp_path):
    stamps = DAYS.as_unit("ns").asi8
    frame = pd.DataFrame({"ticker": "A", "volume": 5, "close": walk(1), "window_start": stamps})
    frame.to_csv(tmp_path / "polygon.csv", index=False)
    panel = load(tmp_path / "polygon.csv")
    assert panel.dates.tolist() == DAYS.tolist()
    assert panel.prices["A"].tolist() == walk(1).tolist()


def test_volume_beside_the_price_of_an_asset_is_no_asset(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("Date,ZZA,ZZA Volume,ZZB,ZZB Volume\n2020-01-02,1,20,3,40\n")
    panel = load(path)
    assert panel.prices.iloc[0].to_dict() == {"ZZA": 1, "ZZB": 3}
    assert panel.asset_features["volume"].iloc[0].to_dict() == {"ZZA": 20, "ZZB": 40}


def test_values_on_both_sides_of_zero_are_returns(tmp_path):
    returns = pd.DataFrame(np.random.default_rng(0).normal(0, 0.01, (30, 1)), DAYS[:30], ["A"])
    returns.to_csv(tmp_path / "p.csv")
    with pytest.raises(DataError, match="usually returns: pass kind='returns'"):
        load(tmp_path / "p.csv")
    panel = load(tmp_path / "p.csv", kind="returns")
    np.testing.assert_allclose(panel.returns.iloc[1:], returns, atol=1e-12)


def test_returns_by_name_are_no_prices(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("date,ticker,ret\n2020-01-02,A,.01\n2020-01-03,A,.02\n")
    with pytest.raises(DataError, match="column ret holds returns: pass kind='returns', or price="):
        load(path)
    assert load(path, kind="returns").returns["A"].iloc[1:].round(9).tolist() == [0.01, 0.02]
    assert load(path, price="ret").prices["A"].tolist() == [0.01, 0.02]


def test_other_codes_of_an_asset_are_left_out(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("date,permno,ticker,prc\n2020-01-02,10107,MSFT,5\n2020-01-03,10107,MSFT,6\n")
    panel = load(path)
    assert list(panel.assets) == ["MSFT"]
    assert not panel.asset_features
    assert "column permno left out" in panel.caveats[0].lower()


def test_headers_with_one_cell_less_than_the_rows(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("Date,A,B\n2020-01-02,1,2,\n2020-01-03,3,4,\n")
    assert load(path).prices["B"].tolist() == [2, 4]
    path.write_text("A,B\n2020-01-02,1,2\n2020-01-03,3,4\n")  # as R writes row names
    assert load(path).prices["A"].tolist() == [1, 3]


def test_an_unfinished_session_of_a_long_file_is_left_out(tmp_path):
    rows = [f"{day:%Y-%m-%d},{name},{i + 1}" for name in "AB" for i, day in enumerate(DAYS[:5])]
    rows += [f"{DAYS[4]:%Y-%m-%d} 13:45:10,{name},99" for name in "AB"]
    (tmp_path / "p.csv").write_text("date,ticker,close\n" + "\n".join(rows))
    panel = load(tmp_path / "p.csv")
    assert panel.dates.tolist() == DAYS[:5].tolist()
    assert panel.prices["B"].tolist() == [1, 2, 3, 4, 5]
    assert "unfinished session" in panel.caveats[0]


def test_a_file_names_its_asset(tmp_path):
    for name in ("BRK.A.csv", "BRK.B.csv", "zza.us.txt"):
        (tmp_path / name).write_text("Date,Close\n2020-01-02,5\n2020-01-03,6\n")
    assert list(load(tmp_path).assets) == ["BRK.A", "BRK.B", "zza.us"]
    assert list(load(tmp_path / "BRK.B.csv", asset="B").assets) == ["B"]
