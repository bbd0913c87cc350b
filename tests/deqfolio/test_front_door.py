"""``from deqfolio import ...``: every public name, fast, and one list of them."""

import subprocess
import sys

import pytest

import data_loaders
import deqfolio
import engine
import reports
import strategies
import strategies.layers

PROGRAM = """
import sys, time
begun = time.perf_counter()
import deqfolio
names = dir(deqfolio)
assert time.perf_counter() - begun < {limit}, time.perf_counter() - begun
assert {{"load", "backtest", "DEQMeanVariance", "fixed_point", "main"}} <= set(names)
assert not {{"torch", "pandas", "numpy"}} & set(sys.modules)
"""


def test_it_is_imported_in_a_moment_and_completes_all_names():
    limit = 2.0  # a tenth of a second on an idle machine; importing torch takes more than this
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(limit=limit)], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("package", [data_loaders, strategies, strategies.layers, engine, reports])
def test_every_public_name_of_the_packages_is_at_the_front_door(package):
    for name in package.__all__:
        if (package, name) == (engine, "RiskParity"):  # of two, the strategy is at the front door
            assert deqfolio.RiskParity is strategies.RiskParity
        else:
            assert getattr(deqfolio, name) is getattr(package, name)


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="'deqfolio' has no attribute 'backtst'"):
        _ = deqfolio.backtst
