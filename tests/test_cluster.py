"""A real cluster of two worker processes on this machine, one of them killed in the middle."""

import os
import signal
import threading
import time

import pytest
from conftest import random_walks
from test_backtest import same

from engine import Costs, Training, WalkForward, backtest
from strategies import DEQMeanVariance

distributed = pytest.importorskip("distributed")

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
TRAINING = Training(epochs=3, patience=6, block=20, learning_rate=0.01, ensemble=2)


def run(**where):
    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.5)
    panel = random_walks(880, 4)
    return backtest(strategy, panel, PLAN, Costs(), TRAINING, progress=False, **where)


def kill_a_busy_worker(cluster, fits, killed):
    """Once a fit is stored, kill a worker that is at one; note its process id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not killed:
        stored = [path for path in fits.glob("*") if not path.name.startswith(".")]
        workers = dict(cluster.scheduler.workers)
        busy = [nanny for address, nanny in cluster.workers.items() if stored and nanny.pid]
        at_work = any(state.processing for state in workers.values())
        for nanny in busy if at_work else []:
            state = workers.get(nanny.worker_address)
            if state is not None and state.processing:
                os.kill(nanny.pid, signal.SIGKILL)
                killed.append(nanny.pid)
                return
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore")  # of a killed worker's connections
def test_a_killed_worker_changes_nothing(tmp_path):
    expected = run()["DEQMeanVariance"]
    killed: list[int] = []
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=60,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        killer = threading.Thread(
            target=kill_a_busy_worker, args=(cluster, tmp_path / "run" / "fits", killed)
        )
        killer.start()
        found = run(executor=client.get_executor(), run_dir=tmp_path / "run")["DEQMeanVariance"]
        killer.join()
    assert len(killed) == 1
    same(found, expected)
    assert len(list((tmp_path / "run" / "fits").iterdir())) == 6
