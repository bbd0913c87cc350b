import os
import random
import signal
import sqlite3
import time
from contextlib import closing

import pandas as pd
import pytest

from engine.runs.run_files import RunDamaged
from engine.trading.account import Account, OrderError
from engine.trading.job import Job, read_fills


def day_of(number):
    return str(pd.Timestamp("2024-01-01") + pd.Timedelta(days=number))


def document(number, order):
    return {
        "decided": day_of(number),
        "run": {"strategy": "S"},
        "capital": 100.0 + number,
        "cash after": 100.0 + number,
        "made with": {"accepted changes": []},
        "orders": [
            {"asset": "A", "held": 0.0, "order": order, "price": 1.0, "cost": 0.5, "price_date": ""}
        ],
    }


def test_fifty_kills_leave_a_ledger_of_whole_days(tmp_path):
    """Of each day there are the orders, the fills and the account that follows, or none."""
    path, whole = tmp_path / "job.db", set()
    with Job(path).day() as job:
        job.state_account(Account(cash=100.0), day_of(0))
    choose = random.Random(0)
    for number in range(50):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if number % 2:  # every other one writes a day before it may be killed
                os.write(writing, b".")
            while True:
                own = Job(path)
                with own.day():
                    done = len(own.events("orders"))
                    own.add_orders(document(done + 1, 1.0))
                    own.add("fills", day_of(done + 1), {"fills": []})
                    own.state_account(Account(cash=done + 1.0), day_of(done + 1))
                os.write(writing, b".")
        os.read(reading, 1)  # it has begun
        os.close(reading), os.close(writing)
        time.sleep(choose.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Job(path).day() as job:
            dates = [[d for k, d, _ in job.events(kind)] for kind in ("orders", "fills", "account")]
            whole.add(len(dates[0]))
        assert dates[0] == dates[1] == dates[2][1:]
        assert dates[0] == [day_of(n + 1) for n in range(len(dates[0]))]
    assert max(whole) >= 25
    with Job(path).day() as job:
        assert job.account().cash == max(whole)


def test_a_deposit_is_money_until_it_is_in_the_account(tmp_path):
    with Job(tmp_path / "job.db").day() as job:
        job.state_account(Account(cash=100.0), "2024-01-01")
        for _ in range(2):
            job.note_deposit("2024-01-01", 7.0)
        job.note_deposit("2024-01-02", 5.0)
        assert job.account().deposit == 12
        with pytest.raises(OrderError, match=r"a deposit of \+5.00 is noted for 2024-01-02"):
            job.note_deposit("2024-01-02", 6.0)
        job.add_orders(document(3, 0.0))  # nothing is ordered
        assert (job.account().cash, job.account().deposit) == (103.0, 0.0)
        job.note_deposit("2024-01-05", 4.0)
        job.state_account(Account(cash=107.0), "2024-01-06")  # with it
        assert (job.account().cash, job.account().deposit) == (107.0, 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asset,shares\nA,1\n", "needs the columns asset,shares,price"),
        ("asset,shares,price\nA,one,1\n", "are numbers in every row"),
        ("asset,shares,price\nA,2,1\n", "more than was ordered: A"),
        ("asset,shares,price\nA,-1,1\n", "more than was ordered: A"),
        ("asset,shares,price\nB,1,1\n", "what was not ordered: B"),
    ],
)
def test_fills_that_cannot_be_are_refused(tmp_path, text, message):
    (tmp_path / "fills.csv").write_text(text)
    with Job(tmp_path / "job.db").day() as job:
        job.add_orders(document(1, 1.0))
    with pytest.raises(OrderError, match=message), Job(tmp_path / "job.db").day() as job:
        job.fill(read_fills(tmp_path / "fills.csv"))
    with Job(tmp_path / "job.db").day() as job:
        assert job.events("fills", "account") == []


def test_a_day_that_fails_leaves_nothing(tmp_path):
    job = Job(tmp_path / "job.sqlite3")

    def half_a_day():
        with job.day():
            job.note_deposit("2024-01-02", 100.0)
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        half_a_day()
    with job.day():
        assert job.events("deposit") == []


def test_a_changed_amount_is_not_read(tmp_path):
    path = tmp_path / "job.db"
    with Job(path).day() as job:
        job.state_account(Account(cash=100.0), day_of(0))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE events SET content = replace(content, '100.0', '900.0')")
    with pytest.raises(RunDamaged, match=r"job\.db is damaged"), Job(path).day() as job:
        job.account()
    with closing(sqlite3.connect(path)) as database, database:  # as version 0.1 wrote it
        database.execute("""UPDATE events SET content = '{"shares": {}, "cash": 100.0}'""")
    with Job(path).day() as job:
        assert job.account().cash == 100.0
