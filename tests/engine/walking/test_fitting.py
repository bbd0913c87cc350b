"""Where and when a fit runs changes nothing about its result."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from comparisons import same
from markets import random_walks
from small_runs import BRIEF as QUICK
from small_runs import MONTHLY as PLAN
from small_runs import run

from data_loaders import Panel
from engine import Costs, RunMismatch, Training, backtest, load_run
from engine.compute.executors import Parcel, WorkerLost
from engine.runs.run_directory import unfinished
from engine.runs.run_files import RunNotWritten
from engine.walking.fitting import FitTask
from engine.walking.learner import Learner
from strategies import DEQMeanVariance

NAME = "DEQMeanVariance"


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


@pytest.fixture(scope="module")
def uninterrupted(panel):
    return run(panel)


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_an_interrupted_run_resumes_to_the_same_result(
    panel, uninterrupted, finished, tmp_path, monkeypatch
):
    fits = []
    make = FitTask.run

    def stop_after(self, learner, on_epoch):
        if len(fits) == finished:
            raise KeyboardInterrupt
        fits.append(self.key)
        return make(self, learner, on_epoch)

    monkeypatch.setattr(FitTask, "run", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(panel, run_dir=tmp_path / "run")
    count = [0]

    def counted(self, learner, on_epoch):
        count[0] += 1
        return make(self, learner, on_epoch)

    monkeypatch.setattr(FitTask, "run", counted)
    resumed = run(panel, run_dir=tmp_path / "run")
    assert count[0] == 3 - finished
    loaded = load_run(tmp_path / "run")
    for name, result in uninterrupted.items():
        same(result, resumed[name])
        same(result, loaded[name])


def test_a_killed_process_leaves_whole_fits_only(panel, uninterrupted, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nsys.path[:0] = ['tests/support', '.']\n"
        "from markets import random_walks\nfrom small_runs import run\n"
        f"run(random_walks(880, 4), run_dir={str(tmp_path / 'run')!r})\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    fits = tmp_path / "run" / "fits"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (fits.is_dir() and any(fits.iterdir())):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(fits.iterdir())
    same(run(panel, run_dir=tmp_path / "run")[NAME], uninterrupted[NAME])
    assert not list(fits.glob(".*"))


def test_another_run_is_refused_or_restarted(panel, tmp_path):
    run(panel, run_dir=tmp_path)
    changed = Training(epochs=1, block=20)
    with pytest.raises(RunMismatch, match="holds another run: training changed since"):
        run(panel, changed, run_dir=tmp_path)
    with pytest.raises(RunMismatch, match="panel changed since"):
        run(random_walks(880, 4, seed=1), run_dir=tmp_path)
    restarted = run(panel, changed, run_dir=tmp_path, restart=True)
    same(restarted[NAME], run(panel, changed)[NAME])


def test_results_come_in_the_order_asked_for(panel, uninterrupted, tmp_path):
    found = run(panel, run_dir=tmp_path)
    assert list(found) == list(load_run(tmp_path)) == list(uninterrupted) == [NAME, "EqualWeight"]
    assert unfinished(tmp_path) == []


def test_a_file_in_the_place_of_the_directory_is_refused(panel, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    for place in ("thesis.txt", "thesis.txt/run"):
        with pytest.raises(RunNotWritten, match=r"thesis.txt is a file, not a folder"):
            run(panel, run_dir=tmp_path / place)


def test_a_directory_with_other_files_is_refused(panel, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(RunMismatch, match="files that are no run"):
        run(panel, run_dir=tmp_path)


def test_two_processes_are_bitwise_identical(panel, uninterrupted):
    same(run(panel, workers=2)[NAME], uninterrupted[NAME])


def test_any_executor_is_bitwise_identical(panel, uninterrupted):
    """Threads of one process share torch's random numbers: they take turns."""
    with ThreadPoolExecutor(3) as pool:
        same(run(panel, executor=pool)[NAME], uninterrupted[NAME])


def test_this_process_prepares_nothing_for_tasks_that_run_elsewhere(
    panel, uninterrupted, monkeypatch
):
    """But one date, to see whether all of them have room in memory."""
    here, sent = [], []
    prepare, reduce = DEQMeanVariance.prepare, Panel.__reduce__

    def counted(self, history):
        here.append(history.dates[-1])
        return prepare(self, history)

    def pickled(self):
        sent.append(len(self))
        return reduce(self)

    monkeypatch.setattr(DEQMeanVariance, "prepare", counted)
    monkeypatch.setattr(Panel, "__reduce__", pickled)
    same(run(panel, workers=2)[NAME], uninterrupted[NAME])
    assert len(here) == 1
    assert sent == [len(panel)]  # once for all workers and tasks


def test_what_tasks_share_is_unpacked_once_in_a_process(panel):
    learners = [Learner(panel, [], PLAN, Costs(), QUICK, 1) for _ in range(2)]
    first, second = (pickle.dumps(Parcel(each)) for each in learners)
    assert pickle.loads(first) is pickle.loads(first)
    assert pickle.loads(first).shared.panel.fingerprint == panel.fingerprint
    held = weakref.ref(pickle.loads(first).shared)
    pickle.loads(second)
    gc.collect()
    assert held() is None  # the next run takes the place of the last


def test_a_worker_that_dies_says_so_and_the_fits_are_kept(panel, tmp_path):
    strategy = DiesInTheSecondFold(lookback=64, hidden=4, cap=0.5)
    with pytest.raises(WorkerLost, match="a worker died .*the same call resumes"):
        backtest(strategy, panel, PLAN, Costs(), QUICK, progress=False, workers=1, run_dir=tmp_path)
    assert len(list((tmp_path / "fits").iterdir())) == 1


def test_an_error_in_a_worker_names_the_fit(panel):
    with pytest.raises(RuntimeError, match="DEQMeanVariance, fold 0, seed 0: .*too few"):
        backtest(DEQMeanVariance(253, cap=0.5), panel, PLAN, workers=1, progress=False)
    with pytest.raises(ValueError, match="not both"), ThreadPoolExecutor(1) as pool:
        run(panel, workers=1, executor=pool)
    with pytest.raises(ValueError, match="whole number from 1 on"):
        run(panel, workers=0)


def test_a_run_on_qpth_ends_where_the_default_does(panel):
    pair = {
        solver: DEQMeanVariance(lookback=64, hidden=4, cap=0.5, solver=solver)
        for solver in ("active_set", "qpth")
    }
    ours, theirs = backtest(pair, panel.rows(0, 560), PLAN, Costs(), QUICK, progress=False).values()
    assert len(ours.targets) > 6
    assert 0 < (theirs.targets - ours.targets).abs().to_numpy().max() < 1e-5
    assert theirs.training["skipped"].sum() == 0


class DiesInTheSecondFold(DEQMeanVariance):
    def build(self, inputs):
        if len(inputs["features"]) > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().build(inputs)


class FailsInTheSecondFold(DEQMeanVariance):
    def build(self, inputs):
        if len(inputs["returns" if "returns" in inputs else next(iter(inputs))]) > 12:
            raise ValueError("no such market")
        return super().build(inputs)


@pytest.mark.parametrize("pooled", [False, True])
def test_an_error_in_a_fit_keeps_the_fits_that_ended(panel, tmp_path, pooled):
    strategy = FailsInTheSecondFold(lookback=64, hidden=4, cap=0.5)
    sizes = [len(fold.train) for fold in PLAN.folds(panel.dates, 64)]
    assert round(sizes[0] * 0.8) <= 13 < round(sizes[1] * 0.8) - 1
    with ThreadPoolExecutor(2) as pool:
        executor = pool if pooled else None
        with pytest.raises(RuntimeError, match="fold 1, seed 0: no such market"):
            backtest(
                strategy, panel, PLAN, Costs(), QUICK, progress=False,
                executor=executor, run_dir=tmp_path,
            )  # fmt: skip
    assert [path.name for path in (tmp_path / "fits").iterdir()] == [
        f"{type(strategy).__name__}-0-0"
    ]


def test_an_ensemble_holds_the_mean_of_its_seeds(panel):
    quick = {"epochs": 2, "block": 20, "learning_rate": 0.01}
    kinds = [Training(**quick, ensemble=2), Training(**quick), Training(**quick, seed=1)]
    # with inertia 0: a network that knows what it holds trades from the mean, not from its own
    both, one, other = (run(panel, training, inertia=0.0)[NAME] for training in kinds)
    np.testing.assert_allclose(both.targets, (one.targets + other.targets) / 2, atol=1e-9)
    assert set(both.states) == {(fold, seed) for fold in range(3) for seed in (0, 1)}
    assert set(both.training["seed"]) == {0, 1}


@pytest.mark.parametrize("workers", [None, 2])
def test_a_warm_refit_starts_from_the_fold_before(panel, workers):
    warm = Training(epochs=2, block=20, learning_rate=0.01, warm_start=True, patience=5)
    result = run(panel, warm, workers=workers)[NAME]
    cold = run(panel)[NAME]
    assert torch.equal(result.states[0, 0]["heads.weight"], cold.states[0, 0]["heads.weight"])
    first = result.training.query("epoch == 0").set_index("fold")["loss"]
    assert first[0] == cold.training.query("epoch == 0 and fold == 0")["loss"].item()
    scalers = [result.states[fold, 0]["scaler.mean"] for fold in (0, 1)]
    assert not torch.equal(*scalers)  # fitted anew; only what was trained is carried over
