import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_loaders import kernel_cache
from data_loaders.kernel_cache import VARIABLE, writable_cache

NOWHERE = "/dev/null/nowhere"


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """No home, packages that cannot be written, and a temporary folder."""
    for name in (VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(kernel_cache.tempfile, "tempdir", str(tmp_path))
    package = SimpleNamespace(origin=f"{NOWHERE}/numba/__init__.py")
    monkeypatch.setattr(kernel_cache, "find_spec", lambda name: package)
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    return tmp_path


def test_numba_chooses_where_it_can_write(homeless, monkeypatch):
    monkeypatch.setenv("HOME", str(homeless))
    assert writable_cache() == ""
    monkeypatch.setenv(VARIABLE, str(homeless / "own"))
    assert writable_cache() == str(homeless / "own")


def test_without_a_home_it_is_a_folder_that_only_the_user_can_write(homeless):
    place = Path(writable_cache())
    assert place.parent == homeless
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert os.environ[VARIABLE] == str(place)
    assert writable_cache() == str(place)


def test_a_folder_that_others_can_write_is_not_taken(homeless, monkeypatch):
    place = Path(writable_cache())
    monkeypatch.delenv(VARIABLE)
    place.chmod(0o777)
    assert Path(writable_cache()) != place


def test_kernels_of_a_cache_that_is_read_only_are_kept(homeless, monkeypatch):
    (homeless / "built").mkdir()
    (homeless / "built" / "kernel.nbi").write_text("compiled")
    monkeypatch.setenv(VARIABLE, str(homeless / "built"))
    can = kernel_cache._can_write
    monkeypatch.setattr(kernel_cache, "_can_write", lambda p: p.name != "built" and can(p))
    assert (Path(writable_cache()) / "kernel.nbi").read_text() == "compiled"


@pytest.mark.skipif(
    not shutil.which("setpriv") or os.getuid() != 0, reason="another user is asked for by root"
)
def test_another_user_without_a_home_compiles(tmp_path):
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:  # with xdist, each process has a folder
        parent.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "HOME": NOWHERE, "TMPDIR": str(tmp_path)}
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-B"]
    probe = subprocess.run([*words, "-c", "import numba"], env=environment, capture_output=True)
    if probe.returncode:
        pytest.skip("that user cannot read this Python")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from data_loaders.kernel_cache import writable_cache\n"
        "print(writable_cache())\n"
        "from numba import njit\n"
        "njit(cache=True)"
        "(__import__('strategies.layers.drift', fromlist=['carry']).carry)\n"
    )
    told = subprocess.run([*words, "-c", code], env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == str(tmp_path / "deqfolio-kernels-65534")
