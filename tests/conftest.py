"""Data shared by the tests: real prices, and small random ones."""

import os
import signal
import sys

import pytest
import torch
from machine import ALLOW_SKIP, CHROMIUM
from markets import random_walks

from data_loaders import Panel, load
from engine.compute.worker_pool import PRELOAD

torch.set_num_threads(1)  # the problems are small: more threads only wait for each other


def pytest_configure(config):
    """Tests train on little data, on purpose; that training warns of it has tests of its own."""
    config.addinivalue_line("filterwarnings", "ignore::engine.training.fit_records.TrainingWarning")


@pytest.fixture(scope="session", autouse=True)
def _own_ledger(tmp_path_factory):
    """Trials of the tests are none of the user's."""
    file = tmp_path_factory.mktemp("ledger") / "trials.sqlite3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEQFOLIO_STORAGE", f"sqlite:///{file}")
        yield


def _inherited() -> dict[str, str]:
    """What decides how a process runs; libraries set others when they are imported."""
    told = ("DEQFOLIO", "HOME", "NUMBA", "PATH", "PYTHON", "TMPDIR", "XDG")
    return {name: value for name, value in os.environ.items() if name.startswith(told)}


@pytest.fixture(autouse=True)
def _leaves_the_environment():
    """Every process that later tests start would inherit what a test leaves there."""
    before = _inherited()
    yield
    assert _inherited() == before


@pytest.fixture(autouse=True)
def _begins_as_if_alone():
    """Where a test works, imports from and draws random numbers is not up to those before it."""
    folder, path, state = os.getcwd(), list(sys.path), torch.get_rng_state()
    yield
    os.chdir(folder)
    sys.path[:] = path
    torch.set_rng_state(state)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session", autouse=True)
def _workers_have_imports():
    """The server of the workers imports once what each of a test's few tasks would import anew."""
    more = "engine.walking.session", "strategies.deq_network", "strategies.deq"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.compute.worker_pool.PRELOAD", (*PRELOAD, *more))
        yield


@pytest.fixture(scope="session", autouse=True)
def _hears_ctrl_c():
    """What a script starts in the background ignores Ctrl-C, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stocks() -> Panel:
    """20 US stocks, daily, 2000 to 2005."""
    return load("sp500", start="2000-01-01", end="2005-12-31")


@pytest.fixture
def walks() -> Panel:
    """5 random walks on 900 business days from 2010, seed 0."""
    return random_walks(900, 5)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if ALLOW_SKIP:
            pytest.skip("playwright is not installed")
        raise
    if not CHROMIUM.exists() and ALLOW_SKIP:
        pytest.skip(f"{CHROMIUM} is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()
