"""Attacks on processes and file systems; ``attacks.py`` runs them.

A command is run in a fork of this process, which has imported everything, so that it is at work
from its first millisecond. Those with two workers, or with another clock, are processes of their
own.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from learned import Softmax  # noqa: F401 - imported here, not in each fork
from markets import random_walks

from data_loaders import yahoo_histories, yahoo_requests
from data_loaders.store import Store
from deqfolio import main
from engine import load_run, verify_run

SUPPORT = Path(__file__).parent
RUN = ["backtest", "--data", "prices.csv", "--strategy", "tiny.py:Softmax"]
RUN += ["--strategy", "EqualWeight", "--train", "120", "--refit", "70", "--rebalance", "5"]
RUN += ["--set", "training.epochs=3", "--set", "training.block=8"]
COMMANDS = {
    "backtest": [*RUN, "--out", "run"],
    "resume": ["resume", "part"],
    "sweep": ["sweep", "sweep.toml"],
    "report": ["report", "done"],
    "orders": ["orders", "done", "--job", "job.sqlite3", "--cash", "1000000", "--anyway",
               "--as-of", "2011-01-01", "--out", "orders.json"],
    "refresh": ["refresh", "80"],
}  # fmt: skip
SWEEP = """
data = {source = "prices.csv"}
plan = {train = 200, rebalance = 20}
strategies = [{class = "MinimumVariance", lookback = 21}]
[sweep]
trials = 5
folds = 1
pruning = false
stale = 4
ranges = {cap = {low = 0.4, high = 1.0}}
"""
IMPORTED = ("alembic", "arch.bootstrap", "matplotlib.pyplot", "optuna", "sqlalchemy",
            "statsmodels.api", "torch._dynamo", "vectorbt", "zoneinfo")  # fmt: skip
BUSY = ("is in use by process", "another process works on")


def _stored(days: int) -> None:
    """Four histories of Yahoo, so many days of them, in the folder ``store``."""
    from yahoo_server import History, LocalSession, serving

    dates = pd.bdate_range("2024-01-02", periods=days)
    now = (dates[-1] + pd.Timedelta("34h")).tz_localize("America/New_York").tz_convert("UTC")
    with (
        serving() as server,
        mock.patch.object(yahoo_requests, "_session", return_value=LocalSession(server.address)),
        mock.patch.object(yahoo_requests, "now", return_value=now),
    ):
        for number, name in enumerate(NAMES):
            noise = np.random.default_rng(number).normal(0, 0.01, 99)[:days]
            server.histories[name] = History(dates, 100 * np.exp(noise.cumsum()))
        policy = yahoo_requests.Policy(timeout=5, attempts=1, pause=0.0, deadline=30)
        fetched = yahoo_histories.fetch(NAMES, Store("store"), policy=policy)
    if failed := [each.message for each in fetched if each.status == "failed"]:
        raise OSError(failed[0])


NAMES = ["SPY", "TLT", "GLD", "IEF"]


def work(words: list[str]) -> int:
    if words[0] == "refresh":
        try:
            _stored(int(words[1]))
        except OSError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        return 0
    return main(words)


def begun(words: list[str], place: Path, said: Path, user: int = 0, umask: int = 0o022) -> int:
    """The number of a process that runs a command in a folder, in a fork of this one."""
    if process := os.fork():
        return process
    code = 99
    try:
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        os.umask(umask)
        os.chdir(place)
        os.environ["DEQFOLIO_STORAGE"] = f"sqlite:///{place}/trials.sqlite3"
        os.environ["HOME"] = str(place)
        if user:
            os.setgroups([]), os.setgid(user), os.setuid(user)
        code = work(words)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def apart(words: list[str], place: Path, said: Path, before: tuple[str, ...] = ()) -> int:
    """Likewise, a process of its own; ``before`` is a program that starts it."""
    environment = {**os.environ, "DEQFOLIO_STORAGE": f"sqlite:///{place}/trials.sqlite3"}
    environment["PYTHONPATH"] = f"{SUPPORT}:{SUPPORT.parents[1]}"
    with said.open("w") as log:
        return subprocess.Popen(
            [*before, sys.executable, "-W", "ignore", "-m", "deqfolio", *words],
            cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True,
        ).pid  # fmt: skip


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def outcome(name: str, place: Path) -> object:
    """What a command leaves, apart from when and how fast it was run."""
    if name in ("backtest", "resume"):
        folder = place / ("run" if name == "backtest" else "part")
        assert set(verify_run(folder).values()) == {"ok"}
        return {key: one.net_returns.to_numpy().tobytes() for key, one in load_run(folder).items()}
    if name == "sweep":
        table = pd.read_csv(place / "runs/sweep/trials.csv").drop(columns="seconds")
        return table.to_csv(), (place / "runs/sweep/best.toml").read_text()
    if name == "report":
        assert (place / "done/report.html").stat().st_size > 10_000
        return (place / "done/report-tables/metrics.csv").read_text()
    if name == "orders":
        with closing(sqlite3.connect(place / "job.sqlite3")) as job:
            events = job.execute("SELECT kind, date FROM events ORDER BY id").fetchall()
        return events, json.loads((place / "orders.json").read_text())["orders"]
    store = Store(place / "store")
    assert not any(error for _, _, error in store.verify())
    return {each: store.read(store.latest(each)).to_csv() for each in store.names()}


def litter(place: Path) -> list[str]:
    return [
        p.name for p in place.rglob(".*") if p.suffix == ".part" or p.name.startswith(".report")
    ]


class Bench:
    """A folder in which every command can be run, and what each leaves there, and takes."""

    def __init__(self, root: Path, names: tuple[str, ...] = tuple(COMMANDS)):
        self.root, self.base, self.said = root, root / "base", root / "said"
        self.base.mkdir()
        random_walks(260, 3).prices.to_csv(self.base / "prices.csv")
        (self.base / "sweep.toml").write_text(SWEEP)
        code = f"import sys\nsys.path.insert(0, {str(SUPPORT)!r})\nfrom learned import Softmax\n"
        (self.base / "tiny.py").write_text(code)
        first = [[*RUN, "--out", "done"]] if {"resume", "report", "orders"} & set(names) else []
        first += [["refresh", "60"]] if "refresh" in names else []
        for words in first:
            assert ended(begun(words, self.base, self.said)) == 0, self.said.read_text()
        if (self.base / "done").exists():
            part = Path(shutil.copytree(self.base / "done", self.base / "part"))
            (part / "run.json").unlink()
            for folder in [*part.glob("0*"), *part.glob("fits/*-1-0")]:
                shutil.rmtree(folder)
        self.whole: dict[str, object] = {}
        self.seconds: dict[str, float] = {}
        for name in names:
            place, start = self.copy(), time.monotonic()
            assert ended(begun(COMMANDS[name], place, self.said)) == 0, self.said.read_text()
            self.seconds[name] = time.monotonic() - start
            self.whole[name] = outcome(name, place)
            shutil.rmtree(place)

    def copy(self, place: Path | None = None) -> Path:
        place = place or Path(tempfile.mkdtemp(dir=self.root)) / "here"
        shutil.copytree(self.base, place, dirs_exist_ok=True)
        return place

    def judged(self, name: str, place: Path, process: int | None = None) -> str:
        """What became of a command that is run (again) to its end."""
        process = process or begun(COMMANDS[name], place, self.said)
        limit = time.monotonic() + 300
        while (found := os.waitpid(process, os.WNOHANG))[0] == 0:
            if time.monotonic() > limit:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        if code := os.waitstatus_to_exitcode(found[1]):
            return f"not resumed: {name} {code} {self.said.read_text()[-300:]!r}"
        try:
            if outcome(name, place) != self.whole[name]:
                return f"changed in silence: {name}"
        except Exception as error:
            return f"changed in silence: {name}: {error!r}"
        left = litter(place)
        return f"litter: {name} {left}" if left else "ended as without it"

    def told(self, code: int) -> str:
        """How a command that may be refused ended: well, or in a sentence."""
        text = self.said.read_text()
        if code == 0:
            return "ended"
        sentence = "error: " in text or any(each in text for each in BUSY)
        return f"trace: {text[-400:]!r}" if "Traceback" in text or not sentence else "refused"


@contextmanager
def bench(names: tuple[str, ...] = tuple(COMMANDS)) -> Iterator[Bench]:
    for module in IMPORTED if len(names) > 1 else ():  # another user may not read them later
        import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(Path(folder), names)


def kills(count: int, seed: int = 0, names: tuple[str, ...] = tuple(COMMANDS), workers=True):
    """Every command killed at any moment, and run again; a fifth of it with two workers."""
    rng, told = random.Random(seed), Counter()
    with bench(names) as own:
        for number in range(count):
            name = names[number % len(names)]
            place, two = own.copy(), workers and number % 10 in (0, 2) and name[0] in "bs"
            if two:
                process = apart([*COMMANDS[name], "--workers", "2"], place, own.said)
                time.sleep(rng.uniform(2, 20))
            else:
                process = begun(COMMANDS[name], place, own.said)
                time.sleep(rng.uniform(0, 1.05) * own.seconds[name])
            os.kill(process, signal.SIGKILL)
            told[f"{name}{' with workers' * two} killed" if ended(process) else "ended before"] += 1
            told[own.judged(name, place)] += 1
            shutil.rmtree(place)
    return told


def disk(count: int, seed: int = 0, names: tuple[str, ...] = tuple(COMMANDS)):
    """Every command on a disk that is full at any moment, and again once there is room."""
    rng, told = random.Random(seed), Counter()
    with bench(names) as own:
        for number in range(count):
            name, place = names[number % len(names)], own.root / "disk"
            place.mkdir(exist_ok=True)
            mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
            subprocess.run(mount, check=True)
            try:
                own.copy(place)
                used = shutil.disk_usage(place).used // 1024
                room = used + rng.choice([0, 4, 16, 48, 96, 160, 240, 320])
                resize = ["mount", "-o", f"remount,size={room}k", str(place)]
                subprocess.run(resize, check=True)
                code = ended(begun(COMMANDS[name], place, own.said))
                told[own.told(code)] += 1
                subprocess.run([*resize[:2], "remount,size=64m", str(place)], check=True)
                told[own.judged(name, place)] += 1
            finally:
                subprocess.run(["umount", "--lazy", str(place)], check=True)
    return told


def together(count: int, seed: int = 0, names=("resume", "sweep", "orders", "refresh")):
    """Two processes on one folder, one storage, one ledger, one store."""
    rng, told = random.Random(seed), Counter()
    with bench(names) as own:
        for number in range(count):
            name, place = names[number % len(names)], own.copy()
            logs = [own.root / "said-1", own.root / "said-2"]
            first = begun(COMMANDS[name], place, logs[0])
            time.sleep(rng.uniform(0, 0.7) * own.seconds[name])
            both = [first, begun(COMMANDS[name], place, logs[1])]
            for process, log in zip(both, logs, strict=True):
                code, text = ended(process), log.read_text()
                busy = "told that it is in use" if any(each in text for each in BUSY) else ""
                told["ended" if code == 0 else busy or f"trace: {name}: {text[-400:]!r}"] += 1
            told[own.judged(name, place)] += 1
            shutil.rmtree(place)
    return told


def places(count: int, seed: int = 0, names: tuple[str, ...] = tuple(COMMANDS)):
    """Folders of others, read-only folders, links, a narrow umask, and clocks that jump."""
    told: Counter[str] = Counter()
    with bench(names) as own:
        own.root.chmod(0o755)
        for number in range(count):
            name, way = names[number % len(names)], (number // len(names)) % 5
            place = own.copy()
            place.parent.chmod(0o755)
            if way in (0, 1):  # as an unprivileged user, in a folder of root, or of its own
                own.said.unlink(missing_ok=True)
                if way == 1:
                    for path in [place, *place.rglob("*")]:
                        os.chown(path, NOBODY, NOBODY)
                        path.chmod(0o555 if path.is_dir() else 0o444)
                before = _content(place)
                said = own.told(ended(begun(COMMANDS[name], place, own.said, user=NOBODY)))
                same = _content(place) == before
                told[
                    said if said != "ended" and same else f"changed in silence: {name} {said}"
                ] += 1
            elif way == 2:
                told[
                    own.judged(name, place, begun(COMMANDS[name], place, own.said, umask=0o77))
                ] += 1
            elif way == 3:
                for path in list(place.iterdir()):
                    path.rename(place.parent / path.name)
                    path.symlink_to(place.parent / path.name)
                told[own.judged(name, place)] += 1
            elif name != "refresh":  # the clock of the second process is a year behind
                process = apart(COMMANDS[name], place, own.said, ("faketime", "-f", "+1y"))
                time.sleep(random.Random(seed + number).uniform(4, 16))
                with suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                ended(process)
                told[own.judged(name, place)] += 1
            shutil.rmtree(place.parent)
    return told


NOBODY = 65534


def _content(place: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in place.rglob("*") if p.is_file()}
