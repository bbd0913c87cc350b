"""A file or folder is written whole or not at all, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_loaders.atomic import atomic, remove_abandoned, remove_unfinished, write_text


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
from data_loaders.atomic import atomic
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
