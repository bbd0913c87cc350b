import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from yahoo_server import History, LocalSession, serving

from data_loaders import DataError, commands, load
from data_loaders import yahoo_histories as history
from data_loaders import yahoo_requests as yahoo
from data_loaders.store import Store
from data_loaders.yahoo_histories import fetch, rewritten, status_table
from data_loaders.yahoo_requests import Policy
from deqfolio import main

ROOT = Path(__file__).parents[2]
QUICK = Policy(timeout=1.5, deadline=120, attempts=3, pause=0.01, longest_pause=0.02)
DAYS = pd.bdate_range("2024-01-02", "2024-03-15")  # the last is the server's today


def walk(seed=0, days=DAYS):
    rng = np.random.default_rng(seed)
    return 100 * np.exp(rng.normal(0, 0.01, len(days)).cumsum())


@pytest.fixture
def server(monkeypatch, tmp_path):
    """SPY and TLT at 10:00 in New York on 2024-03-15, a session that is not finished."""
    with serving() as server:
        server.histories = {"SPY": History(DAYS, walk(1)), "TLT": History(DAYS, walk(2))}
        monkeypatch.setattr(yahoo, "_session", lambda: LocalSession(server.address))
        monkeypatch.setattr(history, "POLICY", QUICK)
        monkeypatch.setenv("DEQFOLIO_DATA", str(tmp_path / "store"))
        import yfinance

        yfinance.set_tz_cache_location(str(tmp_path / "yfinance"))
        at(monkeypatch, "2024-03-15 10:00")
        yield server


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def at(monkeypatch, time_in_new_york):
    moment = pd.Timestamp(time_in_new_york, tz="America/New_York").tz_convert("UTC")
    monkeypatch.setattr(yahoo, "now", lambda: moment)


def test_normal_answers(server):
    panel = load("yahoo:spy,TLT", start="2024-02-01")
    assert list(panel.assets) == ["SPY", "TLT"]
    assert panel.dates[0] == pd.Timestamp("2024-02-01")
    assert panel.dates[-1] == pd.Timestamp("2024-03-14"), "the unfinished session is dropped"
    assert panel.dates.tz is None
    expected = server.histories["TLT"].close[DAYS.get_indexer(panel.dates)]
    np.testing.assert_allclose(panel.prices["TLT"], expected, rtol=1e-12)
    assert panel.snapshots.keys() == {"yahoo/SPY", "yahoo/TLT"}
    assert "fetched" in panel.source
    assert any("chosen knowing which exist today" in caveat for caveat in panel.caveats)
    assert [symbol for symbol, *_ in server.requests] == ["SPY", "TLT"], "one request a ticker"


def test_a_second_call_works_offline(server, monkeypatch):
    first = load("yahoo:SPY,TLT")
    monkeypatch.setattr(yahoo, "_yfinance", lambda: pytest.fail("the network was touched"))
    assert load("yahoo:SPY,TLT").fingerprint == first.fingerprint
    assert load("yahoo:TLT", end="2024-02-15").dates[-1] == pd.Timestamp("2024-02-15")


@pytest.mark.parametrize(
    ("moment", "last"),
    [
        ("2024-03-15 09:00", "2024-03-14"),
        ("2024-03-15 16:10", "2024-03-14"),  # closed, but its price is not final
        ("2024-03-15 16:30", "2024-03-15"),
        ("2024-03-16 12:00", "2024-03-15"),
    ],
)
def test_an_unfinished_session_is_dropped(server, monkeypatch, moment, last):
    at(monkeypatch, moment)
    assert load("yahoo:SPY").dates[-1] == pd.Timestamp(last)


def test_other_time_zones_give_their_own_session_dates(server, monkeypatch):
    days = pd.date_range("2024-03-01", "2024-03-15")
    server.histories["7203.T"] = History(DAYS, walk(3), zone="Asia/Tokyo", hours=("09:00", "15:00"))
    server.histories["BTC-USD"] = History(days, walk(4, days), zone="UTC", hours=("00:00", "23:59"))
    at(monkeypatch, "2024-03-14 22:00")  # Tokyo: the 15th, 11:00; UTC: the 15th, 02:00
    panel = load("yahoo:7203.T,BTC-USD")
    assert panel.prices["7203.T"].last_valid_index() == pd.Timestamp("2024-03-14")
    assert panel.prices["BTC-USD"].last_valid_index() == pd.Timestamp("2024-03-14")
    assert panel.prices.loc["2024-03-09"].notna().tolist() == [False, True], "a Saturday"


def test_splits_and_dividends(server, store):
    """4 for 1 on 2024-02-01 after a dividend of 0.5, and one of 1 later."""
    close = walk(5)
    server.histories["AAPL"] = History(
        DAYS, close, {"2024-01-16": 0.5, "2024-03-01": 1.0}, {"2024-02-01": (4, 1)}
    )
    panel = load("yahoo:AAPL")
    ex = pd.Timestamp("2024-03-01")
    row = panel.dates.get_loc(ex)
    by_hand = close[row] / (close[row - 1] - 1.0) - 1
    assert panel.returns["AAPL"].loc[ex] == pytest.approx(by_hand, abs=1e-4)
    features = {name: frame["AAPL"] for name, frame in panel.asset_features.items()}
    before, after = pd.Timestamp("2024-01-31"), pd.Timestamp("2024-02-01")
    raw = pd.Series(close, index=DAYS)
    assert features["close"][before] == pytest.approx(4 * raw[before])
    assert features["close"][after] == pytest.approx(raw[after])
    assert features["volume"][[before, after]].tolist() == [250, 1000]
    assert features["dividends"][pd.Timestamp("2024-01-16")] == pytest.approx(2.0)
    assert features["dividends"].gt(0).sum() == 2
    assert features["splits"][after] == 4
    table = store.read(store.latest("yahoo/AAPL"))
    assert list(table) == list(yahoo.COLUMNS.values())
    assert store.latest("yahoo/AAPL").manifest["parameters"]["auto_adjust"] is False


def test_the_failed_the_empty_and_the_delisted_are_told_apart(server, store):
    for name in ("EMPTY", "NONE", "LIMITED", "SHAPE", "CUT", "ODD", "SLOW", "BROKEN", "ERROR"):
        server.histories[name] = History(DAYS, walk(6))
    server.histories["OLD"] = History(DAYS[:20], walk(7)[:20])
    for name, fault in {
        "EMPTY": "empty", "NONE": "none", "LIMITED": "429", "SHAPE": "shape", "CUT": "cut",
        "ODD": "misaligned", "SLOW": "timeout", "BROKEN": "500", "ERROR": "error",
    }.items():  # fmt: skip
        server.faults[name] = [fault] * 20
    tickers = ["SPY", "GONE", *server.faults, "OLD"]
    found = fetch(tickers, store, policy=QUICK)
    table = status_table(found)
    assert table["status"].to_dict() == {
        "SPY": "ok", "GONE": "delisted", "EMPTY": "empty", "NONE": "empty", "LIMITED": "failed",
        "SHAPE": "failed", "CUT": "failed", "ODD": "failed", "SLOW": "failed", "BROKEN": "failed",
        "ERROR": "failed", "OLD": "ended",
    }  # fmt: skip
    assert "RateLimit" in table["message"]["LIMITED"]
    assert "symbol may be delisted" in table["message"]["GONE"]
    assert "no price after 2024-01-29" in table["message"]["OLD"]
    assert table["rows"].gt(0).tolist() == [t in ("SPY", "OLD") for t in tickers]

    with pytest.raises(DataError, match=r"2 of 3 tickers have no prices: GONE delisted") as caught:
        load("yahoo:SPY,GONE,EMPTY")
    assert caught.value.assets == ["GONE", "EMPTY"]
    panel = load("yahoo:SPY,GONE,EMPTY", allow_missing=True)
    assert list(panel.assets) == ["SPY"]
    assert "Missing, without prices: GONE (delisted), EMPTY (empty)." in panel.caveats
    with pytest.raises(DataError, match="1 of 1 tickers"):
        load("yahoo:GONE", allow_missing=True)


@pytest.mark.parametrize("fault", ["429", "500", "timeout", "shape", "cut", "misaligned", "error"])
def test_a_passing_fault_is_asked_again(server, fault):
    server.faults["SPY"] = [fault] * 2  # yfinance itself repeats an answer of status 400 or more
    assert load("yahoo:SPY").dates[-1] == pd.Timestamp("2024-03-14")


@pytest.mark.parametrize("fault", ["redirect", "huge", "deep", "types"])
def test_hostile_answers_are_one_sentence_and_are_not_stored(server, store, fault):
    server.faults["SPY"] = [fault] * 500
    (found,) = fetch(["SPY"], store, policy=QUICK)
    assert found.status == "failed"
    assert found.message
    assert "\n" not in found.message
    assert len(found.message) <= 200
    assert store.latest("yahoo/SPY") is None
    if fault == "redirect":
        assert "redirected to another host, localhost" in found.message
    server.faults.clear()
    assert fetch(["SPY"], store, policy=QUICK)[0].status == "ok"


def test_a_limited_crumb_is_no_failure(server):
    server.crumb_limited = True
    assert len(load("yahoo:SPY")) == len(DAYS) - 1


def test_a_ticker_without_data_is_not_asked_again_for_a_week(server, store, monkeypatch):
    fetch(["GONE"], store)
    asked = len(server.requests)
    assert fetch(["GONE"], store)[0].status == "delisted"
    assert len(server.requests) == asked
    assert fetch(["GONE"], store, update=True)[0].status == "delisted"
    assert len(server.requests) > asked
    at(monkeypatch, "2024-03-30 10:00")
    server.histories["GONE"] = History(DAYS, walk(8))
    assert fetch(["GONE"], store)[0].table["close"].notna().all()


def test_the_deadline_holds(server, store):
    server.faults["SPY"] = ["timeout"] * 99
    server.faults["TLT"] = ["timeout"] * 99
    policy = Policy(timeout=0.3, deadline=0.8, attempts=50, pause=0.01, longest_pause=0.02)
    started = time.monotonic()
    found = fetch(["SPY", "TLT"], store, policy=policy)
    assert time.monotonic() - started < 12  # 50 attempts would take more than 15 seconds
    assert [one.status for one in found] == ["failed", "failed"]
    assert "deadline" in found[1].message


def test_pauses_grow_and_are_bounded(server, store, monkeypatch):
    server.faults["SPY"] = ["429"] * 99
    slept = []
    monkeypatch.setattr(yahoo.time, "sleep", slept.append)
    policy = Policy(attempts=6, pause=1.0, longest_pause=5.0)
    assert fetch(["SPY"], store, policy=policy)[0].status == "failed"
    assert [pause for pause in slept if pause] == [1, 2, 4, 5, 5]


def test_yahoo_is_asked_one_thing_at_a_time(server, tmp_path):
    server.slowness = 0.05
    server.histories |= {name: History(DAYS, walk(3)) for name in "ABCD"}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda name: fetch([name], Store(tmp_path / "s")), "ABCD"))
    assert [one.status for (one,) in found] == ["ok"] * 4
    assert server.most_at_once == 1


def test_the_network_is_touched_by_yahoo_sources_only():
    script = """
        import socket, sys
        def refuse(*_):
            raise AssertionError("the network was touched")
        socket.socket.connect = socket.getaddrinfo = refuse
        from data_loaders import load
        for source in ("sp500", "sp500_index", "factors", "synthetic:null?rows=9"):
            load(source)
        assert not {"yfinance", "curl_cffi"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_what_was_fetched_before_a_failure_is_kept(server, store):
    server.faults["TLT"] = ["429"] * 20
    with pytest.raises(DataError, match="TLT failed"):
        load("yahoo:SPY,TLT")
    server.faults["TLT"].clear()
    server.requests.clear()
    load("yahoo:SPY,TLT")
    assert [symbol for symbol, *_ in server.requests] == ["TLT"]


def test_an_update_fetches_only_what_is_missing(server, store, monkeypatch):
    first = load("yahoo:SPY")
    at(monkeypatch, "2024-03-18 08:00")
    assert load("yahoo:SPY").fingerprint == first.fingerprint, "only an update moves the data"
    server.requests.clear()
    panel = load("yahoo:SPY", update=True)
    assert panel.dates[-1] == pd.Timestamp("2024-03-15")
    ((_, start, _),) = server.requests
    assert pd.Timestamp(start, unit="s") + pd.Timedelta("1D") == first.dates[-history.OVERLAP]
    old, new = store.snapshots("yahoo/SPY")
    assert new.manifest["replaces"] == old.identity
    assert new.manifest["changed"] == {"days": [], "scale": {}}
    load("yahoo:SPY", update=True)
    assert len(store.snapshots("yahoo/SPY")) == 2, "nothing new, nothing written"
    monkeypatch.setattr(yahoo, "_yfinance", lambda: pytest.fail("the network was touched"))
    then = load("yahoo:SPY", as_of=old.fetched_at + pd.Timedelta("1us"))
    assert then.fingerprint == first.fingerprint
    with pytest.raises(DataError, match="held nothing of it on 2001-01-01"):
        load("yahoo:SPY", as_of="2001-01-01")


def test_todays_orders_fetch_what_is_new(server, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--strategy", "EqualWeight", "--train", "20", "--refit", "10", "--rebalance", "5"]
    words += ["--end", "2024-03-12"]  # orders look at what came since
    assert main(["backtest", "--data", "yahoo:SPY,TLT", *words]) == 0
    at(monkeypatch, "2024-03-18 08:00")
    words = ["--capital", "10000", "--as-of", "2024-03-18", "--anyway"]
    assert main(["orders", "runs/backtest", *words]) == 0
    assert "decided at the close of 2024-03-15" in capsys.readouterr().out


def test_an_update_asks_once_wherever_the_exchange_is(server, store, monkeypatch):
    """In Sydney a session opens at 23:00 UTC of the day before."""
    server.histories["BHP.AX"] = History(
        DAYS, walk(3), zone="Australia/Sydney", hours=("10:00", "16:00")
    )
    load("yahoo:BHP.AX")
    at(monkeypatch, "2024-03-18 08:00")
    server.requests.clear()
    assert load("yahoo:BHP.AX", update=True).dates[-1] == pd.Timestamp("2024-03-15")
    assert len(server.requests) == 1
    assert store.latest("yahoo/BHP.AX").manifest["changed"] == {"days": [], "scale": {}}


def test_an_end_after_the_store_is_fetched(server, monkeypatch):
    load("yahoo:SPY")
    at(monkeypatch, "2024-03-18 08:00")
    assert load("yahoo:SPY", end="2024-03-15").dates[-1] == pd.Timestamp("2024-03-15")


def test_a_new_dividend_is_no_rewriting(server, store, monkeypatch):
    load("yahoo:SPY")
    at(monkeypatch, "2024-03-18 08:00")
    server.histories["SPY"].dividends["2024-03-15"] = 2.0
    load("yahoo:SPY", update=True)
    changed = store.latest("yahoo/SPY").manifest["changed"]
    assert changed["days"] == []
    factor = 1 - 2 / server.histories["SPY"].close[-2]
    assert changed["scale"] == {"adjusted_close": pytest.approx(factor, rel=1e-9)}


def test_a_rewritten_history_is_noticed_and_both_are_kept(server, store, monkeypatch):
    load("yahoo:SPY")
    at(monkeypatch, "2024-03-18 08:00")
    server.histories["SPY"].close[-4] *= 1.02  # 2024-03-12, among the days asked again
    panel = load("yahoo:SPY", update=True)
    old, new = store.snapshots("yahoo/SPY")
    assert new.manifest["changed"] == {"days": ["2024-03-12"], "scale": {}}
    assert store.read(old)["close"]["2024-03-12"] != store.read(new)["close"]["2024-03-12"]
    assert any("Yahoo rewrote 2024-03-12" in caveat for caveat in panel.caveats)
    server.histories["SPY"].close[3] *= 0.5  # long ago: only a full update asks for it
    (found,) = fetch(["SPY"], store, update=True, full=True)
    assert "Yahoo rewrote 2024-01-05" in found.message


def test_a_failed_update_keeps_what_is_stored(server, store, monkeypatch):
    first = load("yahoo:SPY")
    at(monkeypatch, "2024-03-18 08:00")
    server.faults["SPY"] = ["429"] * 20
    panel = load("yahoo:SPY", update=True)
    assert panel.fingerprint == first.fingerprint
    assert any("stored prices to 2024-03-14" in caveat for caveat in panel.caveats)
    del server.histories["SPY"]
    server.faults.clear()
    assert fetch(["SPY"], store, update=True)[0].status == "ended"


def test_a_damaged_snapshot_is_fetched_again(server, store):
    first = load("yahoo:SPY")
    path = next(store.folder.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    panel = load("yahoo:SPY")
    assert panel.fingerprint == first.fingerprint
    assert any("is damaged: its sha256" in caveat for caveat in panel.caveats)
    assert list((store.folder / "damaged").rglob(path.name))
    assert not any("damaged" in caveat for caveat in load("yahoo:SPY").caveats)


def test_rewriting_by_hand():
    old = pd.DataFrame(
        {"close": [10.0, 11, 12, 13], "adjusted_close": [9.0, 10, 11, 12], "volume": 1.0,
         "dividends": [0, 1.0, 0, 0], "splits": 0.0},
        index=DAYS[:4],
    )  # fmt: skip
    assert rewritten(old, old) == {"days": [], "scale": {}}
    split = old.assign(
        close=old["close"] / 2, adjusted_close=old["adjusted_close"] / 2, dividends=[0, 0.5, 0, 0]
    )
    assert rewritten(old, split) == {"days": [], "scale": {"close": 0.5, "adjusted_close": 0.5}}
    assert len(rewritten(old, split, shared=False)["days"]) == 4
    paid = old.assign(dividends=[0, 1.1, 0, 0])
    assert rewritten(old, paid)["days"] == [str(DAYS[1].date())]
    assert rewritten(old, old.drop(DAYS[2]))["days"] == [str(DAYS[2].date())]
    gap = old.assign(close=[10.0, np.nan, 12, 13])
    assert rewritten(old, gap)["days"] == [str(DAYS[1].date())]


def test_bad_tickers_are_named():
    for source, message in (
        ("yahoo:", "expected tickers"),
        ("yahoo:SPY,,TLT", "expected tickers"),
        ("yahoo:SPY,spy", "more than once: SPY"),
    ):
        with pytest.raises(DataError, match=message):
            load(source)
    with pytest.raises(ValueError, match="update, as_of and allow_missing are for yahoo"):
        load("sp500", update=True)
    with pytest.raises(ValueError, match="pass one of them"):
        load("yahoo:SPY", update=True, as_of="2024-01-01")


def command(words, code=0):
    done = CliRunner().invoke(commands.app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_line(server, store, monkeypatch, tmp_path):
    assert "is empty" in command(["list"])
    table = command(["update", "yahoo:SPY,GONE"])
    assert "delisted" in table
    assert "2024-03-14" in table
    at(monkeypatch, "2024-03-18 08:00")
    assert "2024-03-15" in command(["update"]), "all that is stored"
    assert command(["list"]).count("yahoo/SPY") == 2
    shown = command(["show", "yahoo:SPY"])
    assert shown.count('"sha256"') == 2
    assert '"yfinance"' in shown
    with pytest.raises(DataError, match="no snapshot of GONE: delisted"):
        command(["show", "yahoo:GONE"])
    assert "2 snapshots: 2 intact, 0 damaged" in command(["verify"])
    file = tmp_path / "spy.csv"
    assert load("yahoo:SPY").fingerprint in command(["export", "yahoo:SPY", str(file)])
    pd.testing.assert_frame_equal(load(file).prices, load("yahoo:SPY").prices, check_exact=True)
    assert "No problems were found." in command(["check", "yahoo:SPY"])
    path = next(store.folder.rglob("*.parquet"))
    path.write_bytes(b"")
    assert "is damaged" in command(["verify"], code=1)
    server.faults["SPY"] = ["500"] * 20
    assert "stored prices to" in command(["update", "yahoo:SPY"], code=1)
    assert "fingerprint: " in command(["show", "synthetic:null?rows=50"])
    assert "survivorship: all: none of 10 assets" in command(["check", "synthetic:null"])
    for words in (["update", "sp500"], ["update", "--store", str(tmp_path / "none")]):
        with pytest.raises(DataError, match="only yahoo: sources are fetched|name a source"):
            command(words)


WORKER = """
    import os, random, signal, sys, time
    sys.path.insert(0, "tests/support")
    import pandas as pd
    import yfinance, curl_cffi, pyarrow.parquet
    from data_loaders import yahoo_histories as history, yahoo_requests as yahoo
    from data_loaders.store import Store
    from yahoo_server import LocalSession
    address, folder, moment = sys.argv[1:4]
    yfinance.set_tz_cache_location(folder + "-yfinance")
    yahoo._session = lambda: LocalSession(address)
    yahoo.now = lambda: pd.Timestamp(moment)
    store = Store(folder)
    def update():
        return history.fetch(["SPY"], store, update=True, full=True)
"""


def worker(script, server, store, *arguments):
    text = textwrap.dedent(WORKER) + textwrap.dedent(script)
    words = [server.address, store.folder, yahoo.now().isoformat(), *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_at_once_lose_nothing(server, store, monkeypatch):
    load("yahoo:SPY,TLT")
    at(monkeypatch, "2024-03-18 08:00")
    server.histories["GLD"] = History(DAYS, walk(9))
    server.slowness = 0.2
    script = """
        names = sys.argv[4].split(",")
        print([h.status for h in history.fetch(names, store, update=True)])
    """
    workers = [worker(script, server, store, names) for names in ("SPY,TLT", "SPY,GLD")]
    for one in workers:
        assert one.communicate(timeout=240)[0] == "['ok', 'ok']\n"
    assert not any(error for *_, error in store.verify())
    for ticker in ("SPY", "TLT", "GLD"):
        assert store.read(store.latest(f"yahoo/{ticker}")).index[-1] == pd.Timestamp("2024-03-15")
    # The second to come finds what the first has written, and writes nothing again.
    assert [len(store.snapshots(f"yahoo/{t}")) for t in ("SPY", "TLT", "GLD")] == [2, 2, 1]


def test_a_process_killed_at_any_moment_leaves_a_sound_store(server, store, monkeypatch):
    """50 updates die by SIGKILL at a random moment; the history changes every time."""
    first = load("yahoo:SPY,TLT")
    at(monkeypatch, "2024-03-18 08:00")
    server.slowness = 0.002
    script = """
        random.seed(0)
        died = tried = 0
        usual = 0.2  # seconds of an update; follows what is seen, so that most die in the middle
        while died < 50 or tried - died < 5:
            tried += 1
            child = os.fork()
            if not child:
                update()
                os._exit(0)
            time.sleep(random.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            died += killed
            usual *= 1.05 if killed else 0.8
        print(tried)
    """
    process = worker(script, server, store)
    rng = np.random.default_rng(0)
    while process.poll() is None:  # so that every update has something to write
        for one in server.histories.values():
            one.close[int(rng.integers(len(DAYS)))] *= 1.01
        time.sleep(0.01)
    printed = process.communicate()[0]
    assert process.returncode == 0
    assert int(printed) >= 50
    checked = store.verify()
    assert len(checked) > 4, "some updates were done before their death"
    assert not any(error for *_, error in checked)
    assert not (store.folder / "damaged").exists()
    kept = {snapshot.identity for snapshot in store.snapshots("yahoo/SPY")}
    assert first.snapshots["yahoo/SPY"] in kept
    load("yahoo:SPY,TLT", update=True)
    assert not list(store.folder.rglob(".*.part")), "what the dead left is cleared away"
