"""A disk that is full in the middle of the work: said in one sentence, nothing lost, and it goes
on."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from comparisons import same
from markets import random_walks
from small_runs import Holds

from engine import Costs, Training, WalkForward, backtest
from engine.research.search import Search, search
from engine.runs.ledger import TrialLedger
from engine.runs.run_files import RunNotWritten
from engine.runs.storage import StorageError
from strategies import DEQMeanVariance, EqualWeight

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
YEARLY = WalkForward(train="2Y", refit="1Y", rebalance="ME")


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system of its own, and what sets its size in kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield folder, lambda kilobytes: mount("-o", f"remount,size={kilobytes}k")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_run_goes_on_once_there_is_room(disk, tmp_path):
    folder, resize = disk
    strategies = [DEQMeanVariance(lookback=64, hidden=4, cap=0.5), EqualWeight()]
    training = Training(epochs=2, block=20, learning_rate=0.01, ensemble=2)
    panel, ledger = random_walks(880, 4), TrialLedger(f"sqlite:///{tmp_path}/trials.sqlite3")

    def run(**rest):
        return backtest(
            strategies, panel, PLAN, Costs(), training, progress=False, ledger=ledger, **rest
        )

    said = "disk/run cannot be written .*No space left on device.*make room, and the same call"
    kept = [0]
    for kilobytes in range(48, 4000, 48):  # what fits in how much depends on when it is written
        resize(kilobytes)
        told = ""
        try:
            found = run(run_dir=folder / "run")
        except RunNotWritten as error:
            told = str(error)
        if not told:
            break
        assert re.search(said, told)
        fits = folder / "run" / "fits"
        names = [path.name for path in fits.iterdir()] if fits.is_dir() else []
        assert not [name for name in names if name.startswith(".")]
        assert len(names) >= kept[-1]
        kept.append(len(names))
        tried = set(ledger.trials()["name"])  # the rule is decided first, and needs no disk
        assert ("DEQMeanVariance" in tried) == (len(names) == 6)
    assert set(kept) > {0, 6}  # it was full in the middle of the fits, and again at the results
    for name, result in run().items():
        same(found[name], result)


def test_a_sweep_goes_on_once_there_is_room(disk):
    folder, resize = disk
    resize(168)
    panel, url = random_walks(800, 4), f"sqlite:///{folder}/trials.sqlite3"
    asked = Search({"share": {"low": 0.1, "high": 1.0}}, trials=32, pruning=False, stale=2)
    with pytest.raises(StorageError, match="full.*what was stored before is safe"):
        search(Holds(), panel, YEARLY, ranges=asked, storage=url, progress=False)
    resize(4000)
    before = TrialLedger(url).trials()
    assert 0 < len(before) < 32
    found = search(Holds(), panel, YEARLY, ranges=asked, storage=url, progress=False).trials
    assert list(found.index) == list(range(32))
    assert set(found["state"]) == {"complete"}
    after = TrialLedger(url).trials()
    pd.testing.assert_frame_equal(
        after.head(len(before))[["id", "sharpe"]], before[["id", "sharpe"]]
    )
    assert after["runs"].sum() <= 33  # the trial that could not be stored is made once more
