"""deqfolio data look, check and export on files, with options of reading."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from data_loaders import commands, load

LINES = "Datum;XAU;XPT\n" + "".join(
    f"{day:%d.%m.%Y};{1.990 + i / 1000:.3f};{700 + i}\n"
    for i, day in enumerate(pd.bdate_range("2020-01-02", periods=30))
)


def run(*words):
    found = CliRunner().invoke(commands.app, list(words))
    return found.output, found.exception


def test_look_shows_the_rows_as_they_are_read(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text(LINES)
    shown, _ = run("look", str(path), "--set", "thousands=.")
    assert "| Datum;XAU;XPT" in shown
    assert "date_format=%d.%m.%Y" in shown
    assert "layout=wide" in shown
    assert "1990.0  700.0" in shown
    assert load(path, thousands=".").prices["XAU"].iloc[0] == 1990


def test_look_shows_features_and_what_was_taken(tmp_path):
    path = tmp_path / "AAA.csv"
    path.write_text("Date,Close,Adj Close,Volume\n2020-01-02,2,1,7\n2020-01-03,4,2,8\n")
    shown, _ = run("look", str(path))
    assert "adjusted close of column Adj Close; close, volume as features" in shown.replace(
        "\n", " "
    )
    assert "layout=fields" in shown
    assert "volume:" in shown


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("skp=3", "did you mean 'skip'"),
        ("skip", "write it like skip=3"),
        ("unit=x", "unknown unit"),
    ],
)
def test_wrong_options_are_named(tmp_path, word, message):
    (tmp_path / "p.csv").write_text(LINES)
    _, error = run("look", str(tmp_path / "p.csv"), "--set", word)
    assert message in str(error)


def test_check_and_export_take_the_same_options(tmp_path):
    path, out = tmp_path / "gold.csv", tmp_path / "out.csv"
    path.write_text(LINES)
    run("export", str(path), str(out), "--set", "thousands=.")
    assert load(out).prices["XAU"].iloc[0] == 1990
    shown, _ = run("check", str(path), "--set", "thousands=.")
    assert "XAU" in shown


def test_a_check_of_many_assets_is_a_page_and_a_file(tmp_path):
    days = pd.bdate_range("2020-01-02", periods=60)
    walk = 100 + np.random.default_rng(0).normal(0, 1, (60, 400)).cumsum(axis=0)
    frame = pd.DataFrame(walk, days, [f"A{i:03}" for i in range(400)])
    frame.iloc[30] *= 40
    frame.iloc[30, ::2] /= 40
    frame.to_csv(tmp_path / "p.csv")
    shown, _ = run("check", str(tmp_path / "p.csv"), "--out", str(tmp_path / "all.csv"))
    assert len(shown.splitlines()) < 60
    assert "and 380 more assets" in shown
    found = pd.read_csv(tmp_path / "all.csv")
    assert (found["problem"] == "spike").sum() == 200
    assert "spike: and 180 more" in shown
