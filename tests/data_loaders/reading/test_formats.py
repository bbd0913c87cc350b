"""Each source of price files, written as it writes them and read back (docs: own-data.md)."""

import gzip
import pickle
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from data_loaders import DataError, load

DAYS = pd.bdate_range("2020-01-28", periods=40, name="Date")
NIGHTS = pd.date_range("2020-01-28", periods=40, name="Date")


def walk(seed, start=100.0, rows=40):
    moves = np.random.default_rng(seed).normal(0, 0.01, rows)
    return np.round(start * np.exp(moves.cumsum()), 4)


def bars(seed=1, days=DAYS):
    """Open, high, low, close and volume of one asset."""
    close = walk(seed, rows=len(days))
    opened = np.round(close * 1.002, 4)
    return pd.DataFrame(
        {"Open": opened, "High": np.round(opened * 1.01, 4), "Low": np.round(close * 0.99, 4),
         "Close": close, "Volume": np.arange(len(days)) * 1000 + 123456}, days,
    )  # fmt: skip


ZZA, ZZB = bars(1), bars(2)
FEATURES = {"open": "Open", "high": "High", "low": "Low", "volume": "Volume"}


def same(panel, expected, features=True):
    """The panel holds the bars of these assets, by name."""
    assert list(panel.assets) == list(expected)
    for asset, frame in expected.items():
        assert panel.dates.tolist() == frame.index.tolist()
        assert panel.prices[asset].tolist() == frame["Close"].tolist()
        for name, column in FEATURES.items() if features else ():
            assert panel.asset_features[name][asset].tolist() == frame[column].tolist(), name


def text(frame, path, **rest):
    frame.to_csv(path, **rest)
    return path


def stacked(column="ticker"):
    parts = [frame.assign(**{column: name}).reset_index() for name, frame in
             (("ZZA", ZZA), ("ZZB", ZZB))]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def yfinance():
    return pd.concat({"ZZA": ZZA, "ZZB": ZZB}, axis=1, names=["Ticker", "Price"])


ONE = {  # a source with a file for each asset: what it writes of ZZA
    "Yahoo's website": lambda path: ZZA.assign(**{"Adj Close": ZZA["Close"]})
    .rename(columns={"Close": "Close*", "Adj Close": "Adj Close**"}).to_csv(path),
    "yfinance, one ticker": lambda path: yfinance()[["ZZA"]].swaplevel(axis=1).to_csv(path),
    "Alpha Vantage": lambda path: ZZA.set_axis(
        ["1. open", "2. high", "3. low", "4. close", "5. volume"], axis=1).to_csv(path),
    "Nasdaq's website": lambda path: ZZA.rename(columns={"Close": "Close/Last"})
    .map("${:,.4f}".format).assign(Volume=ZZA["Volume"])[::-1].to_csv(path, date_format="%m/%d/%Y"),
    "investing.com": lambda path: ZZA.rename(columns={"Close": "Price", "Volume": "Vol."})
    .assign(**{"Vol.": (ZZA["Volume"] / 1000).map("{:.3f}K".format), "Change %": "0.12%"})[::-1]
    .to_csv(path, date_format="%b %d, %Y"),
    "Binance": lambda path: pd.concat(
        [bars(1, NIGHTS).astype(str).set_axis(range(5), axis=1)], axis=1)
    .to_csv(path, header=False, date_format="%Y-%m-%d"),
    "Stooq": lambda path: ZZA.assign(T="ZZA", P="D", H="000000").reset_index()[
        ["T", "P", "Date", "H", "Open", "High", "Low", "Close", "Volume"]]
    .set_axis([f"<{name}>" for name in
               ("TICKER", "PER", "DATE", "TIME", "OPEN", "HIGH", "LOW", "CLOSE", "VOL")], axis=1)
    .to_csv(path, index=False, date_format="%Y%m%d"),
    "MetaTrader": lambda path: ZZA.rename(columns=str.upper).rename(columns="<{}>".format)
    .rename(columns={"<VOLUME>": "<TICKVOL>"}).assign(**{"<VOL>": ZZA["Volume"], "<SPREAD>": 2})
    .rename_axis("<DATE>").to_csv(path, sep="\t", date_format="%Y.%m.%d"),
    "Interactive Brokers": lambda path: ZZA.rename(columns=str.lower).assign(average=1, barCount=9)
    .to_csv(path, date_format="%Y%m%d"),
    "CryptoDataDownload": lambda path: (
        path.write_text("https://www.example.com/\n" + ZZA.rename(columns={"Volume": "Volume USDT"})
                        .assign(Symbol="ZZA")[::-1].to_csv())),
    "Excel, in Germany": lambda path: path.write_text(
        ZZA.to_csv(sep=";", decimal=",", date_format="%d.%m.%Y")),
    "Excel, with a line sep=": lambda path: path.write_text("sep=;\n" + ZZA.to_csv(sep=";")),
    "Excel, as Unicode text": lambda path: path.write_text(ZZA.to_csv(sep="\t"), "utf-16"),
    "Excel's numbers of days": lambda path: ZZA.set_axis(
        (DAYS - pd.Timestamp("1899-12-30")).days).rename_axis("Date").to_csv(path),
    "Unix times in ms": lambda path: ZZA.set_axis(
        DAYS.as_unit("ms").asi8).rename_axis("timestamp").to_csv(path),
    "Bloomberg": lambda path: path.write_text(
        ZZA.rename(columns={"Open": "PX_OPEN", "High": "PX_HIGH", "Low": "PX_LOW",
                            "Close": "PX_LAST", "Volume": "PX_VOLUME"})
        .astype(object).assign(**{}).to_csv(na_rep="#N/A N/A", date_format="%m/%d/%Y")),
}  # fmt: skip
OPTIONS = {"Binance": {"header": "date,open,high,low,close,volume"}}


@pytest.mark.parametrize("source", ONE)
def test_a_file_of_one_asset(tmp_path, source):
    path = tmp_path / "ZZA.csv"
    ONE[source](path)
    frame = bars(1, NIGHTS) if source == "Binance" else ZZA
    if source == "Binance":
        with pytest.raises(DataError, match="header='date,open,high,low,close,volume'"):
            load(path)
    panel = load(path, **OPTIONS.get(source, {}))
    assert list(panel.assets) == ["ZZA"]
    assert panel.dates.tolist() == frame.index.tolist()
    np.testing.assert_allclose(panel.prices["ZZA"], frame["Close"], rtol=1e-15)
    for name, column in FEATURES.items():
        if name != "volume" or source not in ("MetaTrader", "CryptoDataDownload"):
            values = panel.asset_features[name]["ZZA"]
            np.testing.assert_allclose(values, frame[column], rtol=1e-12, err_msg=name)


MANY = {  # a source with several assets in a file
    "yfinance, several tickers": lambda path: yfinance().swaplevel(axis=1).to_csv(path),
    "yfinance, by ticker": lambda path: yfinance().to_csv(path),
    "flattened, Close_ZZA": lambda path: yfinance().set_axis(
        [f"{field}_{name}" for name, field in yfinance().columns], axis=1).to_csv(path),
    "flattened, ZZA Close": lambda path: yfinance().set_axis(
        [f"{name} {field}" for name, field in yfinance().columns], axis=1).to_csv(path),
    "Kaggle, a column Name": lambda path: stacked("Name").to_csv(path, index=False),
    "Tiingo and others, long": lambda path: stacked("symbol").to_csv(path, index=False),
    "pandas' row numbers": lambda path: stacked("tic").to_csv(path),
    "Alpaca, sessions in UTC": lambda path: stacked("symbol").assign(
        Date=lambda f: f["Date"].dt.tz_localize("America/New_York").dt.tz_convert("UTC"))
    .rename(columns={"Date": "timestamp"}).to_csv(path, index=False),
}  # fmt: skip


@pytest.mark.parametrize("source", MANY)
def test_a_file_of_several_assets(tmp_path, source):
    MANY[source](tmp_path / "market.csv")
    same(load(tmp_path / "market.csv"), {"ZZA": ZZA, "ZZB": ZZB})


FRAMES = {
    "yfinance": lambda: yfinance().swaplevel(axis=1),
    "long": lambda: stacked(),
    "long, by category": lambda: stacked().astype({"ticker": "category"}),
    "filtered, with row numbers": lambda: stacked().query("Volume > 0"),
}


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
@pytest.mark.parametrize("kind", FRAMES)
def test_typed_files(tmp_path, kind, suffix):
    path = tmp_path / f"market.{suffix}"
    frame = FRAMES[kind]()
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        pyarrow.feather.write_feather(pa.Table.from_pandas(frame), path)
    same(load(path), {"ZZA": ZZA, "ZZB": ZZB})


def test_one_file_an_asset(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    ZZA.to_csv(folder / "ZZA.csv")
    ZZB.iloc[5:].to_csv(folder / "ZZB.csv")
    (folder / "readme.md").write_text("no prices")
    short = ZZB.reindex(DAYS)
    short.iloc[:5] = np.nan
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (folder, "data/", "data/*.csv", "~/data", "~/data/ZZ?.csv"):
        panel = load(source)
        assert list(panel.assets) == ["ZZA", "ZZB"]
        pd.testing.assert_series_equal(
            panel.prices["ZZB"], short["Close"], check_names=False, check_freq=False
        )
        assert panel.asset_features["volume"]["ZZA"].tolist() == ZZA["Volume"].tolist()
    assert panel.caveats[0].startswith("2 files")
    with pytest.raises(DataError, match="no file matches"):
        load("data/*.tsv")
    ZZA.to_csv(folder / "sub.csv")
    stacked().to_csv(folder / "ZZB.csv", index=False)
    with pytest.raises(DataError, match="in several files: ZZA"):
        load("data")


def test_packed_files(tmp_path):
    content = stacked().to_csv(index=False)
    with gzip.open(tmp_path / "market.csv.gz", "wt") as stream:
        stream.write(content)
    with zipfile.ZipFile(tmp_path / "market.zip", "w") as archive:
        archive.writestr("market.csv", content)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("x/ZZA.csv", ZZA.to_csv())
        archive.writestr("x/ZZB.csv", ZZB.to_csv())
    for name in ("market.csv.gz", "market.zip", "two.zip"):
        same(load(tmp_path / name), {"ZZA": ZZA, "ZZB": ZZB})


def test_partitioned_parquet(tmp_path):
    """Codes of the folders keep their zeros."""
    for code, frame in (("005930", ZZA), ("000660", ZZB)):
        for year, part in frame.reset_index().groupby(frame.index.month):
            folder = tmp_path / "lake" / f"symbol={code}" / f"month={year}"
            folder.mkdir(parents=True)
            part.to_parquet(folder / "part.parquet", index=False)
    panel = load(tmp_path / "lake")
    assert sorted(panel.assets) == ["000660", "005930"]
    assert panel.prices["005930"].tolist() == ZZA["Close"].tolist()


def test_the_adjusted_close_is_taken_and_bars_follow_it(tmp_path):
    frame = stacked()
    frame["closeadj"] = frame["Close"] / 2
    frame.to_csv(tmp_path / "sharadar.csv", index=False)
    panel = load(tmp_path / "sharadar.csv")
    assert panel.prices["ZZB"].tolist() == (ZZB["Close"] / 2).tolist()
    np.testing.assert_allclose(panel.asset_features["high"]["ZZB"], ZZB["High"] / 2, rtol=1e-14)
    assert panel.asset_features["close"]["ZZB"].tolist() == ZZB["Close"].tolist()
    assert "Adjusted close of column closeadj" in panel.caveats[0]
    assert "open, high, low adjusted like the close" in panel.caveats[0]


def test_bitwise_the_same_as_pandas(tmp_path):
    frame = pd.DataFrame({"A": walk(3), "LOW": walk(4), "OPEN": walk(5)}, DAYS)
    frame.to_csv(tmp_path / "tickers.csv")
    panel = load(tmp_path / "tickers.csv")
    assert list(panel.assets) == ["A", "LOW", "OPEN"], "tickers that are words for fields"
    assert (panel.prices.to_numpy() == frame.to_numpy()).all()


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
