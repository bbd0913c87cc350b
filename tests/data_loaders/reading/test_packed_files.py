"""Bombs: small files that would fill the memory are refused in words, before they do."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_loaders import DataError, load
from data_loaders.reading import text_layout

HEAD = b"date,A,B\n2020-01-01,1,2\n2020-01-02,1,2\n2020-01-03,2,3\n"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(text_layout, "ALWAYS", 1 << 20)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
@pytest.mark.parametrize("filling", [b"0", b"\n", b"2020-01-07,1,2\n"])
def test_packed_text(tmp_path, suffix, pack, filling):
    path = tmp_path / f"prices.csv{suffix}"
    path.write_bytes(pack(HEAD + filling * (4 << 20)) if len(filling) == 1 else pack(
        HEAD + filling * (1 << 18)))  # fmt: skip
    with pytest.raises(DataError, match="unpacks to more than 1 MB and 200 times its own size"):
        load(str(path))


def test_packed_prices_are_read(tmp_path):
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("1990-01-01", periods=6000, name="date")
    prices = pd.DataFrame(100 + rng.random((6000, 12)), dates, list("ABCDEFGHIJKL"))
    text = prices.to_csv().encode()
    assert len(text) > 1 << 20
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        (tmp_path / f"p.csv{suffix}").write_bytes(pack(text))
        read = load(str(tmp_path / f"p.csv{suffix}")).prices
        np.testing.assert_array_equal(read, prices)


def test_a_member_of_an_archive(tmp_path):
    path = tmp_path / "prices.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", HEAD + b"0" * (4 << 20))
    with pytest.raises(DataError, match="a.csv unpacks to more than"):
        load(str(path))


def test_parquet_that_says_it_has_more_rows_than_fit(tmp_path, monkeypatch):
    path = tmp_path / "prices.parquet"
    pq.write_table(pa.table({"date": [0] * 1000, "A": [1.0] * 1000}), path)
    monkeypatch.setattr("data_loaders.machine.GIGABYTE", 1.0)
    monkeypatch.setattr("data_loaders.machine.free_memory", lambda: 10_000)
    with pytest.raises(DataError, match="1,000 rows of 2 columns take .* are free"):
        load(str(path))


def test_a_long_table_that_would_be_too_wide(tmp_path, monkeypatch):
    dates = pd.bdate_range("2000-01-03", periods=300)
    lines = [f"{date:%Y-%m-%d},N{k},{1 + k}.5" for k, date in enumerate(dates)]
    path = tmp_path / "long.csv"
    path.write_text("date,symbol,close\n" + "\n".join(lines))
    monkeypatch.setattr("data_loaders.machine.GIGABYTE", 1.0)
    monkeypatch.setattr("data_loaders.machine.free_memory", lambda: 100_000)
    with pytest.raises(DataError, match="300 rows of 300 columns take"):
        load(str(path))
