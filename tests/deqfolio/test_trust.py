"""Code is run from a run folder only if it is known, and a strategy's file may have any name."""

import json
import re
import shutil
from pathlib import Path

import pytest
from markets import random_walks

from data_loaders.plugins import code_files
from deqfolio import main
from strategies.registry import create_strategy

RULE = """
from pathlib import Path
import pandas as pd
from strategies import EqualWeight
Path("was-run").touch()
class Rule(EqualWeight):
    pass
"""
WORDS = ["--data", "prices.csv", "--train", "1Y", "--rebalance", "ME", "--out", "run"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_walks(400, 3).prices.to_csv("prices.csv")
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 1/N, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    random_walks(400, 3).prices.to_csv(folder / "prices.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["backtest", *WORDS, "--strategy", "EqualWeight"]) == 0
    return folder / "run"


@pytest.mark.parametrize("name", ["random", "json", "engine", "torch"])
def test_a_strategys_file_may_have_the_name_of_a_module(here, name, capsys):
    import json
    import random

    (here / f"{name}.py").write_text(RULE)
    made = create_strategy(f"{name}.py:Rule")
    assert type(made).__name__ == "Rule"
    assert (json.dumps([1]), random.Random(0).random() < 1) == ("[1]", True)
    if name == "json":
        words = [*WORDS, "--strategy", "json.py:Rule", "--workers", "2"]
        assert main(["backtest", *words]) == 0
        assert '"json:Rule"' in (here / "run/00-Rule/result.json").read_text()


def test_known_code_outside_of_the_folder_is_run(here, capsys):
    (here / "rule.py").write_text(RULE)
    assert main(["backtest", *WORDS, "--strategy", "rule.py:Rule"]) == 0
    assert main(["resume", "run"]) == 0
    Path("was-run").unlink()
    (here / "rule.py").write_text(RULE + "# changed\n")
    for command in (["resume", "run"], ["orders", "run", "--capital", "1000"]):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert re.search(r"names code to run, rule.py:Rule, and .*/rule.py is not what the", told)
        assert "--trust" in told
    assert not Path("was-run").exists()
    main(["resume", "run", "--trust"])  # refused because the strategy is another one
    assert "strategies changed since" in capsys.readouterr().err
    assert Path("was-run").exists()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"EqualWeight"', '"run/evil.py:Rule"', "which is in that folder"),
        ('"EqualWeight"', '"evil.py:Rule"', "does not say what"),
        ('"prices.csv"', '"evil:prices?x=1"', "does not say what"),
        ('"prices.csv"', '"subprocess:getoutput?cmd=touch was-run"', "of an installed package"),
        ('"prices.csv"', '"builtins:exec?source=1"', "of an installed package"),
        ('"prices.csv"', '"data_loaders.plugins:load_object?name=evil.py:Rule"', "installed"),
        ("commission = 0.001", 'class = "evil:Rule"', "does not say what"),
        ('"ME"', '"evil:Rule"', "does not say what"),
    ],
)
def test_a_strangers_folder_runs_no_code(here, finished, capsys, old, new, why):
    shutil.copytree(finished, "run")
    for place in ("evil.py", "run/evil.py"):
        (here / place).write_text(RULE)
    file = here / "run/experiment.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    for name in ("run.json", "code.json"):  # whose hashes a stranger can write, too
        (here / "run" / name).unlink()
    for command in ("resume", "cross-validate"):
        assert main([command, "run"]) == 1
        assert why in capsys.readouterr().err
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    "named",
    [
        "../secret/mine.csv",
        "~/secret/mine.csv",
        "run/to.csv",
        "run",
        "../secret/*.csv",
        "prices.csv",
    ],
)
def test_a_strangers_folder_opens_no_file_elsewhere(here, finished, capsys, monkeypatch, named):
    (here / "secret").mkdir()
    shutil.copy("prices.csv", "secret/mine.csv")
    place = here / "inner"
    shutil.copytree(finished, place / "run")
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(here))
    (place / "run/to.csv").symlink_to(here / "secret/mine.csv")
    file = place / "run/experiment.toml"
    text = file.read_text().replace('"prices.csv"', f'"{named}"')
    if named == "prices.csv":  # in the folder that the run says it was started in
        text = re.sub('folder = ".*"', 'folder = "../.."', text)
    file.write_text(text)
    for name in ("run.json", "code.json"):
        (place / "run" / name).unlink()
    said = re.escape(f"names a file to open, {named}, outside of the folder that you are in")
    assert main(["resume", "run"]) == 1
    assert re.search(said, capsys.readouterr().err)
    if named == "prices.csv":
        monkeypatch.chdir(here)
        assert main(["resume", "inner/run"]) == 0


def test_a_file_that_is_missing_is_no_question_of_trust(here, finished, capsys):
    shutil.copytree(finished, "moved")
    file = Path("moved/experiment.toml")
    file.write_text(file.read_text().replace('"prices.csv"', '"../elsewhere/prices.csv"'))
    for name in ("run.json", "code.json"):
        Path("moved", name).unlink()
    assert main(["resume", "moved"]) == 1
    said = capsys.readouterr().err
    assert "elsewhere/prices.csv" in said
    assert "--trust" not in said


def test_a_strangers_benchmark_is_not_opened(here, finished, capsys, monkeypatch):
    shutil.copytree(finished, "inner/run")
    monkeypatch.chdir("inner")
    file = here / "inner/run/experiment.toml"
    file.write_text(file.read_text().replace("[report]", '[report]\nbenchmark = "../prices.csv"'))
    for name in ("run.json", "code.json"):
        sealed = json.loads(Path("run", name).read_text())
        Path("run", name).write_text(json.dumps({k: sealed[k] for k in sealed if k[0] not in "sf"}))
    assert main(["report", "run"]) == 1
    assert "names a file to open, ../prices.csv" in capsys.readouterr().err


def test_data_elsewhere_is_opened_if_it_is_what_it_was(here, monkeypatch, capsys):
    words = [*WORDS[:1], str(here / "prices.csv"), *WORDS[2:]]
    assert main(["backtest", *words, "--strategy", "EqualWeight"]) == 0
    (here / "inner").mkdir()
    monkeypatch.chdir(here / "inner")
    assert main(["resume", "../run"]) == 0
    lines = (here / "prices.csv").read_text()
    (here / "prices.csv").write_text(f"{lines}2011-07-18{lines.splitlines()[-1][10:]}\n")
    for command in (["resume", "../run"], ["orders", "../run", "--capital", "1000"]):
        assert main(command) == 1
        assert "and not what the run was made with" in capsys.readouterr().err
    ask = ["orders", "../run", "--capital", "1000", "--as-of", "2011-07-18", "--anyway"]
    assert main([*ask, "--prices", "../prices.csv"]) == 0
    assert main([*ask, "--trust"]) == 0


def test_a_damaged_experiment_is_not_run(here, finished, capsys):
    """Also before there is a result that holds its hash."""
    shutil.copytree(finished, "run")
    file = here / "run/experiment.toml"
    file.write_text(file.read_text().replace("whole_shares = false", "whole_shares = true"))
    (here / "run/run.json").unlink()
    assert main(["resume", "run"]) == 1
    told = capsys.readouterr().err
    assert "experiment.toml is damaged" in told
    assert "deqfolio backtest run/experiment.toml --out FOLDER" in told


def test_what_is_no_code_is_none(here):
    words = ["yahoo:SPY", "synthetic:null", "sp500", "strategies.deq:DEQMeanVariance", "10:30",
             "C:/data/prices.csv", "nothing:here"]  # fmt: skip
    assert list(code_files({"data": words})) == []
