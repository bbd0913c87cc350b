"""Ctrl-C at any moment ends the program in one line, with exit code 130."""

import signal
import subprocess
import sys
import time

import pytest
from markets import random_walks

PROGRAM = """
import sys
from deqfolio.__main__ import program
print("listening", flush=True)  # before, there is only Python itself
sys.exit(program())
"""
TRAIN = ["--strategy", "DEQMeanVariance", "--set", "DEQMeanVariance.lookback=64"]
TRAIN += ["--set", "training.epochs=100000", "--set", "training.patience=100000"]
TRAIN += ["--train", "18M", "--refit", "9M", "--rebalance", "ME"]
PIPED = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def messages(errors):
    """The lines on standard error, without those that tell of the data and of training."""
    lines = [line for line in errors.splitlines() if line]
    return [line for line in lines if not line.startswith(("warning: ", "Panel(", "20"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    random_walks(900, 5).prices.to_csv(folder / "prices.csv")
    return folder


@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 0.6, 1, 2])
def test_interrupted_at_many_moments(folder, seconds):
    words = ["backtest", "--data", "prices.csv", *TRAIN, "--out", f"run-{seconds}"]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=folder, **PIPED) as run:
        try:
            assert run.stdout.readline() == "listening\n"
            time.sleep(seconds)  # whatever it does by then
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    (line,) = messages(errors)
    assert line in ("stopped", f"stopped; resume with: deqfolio resume run-{seconds}")


START = """
import atexit, os, signal
from deqfolio import interrupts
interrupts.listen()
interrupt = lambda *_, kill=os.kill, me=os.getpid(), which=signal.SIGINT: kill(me, which)
Late = type("Late", (), {"__del__": interrupt})
"""


def outcome(script, **options):
    return subprocess.run(
        [sys.executable, "-c", START + script],
        timeout=60,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    "script",
    [
        "interrupt()",
        "atexit.register(interrupt)",
        "with interrupts.Interruptible('stopped'): interrupt()",
        "with interrupts.Interruptible('stopped'): Late()",
        "with interrupts.Interruptible('stopped'):\n"
        "    try: interrupt()\n"
        "    except KeyboardInterrupt: interrupt()",
        "with interrupts.Interruptible('stopped'):\n"
        "    try: interrupt()\n"
        "    except KeyboardInterrupt: raise ImportError",
        "interrupts.PATIENCE = 0.1\n"
        "with interrupts.Interruptible('stopped'):\n"
        "    try: interrupt()\n"
        "    except KeyboardInterrupt: pass\n"
        "    while True: pass",
    ],
    ids=["anywhere", "atexit", "in a block", "in a destructor", "twice", "replaced", "swallowed"],
)
def test_one_line_whatever_is_interrupted(script):
    told = outcome(script)
    assert (told.returncode, told.stderr) == (130, "\nstopped\n")


def test_a_program_that_has_done_everything_is_not_stopped():
    told = outcome("import builtins; builtins.late = Late(); print('done')")
    assert (told.returncode, told.stdout, told.stderr) == (0, "done\n", "")


def test_ctrl_c_stays_ignored_where_it_was():
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    told = outcome("interrupt(); print('done')", **ignored)
    assert (told.returncode, told.stdout, told.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    "script",
    ["interrupt()", "with interrupts.Interruptible('stopped'): interrupt()"],
    ids=["anywhere", "in a block"],
)
def test_sigterm_is_as_clean(script):
    told = outcome("import functools\ninterrupt = functools.partial(interrupt, "
                   "which=signal.SIGTERM)\n" + script)  # fmt: skip
    assert (told.returncode, told.stderr) == (143, "\nstopped\n")
