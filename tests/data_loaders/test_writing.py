"""A file or folder is written whole or not at all, and no text in it becomes a formula."""

import csv
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loaders import load
from data_loaders.writing import (
    as_written,
    atomic,
    remove_abandoned,
    remove_unfinished,
    safe_csv,
    safe_text,
    write_prices,
    write_text,
)

SIGNS = "=+-@\t\r\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
SIGNS += "\N{FULLWIDTH COMMERCIAL AT}"


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "a.csv"
    write_text(path, "older ü")
    with atomic(path, durable=True) as scratch:
        scratch.write_text("newer")
        assert path.read_text(encoding="utf-8") == "older ü"
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "fit"
    for name in ("first", "second"):
        with atomic(path) as scratch:
            scratch.mkdir()
            (scratch / name).touch()
    assert [item.name for item in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", ["file", "folder", "nothing yet"])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path, error, kind):
    path = tmp_path / "a"
    write_text(path, "older")

    def write():
        with atomic(path) as scratch:
            if kind == "folder":
                scratch.mkdir()
                (scratch / "half").touch()
            elif kind == "file":
                scratch.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_failed_flush_or_rename_leaves_what_was_there(tmp_path, monkeypatch, owner, name):
    path = tmp_path / "a"
    write_text(path, "older")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    def write():
        with atomic(path, durable=True) as scratch:
            scratch.write_text("newer")

    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_leaves_is_removed(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from data_loaders.writing import atomic
with atomic(Path(sys.argv[1], "a")) as file, atomic(Path(sys.argv[1], "b")) as folder:
    file.write_text("half")
    folder.mkdir()
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    write_text(tmp_path / "a", "older")
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=Path(__file__).parents[2], timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    with atomic(tmp_path / "a") as own:
        own.touch()
        remove_abandoned(tmp_path / "a")  # of the other, not of "b", and not what is being written
        assert own.exists()
        assert len(list(tmp_path.iterdir())) == 3
        own.write_text("older")
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    assert (tmp_path / "a").read_text() == "older"


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
