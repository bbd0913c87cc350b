"""make attack: damage, kill and deceive the program many times, and count what it does.

python tests/support/attacks.py folders 1000    damaged run folders: numbers that changed in silence
python tests/support/attacks.py settings 1000   damaged TOML files: errors that are no sentence
python tests/support/attacks.py yahoo 1000      damaged answers of Yahoo: likewise
python tests/support/attacks.py kills 100       commands killed at any moment, some with two workers
python tests/support/attacks.py disk 60         commands on a disk that is full (as root)
python tests/support/attacks.py together 40     two processes on one run, store, ledger or storage
python tests/support/attacks.py places 30       folders of others, read-only, linked; other clocks

Each prints a line of figures, and exits with 1 where there is anything to mend. A slice of each is
in the tests.
"""

import json
import os
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from learned import Softmax
from markets import random_walks
from process_attacks import disk, kills, places, together
from run_mutations import mutations

from data_loaders import DataError
from engine import RunDamaged, Training, WalkForward, backtest, load_run, verify_run
from strategies import EqualWeight

PLAN = WalkForward(train=120, refit=70, rebalance=5)
SENTENCES = (ValueError, OSError, RuntimeError, ImportError, DataError)  # one line, by the program
EXPERIMENT = """
[data]
source = "prices.csv"
start = "2010-01-04"
[[strategies]]
class = "MinimumVariance"
lookback = 64
cap = 0.5
[[strategies]]
class = "NoTradeBand"
strategy = {class = "EqualWeight"}
[plan]
train = "1Y"
refit = 60
rebalance = "W-FRI"
holiday = "previous"
[costs]
commission = 0.001
borrow = 0.02
[training]
epochs = 2
loss = "NegativeSharpe"
learning_rate = 0.01
[simulation]
whole_shares = true
risk_free = 0.01
[report]
benchmark = "NoTradeBand"
"""


def figures(results):
    return {name: result.net_returns.to_numpy().tobytes() for name, result in results.items()}


def small_run(folder):
    strategies = {"network": Softmax(), "1/N": EqualWeight()}
    return backtest(
        strategies, random_walks(260, 3), PLAN, training=Training(epochs=2, block=8),
        run_dir=folder, ledger=False, progress=False,
    )  # fmt: skip


def folders(count, seed=0):
    """Damaged run folders, read and verified."""
    told = Counter()
    with tempfile.TemporaryDirectory() as place:
        expected = figures(small_run(f"{place}/run"))
        each = -(-count // len(verify_run(f"{place}/run")))
        for what, damaged in mutations(Path(place, "run"), Path(place, "copy"), each, seed):
            seen = {"damaged", "missing"} & set(verify_run(damaged).values())
            try:
                loaded = load_run(damaged)
            except (RunDamaged, FileNotFoundError):
                told["refused"] += 1
                continue
            except Exception as error:
                told[f"trace: {what}: {error!r}"] += 1
                continue
            if figures(loaded) != expected:
                told[f"changed in silence: {what}"] += 1
            else:
                told["same numbers, verify tells" if seen else "same numbers"] += 1
    return told


def settings(count, seed=0):
    """Damaged TOML files, read up to the objects of the run."""
    from deqfolio.experiments import prepare
    from engine.runs.experiment import read_experiment, read_logs, read_report, read_simulation

    rng, told = random.Random(seed), Counter()
    kept = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        random_walks(500, 3).prices.to_csv("prices.csv")
        try:
            for _ in range(count):
                text = damaged_text(EXPERIMENT, rng)
                Path("x.toml").write_bytes(text)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        asked = read_experiment(Path("x.toml"))
                        read_simulation(asked["simulation"])
                        read_report(asked["report"])
                        read_logs(asked["training"])
                        made = prepare(asked)
                        longest = max(each.lookback for each in made.strategies)
                        made.plan.folds(made.panel.dates, longest)
                except SENTENCES as error:
                    told["refused" if str(error) else f"no words: {error!r}"] += 1
                except Exception as error:
                    told[f"trace: {error!r}: {text!r}"] += 1
                else:
                    told["accepted"] += 1
        finally:
            os.chdir(kept)
    return told


VALUES = ["-1", "0", "1e400", "nan", '""', '"x"', "[]", "[[]]", "{}", "true", "1979-05-27",
          "07:32:00", '"\\u0000"', "99999999999999999999", '"../../etc/passwd"', "[1, 'a']",
          '{class = 3}', '{class = "EqualWeight"}', "'''\n'''"]  # fmt: skip


def damaged_text(text, rng):
    """A TOML file with a few bytes, values, names or lines changed."""
    lines = text.strip().splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        way = rng.randrange(5)
        if way == 0 and "=" in lines[place]:
            lines[place] = f"{lines[place].partition('=')[0]}= {rng.choice(VALUES)}"
        elif way == 1:
            lines[place] = lines[rng.randrange(len(lines))]
        elif way == 2:
            del lines[place]
        elif way == 3:
            name = rng.choice(re.findall(r"\w+", text))
            lines[place] = re.sub(r"\w+", name, lines[place], count=1)
        elif lines[place]:
            at = rng.randrange(len(lines[place]))
            lines[place] = lines[place][:at] + chr(rng.randrange(1, 0x2FF)) + lines[place][at + 1 :]
        if not lines:
            lines = [""]
    content = bytearray("\n".join(lines).encode())
    if content and rng.random() < 0.1:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def yahoo(count, seed=0):
    """Damaged answers of Yahoo's charts: a history that is stored is the one that was sent."""
    from yahoo_server import History, LocalSession, serving

    from data_loaders import yahoo_histories, yahoo_requests
    from data_loaders.store import Store

    rng, told = random.Random(seed), Counter()
    days = pd.bdate_range("2024-01-02", "2024-03-14")
    closes = 100 * np.exp(np.random.default_rng(0).normal(0, 0.01, len(days)).cumsum())
    now = pd.Timestamp("2024-03-15 10:00", tz="America/New_York").tz_convert("UTC")
    policy = yahoo_requests.Policy(timeout=5, attempts=1, pause=0.0, deadline=10)
    with serving() as server, tempfile.TemporaryDirectory() as place:
        server.histories["SPY"] = History(days, closes)
        send = server.RequestHandlerClass.send

        def damaged(handler, status, text, **more):
            send(handler, status, damaged_json(text, rng) if "chart" in text else text, **more)

        with (
            mock.patch.object(server.RequestHandlerClass, "send", damaged),
            mock.patch.object(
                yahoo_requests, "_session", return_value=LocalSession(server.address)
            ),
            mock.patch.object(yahoo_requests, "now", return_value=now),
        ):
            for number in range(count):
                try:
                    (found,) = yahoo_histories.fetch(
                        ["SPY"], Store(f"{place}/{number}"), policy=policy
                    )
                except SENTENCES as error:
                    told["refused" if str(error) else f"no words: {error!r}"] += 1
                except Exception as error:
                    told[f"trace: {error!r}"] += 1
                else:
                    told[found.status] += 1
                    if "Traceback" in found.message or "\n" in found.message:
                        told[f"no sentence: {found.message!r}"] += 1
    return told


def damaged_json(text, rng):
    value = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        at, parent, key = value, None, None
        while isinstance(at, dict | list) and at and (parent is None or rng.random() < 0.85):
            parent, key = at, rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            at = parent[key]
        if parent is None:
            continue
        odd = [None, -1, 0, 1e308, "x", "", [], {}, True, 2**70, [at, at], {"a": at}]
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = rng.choice(odd)
    found = json.dumps(value)
    return found if rng.random() < 0.9 else found[: rng.randrange(len(found))]


ATTACKS = {
    each.__name__: each for each in (folders, settings, yahoo, kills, disk, together, places)
}
BAD = ("trace", "changed", "no words", "no sentence", "litter", "not resumed")


def main():
    name, count = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    told = ATTACKS[name](count, seed)
    bad = {what: times for what, times in told.items() if what.startswith(BAD)}
    good = ", ".join(f"{times} {what}" for what, times in told.items() if what not in bad)
    sys.stdout.write(f"{name}: {good}; {sum(bad.values())} to mend\n")
    for what, times in bad.items():
        sys.stdout.write(f"    {times} x {what}\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
