"""A fit that is killed resumes from its last epoch, and ends bitwise identical."""

import subprocess
import sys
from io import BytesIO

import pytest
import torch
from comparisons import equal, same
from learned import Tilt, samples
from markets import random_walks
from sklearn.base import clone
from small_runs import MONTHLY as PLAN
from small_runs import QUICK, SMALL, given

import engine.training.progress
from engine import Costs, Training, backtest, train
from strategies import DEQMeanVariance, LinearMeanVariance

LONG = Training(epochs=10, block=12, learning_rate=0.002, patience=10, noise=0.2, schedule="cosine")


class Killed(BaseException):
    """As of a process: nothing catches it."""


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch):
    monkeypatch.setattr(engine.training.progress, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def killed_at(epoch, strategy, data, file, training=LONG):
    def stop(row):
        if row["epoch"] == epoch:
            raise Killed

    with pytest.raises(Killed):
        train(clone(strategy), data, Costs(), training, stop, checkpoint=file)


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
def test_a_killed_training_resumes_bitwise(panel, strategy, epoch, tmp_path):
    data, file = given(panel, strategy), tmp_path / "0.pt"
    whole = train(clone(strategy), data, Costs(), LONG)
    killed_at(epoch, strategy, data, file)
    rows = []
    resumed = train(clone(strategy), data, Costs(), LONG, rows.append, checkpoint=file)
    assert rows[0]["epoch"] == epoch  # it was killed before that one was kept
    equal(whole, resumed)


def test_a_training_that_was_over_is_not_trained_again(panel, tmp_path):
    strategy = DEQMeanVariance(**SMALL)
    data, file, epochs = given(panel, strategy), tmp_path / "0.pt", []
    one = train(strategy, data, Costs(), QUICK, checkpoint=file)
    again = train(strategy, data, Costs(), QUICK, epochs.append, checkpoint=file)
    assert not epochs
    equal(one, again)


def test_files_hold_plain_values_and_are_whole(tmp_path):
    file = tmp_path / "0.pt"
    train(Tilt(), samples(), Costs(), Training(epochs=3), checkpoint=file)
    stored = torch.load(file, weights_only=True)
    assert stored["epoch"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["0.pt"]
    file.write_bytes(file.read_bytes()[:100])  # as a full disk leaves it
    again = train(Tilt(), samples(), Costs(), Training(epochs=3), checkpoint=file)
    equal(again, train(Tilt(), samples(), Costs(), Training(epochs=3)))


def test_no_file_where_there_is_no_folder(tmp_path):
    """As on another machine of a cluster."""
    file = tmp_path / "elsewhere" / "0.pt"
    train(Tilt(), samples(), Costs(), Training(epochs=2), checkpoint=file)
    assert not file.parent.exists()


def test_a_killed_backtest_resumes_inside_a_fold(panel, tmp_path):
    long = Training(epochs=5, block=12, learning_rate=0.002, patience=5)

    def run(**rest):
        return backtest(
            DEQMeanVariance(**SMALL), panel, PLAN, training=long, progress=False, ledger=False,
            **rest,
        )["DEQMeanVariance"]  # fmt: skip

    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\nsys.path[:0] = ['tests/support', '.']\n"
        "from engine.training import progress\nprogress.SECONDS = 0.0\n"
        "save = progress.Checkpoint.save\n"
        "def save_and_die(self, progress):\n"
        "    save(self, progress)\n"
        "    if progress.epoch == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "progress.Checkpoint.save = save_and_die\n"
        "from markets import random_walks\nfrom small_runs import MONTHLY, SMALL\n"
        "from engine import Training, backtest\nfrom strategies import DEQMeanVariance\n"
        "backtest(DEQMeanVariance(**SMALL), random_walks(880, 4), MONTHLY, progress=False,"
        " training=Training(epochs=5, block=12, learning_rate=0.002, patience=5),"
        f" ledger=False, run_dir={str(tmp_path / 'run')!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    checkpoints = tmp_path / "run" / "checkpoints"
    process.wait(240)
    (left,) = checkpoints.glob("[!.]*")
    assert 1 <= torch.load(BytesIO(left.read_bytes()), weights_only=True)["epoch"] < 5
    same(run(run_dir=tmp_path / "run"), run())
    assert not checkpoints.exists()


def test_a_full_disk_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    def full(state, path):
        path.write(b"a part")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    file = tmp_path / "0.pt"
    found = train(Tilt(), samples(), Costs(), Training(epochs=3), checkpoint=file)
    equal(found, train(Tilt(), samples(), Costs(), Training(epochs=3)))
    assert caplog.text.count("cannot be written, training continues without") == 1
    assert not list(tmp_path.iterdir())
