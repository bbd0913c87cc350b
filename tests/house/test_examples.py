"""The scripts that users copy, run as they stand, on the last years of their data."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import data_loaders

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONGER = {"implicit_layers.py", "replicate_e2e_dro.py"}  # what they show takes more lines


@pytest.fixture
def recent(monkeypatch):
    """``load`` of the bundled stocks from 2016 on, whatever start a script asks for."""
    load = data_loaders.load

    def short(source, start=None, end=None, **rest):
        if source == "sp500" and (start is None or str(start) < "2016"):
            start = "2016-01-01"
        return load(source, start, end, **rest)

    monkeypatch.setattr(data_loaders, "load", short)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(script, recent, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(script)])  # a script that needs more says what
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "script", [path for path in EXAMPLES if path.name not in LONGER], ids=lambda path: path.name
)
def test_examples_are_short_and_say_what_they_show(script):
    text = script.read_text()
    assert len(text.splitlines()) < 40
    assert ast.get_docstring(ast.parse(text))


def test_every_benchmark_can_be_imported():
    """They take minutes, so no test runs them; what they import must exist all the same."""
    names = [f"benchmarks.{path.stem}" for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))]
    code = (
        "import importlib, sys\n"
        "sys.path[:0] = ['.', 'benchmarks']\n"
        f"for name in {names}: importlib.import_module(name)\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", code]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert len(names) > 10
    assert told.returncode == 0, told.stderr
