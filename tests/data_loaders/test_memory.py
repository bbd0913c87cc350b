"""What is free is what the machine, the container and ``ulimit -v`` leave."""

import subprocess
import sys

import pytest

from data_loaders import DataError, load
from data_loaders.memory import check_room, free_memory

LIMITED = """
import resource
from data_loaders.memory import check_room, free_memory
before = free_memory()
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
assert 1 << 30 < free_memory() < 6 << 30, free_memory()
try:
    check_room("prices.csv", 1_000_000, 1_000)
except ValueError as error:
    print(error)
"""


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
    monkeypatch.setattr("data_loaders.memory.free_memory", lambda: 10**10)
    with pytest.raises(DataError, match=r"a synthetic market: 4 tables .* take 323 GB"):
        load("synthetic:planted?assets=100000&rows=1000")
