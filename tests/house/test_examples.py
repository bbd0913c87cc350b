"""The scripts that users copy, run as they stand, on the last years of their data."""

import ast
import importlib
import json
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/implicit_layers.py"
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path != NOTEBOOK]
LONGER = {"replicate_e2e_dro.py"}  # what they show takes more lines


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(script, brief, tmp_path, monkeypatch, capsys):
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


def test_the_notebook_is_the_script_and_its_statements_hold(tmp_path, monkeypatch):
    """Its cells are executed, and what their text says about the results is compared."""
    from docs import notebook  # a hook of MkDocs, and no package

    book = json.loads(notebook.NOTEBOOK.read_text())
    parts = notebook.cells(NOTEBOOK.read_text())
    assert [(cell["cell_type"], cell["source"]) for cell in book["cells"]] == parts
    assert notebook.NOTEBOOK.stat().st_size < 200_000
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    dtype = torch.get_default_dtype()
    try:
        made = notebook.run(parts, names)
    finally:
        torch.set_default_dtype(dtype)
    kinds = [[each["output_type"] for each in cell.get("outputs", ())] for cell in made]
    assert kinds == [[each["output_type"] for each in c.get("outputs", ())] for c in book["cells"]]
    assert sum(each.count("display_data") for each in kinds) == 4
    assert all(
        names["error"](names[way]()) < 1e-11 for way in ("by_hand", "by_hook", "by_fixed_point")
    )
    for z in (names["z_newton"], *(each.value for each in names["found"].values())):
        assert (z - names["z_star"][: len(z)]).abs().max() < 1e-10
    assert len(names["by_newton"]) < 7 < len(names["by_iteration"])
    memory = names["memory"]
    assert max(memory["implicit"]) == min(memory["implicit"])
    assert memory["unrolled"][3] > 5 * memory["unrolled"][0]
    assert (names["u"] - names["ours"][0]).abs().max() < 1e-12
    losses = names["losses"]
    assert all(each[-1] < each[0] / 20 for each in losses.values())
    gap = torch.tensor(losses["DEQ, Anderson"]) - torch.tensor(losses["unrolled"])
    assert gap.abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore")
def test_every_benchmark_can_be_imported():
    """They take minutes, so no test runs them; what they import must exist all the same."""
    names = [f"benchmarks.{path.stem}" for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))]
    assert len(names) > 10
    for name in names:
        importlib.import_module(name)
