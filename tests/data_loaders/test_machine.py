"""What is free is what the machine, the container and ``ulimit -v`` leave; and where kernels go."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_loaders import DataError, load, machine
from data_loaders.machine import VARIABLE, check_room, free_memory, writable_cache

NOWHERE = "/dev/null/nowhere"
LIMITED = """
import resource
from data_loaders.machine import check_room, free_memory
before = free_memory()
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
assert 1 << 30 < free_memory() < 6 << 30, free_memory()
try:
    check_room("prices.csv", 1_000_000, 1_000)
except ValueError as error:
    print(error)
"""


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """No home, packages that cannot be written, and a temporary folder."""
    for name in (VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    package = SimpleNamespace(origin=f"{NOWHERE}/numba/__init__.py")
    monkeypatch.setattr(machine, "find_spec", lambda name: package)
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
    can = machine._can_write
    monkeypatch.setattr(machine, "_can_write", lambda p: p.name != "built" and can(p))
    assert (Path(writable_cache()) / "kernel.nbi").read_text() == "compiled"


@pytest.fixture
def anyones():
    """A folder that all may write; pytest closes its own to others whenever it starts again."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.skipif(
    not shutil.which("setpriv") or os.getuid() != 0, reason="another user is asked for by root"
)
def test_another_user_without_a_home_compiles(anyones):
    environment = {"PATH": os.environ["PATH"], "HOME": NOWHERE, "TMPDIR": str(anyones)}
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-B"]
    probe = subprocess.run([*words, "-c", "import numba"], env=environment, capture_output=True)
    if probe.returncode:
        pytest.skip("that user cannot read this Python")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from data_loaders.machine import writable_cache\n"
        "print(writable_cache())\n"
        "from numba import njit\n"
        "njit(cache=True)"
        "(__import__('strategies.layers.drift', fromlist=['carry']).carry)\n"
    )
    told = subprocess.run([*words, "-c", code], env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == str(anyones / "deqfolio-kernels-65534")


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is of Linux")
def test_ulimit_counts():
    told = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    ).stdout
    assert "prices.csv: 1,000,000 rows of 1,000 columns take 8 GB of memory, and" in told


def test_what_fits_is_not_refused():
    check_room("prices.csv", 1000, 1000)
    assert free_memory() is None or free_memory() > 0
    with pytest.raises(DataError, match="8e\\+06 GB"):
        check_room("prices.csv", 10**9, 10**6)


def test_a_market_that_would_not_fit_is_not_made(monkeypatch):
    monkeypatch.setattr("data_loaders.machine.free_memory", lambda: 10**10)
    with pytest.raises(DataError, match=r"a synthetic market: 4 tables .* take 323 GB"):
        load("synthetic:planted?assets=100000&rows=1000")
