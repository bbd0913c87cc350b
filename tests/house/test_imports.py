"""Imports run one way, between packages and between the rooms of a package, and in no circle."""

import re
from importlib import import_module

import pytest

from benchmarks import structure


@pytest.fixture(scope="module")
def imports():
    return structure.graph()


def test_imports_go_to_the_left(imports):
    assert structure.violations(imports) == []


def test_no_file_imports_itself_through_others(imports):
    assert structure.circles(imports) == []


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("engine/training/a.py", "import reports.html", "reports is to the right of engine"),
        ("engine/training/a.py", "from strategies.deq import DEQMeanVariance", "strategies.base"),
        ("engine/training/a.py", "import strategies", "strategies.base"),
        ("engine/training/a.py", "def f():\n    from engine.runs import ledger", "the room runs"),
        ("engine/training/a.py", "from engine.backtest import backtest", "the room backtest"),
        ("engine/training/a.py", "from engine import backtest", "the room backtest"),
        ("engine/losses/a.py", "import engine", "list of names"),
        ("engine/backtest.py", "from engine.research.seeds import b", "the room research"),
        (
            "engine/compute/a.py",
            "if TYPE_CHECKING:\n    from engine.walking.learner import Learner",
            "the room walking",
        ),
        (
            "strategies/layers/optimisation/a.py",
            "from strategies.layers.equilibrium.encoder_cells import b",
            "the room equilibrium",
        ),
        (
            "strategies/layers/drift.py",
            "from strategies.layers.optimisation import checks",
            "the room optimisation",
        ),
        ("strategies/layers/a.py", "from data_loaders import Panel", "data_loaders.suggestions"),
    ],
)
def test_an_import_to_the_right_is_found(tmp_path, file, text, reason):
    for path in structure.modules().values():
        copy = tmp_path / path.relative_to(structure.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (found,) = structure.violations(structure.graph(tmp_path))
    assert reason in found


def test_files_that_are_named_exist():
    known = {path.name for path in structure.ROOT.rglob("*.py") if ".venv" not in path.parts}
    examples = {"engine.py"}  # a user's own, that hides a package
    for path in structure.modules().values():
        named = set(re.findall(r"``[\w/]*?(\w+\.py)``", path.read_text(encoding="utf-8")))
        assert named <= known | examples, path


def test_a_circle_is_found():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert structure.circles(imports) == [["a", "b", "c"]]


def test_a_new_room_must_be_placed(tmp_path):
    (tmp_path / "engine" / "cellar").mkdir(parents=True)
    (tmp_path / "engine" / "cellar" / "a.py").write_text("import engine.b")
    (tmp_path / "engine" / "b.py").touch()
    with pytest.raises(ValueError, match="add 'cellar' to ROOMS"):
        structure.violations(structure.graph(tmp_path))


@pytest.mark.parametrize("name", [*structure.PACKAGES, "strategies.layers"])
def test_a_prompt_completes_what_is_public(name):
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, each) is not None for each in package.__all__)
