"""Each source of price files, written as it writes them and read back (docs: own-data.md)."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
from price_files import DAYS, NIGHTS, ZZA, ZZB, bars, stacked, walk, yfinance

from data_loaders import DataError, load

FEATURES = {"open": "Open", "high": "High", "low": "Low", "volume": "Volume"}


def same(panel, expected, features=True):
    """The panel holds the bars of these assets, by name."""
    assert list(panel.assets) == list(expected)
    for asset, frame in expected.items():
        assert panel.dates.tolist() == frame.index.tolist()
        assert panel.prices[asset].tolist() == frame["Close"].tolist()
        for name, column in FEATURES.items() if features else ():
            assert panel.asset_features[name][asset].tolist() == frame[column].tolist(), name


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
            panel.prices["ZZB"],
            short["Close"],
            check_names=False,
            check_freq=False,
            check_index_type=False,
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


def kenneth_french(path):
    """Percent, monthly and yearly tables with text around them."""
    months = pd.period_range("1990-01", periods=30, freq="M")
    values = np.random.default_rng(0).normal(0, 4, (30, 2)).round(2)
    values[3, 1] = -99.99
    lines = ["This file was made by a script.", "", ",Mkt-RF,SMB"]
    lines += [
        f"{m.strftime('%Y%m')}, {a:7.2f}, {b:7.2f}"
        for m, (a, b) in zip(months, values, strict=True)
    ]
    lines += ["", " Annual Factors: January-December", ",Mkt-RF,SMB"]
    lines += [f"{year}, {a:7.2f}, {b:7.2f}" for year, (a, b) in zip(range(1990, 2010), values[:20],
                                                                   strict=True)]  # fmt: skip
    path.write_text("\n".join([*lines, "", "Copyright"]))
    return months, values / 100


def test_kenneth_french(tmp_path):
    path = tmp_path / "factors.csv"
    months, values = kenneth_french(path)
    with pytest.raises(DataError, match="another table follows; pass table=1 for lines 3 to 33"):
        load(path, kind="returns")
    with pytest.raises(DataError, match="pass na='-99.99'"):
        load(path, kind="returns", table=1, unit="percent")
    panel = load(path, kind="returns", table=1, unit="percent", na="-99.99")
    values[3, 1] = np.nan
    np.testing.assert_allclose(panel.returns.iloc[1:, 0], values[:, 0], atol=1e-12)
    filled = np.nan_to_num(values[:, 1])  # a missing return between two others is none
    np.testing.assert_allclose(panel.returns.iloc[1:, 1], filled, atol=1e-12)
    assert panel.dates[1:].tolist() == months.to_timestamp(how="end").normalize().tolist()
    years = load(path, kind="returns", table=2, unit="percent", na="-99.99")
    np.testing.assert_allclose(years.returns.iloc[1:, 0], values[:20, 0], atol=1e-12)


def test_fred(tmp_path):
    text = ["observation_date,DEXUSEU,DEXJPUS"]
    text += [
        f"{d:%Y-%m-%d},{'.' if i == 4 else 1.09 + i / 1000:},{110 + i}" for i, d in enumerate(DAYS)
    ]
    (tmp_path / "fx.csv").write_text("\n".join(text))
    panel = load(tmp_path / "fx.csv")
    assert panel.prices["DEXUSEU"].isna().tolist() == [i == 4 for i in range(40)]
    assert panel.prices["DEXJPUS"].tolist() == [110 + i for i in range(40)]


def test_coingecko(tmp_path):
    price = walk(7)
    frame = pd.DataFrame({"price": price, "market_cap": price * 1e7, "total_volume": price * 10},
                         NIGHTS.strftime("%Y-%m-%d 00:00:00 UTC"))  # fmt: skip
    frame.rename_axis("snapped_at").to_csv(tmp_path / "eth.csv")
    panel = load(tmp_path / "eth.csv")
    assert panel.prices["eth"].tolist() == price.tolist()
    assert sorted(panel.asset_features) == ["market_value", "volume"]
    assert panel.dates.tolist() == NIGHTS.tolist()


def test_crsp(tmp_path):
    returns = np.random.default_rng(1).normal(0, 0.01, 40).round(6)
    frame = pd.DataFrame({"PERMNO": 10107, "date": DAYS.strftime("%Y%m%d"), "PRC": walk(1),
                          "VOL": 5, "RET": returns})  # fmt: skip
    frame.to_csv(tmp_path / "crsp.csv", index=False)
    panel = load(tmp_path / "crsp.csv", kind="returns")
    assert list(panel.assets) == ["10107"]
    np.testing.assert_allclose(panel.returns["10107"].iloc[1:], returns, atol=1e-12)
    assert panel.asset_features["volume"]["10107"].iloc[1:].eq(5).all()


def test_tokyo_in_utc(tmp_path):
    utc = DAYS.tz_localize("Asia/Tokyo").tz_convert("UTC")
    frame = pd.DataFrame({"A": walk(1), "B": walk(2)}, utc)
    frame.to_csv(tmp_path / "tokyo.csv")
    frame.to_parquet(tmp_path / "tokyo.parquet")
    for name in ("tokyo.csv", "tokyo.parquet"):
        with pytest.raises(DataError, match="timezone='Asia/Tokyo' for 2020-01-28"):
            load(tmp_path / name)
        assert load(tmp_path / name, timezone="Asia/Tokyo").dates.tolist() == DAYS.tolist()


TESTED_BELOW = {
    "Kenneth French": test_kenneth_french, "FRED": test_fred, "CoinGecko": test_coingecko,
    "CRSP": test_crsp, "Tokyo in UTC": test_tokyo_in_utc,
    "one file per asset": test_one_file_an_asset, "partitioned Parquet": test_partitioned_parquet,
    "Polars, Arrow": "test_frames.py",
}  # fmt: skip


def test_every_row_of_the_documentation_is_tested_here():
    page = Path(__file__).parents[3] / "docs" / "how-to" / "own-data.md"
    table = page.read_text().partition("### I have a file from")[2].partition("###")[0]
    rows = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert rows - {"source"} == {*ONE, *MANY, *TESTED_BELOW}
