"""A real cluster of two worker processes on this machine, one of them killed in the middle."""

import os
import signal
import threading
import time

import distributed
import pytest
from conftest import random_walks
from test_backtest import same

from engine import Costs, Training, WalkForward, backtest
from strategies import DEQMeanVariance

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
TRAINING = Training(epochs=3, patience=6, block=20, learning_rate=0.01, ensemble=2)


def run(**where):
    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.5)
    panel = random_walks(880, 4)
    return backtest(strategy, panel, PLAN, Costs(), TRAINING, progress=False, **where)


def kill_a_worker_in_the_middle(cluster, fits, killed):
    """Once a fit is stored, while others wait or run, kill a worker; note its process id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not killed:
        stored = [path for path in fits.glob("*") if not path.name.startswith(".")]
        alive = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
        if alive and 1 <= len(stored) < 5:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])
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
            target=kill_a_worker_in_the_middle, args=(cluster, tmp_path / "run" / "fits", killed)
        )
        killer.start()
        found = run(executor=client.get_executor(), run_dir=tmp_path / "run")["DEQMeanVariance"]
        killer.join()
    assert len(killed) == 1
    same(found, expected)
    assert len(list((tmp_path / "run" / "fits").iterdir())) == 6
