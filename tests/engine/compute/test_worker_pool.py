"""Worker processes: results, deaths, and an end that is quick and quiet."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import suppress
from multiprocessing import active_children, get_context

import numpy as np
import pytest

from engine.compute.worker_pool import WorkerPool, WorkerTraceback, local_processes


def square(x):
    return os.getpid(), x * x


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail(message):
    raise ValueError(message)


class TwoWords(Exception):
    """Is made of two arguments and pickled with one: it cannot be unpickled."""

    def __init__(self, first, second):
        super().__init__(first + second)


def fail_in_two_words():
    raise TwoWords("no ", "money")


def make_lambda():
    return lambda: None


@pytest.fixture(scope="module")
def pool():
    with local_processes(2) as pool:
        yield pool


def test_tasks_are_shared_and_results_copied(pool):
    big = np.arange(1e6)  # more than a pipe holds
    futures = [pool.submit(square, big + k) for k in range(6)]
    for k, future in enumerate(futures):
        np.testing.assert_array_equal(future.result()[1], (big + k) ** 2)
    where = {future.result()[0] for future in futures}
    assert len(where) == 2
    assert os.getpid() not in where


def test_errors_come_back_with_their_place(pool):
    with pytest.raises(ValueError, match="^no such market$") as caught:
        pool.submit(fail, "no such market").result()
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="TwoWords: no money"):
        pool.submit(fail_in_two_words).result()
    with pytest.raises(RuntimeError, match="function cannot be sent back"):
        pool.submit(make_lambda).result()
    with pytest.raises(Exception, match="lambda"):
        pool.submit(lambda: 1).result()
    assert pool.submit(square, 3).result()[1] == 9


def test_a_dead_worker_takes_only_its_task_with_it():
    with local_processes(1) as pool:
        before = pool.submit(square, 2)
        dead = pool.submit(die)
        after = pool.submit(square, 3)
        with pytest.raises(BrokenExecutor, match="ended with code -9 in the middle of a task"):
            dead.result()
        assert after.result()[1] == 9
        assert before.result()[0] != after.result()[0]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(square, 2)


def test_kill_ends_what_runs_and_cancels_what_waits():
    before, futures = set(active_children()), []

    def stop_in_the_middle():
        with local_processes(1) as pool:
            assert pool.submit(square, 2).result()[1] == 4  # it has begun
            futures.extend([pool.submit(time.sleep, 600), pool.submit(square, 2)])
            while not futures[0].running():
                time.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_in_the_middle()
    running, waiting = futures
    with pytest.raises(BrokenExecutor):
        running.result(timeout=60)
    with pytest.raises(CancelledError):
        waiting.result(timeout=60)
    assert set(active_children()) <= before
    with local_processes(1) as pool:  # on a new server, if the old one is gone
        assert pool.submit(square, 5).result()[1] == 25


class Unreadable:
    def __reduce__(self):
        return fail, ("no licence",)


def test_a_worker_that_cannot_start_says_so():
    with WorkerPool(1, get_context("spawn"), shared=Unreadable()) as pool:
        future = pool.submit(square, 1)
    with pytest.raises(BrokenExecutor, match="ended with code 1"):
        future.result()


SCRIPT = """
import sys
sys.path[:0] = ["tests/support", "."]
from pathlib import Path
from engine import Training
from engine.walking.fitting import FitTask
from markets import random_walks
from small_runs import run

fit = FitTask.run
def told(*given):  # in the workers, which read this script, too
    Path(sys.argv[1], "trains").touch()
    return fit(*given)
FitTask.run = told

if __name__ == "__main__":
    many = Training(epochs=500, patience=500, block=20, learning_rate=0.01)
    print("begun", flush=True)
    try:
        run(random_walks(880, 4), many, workers=2, run_dir=Path(sys.argv[1], "run"))
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.parametrize("when", ["workers begin", "workers train"])
def test_ctrl_c_with_workers_is_clean(tmp_path, when):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # held open by all that it begins: read to the end, they are gone
        text=True,
        start_new_session=True,  # a group of its own, to interrupt as a terminal does
    )
    try:
        first = process.stdout.readline()
        assert first == "begun\n", process.communicate()
        limit = time.monotonic() + 120
        while when == "workers train" and not (tmp_path / "trains").exists():
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert (out, err) == ("stopped\n", "")
    # CPython ends by the signal, though it was caught, where it fell into an exec of text.
    assert process.returncode in (0, -signal.SIGINT)


STARTS_SERVER = """
import signal
from multiprocessing import forkserver
from pathlib import Path
from engine.compute.worker_pool import start_server
start_server()
status = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()
mask = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
print(bool(mask >> (signal.SIGINT - 1) & 1), signal.SIGINT in signal.pthread_sigmask(0, []))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks of a server on Linux only")
def test_the_server_of_the_workers_never_receives_ctrl_c():
    run = [sys.executable, "-W", "ignore", "-c", STARTS_SERVER]
    out = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout
    assert out == "True False\n"  # blocked in the server from its start, and not here


LEAVES = """
import os, signal
from engine.compute.worker_pool import start_server
if __name__ == "__main__":
    start_server()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no worker server elsewhere")
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LEAVES)
    places = []
    with tempfile.TemporaryDirectory() as folder:  # whose name is short, as a socket's must be
        for _ in range(2):
            environment = {**os.environ, "TMPDIR": folder}
            subprocess.run([sys.executable, script], env=environment, check=False)
            (place,) = os.listdir(folder)
            places.append(place)
    assert places[0] != places[1]
    assert all(place.startswith("deqfolio-") for place in places)
