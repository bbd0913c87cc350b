"""Price files as people have them: each is read right, or refused with advice that works.

The files are kept beside the repository; where they are missing, ``test_formats.py`` still tests
the same kinds on files that it writes.
"""

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_loaders import DataError, load

CASES = Path(__file__).parents[4] / "shared" / "cases" / "data"
if not CASES.is_dir():
    pytest.skip("the files are not here", allow_module_level=True)


def by_hand(name, key, columns, top=1, delimiter=",", asset=None, stop=None):
    """{asset: {date text: number}} of a file's cells, without the code under test."""
    with open(CASES / name, newline="") as stream:
        rows = list(csv.reader(stream, delimiter=delimiter))[top:stop]
    found = {}
    for row in rows:
        for named, at in columns.items():
            name_ = named if asset is None else row[asset].strip()
            text = row[at].strip()
            number = math.nan if text in (".", "") else float(text)
            found.setdefault(name_, {})[row[key].strip()] = number
    return found


def check(panel, expected, dates=lambda text: pd.Timestamp(text[:10])):
    assert list(panel.assets) == list(expected)
    for asset, values in expected.items():
        series = pd.Series({dates(text): value for text, value in values.items()}).sort_index()
        got = panel.prices[asset].reindex(series.index)
        np.testing.assert_array_equal(got.to_numpy(), series.to_numpy())
        assert panel.prices[asset].notna().sum() == series.notna().sum()


def eight(text):
    return pd.Timestamp(f"{text[:4]}-{text[4:6]}-{text[6:8]}")


def epoch(unit):
    return lambda text: pd.Timestamp(int(text), unit=unit)


WIDE = {"ZZA": 1, "ZZB": 2}
READ = {
    "annual_prices.csv": {"key": 0, "columns": WIDE},
    "bad_tick_x1000_one_day.csv": {"key": 0, "columns": {"A": 1, "B": 2}},
    "crypto_247_one_day_missing.csv": {"key": 0, "columns": {"BTC": 1, "ETH": 2}},
    "quarterly.csv": {"key": 0, "columns": WIDE},
    "excel_sep_line.csv": {"key": 0, "columns": WIDE, "top": 2, "delimiter": ";"},
    "daily_with_time_number_column.csv": {"key": 0, "columns": {"ZZA": 2, "ZZB": 3}},
    "fred_dot_missing_holiday.csv": {"key": 0, "columns": {"DEXUSEU": 1, "DEXJPUS": 2}},
    "long_numeric_code_one_asset.csv": {"key": 0, "columns": {"": 2}, "asset": 1},
    "long_numeric_codes_korea.csv": {"key": 0, "columns": {"": 2}, "asset": 1},
    "long_ticker_NA_first.csv": {"key": 0, "columns": {"": 2}, "asset": 1},
    "long_ticker_trailing_space.csv": {"key": 0, "columns": {"": 2}, "asset": 1},
    "kaggle_all_stocks_Name_column.csv": {"key": 0, "columns": {"": 4}, "asset": 6},
    "tiingo_dividends_only.csv": {"key": 0, "columns": {"": 3}, "asset": 1},
    "cryptodatadownload_url_line_newest_first.csv": {
        "key": 1,
        "columns": {"": 6},
        "top": 2,
        "asset": 2,
    },
    "alpaca_stocks_and_crypto_different_hours.csv": {"key": 1, "columns": {"": 5}, "asset": 0},
    "yf_download_one_ticker_3_header_rows.csv": {"key": 0, "columns": {"ZZA": 1}, "top": 3},
    "yf_download_two_tickers_3_header_rows.csv": {"key": 0, "columns": WIDE, "top": 3},
    "yahoo_live_row_at_end.csv": {"key": 0, "columns": {"A": 1, "B": 2}, "stop": -1},
    "date_close_volume_one_asset.csv": {"key": 0, "columns": {"date_close_volume_one_asset": 1}},
    "coingecko_date_cut.csv": {"key": 0, "columns": {"coingecko_date_cut": 1}},
    "coingecko_utc_suffix.csv": {"key": 0, "columns": {"coingecko_utc_suffix": 1}},
    "alphavantage_python_lib_numbered_columns.csv": {
        "key": 0,
        "columns": {"alphavantage_python_lib_numbered_columns": 4},
    },
}


@pytest.mark.parametrize("name", READ)
def test_read_as_by_hand(name):
    check(load(CASES / name), by_hand(name, **READ[name]))


def test_what_was_taken_is_said():
    def said(name):
        return " ".join(load(CASES / name).caveats)

    assert "Adjusted close of column adjClose" in said("tiingo_dividends_only.csv")
    assert "close, dividends, splits as features" in said("tiingo_dividends_only.csv")
    assert "Line 1 left out" in said("cryptodatadownload_url_line_newest_first.csv")
    assert "column Unix left out" in said("cryptodatadownload_url_line_newest_first.csv")
    assert "olumn Time left out" in said("daily_with_time_number_column.csv")
    assert "__index_level_0__ left out" in said("wide_filtered_mask___index_level_0__.parquet")
    assert "unfinished session" in said("yahoo_live_row_at_end.csv")
    assert not load(CASES / "excel_sep_line.csv").caveats


def test_fields_become_features():
    panel = load(CASES / "yf_download_two_tickers_3_header_rows.csv")
    volumes = by_hand("yf_download_two_tickers_3_header_rows.csv", 0, {"ZZA": 5, "ZZB": 6}, 3)
    for asset, values in volumes.items():
        assert panel.asset_features["volume"][asset].tolist() == list(values.values())
    panel = load(CASES / "tiingo_dividends_only.csv")
    closes = by_hand("tiingo_dividends_only.csv", 0, {"": 2}, asset=1)
    assert panel.asset_features["close"]["D"].tolist() == list(closes["D"].values())


def test_numbers_as_dates():
    panel = load(CASES / "stooq_ascii_bulk.csv")
    check(panel, by_hand("stooq_ascii_bulk.csv", 2, {"": 7}, asset=0), eight)
    panel = load(CASES / "epoch_seconds_wide.csv")
    check(panel, by_hand("epoch_seconds_wide.csv", 0, {"BTCUSD": 1, "ETHUSD": 2}), epoch("s"))
    panel = load(CASES / "wide_int_yyyymmdd_index.parquet")
    table = pq.read_table(CASES / "wide_int_yyyymmdd_index.parquet").to_pydict()
    expected = {
        name: {str(date): value for date, value in zip(table["date"], table[name], strict=True)}
        for name in ("ZZA", "ZZB")
    }
    check(panel, expected, eight)


def test_parquet_of_yfinance_and_row_numbers():
    name = "yf_download_to_parquet_multiindex.parquet"
    panel = load(CASES / name)
    table = pq.read_table(CASES / name).to_pydict()
    assert list(panel.assets) == ["ZZA", "ZZB"]
    for asset in panel.assets:
        assert panel.prices[asset].tolist() == table[str(("Close", asset))]
        assert panel.asset_features["volume"][asset].tolist() == table[str(("Volume", asset))]
        assert panel.asset_features["low"][asset].tolist() == table[str(("Low", asset))]
    panel = load(CASES / "wide_filtered_mask___index_level_0__.parquet")
    assert list(panel.assets) == ["A", "B"]


def test_hours_across_the_end_of_summer_time():
    name = "hourly_crypto_newyork_offsets_across_dst.csv"
    expected = by_hand(name, 0, {"BTC-USD": 1, "ETH-USD": 2})
    panel = load(CASES / name)
    check(panel, expected, lambda text: pd.Timestamp(text).tz_convert("UTC").tz_localize(None))
    assert "goes back at 2023-11-05 01:00" in panel.caveats[0]
    name = "interactive_brokers_hourly_two_spaces.csv"
    panel = load(CASES / name)
    check(panel, by_hand(name, 0, WIDE), lambda t: pd.Timestamp(f"{eight(t).date()} {t[10:]}"))


def refused(name, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load(CASES / name, **options)
    assert name in str(caught.value)


def test_advice_on_a_file_without_a_header():
    name = "binance_klines_ms_no_header.csv"
    refused(name, "header='date,open,high,low,close,volume'")
    panel = load(CASES / name, header="date,open,high,low,close,volume", asset="BTC")
    check(panel, by_hand(name, 0, {"BTC": 4}, top=0), epoch("ms"))
    volume = by_hand(name, 0, {"BTC": 5}, top=0)["BTC"]
    assert panel.asset_features["volume"]["BTC"].tolist() == list(volume.values())


def test_advice_on_two_tables_in_percent():
    name = "kenneth_french_monthly_whole_file.csv"
    refused(name, "line 126: another table follows; pass table=1 for lines 4 to 124 or table=2",
            kind="returns")  # fmt: skip
    refused(name, "pass unit='percent'", kind="returns", table=1)
    panel = load(CASES / name, kind="returns", table=1, unit="percent", na="-99.99")
    with open(CASES / name) as stream:
        lines = stream.read().splitlines()[4:124]
    expected = np.array([[float(cell) for cell in line.split(",")[1:]] for line in lines]) / 100
    np.testing.assert_allclose(panel.returns.iloc[1:].to_numpy(), expected, atol=1e-12)
    assert list(panel.assets) == ["Mkt-RF", "SMB", "HML", "RF"]
    assert panel.dates[1] == pd.Timestamp("1990-01-31"), "known at the end of the month"
    years = load(CASES / name, kind="returns", table=2, unit="percent")
    assert years.returns["SMB"].iloc[1] == pytest.approx(0.1382)
    assert years.dates[-1] == pd.Timestamp("1999-12-31")


def test_advice_on_thousands():
    name = "german_thousands_crossing_1000.csv"
    refused(name, r"column 'XAU': '1.000' may be 1000 or 1.000: pass thousands='.' or decimal='.'")
    panel = load(CASES / name, thousands=".")
    with open(CASES / name) as stream:
        cells = [line.strip().split(";") for line in stream][1:]
    assert panel.prices["XAU"].tolist() == [float(row[1].replace(".", "")) for row in cells]
    assert panel.dates[-1] == pd.Timestamp("2021-02-24")


def test_advice_on_a_time_zone():
    name = "wide_tz_utc_index_of_tokyo_midnight.parquet"
    refused(name, "timezone='Asia/Tokyo' for 2020-01-02")
    panel = load(CASES / name, timezone="Asia/Tokyo")
    table = pq.read_table(CASES / name).to_pydict()
    stamps = pd.DatetimeIndex(table["__index_level_0__"]).tz_convert("Asia/Tokyo")
    assert panel.dates.tolist() == [pd.Timestamp(stamp.date()) for stamp in stamps]
    assert panel.prices["ZZA"].tolist() == table["ZZA"]


def test_advice_on_units():
    name = "percent_returns_small_all_above_minus_1.csv"
    refused(name, "unit='percent'", kind="returns")
    panel = load(CASES / name, kind="returns", unit="percent")
    values = by_hand(name, 0, {"BOND1": 1, "BOND2": 2, "CASH": 3})
    expected = np.array([list(each.values()) for each in values.values()]).T / 100
    np.testing.assert_allclose(panel.returns.iloc[1:].to_numpy(), expected, atol=1e-12)
    name = "gross_returns_1_plus_r.csv"
    refused(name, "unit='gross'", kind="returns")
    panel = load(CASES / name, kind="returns", unit="gross")
    values = by_hand(name, 0, {"A": 1, "B": 2})
    expected = np.array([list(each.values()) for each in values.values()]).T - 1
    np.testing.assert_allclose(panel.returns.iloc[1:].to_numpy(), expected, atol=1e-12)


def test_advice_on_prices_that_are_not_positive():
    refused("wti_negative_price.csv", "na='-37.63' to leave it out")
    panel = load(CASES / "wti_negative_price.csv", na="-37.63")
    expected = by_hand("wti_negative_price.csv", 0, {"CL": 1, "NG": 2})
    expected["CL"] = {k: v if v > 0 else math.nan for k, v in expected["CL"].items()}
    check(panel, expected)
    refused("delisted_zero_price.csv", "na='0' to leave it out, and delisting_return=-0.99")
    panel = load(CASES / "delisted_zero_price.csv", na="0", delisting_return=-0.99)
    dead = panel.prices["DEAD"].dropna()
    assert dead.index[-1] == pd.Timestamp("2020-05-21")
    assert dead.iloc[-1] == pytest.approx(0.01 * dead.iloc[-2])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("annual_prices.csv", 1),
        ("quarterly.csv", 4),
        ("crypto_247_one_day_missing.csv", 365),
        ("hourly_crypto_newyork_offsets_across_dst.csv", 24 * 365),
        ("interactive_brokers_hourly_two_spaces.csv", 7 * 252),
        ("excel_sep_line.csv", 252),
    ],
)
def test_rows_per_year(name, rows):
    assert load(CASES / name).periods_per_year == rows
