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
import sys
import deqfolio
assert {"load", "backtest", "DEQMeanVariance", "fixed_point", "main"} <= set(dir(deqfolio))
assert not {"torch", "pandas", "numpy", "typer"} & set(sys.modules)
"""


def test_it_completes_all_names_and_imports_nothing_heavy():
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
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
