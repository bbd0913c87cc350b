import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError
from data_loaders.store import DamagedSnapshot, Store

ROOT = Path(__file__).parents[2]
TABLE = pd.DataFrame(
    {"close": [1.0, np.nan, 1 / 3]}, index=pd.bdate_range("2020-01-01", periods=3, name="date")
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_is_written_is_read(store):
    assert store.names() == []
    assert store.latest("yahoo/^GSPC") is None
    kept = store.write("yahoo/^GSPC", TABLE, source="yahoo", parameters={"auto_adjust": False})
    assert store.names() == ["yahoo/^GSPC"]
    (found,) = store.snapshots("yahoo/^GSPC")
    assert found == kept
    pd.testing.assert_frame_equal(store.read(found), TABLE, check_freq=False, check_exact=True)
    about = found.manifest
    assert about["parameters"] == {"auto_adjust": False}
    assert (about["rows"], about["first"], about["last"]) == (3, "2020-01-01", "2020-01-03")
    assert set(about["versions"]) >= {"python", "pandas", "numpy", "pyarrow"}
    assert len(found.sha256) == 64
    assert abs(found.fetched_at - pd.Timestamp.now("UTC").tz_localize(None)) < pd.Timedelta("1min")


def test_versions_stay(store):
    first = store.write("yahoo/A", TABLE)
    second = store.write("yahoo/A", TABLE * 2)
    assert store.latest("yahoo/A") == second
    assert store.latest("yahoo/A", as_of=first.fetched_at) == first
    assert store.latest("yahoo/A", as_of=first.fetched_at - pd.Timedelta("1s")) is None
    assert store.read(first)["close"].iloc[0] == 1


@pytest.mark.parametrize("name", ["yahoo/../../etc", "yahoo/a b/c.", "yahoo/.", "yahoo/Ä\\:*?"])
def test_any_name_stays_inside_the_store(store, name):
    store.write(name, TABLE)
    assert store.names() == [name]
    assert all(store.folder in path.resolve().parents for path in store.folder.rglob("*.parquet"))
    assert {path.name for path in store.folder.parent.iterdir()} == {"store"}


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "a bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-1] if how == "cut" else b"" if how == "empty" else content)


@pytest.mark.parametrize("how", ["a bit", "cut", "empty"])
@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_a_damaged_file_is_set_aside(store, how, suffix):
    first = store.write("yahoo/A", TABLE)
    second = store.write("yahoo/A", TABLE * 2)
    path = next(store.folder.rglob(f"{second.identity}{suffix}"))
    damage(path, how)

    with pytest.raises(DamagedSnapshot, match=f"{second.identity} of yahoo/A is damaged") as caught:
        store.read(store.latest("yahoo/A"))
    assert isinstance(caught.value, DataError)
    assert path.name in [kept.name for kept in caught.value.moved_to.iterdir()]
    assert store.latest("yahoo/A") == first
    assert store.names() == ["yahoo/A"]


def test_verify_says_what_is_wrong(store):
    for name in ("yahoo/A", "yahoo/B", "yahoo/C"):
        store.write(name, TABLE)
    damage(next((store.folder / "yahoo" / "B").glob("*.parquet")), "a bit")
    damage(next((store.folder / "yahoo" / "C").glob("*.json")), "a bit")
    found = {name: error for name, _, error in store.verify()}
    assert found["yahoo/A"] == ""
    assert "its sha256 is" in found["yahoo/B"]
    assert "its manifest does not" in found["yahoo/C"]
    assert [name for name, _, _ in store.verify()] == ["yahoo/A"]


def test_notes(store):
    assert store.note("yahoo/X") is None
    store.write_note("yahoo/X", {"status": "delisted"})
    assert store.note("yahoo/X") == {"status": "delisted"}
    assert store.names() == [], "a note is no snapshot"
    store.write_note("yahoo/X", None)
    assert store.note("yahoo/X") is None


def test_the_folder_is_settable(monkeypatch, tmp_path):
    monkeypatch.setenv("DEQFOLIO_DATA", str(tmp_path / "elsewhere"))
    assert Store().folder == tmp_path / "elsewhere"
    monkeypatch.delenv("DEQFOLIO_DATA")
    assert Store().folder == Path.home() / ".cache/deqfolio/data"
    assert not (tmp_path / "elsewhere").exists(), "reading makes no folder"


def test_a_write_that_fails_leaves_nothing(store, monkeypatch):
    store.write("yahoo/A", TABLE)
    before = sorted(store.folder.rglob("*"))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write("yahoo/A", TABLE * 2)
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.parametrize("step", [1, 2])
def test_death_between_the_renames_leaves_no_half_snapshot(store, step):
    """Killed before the table's rename (1), or between it and the manifest's (2)."""
    script = """
        import os, pathlib, signal, sys
        import pandas as pd
        from data_loaders.store import Store
        rename, left = pathlib.Path.replace, [int(sys.argv[2])]
        def dying(self, target):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)
        pathlib.Path.replace = dying
        table = pd.DataFrame({"close": [9.0]}, index=pd.bdate_range("2020-01-01", periods=1))
        store = Store(sys.argv[1])
        with store.locked("yahoo/A"):
            store.write("yahoo/A", table)
    """
    first = store.write("yahoo/A", TABLE)
    done = run(script, store.folder, step)
    assert done.returncode == -signal.SIGKILL
    assert list(store.folder.rglob(".*.part")), "the test kills where it means to"
    assert store.snapshots("yahoo/A") == [first]
    assert [error for _, _, error in store.verify()] == [""]
    with store.locked("yahoo/A"):  # the dead holder's lock is free
        store.write("yahoo/A", TABLE * 2)
    assert not list(store.folder.rglob(".*.part"))


def test_two_writers_at_once_lose_nothing(store):
    """Each adds to a counter in the newest table, 25 times: with lost updates the sum is short."""
    script = """
        import sys
        import pandas as pd
        from data_loaders.store import Store
        store = Store(sys.argv[1])
        index = pd.bdate_range("2020-01-01", periods=1)
        for _ in range(25):
            with store.locked("yahoo/A"):
                latest = store.latest("yahoo/A")
                count = 0.0 if latest is None else store.read(latest)["count"].iloc[0]
                store.write("yahoo/A", pd.DataFrame({"count": [count + 1]}, index=index))
    """
    writers = [start(script, store.folder) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.read(store.latest("yahoo/A"))["count"].iloc[0] == 50
    assert len(store.snapshots("yahoo/A")) == 50
    assert not any(error for _, _, error in store.verify())


def command(script, *arguments):
    return [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]


def start(script, *arguments):
    return subprocess.Popen(command(script, *arguments), cwd=ROOT)


def run(script, *arguments):
    return subprocess.run(command(script, *arguments), cwd=ROOT, timeout=60, check=False)


def test_manifests_are_plain_json(store):
    kept = store.write("yahoo/A", TABLE, source="yahoo")
    path = next(store.folder.rglob(f"{kept.identity}.json"))
    assert json.loads(path.read_text())["source"] == "yahoo"
