"""A real cluster of two worker processes on this machine, one of them killed in the middle."""

import os
import signal
import threading
import time

import dask
import distributed
import pytest
from comparisons import same
from markets import random_walks

from data_loaders import Panel
from engine import Costs, Training, WalkForward, backtest
from engine.compute.executors import ClusterError, on_cluster
from engine.compute.worker_pool import start_server
from engine.research.search import Search, search
from engine.runs.ledger import TrialLedger
from engine.runs.run_directory import RunDirectory
from strategies import DEQMeanVariance, MinimumVariance

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
TRAINING = Training(epochs=3, patience=6, block=20, learning_rate=0.01, ensemble=2)


@pytest.fixture(scope="module")
def cluster():
    """Workers are forked from a process that has imported what they need, once."""
    start_server("distributed", "engine.research.trials", "optuna", "strategies", "vectorbt")
    method = {"distributed.worker.multiprocessing-method": "forkserver"}
    with (
        dask.config.set(method),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=":0",
            silence_logs=60,
        ) as cluster,
    ):
        yield cluster


def kill_one(cluster):
    process = next(nanny.pid for nanny in cluster.workers.values() if nanny.pid)
    os.kill(process, signal.SIGKILL)
    return process


def run(**where):
    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.5)
    panel = random_walks(880, 4)
    return backtest(strategy, panel, PLAN, Costs(), TRAINING, progress=False, **where)


@pytest.mark.filterwarnings("ignore")  # of a killed worker's connections
def test_a_killed_worker_changes_nothing(cluster, tmp_path, monkeypatch):
    expected = run()["DEQMeanVariance"]
    killed: list[int] = []
    sent: list[int] = []
    store, reduce = RunDirectory.store, Panel.__reduce__

    def pickled(self):
        sent.append(len(self))
        return reduce(self)

    monkeypatch.setattr(Panel, "__reduce__", pickled)
    with distributed.Client(cluster) as client:
        assert len(client.scheduler_info()["workers"]) == 2

        def store_and_kill(self, key, fitted):
            """When the first fit is kept, the others wait or run: kill a worker then."""
            store(self, key, fitted)
            if not killed:
                killed.append(kill_one(cluster))

        monkeypatch.setattr(RunDirectory, "store", store_and_kill)
        found = run(executor=client.get_executor(), run_dir=tmp_path / "run")["DEQMeanVariance"]
    assert len(killed) == 1
    assert sent == [880]  # for both workers, for all tasks, and for the worker that came anew
    same(found, expected)
    assert len(list((tmp_path / "run" / "fits").iterdir())) == 6


@pytest.mark.filterwarnings("ignore")
def test_a_search_outlives_a_worker_on_a_cluster_of_the_same_code(cluster, tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path}/trials.sqlite3"
    asked = Search({"cap": {"low": 0.3, "high": 0.9}}, trials=6, folds=2, pruning=False, stale=6)
    killed: list[int] = []

    def kill() -> None:
        limit = time.monotonic() + 240
        while time.monotonic() < limit and TrialLedger(storage).trials()["runs"].sum() < 2:
            time.sleep(0.1)
        killed.append(kill_one(cluster))

    killer = threading.Thread(target=kill)
    with on_cluster(cluster.scheduler_address) as executor:
        killer.start()
        found = search(
            MinimumVariance(lookback=64),
            random_walks(880, 4),
            PLAN,
            ranges=asked,
            storage=storage,
            executor=executor,
        )
    killer.join()
    assert killed
    assert list(found.trials.index) == list(range(6))
    assert set(found.trials["state"]) == {"complete"}
    assert TrialLedger(storage).trials()["runs"].sum() in (6, 7)  # what was killed, once more
    ours = "engine.compute.executors.PACKAGES"
    monkeypatch.setattr(ours, ("engine",))  # not those of the workers
    refused = pytest.raises(ClusterError, match="other code than here runs on")
    with refused, on_cluster(cluster.scheduler_address):
        pass
    cluster.scale(0)
    while cluster.scheduler_info["workers"]:
        time.sleep(0.05)
    refused = pytest.raises(ClusterError, match="has no worker")
    with refused, on_cluster(cluster.scheduler_address):
        pass
