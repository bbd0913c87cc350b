import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loaders import DataError, Panel, load
from data_loaders.writing import write_prices

DAYS = pd.bdate_range("2020-01-01", periods=4, name="date").as_unit("ns")
SMALL = pd.DataFrame(
    {"AA": [100.5, 101, np.nan, 102], "B B": [50, 1 / 3, 5e-324, 1.7976931348623157e308]},
    index=DAYS,
)


def wide(tmp_path, text, name="p.csv", **rest):
    path = tmp_path / name
    path.write_text(text)
    return load(path, **rest)


@pytest.mark.parametrize("name", ["p.csv", "p.CSV", "p.csv.gz", "p.parquet", "p.pq"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, name):
    write_prices(SMALL, tmp_path / name)
    panel = load(tmp_path / name)
    assert panel.fingerprint == Panel(SMALL).fingerprint
    assert panel.source == name


@given(
    st.lists(
        st.floats(5e-324, 1.7976931348623157e308, allow_nan=False) | st.just(np.nan),
        min_size=3,
        max_size=3,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_price_survives_text(tmp_path, values, delimiter):
    frame = pd.DataFrame({"A": [1.0, *values], "B": 2.0}, index=DAYS)
    frame.to_csv(tmp_path / "p.csv", sep=delimiter, float_format="%.17g")
    pd.testing.assert_frame_equal(
        load(tmp_path / "p.csv").prices, frame, check_exact=True, check_freq=False
    )


def test_pandas_writes_what_we_read(tmp_path):
    SMALL.to_parquet(tmp_path / "index.parquet")
    SMALL.reset_index().to_parquet(tmp_path / "column.parquet")
    zoned = SMALL.set_axis(DAYS.tz_localize("America/New_York"))
    zoned.to_parquet(tmp_path / "zone.parquet")
    zoned.to_csv(tmp_path / "zone.csv")  # 2020-01-01 00:00:00-05:00
    SMALL.astype({"AA": "float32"}).to_parquet(tmp_path / "single.parquet")
    named = SMALL.rename_axis(None)
    named.to_csv(tmp_path / "nameless.csv")
    for name in ("index.parquet", "column.parquet", "zone.parquet", "zone.csv", "nameless.csv"):
        assert load(tmp_path / name).fingerprint == Panel(SMALL).fingerprint, name
    assert load(tmp_path / "single.parquet").prices["AA"].iloc[0] == 100.5


def test_columns_whose_names_are_parts_of_others(tmp_path):
    frame = pd.DataFrame({"BRK": 1.0, "BRK.B": 2.0, "BRK.B.C": 3.0}, index=DAYS)
    frame.to_parquet(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(
        load(tmp_path / "p.parquet").prices, frame, check_freq=False, check_index_type=False
    )


@pytest.mark.parametrize(
    ("first", "second", "form"),
    [
        ("2020-01-31", "2020-02-03", None),
        ("20200131", "20200203", None),
        ("2020/01/31", "2020/02/03", None),
        ("31/01/2020", "03/02/2020", None),  # 31 can only be a day
        ("01/31/2020", "02/03/2020", None),
        ("31.01.2020", "03.02.2020", None),
        ("31-Jan-2020", "03-Feb-2020", None),
        ('"Jan 31, 2020"', '"Feb 03, 2020"', None),
        ("2020-01-31T00:00:00Z", "2020-02-03T00:00:00Z", None),
        ("2020-01-31 00:00:00-05:00", "2020-02-03 00:00:00-04:00", None),
        ("01/02/2020", "03/02/2020", "%d/%m/%Y"),
    ],
)
def test_dates_in_many_formats(tmp_path, first, second, form):
    panel = wide(tmp_path, f"day,A\n{first},1\n{second},2\n", date_format=form)
    start = "2020-02-01" if form else "2020-01-31"
    assert panel.dates.tolist() == [pd.Timestamp(start), pd.Timestamp("2020-02-03")]


def test_newest_first_is_turned_round_and_disorder_is_not(tmp_path):
    panel = wide(tmp_path, "date,A\n2020-01-02,2\n2020-01-01,1\n")
    assert panel.prices["A"].tolist() == [1, 2]
    with pytest.raises(DataError, match=r"p.csv, line 4, column 'date': 2020-01-02 stands after"):
        wide(tmp_path, "date,A\n2020-01-01,1\n2020-01-03,3\n2020-01-02,2\n")
    with pytest.raises(DataError, match=r"line 4, .* 2020-01-03 stands a second time"):
        wide(tmp_path, "date,A\n2020-01-01,1\n2020-01-03,3\n2020-01-03,2\n")


LONG = (
    "ticker;when;close;volume\nX;2020-01-02;3;30\nY;2020-01-01;2;20\nX;2020-01-01;1;10\n"
    "Y;2020-01-02;4;\n"
)


def test_a_long_file(tmp_path):
    panel = wide(tmp_path, LONG)
    assert panel.prices.to_dict("list") == {"X": [1, 3], "Y": [2, 4]}
    assert panel.asset_features["volume"].iloc[0].tolist() == [10, 20]
    assert np.isnan(panel.asset_features["volume"].iloc[1, 1])
    frame = pd.read_csv(tmp_path / "p.csv", sep=";", parse_dates=["when"])
    for name, table in (("a", frame), ("b", frame.astype({"ticker": "category"}))):
        table.to_parquet(tmp_path / f"{name}.parquet")
        assert load(tmp_path / f"{name}.parquet").fingerprint == panel.fingerprint
    with pytest.raises(DataError, match="line 3: X has a row for 2020-01-02 already"):
        wide(tmp_path, "asset,date,price\nX,2020-01-02,3\nX,2020-01-02,3\n")
    with pytest.raises(DataError, match="line 3: there is no asset"):
        wide(tmp_path, "asset,date,price\nX,2020-01-02,3\n,2020-01-02,3\n")
    with pytest.raises(DataError, match="which column holds the prices, bid, ask"):
        wide(tmp_path, "asset,date,bid,ask\nX,2020-01-02,3,4\n")


def test_returns_become_prices(tmp_path):
    panel = wide(tmp_path, "date,A\n2020-01-02,0.1\n2020-01-03,-0.5\n", kind="returns")
    np.testing.assert_allclose(panel.prices["A"], [100, 110, 55], rtol=1e-15)
    with pytest.raises(DataError, match=r"p.csv: .* above -1 .* A -1 on 2020-01-03"):
        wide(tmp_path, "date,A\n2020-01-02,0.1\n2020-01-03,-1\n", kind="returns")
    with pytest.raises(ValueError, match="unknown kind 'return'"):
        wide(tmp_path, "date,A\n2020-01-02,0.1\n", kind="return")


def test_features_are_never_joined_forward(tmp_path):
    write_prices(pd.DataFrame({"A": 1.0, "B": 2.0}, index=pd.bdate_range("2020-01-01", periods=8)),
            tmp_path / "p.csv")  # fmt: skip
    (tmp_path / "rates.csv").write_text("date,rate\n2020-01-02,1\n2020-01-04,2\n2020-01-08,\n")
    (tmp_path / "size.csv").write_text("date,B,A,C\n2019-06-30,7,5,1\n2020-01-07,8,6,1\n")
    panel = load(
        tmp_path / "p.csv",
        market_features=tmp_path / "rates.csv",
        asset_features={"size": tmp_path / "size.csv"},
    )
    nan = np.nan
    np.testing.assert_equal(
        panel.market_features["rate"].to_numpy(), [nan, 1, 1, 2, 2, nan, nan, nan]
    )  # Saturday's value counts from Monday on
    assert panel.asset_features["size"]["A"].tolist() == [5, 5, 5, 5, 6, 6, 6, 6]
    assert panel.asset_features["size"]["B"].tolist() == [7, 7, 7, 7, 8, 8, 8, 8]
    assert any("rates.csv ends on 2020-01-08" in caveat for caveat in panel.caveats)
    (tmp_path / "size.csv").write_text("date,B\n2019-06-30,7\n")
    with pytest.raises(DataError, match=r"size.csv: has no column for A"):
        load(tmp_path / "p.csv", asset_features={"size": tmp_path / "size.csv"})


@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_comes_later_in_a_file_does_not_change_what_was_known(tmp_path, cut, seed):
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2020-01-01", periods=31, name="date")
    write_prices(pd.DataFrame({"A": 1.0}, index=dates), tmp_path / "p.csv")
    days = np.sort(rng.choice(60, 12, replace=False))
    rates = pd.DataFrame(
        {"rate": rng.normal(size=12)}, index=pd.Timestamp("2019-12-20") + pd.to_timedelta(days, "D")
    )
    known = []
    for shift in (0.0, 1.0):
        later = rates.index > dates[cut]
        write_prices(rates + shift * later[:, None], tmp_path / "rates.csv")
        panel = load(tmp_path / "p.csv", market_features=tmp_path / "rates.csv")
        known.append(panel.until(dates[cut]).market_features["rate"].to_numpy())
    np.testing.assert_array_equal(*known)


def test_membership_keeps_the_prices(tmp_path):
    write_prices(pd.DataFrame({"A": 1.0, "B": 2.0, "C": 3.0}, index=DAYS), tmp_path / "p.csv")
    members = tmp_path / "members.csv"
    members.write_text("asset,from,to\nA,2020-01-02,2020-01-03\nB,,\nA,2020-01-06,\nGONE,,\n")
    panel = load(tmp_path / "p.csv", membership=members)
    assert panel.members["A"].tolist() == [False, True, True, True]
    assert panel.members["B"].all()
    assert not panel.members["C"].any()
    assert panel.prices.notna().all().all()
    assert any("1 members of members.csv have no prices here (GONE)" in c for c in panel.caveats)
    for text, message in (
        ("asset,from\nA,2020-01-01\n", "line 1: has the columns asset, from, expected asset"),
        ("asset,from,to\nA,,,x\n", "line 2: has 4 columns, expected 3"),
        ("asset,from,to\n\nA,now,\n", "line 3, column 'from': 'now' is not a date"),
        ("asset,from,to\nA,2020-13-01,\n", "line 2, column 'from': '2020-13-01' is not a date"),
        ("asset,from,to\nA,2020-01-02,2020-01-01\n", "line 2, column 'to': .* is before 'from'"),
    ):
        members.write_text(text)
        with pytest.raises(DataError, match=message):
            load(tmp_path / "p.csv", membership=members)


def test_a_delisting_return_from_load(tmp_path):
    frame = pd.DataFrame({"A": 1.0, "B": 2.0}, index=pd.bdate_range("2020-01-01", periods=20))
    frame.iloc[4:, 0] = np.nan
    write_prices(frame, tmp_path / "p.csv")
    panel = load(tmp_path / "p.csv", delisting_return=-0.5)
    assert panel.prices["A"].iloc[4] == 0.5
    assert not panel.members["A"].iloc[4]
    short = load(tmp_path / "p.csv", end=frame.index[4], delisting_return=-0.5)
    assert short.prices["A"].iloc[4] == 0.5, "what is delisted does not depend on the span"
    later = load(tmp_path / "p.csv", start=frame.index[10])
    assert list(later.assets) == ["B"]
    assert "Left out, without a price in this span: A." in later.caveats


BAD = {
    "date,A\n2020-01-01,1\n2020-01-02,1;5\n": "line 3, column 'A': '1;5' is not a number",
    "date;A;B\n2020-01-01;1,5;2\n2020-01-02;1.5;2\n": "'1.5' is not a number",
    "date,A\n2020-01-01,1\n2020-01-02,2,3\n": "line 3: has 3 columns, expected 2",
    "date,A,B\n2020-01-01,1,2\n2020-01-02,2\n": "line 3: has 2 columns, expected 3",
    "date,A\n2020-01-01,1\n,2\n": "line 3, column 'date': there is no date",
    "date,A\n2020-01-01,1\n\n2020-01-32,2\n": "line 4, column 'date': '2020-01-32' is not a date",
    "date,A\n2020-01-01,1\n2020-01-02,inf\n": "positive and finite: A inf on 2020-01-02",
    "date,A\n2020-01-01,1\ntoday,2\n": "line 3, column 'date': 'today' is not a date",
    "date,A\n01/02/2020,1\n03/02/2020,2\n": "'01/02/2020' may be 2020-02-01 or 2020-01-02: pass",
    "2020-01-01,1\n2020-01-02,2\n": "line 1: '2020-01-01' is data; expected the names",
    "date,A\n": "line 1: there is no row of prices",
    "date,A,A\n2020-01-01,1,2\n": "assets occur more than once: A",
    "date,A,\n2020-01-01,1,2\n": "asset names must be non-empty",
    "date,A\n2020-01-01,\n": "assets without a single price: A",
    "\n\ndate,A\n\n2020-01-01,x\n": "line 5, column 'A': 'x' is not a number",
    "\n\n": "not a readable CSV file: it has no line",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_text_is_named(tmp_path, text):
    with pytest.raises(DataError, match=BAD[text]) as caught:
        wide(tmp_path, text)
    assert "p.csv" in str(caught.value)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"is a folder without a file that ends in \.csv"):
        load(tmp_path)
    with pytest.raises(DataError, match="source should be a name or a path, got 5"):
        load(5)
    with pytest.raises(DataError, match=r"unknown data source ''"):
        load("")


def test_bad_bytes_are_named(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"date,A\n2020-01-01,\xff\n")
    utf8 = r"p.csv is not a readable CSV file: .*not text in UTF-8 \(byte 0xff\); save it as UTF-8"
    with pytest.raises(DataError, match=utf8):
        load(path)
    packed = tmp_path / "p.csv.gz"
    packed.write_bytes(gzip.compress(b"date,A\n" + b"2020-01-01,1\n" * 9999)[:-20])
    with pytest.raises(DataError, match=r"p.csv.gz is not a readable CSV file"):
        load(packed)
    packed.write_text("date,A\n2020-01-01,1\n")
    with pytest.raises(DataError, match=r"p.csv.gz is not a readable CSV file"):
        load(packed)
    parquet = tmp_path / "p.parquet"
    parquet.write_text("date,A\n2020-01-01,1\n")
    with pytest.raises(DataError, match=r"p.parquet is not a readable Parquet file"):
        load(parquet)
    SMALL.astype({"AA": str}).to_parquet(parquet)
    with pytest.raises(DataError, match=r"p.parquet, column 'AA': holds (large_)?string"):
        load(parquet)
    pq.write_table(pa.table({"date": ["2020-01-01", "soon"], "A": [1.0, 2.0]}), parquet)
    with pytest.raises(DataError, match=r"p.parquet, row 2, column 'date': 'soon' is not a date"):
        load(parquet)


def readable_or_named(path):
    """A file is read, or refused with an error that names it: nothing else may happen."""
    refusal = ""
    try:
        panel = load(path)
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert path.name in refusal
    else:
        assert panel.prices.to_numpy()[panel.prices.notna().to_numpy()].min() > 0


FUZZ = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CELLS = st.sampled_from(
    ["2020-01-01", "2020-01-02", "20200103", "1", "-1", "1e400", "NaN", "", '"', "a,b", "\n", "now",
     "1_0", "+1", " 2 ", "0x10", "\u0661", "\x00", "2262-04-12", "0001-01-01", "9999-12-31", "NaT",
     "-", "01/02/2020", "12:30", "2020-01-01T25:00", "asset", "date", "AAPL", "1,5"]
)  # fmt: skip


@given(st.lists(st.lists(CELLS | st.text(max_size=6), max_size=4), max_size=6))
@FUZZ
def test_any_text_is_read_or_refused(tmp_path, rows):
    path = tmp_path / "fuzz.csv"
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8", errors="replace")
    readable_or_named(path)


@given(st.binary(max_size=200), st.sampled_from(["fuzz.csv", "fuzz.csv.gz", "fuzz.parquet"]))
@FUZZ
def test_any_bytes_are_read_or_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    readable_or_named(tmp_path / name)


@given(st.data(), st.sampled_from(["fuzz.csv", "fuzz.csv.gz", "fuzz.parquet"]))
@FUZZ
def test_damaged_files_are_read_or_refused(tmp_path, data, name):
    path = tmp_path / name
    write_prices(SMALL, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    readable_or_named(path)


@given(st.lists(st.lists(CELLS | st.text(max_size=6), min_size=2, max_size=4), max_size=5))
@FUZZ
def test_any_other_file_is_read_or_refused(tmp_path, rows):
    written = tmp_path / "p.csv"
    written.write_text("date,A\n2020-01-01,1\n2020-01-02,2\n")
    body = "\n".join(",".join(row) for row in rows)
    for name, header in (("membership", "asset,from,to"), ("market_features", "date,x,y")):
        path = tmp_path / "fuzz.csv"
        path.write_text(f"{header}\n{body}", encoding="utf-8", errors="replace")
        refusal = ""
        try:
            panel = load(written, **{name: path})
        except DataError as error:
            refusal = str(error)
        assert path.name in refusal if refusal else len(panel) == 2
