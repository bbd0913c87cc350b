"""The README and the documentation: their code runs as it stands, and they leave nothing out."""

import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import data_loaders
from deqfolio import app, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run[^>]*) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
# Of a page's shell blocks, these words need the network, minutes, or another environment.
ELSEWHERE = ("yahoo:", "deqfolio demo", "--workers")  # processes: the page's Python does that


def blocks(page):
    """Language and text of each block that can be run here."""
    found = BLOCK.findall(page.read_text())
    return [(language, text) for marked, language, text in found if not marked]


def commands(text):
    """The lines of a shell block that call deqfolio, without their comments."""
    whole = text.replace("\\\n", "")
    lines = [line.split(" #")[0].strip() for line in whole.splitlines()]
    return [x for x in lines if x.startswith("deqfolio ") and not any(w in x for w in ELSEWHERE)]


WITH_CODE = [
    page
    for page in PAGES
    if any(x == "python" or (x == "sh" and commands(text)) for x, text in blocks(page))
]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A user's folder: prices up to the last weekday, holdings, a strategy, and two runs."""
    folder = tmp_path_factory.mktemp("user")
    dates = pd.bdate_range(end=pd.Timestamp.now().normalize(), periods=1420, name="date")
    steps = np.random.default_rng(0).normal(3e-4, 0.01, (len(dates), 5))
    prices = pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), dates, [f"A{i}" for i in range(5)])
    prices.to_csv(folder / "prices.csv")
    prices[["A0", "A1"]].pct_change().iloc[1:].to_csv(folder / "returns.csv")
    prices["A2"].rename("SPY").to_csv(folder / "spy.csv")
    (folder / "holdings.csv").write_text("asset,shares\nA0,120\nA3,40\n")
    readme = next(text for x, text in blocks(ROOT / "README.md") if "class Winners" in text)
    (folder / "my_alpha.py").write_text(readme.split("\n\nprint(")[0])
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in ("one", "two"):
            words = ["--strategy", "EqualWeight", "--train", "4Y", "--out", f"runs/{name}"]
            assert main(["backtest", "--data", "prices.csv", *words]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def user(prepared, brief, tmp_path, monkeypatch):
    """A copy of the folder to work in."""
    folder = tmp_path / "user"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    modules = ("my_alpha", "my_idea", "our_lake", "our_costs", "our_features")
    for name in modules:  # another test's may be known by the same name
        sys.modules.pop(name, None)
    yield folder
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_runs_in_the_order_of_the_page(page, user, capsys):
    names = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "toml" and "[sweep]" in text:
            Path("sweep.toml").write_text(text)
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
        for command in commands(text) if language == "sh" else []:
            words = shlex.split(command)[1:]
            if words[0] == "new" and Path(f"{words[1]}.py").exists():
                Path(f"{words[1]}.py").unlink()  # of another name than the page's own, for a user
            assert main(words) == 0, f"{command}\n{capsys.readouterr().err}"


def test_the_parts_of_a_report_are_described_in_their_order():
    told = (ROOT / "docs/how-to/reading-a-report.md").read_text().split("The terms:")[0]
    described = re.findall(r"^\| ([A-Z].*?) \|", told, re.MULTILINE)
    page = ROOT / "reports/page"
    order = re.findall(r'include "(\w+.html)"', (page / "report.html").read_text())
    pages = "".join((page / name).read_text() for name in order)
    assert described == re.findall(r'ui.section\("\w+", "(.*?)"', pages)


def test_every_command_is_in_the_reference():
    told = (ROOT / "docs/reference/command-line.md").read_text()
    names = [
        each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands
    ]
    assert len(names) > 8
    assert not [name for name in names if f"| `{name}" not in told]


def test_pages_have_code():
    assert len(WITH_CODE) >= 12


def test_every_public_name_is_in_the_reference():
    import engine
    import reports
    import strategies
    import strategies.layers

    told = "".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    for package in (data_loaders, strategies, strategies.layers, engine, reports):
        for name in package.__all__:
            thing = getattr(package, name)
            where = f"::: {thing.__module__}"
            listed = f"{where}.{name}\n" in told or f"{where}\n" in told
            assert listed, f"add {where}.{name} to a page in docs/reference"


def test_figures_are_drawn_by_the_code(tmp_path):
    kept = ROOT / "docs/figures"
    runpy.run_path(str(ROOT / "docs/figures.py"))["main"](tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept.iterdir()}
    used = "".join(page.read_text() for page in PAGES)
    assert all(f"figures/{path.name}" in used for path in kept.iterdir())


def test_issue_templates_workflows_and_citation_are_valid():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        named = {word for line in commands for word in re.findall(r"make (\S+)", line)}
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert named
        assert named <= set(targets)
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form) or "blank_issues_enabled" in form
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
