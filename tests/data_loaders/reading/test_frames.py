"""What Panel accepts: frames of prices, and every refusal's advice evaluated as it is written."""

import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data_loaders import DataError, Panel

DAYS = pd.bdate_range("2020-01-02", periods=30, name="Date")
VALUES = 100 * np.exp(np.random.default_rng(0).normal(0, 0.01, (30, 2)).cumsum(axis=0))
GOOD = pd.DataFrame(VALUES, DAYS, ["ZZA", "ZZB"])
VOLUME = GOOD * 1000
YFINANCE = pd.concat({"Close": GOOD, "Volume": VOLUME}, axis=1, names=["Price", "Ticker"])


def test_a_frame_of_yfinance():
    for frame in (
        YFINANCE,
        YFINANCE.swaplevel(axis=1),
        YFINANCE.swaplevel(axis=1).sort_index(axis=1),
    ):
        panel = Panel(frame)
        assert list(panel.assets) == ["ZZA", "ZZB"]
        np.testing.assert_array_equal(panel.prices, GOOD)
        np.testing.assert_array_equal(panel.asset_features["volume"], VOLUME)
        assert panel.caveats == ("Close; volume as feature.",)
    adjusted = pd.concat({"Adj Close": GOOD / 2, "Close": GOOD}, axis=1)
    np.testing.assert_array_equal(Panel(adjusted).prices, GOOD / 2)


def test_other_objects_that_hold_prices():
    expected = Panel(GOOD).fingerprint
    assert Panel({"ZZA": GOOD["ZZA"], "ZZB": GOOD["ZZB"]}).fingerprint == expected
    assert Panel(GOOD["ZZA"]).fingerprint == Panel(GOOD[["ZZA"]]).fingerprint
    assert Panel(pa.table(GOOD.reset_index())).fingerprint == expected
    assert Panel(GOOD.rename(columns={"ZZA": " ZZA "})).fingerprint == expected
    assert Panel(GOOD.astype("Float64")).fingerprint == expected
    assert Panel(GOOD.map(Decimal)).fingerprint == expected
    long = GOOD.reset_index().melt("Date", var_name="ticker", value_name="close")
    assert Panel(pa.table(long)).fingerprint == expected


def test_an_arrow_table_of_one_asset_has_no_name():
    table = pa.table(bars().reset_index())
    with pytest.raises(DataError, match="keep the dates and Close, renamed to the asset"):
        Panel(table)
    kept = table.select(["Date", "Close"]).rename_columns(["Date", "ZZA"])
    assert Panel(kept).fingerprint == Panel(GOOD[["ZZA"]]).fingerprint


def test_a_polars_frame():
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(GOOD.reset_index())
    assert Panel(frame).fingerprint == Panel(GOOD).fingerprint


def bars(days=DAYS):
    return pd.DataFrame({"Open": 1.0, "Close": GOOD["ZZA"].to_numpy(), "Volume": 7.0}, index=days)


def stamps(frame, index):
    return frame.set_axis(index)


REFUSED = {  # what is wrong: the frame, the message, and how to follow it
    "integer days": (stamps(GOOD, DAYS.strftime("%Y%m%d").astype(int)), "got numbers"),
    "epoch ms": (stamps(GOOD, DAYS.as_unit("ms").asi8), "unit='ms'"),
    "epoch s": (stamps(GOOD, DAYS.as_unit("s").asi8), "unit='s'"),
    "Excel's days": (stamps(GOOD, (DAYS - pd.Timestamp("1899-12-30")).days), "origin='1899"),
    "text": (stamps(GOOD, DAYS.strftime("%Y-%m-%d")), "got Index: .*to_datetime"),
    "dates as objects": (stamps(GOOD, pd.Index(DAYS.date)), "got Index"),
    "a column of dates": (GOOD.reset_index(), "got RangeIndex"),
    "a column of text dates": (
        GOOD.reset_index().astype({"Date": str}), "assign.*set_index",
    ),
    "a long frame": (
        GOOD.reset_index().melt("Date", var_name="ticker", value_name="close"),
        "got a long table: .*pivot",
    ),
    "midnight of New York in UTC": (
        stamps(GOOD, DAYS.tz_localize("America/New_York").tz_convert("UTC")),
        "time zone UTC.*tz_convert",
    ),
    "a zone of its own": (stamps(GOOD, DAYS.tz_localize("Asia/Tokyo")), "Asia/Tokyo"),
    "disorder": (GOOD.iloc[::-1], "not in order"),
    "numbers as names": (
        GOOD.set_axis([10107, 14593], axis=1), "columns.map",
    ),
    "a bool column": (GOOD.assign(flag=True), "column 'flag' holds bool, expected numbers"),
    "a column of dates beside": (GOOD.assign(when=DAYS), "column 'when' holds datetime64"),
    "complex numbers": (GOOD.assign(z=1j), "column 'z' holds complex"),
    "objects that are bool": (
        GOOD.assign(flag=pd.Series(True, DAYS, dtype=object)), "holds boolean",
    ),
    "bars of one asset": (bars(), "columns Open, Close, Volume are fields of one asset"),
    "a close among others": (
        GOOD.rename(columns={"ZZA": "Close", "ZZB": "signal"}), "columns Close are fields",
    ),
    "a volume among assets": (GOOD.assign(Volume=1.0), "Volume are fields of one asset"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_advice_is_right_when_followed(kind):
    frame, message = REFUSED[kind]
    with pytest.raises(DataError, match=message) as caught:
        Panel(frame)
    call = re.search(r"(frame[.\[].*\))", str(caught.value))[1].partition(", with the zone")[0]
    call = re.sub(r"\) (sets|makes|sorts|keeps|leaves).*", ")", call)
    mended = eval(call, {"frame": frame, "pd": pd})
    panel = Panel(mended)
    assert panel.dates.tolist() == DAYS.tolist()
    first = panel.prices.iloc[:, 0].to_numpy()
    np.testing.assert_array_equal(first, GOOD["ZZA"])


def test_tokyo_is_not_put_a_day_early():
    utc = DAYS.tz_localize("Asia/Tokyo").tz_convert("UTC")
    with pytest.raises(DataError, match="with the zone of the exchange in place of") as caught:
        Panel(GOOD.set_axis(utc))
    call = re.search(r"(frame.*\)), with", str(caught.value))[1]
    call = call.replace("America/New_York", "Asia/Tokyo")
    assert Panel(eval(call, {"frame": GOOD.set_axis(utc)})).dates.tolist() == DAYS.tolist()


def test_hours_keep_their_time():
    hours = pd.date_range("2020-01-02 09:30", periods=30, freq="h", tz="America/New_York")
    with pytest.raises(DataError) as caught:
        Panel(GOOD.set_axis(hours))
    assert "normalize" not in str(caught.value)
    call = re.search(r"(frame.*\))", str(caught.value))[1]
    panel = Panel(eval(call, {"frame": GOOD.set_axis(hours)}))
    assert panel.dates[0] == pd.Timestamp("2020-01-02 09:30")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (VALUES, "got ndarray: pd.DataFrame"),
        ([1, 2], "got list"),
        (None, "got NoneType"),
        ({"A": [1, 2]}, "as a dict need a Series"),
        ({}, "as a dict need a Series"),
        (GOOD["ZZA"].rename(None), r"Series named None .* series.rename\('NAME'\)"),
        (GOOD["ZZA"].rename("Close"), "Series named 'Close' does not say which asset"),
        (GOOD.set_axis([f"{i}" for i in range(30)]).set_axis(range(30)), "that are not dates"),
        (pd.concat({"x": GOOD, "y": GOOD}, axis=1), "several levels .*none of them holds only"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_prices_is_refused_in_words(data, message):
    with pytest.raises(DataError, match=message):
        Panel(data)


def test_tickers_that_are_words_for_fields():
    assert list(Panel(GOOD.set_axis(["LOW", "OPEN"], axis=1)).assets) == ["LOW", "OPEN"]
    assert list(Panel(GOOD.set_axis(["AAPL", "LAST"], axis=1)).assets) == ["AAPL", "LAST"]


def test_a_period_index():
    months = pd.period_range("2020-01", periods=30, freq="M")
    with pytest.raises(DataError, match="periods") as caught:
        Panel(GOOD.set_axis(months))
    call = re.search(r"(frame.*\)) makes", str(caught.value))[1]
    panel = Panel(eval(call, {"frame": GOOD.set_axis(months)}))
    assert panel.dates[0] == pd.Timestamp("2020-01-31")
