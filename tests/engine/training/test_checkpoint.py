"""A fit that is killed goes on from its last epoch, to the same bits."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from comparisons import equal, same
from learned import Tilt, samples
from markets import random_walks
from small_runs import MONTHLY as PLAN
from small_runs import QUICK, SMALL, given

import engine.training.checkpoint
from engine import Costs, Training, backtest, train
from engine.training.trainer import train_seeds
from strategies import DEQMeanVariance, LinearMeanVariance

LONG = Training(epochs=10, block=12, learning_rate=0.002, patience=10, noise=0.2, schedule="cosine")


class Killed(BaseException):
    """As of a process: nothing catches it."""


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch):
    monkeypatch.setattr(engine.training.checkpoint, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def killed_at(epoch, strategy, data, files, training, seeds):
    def stop(seed, row):
        if row["epoch"] == epoch:
            raise Killed

    with pytest.raises(Killed):
        train_seeds(strategy, data, Costs(), training, seeds, stop, checkpoints=files)


@pytest.mark.parametrize(
    "strategy",
    [
        DEQMeanVariance(**SMALL),
        DEQMeanVariance(cell="graph", **SMALL),
        LinearMeanVariance(lookback=64, cap=0.5, delta=0.1),
    ],
    ids=lambda s: f"{type(s).__name__} {s.get_params().get('cell', '')}",
)
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_training_goes_on_to_the_same_bits(panel, strategy, epoch, tmp_path):
    data, seeds = given(panel, strategy), (0, 1)
    files = {seed: tmp_path / f"{seed}.pt" for seed in seeds}
    whole = train_seeds(strategy, data, Costs(), LONG, seeds)
    killed_at(epoch, strategy, data, files, LONG, seeds)
    rows = []
    resumed = train_seeds(
        strategy, data, Costs(), LONG, seeds, lambda *row: rows.append(row), checkpoints=files
    )
    assert rows[0][1]["epoch"] == epoch  # it was killed before that one was kept
    for seed in seeds:
        equal(whole[seed], resumed[seed])


def test_one_seed_may_be_ahead_of_another(panel, tmp_path):
    """Where a process dies between the files of two seeds."""
    strategy, seeds = DEQMeanVariance(**SMALL), (0, 1, 2)
    data = given(panel, strategy)
    files = {seed: tmp_path / f"{seed}.pt" for seed in seeds}
    killed_at(3, strategy, data, files, LONG, seeds)
    ahead = tmp_path / "ahead.pt"
    killed_at(6, strategy, data, {1: ahead}, LONG, (1,))
    shutil.move(ahead, files[1])
    files[2].unlink()
    resumed = train_seeds(strategy, data, Costs(), LONG, seeds, checkpoints=files)
    whole = train_seeds(strategy, data, Costs(), LONG, seeds)
    for seed in seeds:
        equal(whole[seed], resumed[seed])


def test_a_training_that_was_over_is_not_trained_again(panel, tmp_path):
    strategy = DEQMeanVariance(**SMALL)
    data, files, epochs = given(panel, strategy), {0: tmp_path / "0.pt"}, []
    one = train_seeds(strategy, data, Costs(), QUICK, [0], checkpoints=files)[0]
    again = train_seeds(
        strategy, data, Costs(), QUICK, [0], lambda *row: epochs.append(row), checkpoints=files
    )[0]
    assert not epochs
    equal(one, again)


def test_files_hold_plain_values_and_are_whole(tmp_path):
    file = tmp_path / "0.pt"
    train_seeds(Tilt(), samples(), Costs(), Training(epochs=3), [0], checkpoints={0: file})
    stored = torch.load(file, weights_only=True)
    assert stored["epoch"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["0.pt"]
    file.write_bytes(file.read_bytes()[:100])  # as a full disk leaves it
    again = train_seeds(Tilt(), samples(), Costs(), Training(epochs=3), [0], checkpoints={0: file})
    equal(again[0], train(Tilt(), samples(), Costs(), Training(epochs=3)))


def test_no_file_where_there_is_no_folder(tmp_path):
    """As on another machine of a cluster."""
    file = tmp_path / "elsewhere" / "0.pt"
    train_seeds(Tilt(), samples(), Costs(), Training(epochs=2), [0], checkpoints={0: file})
    assert not file.parent.exists()


def test_a_killed_backtest_goes_on_inside_a_fold(panel, tmp_path):
    long = Training(epochs=30, block=12, learning_rate=0.002, patience=30)

    def run(**rest):
        return backtest(
            DEQMeanVariance(**SMALL), panel, PLAN, training=long, progress=False, ledger=False,
            **rest,
        )["DEQMeanVariance"]  # fmt: skip

    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nsys.path[:0] = ['tests/support', '.']\n"
        "import engine.training.checkpoint\nengine.training.checkpoint.SECONDS = 0.0\n"
        "from markets import random_walks\nfrom small_runs import MONTHLY, SMALL\n"
        "from engine import Training, backtest\nfrom strategies import DEQMeanVariance\n"
        "backtest(DEQMeanVariance(**SMALL), random_walks(880, 4), MONTHLY, progress=False,"
        " training=Training(epochs=30, block=12, learning_rate=0.002, patience=30),"
        f" ledger=False, run_dir={str(tmp_path / 'run')!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    checkpoints = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not list(checkpoints.glob("[!.]*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = checkpoints.glob("[!.]*")
    assert 1 <= torch.load(left, weights_only=True)["epoch"] < 30
    same(run(run_dir=tmp_path / "run"), run())
    assert not checkpoints.exists()


def test_a_full_disk_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    def full(state, path):
        path.write_bytes(b"a part")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    file = tmp_path / "0.pt"
    found = train_seeds(Tilt(), samples(), Costs(), Training(epochs=3), [0], checkpoints={0: file})
    equal(found[0], train(Tilt(), samples(), Costs(), Training(epochs=3)))
    assert caplog.text.count("cannot be written, training goes on without") == 1
    assert not list(tmp_path.iterdir())
