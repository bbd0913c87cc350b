"""The way of the data is the way of the code: a package imports itself or those to its left."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ["data_loaders", "strategies", "engine", "reports", "deqfolio"]
HINTS = "data_loaders.suggestions"  # of error messages: the one part that knows no finance
FILES = [path for package in ORDER[:-1] for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def violations(path):
    own = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        package = name.split(".")[0]
        if package in ORDER and ORDER.index(package) > ORDER.index(own):
            yield f"{name}: to the right of {own}"
        if own == "engine" and package == "strategies" and not name.startswith("strategies.base"):
            yield f"{name}: the engine knows strategies.base only"
        if "layers" in path.parts and package == "data_loaders" and not name.startswith(HINTS):
            yield f"{name}: layers know no finance"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_to_the_left(path):
    assert not list(violations(path))


def test_the_rule_catches_a_violation(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "engine").mkdir()
    bad = tmp_path / "engine" / "bad.py"
    bad.write_text("import reports\nfrom strategies.deq import DEQMeanVariance\n")
    assert len(list(violations(bad))) == 3


@pytest.mark.parametrize("name", [*ORDER, "strategies.layers"])
def test_a_prompt_completes_what_is_public(name):
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, each) is not None for each in package.__all__)
