"""The wheel: built, installed away from the source tree, used as a new user would."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("data_loaders", "strategies", "strategies/layers", "engine", "reports", "deqfolio")

SCRIPT = """
import pandas as pd
from deqfolio import BacktestResult, Costs, EqualWeight, Panel, Strategy, WalkForward
from deqfolio import backtest, load, write_report


class Still(Strategy):
    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return holdings


results: dict[str, BacktestResult] = backtest(
    [Still(), EqualWeight()], load("sp500"), WalkForward(train="5Y"), Costs(commission=0.001)
)
page: int = write_report(results, "report.html")
Costs(comission=0.1)
"""


def run(*words, **rest):
    told = subprocess.run([str(word) for word in words], capture_output=True, text=True, **rest)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, dirs_exist_ok=True)
    build = ["--no-deps", "--no-build-isolation", "--quiet", "-w", folder / "dist"]
    run(sys.executable, "-m", "pip", "wheel", *build, source)
    (found,) = (folder / "dist").iterdir()
    return found


@pytest.fixture(scope="module")
def python(wheel):
    """Of an environment that holds the wheel, and borrows what it depends on from this one."""
    environment = wheel.parent.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    (site,) = environment.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(ours))  # not the .pth files in them
    python = environment / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel)
    return python


def test_the_wheel_holds_every_module_type_marker_page_and_the_licence(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources == {name for name in inside if ".dist-info/" not in name}
    assert {f"{package}/py.typed" for package in PACKAGES} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_it_runs_away_from_the_source_tree(python, tmp_path):
    deqfolio = python.parent / "deqfolio"
    words = ["--data", "synthetic:planted?rows=700&assets=3", "--train", "18M"]
    told = run(deqfolio, "backtest", *words, "--strategy", "EqualWeight", cwd=tmp_path)
    assert "report: runs/backtest/report.html" in told
    assert "<html" in (tmp_path / "runs/backtest/report.html").read_text()
    where = "import engine, reports; print(engine.__file__, reports.__file__)"
    for path in run(python, "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(python.parent.parent)


def test_a_script_is_type_checked_against_it(python, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = true\n"
        "[mypy-torch.*]\nfollow_imports = skip\n[mypy-numpy.*]\nfollow_imports = skip\n"
    )
    words = ["-m", "mypy", "--config-file", "mypy.ini", "--python-executable", python, "script.py"]
    told = subprocess.run([sys.executable, *map(str, words)], cwd=tmp_path, **PIPED)
    errors = [line for line in told.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 2, told.stdout + told.stderr
    assert 'expression has type "Path", variable has type "int"' in errors[0]
    assert 'did you mean "commission"' in errors[1]


PIPED = {"capture_output": True, "text": True}


@pytest.mark.parametrize(
    ("hidden", "first"),
    [
        *((hidden, "deqfolio") for hidden in ("data_loaders.py", "strategies", "engine.py")),
        *(("engine.py", first) for first in ("data_loaders", "strategies", "reports")),
        *(("strategies", first) for first in ("data_loaders", "engine", "reports")),
        *(("reports", first) for first in ("data_loaders", "strategies", "engine")),
    ],
)
def test_a_users_file_that_hides_a_package_is_named(python, tmp_path, hidden, first):
    path = tmp_path / hidden
    if path.suffix != ".py":
        path.mkdir()
        path /= "__init__.py"
    path.write_text("")
    script = f"from {first} import anything"
    told = subprocess.run([python, "-c", script], cwd=tmp_path, **PIPED)
    assert told.returncode == 1
    message = told.stderr.strip().splitlines()[-1]
    assert f"{path} hides deqfolio's package '{Path(hidden).stem}'" in message


def test_an_empty_folder_with_the_name_of_a_package_does_no_harm(python, tmp_path):
    (tmp_path / "reports").mkdir()  # of pages, for instance
    run(python, "-c", "from deqfolio import write_report", cwd=tmp_path)
