"""Run folders: one writer, nothing changed in silence, and repaired by the same call."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from learned import Softmax
from markets import random_walks
from run_mutations import mutations

from deqfolio import main
from engine import (
    RunDamaged,
    RunInUse,
    Training,
    WalkForward,
    backtest,
    load_run,
    verify_run,
)
from engine.runs.run_files import locked
from strategies import EqualWeight

PANEL = random_walks(260, 3)
PLAN = WalkForward(train=120, refit=70, rebalance=5)


def run(folder, **settings):
    strategies = {"tiny": Softmax(), "1/N": EqualWeight()}
    training = Training(epochs=2, block=8)
    return backtest(
        strategies, PANEL, PLAN, training=training, run_dir=folder, ledger=False, **settings
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run(folder)


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def figures(results):
    return {name: result.net_returns.to_numpy().tobytes() for name, result in results.items()}


def test_a_whole_run_is_verified_and_leaves_no_litter(finished, capsys):
    folder, _ = finished
    states = verify_run(folder)
    assert set(states.values()) == {"ok"}
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == set(states)
    assert main(["verify", str(folder)]) == 0
    assert f"{len(states)} files, 0 damaged or missing" in capsys.readouterr().out


def test_a_folder_without_a_run_is_not_verified(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "mistyped")]) == 1
    assert "mistyped is not the folder of a run" in capsys.readouterr().err


def test_no_changed_number_is_read_in_silence(finished, tmp_path):
    """A slice of ``make attack``: each file of a run is damaged once."""
    folder, results = finished
    expected = figures(results)
    count = 0
    for what, damaged in mutations(folder, tmp_path / "damaged", each=1, seed=0):
        count += 1
        wrong = [
            file for file, state in verify_run(damaged).items() if state in ("damaged", "missing")
        ]
        try:
            loaded = load_run(damaged)
        except (RunDamaged, FileNotFoundError):
            assert wrong or "run.json" in what, what
            continue
        assert figures(loaded) == expected, what
        assert "fits" in what, what  # which results do not need
    assert count >= 50


def test_a_damaged_fit_is_trained_again_and_a_damaged_result_made_again(finished, copy):
    for name in ("fits/tiny-0-0/state", "00-tiny/net_returns.parquet"):
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
    with pytest.raises(RunDamaged, match=r"net_returns.parquet is damaged.*deqfolio resume"):
        load_run(copy)
    assert main(["verify", str(copy), "--quiet"]) == 1
    with pytest.warns(RuntimeWarning) as told:
        again = run(copy)
    said = " ".join(str(each.message) for each in told)
    assert "state is damaged: it does not hold what was written; this fit is trained again" in said
    assert "00-tiny/net_returns.parquet damaged or missing; results are made again" in said
    assert figures(again) == figures(finished[1]) == figures(load_run(copy))
    assert set(verify_run(copy).values()) == {"ok"}


def test_a_fit_in_the_place_of_another_is_trained_again(finished, copy):
    fits = copy / "fits"
    first, second = sorted(fits.iterdir())[:2]
    (fits / "aside").mkdir()
    first.rename(fits / "aside/first")
    second.rename(first)
    (fits / "aside/first").rename(second)
    (fits / "aside").rmdir()
    with pytest.warns(RuntimeWarning, match="damaged.*this fit is trained again"):
        assert figures(run(copy)) == figures(finished[1])


def test_a_result_without_its_index_is_repaired(finished, copy):
    (copy / "00-tiny" / "result.json").unlink()
    with pytest.raises(RunDamaged, match=r"result.json is missing"):
        load_run(copy)
    with pytest.warns(RuntimeWarning, match="made again"):
        run(copy)
    assert figures(load_run(copy)) == figures(finished[1])


def test_a_lost_plan_is_named(copy):
    (copy / "plan.json").write_text("{")
    with pytest.raises(RunDamaged, match=r"plan.json is damaged.*restart the run"):
        run(copy)
    run(copy, restart=True)
    assert set(verify_run(copy).values()) == {"ok"}


def test_folders_outside_of_the_run_are_not_read(copy):
    text = json.loads((copy / "run.json").read_text())
    del text["sha256"], text["files"]
    (copy / "run.json").write_text(json.dumps(text | {"results": ["../run/00-tiny"]}))
    with pytest.raises(RunDamaged, match="which is no folder of the run"):
        load_run(copy)


def test_two_threads_do_not_write_to_one_folder(tmp_path):
    found = []

    def second():
        try:
            run(tmp_path / "run")
        except RunInUse as error:
            found.append(str(error))

    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"is in use by process {os.getpid()} on " in found[0]
    assert not list((tmp_path / "run").iterdir())


HOLD = """
import sys, time
from pathlib import Path
from engine.runs.run_files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunInUse, match=f"is in use by process {other.pid} on .*, since 20"):
            run(tmp_path)
        other.kill()
    assert (tmp_path / ".lock").exists()
    assert np.isfinite(run(tmp_path)["1/N"].net_returns).all()
    assert not (tmp_path / ".lock").exists()
