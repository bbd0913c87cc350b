import numpy as np
import pytest
from markets import random_walks
from small_runs import BRIEF, MONTHLY

from engine import Costs, Training, backtest, verify_run
from engine.runs.run_files import RunDamaged
from engine.trading.account import OrderError
from engine.trading.refit import refit, save_refit, states_of
from strategies import DEQMeanVariance, EqualWeight, Untrained


def strategy():
    return DEQMeanVariance(lookback=64, hidden=4, cap=0.5)


def run(panel):
    found = backtest(strategy(), panel, MONTHLY, Costs(), BRIEF, progress=False, ledger=False)
    return found["DEQMeanVariance"]


def test_the_fold_that_is_due_is_trained_as_in_a_backtest(tmp_path):
    whole = random_walks(860, 4)
    longer = run(whole)
    due = longer.folds["test_start"].iloc[-1]
    row = int(whole.dates.get_loc(due))
    before = run(whole.rows(0, row - 5))
    states = states_of(tmp_path, before)
    number = int(longer.folds.index[-1])
    assert max(fold for fold, _ in states) == number - 1
    made = refit(strategy(), before, whole.rows(0, row + 1), BRIEF, 64, states)
    assert (made.fold, made.date) == (number, due)
    for name, value in longer.states[number, 0].items():
        np.testing.assert_array_equal(made.states[number, 0][name], value)
    assert made.moved["after"].sum() <= 1 + 1e-9
    start = refit(Untrained(strategy()), before, whole.rows(0, row + 1), BRIEF, 64, states)
    given = whole.rows(0, row + 1), Training(epochs=0), 64, states
    for name, value in refit(strategy(), before, *given).states[number, 0].items():
        np.testing.assert_array_equal(start.states[number, 0][name], value)
    save_refit(tmp_path, strategy(), before, made)
    again = states_of(tmp_path, before)
    assert set(again) == {*states, (number, 0)}
    assert refit(strategy(), before, whole.rows(0, row + 1), BRIEF, 64, again) is None
    assert refit(strategy(), before, whole.rows(0, row - 3), BRIEF, 64, states) is None
    with pytest.raises(OrderError, match="is a rule"):
        refit(EqualWeight(), before, whole, BRIEF, 64, states)
    early = {key: state for key, state in states.items() if key[0] < number - 1}
    with pytest.raises(OrderError, match="misses more than one refit"):
        refit(strategy(), before, whole.rows(0, row + 1), BRIEF, 64, early)
    assert set(verify_run(tmp_path).values()) == {"ok"}
    folder = next(tmp_path.rglob("refit.json")).parent
    folder.rename(folder.with_name(f"{number + 1:03d}"))  # in the place of another fold
    with pytest.raises(RunDamaged, match="is damaged"):
        states_of(tmp_path, before)
    folder.with_name(f"{number + 1:03d}").rename(folder)
    path = folder / "state-0.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"evil")
    with pytest.raises(RunDamaged, match="is damaged"):
        states_of(tmp_path, before)
