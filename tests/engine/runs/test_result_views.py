"""Results in a notebook and at a prompt: small, escaped, and equal to the report's numbers."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from markets import random_walks

from engine import Costs, Training, WalkForward, backtest, backtest_seeds
from reports import summary_table, write_report
from reports.learning import paired_by_seed
from strategies import DEQMeanVariance, EqualWeight, MinimumVariance

HOSTILE = "<img src=x onerror=alert(1)>"
PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")


@pytest.fixture(scope="module")
def panel():
    return random_walks(600, 4)


@pytest.fixture(scope="module")
def results(panel):
    named = {HOSTILE: MinimumVariance(64, cap=0.4), "1/N": EqualWeight()}
    return backtest(named, panel, PLAN, Costs(0.001), progress=False)


@pytest.fixture(scope="module")
def seeds(panel):
    training = Training(epochs=1, block=12, learning_rate=0.02)
    strategies = [DEQMeanVariance(64, 4, cap=0.5), EqualWeight()]
    return backtest_seeds(strategies, panel, PLAN, training=training, seeds=3, progress=False)


def shown(value):
    """What a notebook's cell would hold."""
    data, _ = DisplayFormatter().format(value)
    return {kind: text if isinstance(text, bytes) else text.encode() for kind, text in data.items()}


def test_what_a_cell_shows_is_small_and_escaped(results, seeds, panel):
    result = results[HOSTILE]
    for value in (results, result, seeds, panel, result.frames, result.explain()):
        cell = shown(value)
        assert 50 < sum(map(len, cell.values())) < 20_000
        assert b"<img" not in cell.get("text/html", b"")
    assert b"Sharpe" in shown(results)["text/html"]
    assert len(shown(PLAN)["text/plain"]) < 400
    assert shown(result.plot())["image/png"].startswith(b"\x89PNG")


def test_a_summary_has_the_numbers_of_the_report(results):
    own = results.summary()
    expected = summary_table(results)
    for name in ("annual return", "volatility", "Sharpe", "max drawdown", "turnover/year"):
        np.testing.assert_allclose(own[name], expected[name], rtol=1e-12)
    assert own.loc["1/N", "costs paid"] == pytest.approx(results["1/N"].costs.sum())


def test_frames_hold_all_tables_that_are_not_empty(results):
    frames = results["1/N"].frames
    assert frames["round_trips"].equals(results["1/N"].round_trips)
    assert "training" not in frames
    assert list(frames.table().loc["weights"])[:2] == list(results["1/N"].weights.shape)


def test_figures_draw_what_the_result_holds(results, tmp_path):
    result = results[HOSTILE]
    upper, lower = result.plot().axes
    assert upper.lines[0].get_ydata()[-1] == pytest.approx((1 + result.net_returns).prod())
    assert lower.get_ylabel() == "drawdown"
    (axes,) = result.plot.weights(top=2).axes
    assert [text.get_text() for text in axes.get_legend().texts][-1] == "2 others"
    top = max(path.vertices[:, 1].max() for each in axes.collections for path in each.get_paths())
    assert top == pytest.approx(result.weights.sum(axis=1).max())
    result.plot.turnover().savefig(tmp_path / "turnover.pdf")
    (axes,) = result.plot.rolling(30).axes
    last = result.excess_returns.iloc[-30:]
    year = result.settings["periods_per_year"]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(last.mean() / last.std() * year**0.5)


def test_seeds_are_reported_and_tested_in_pairs(seeds, tmp_path):
    path = write_report(seeds, tmp_path / "seeds.html", tried=False)
    page = path.read_text()
    assert all(f"DEQMeanVariance (seed {seed})" in page for seed in range(3))
    assert "Differences paired by seed" in page
    table = pd.read_csv(tmp_path / "seeds-tables" / "seed_tests.csv")
    ratios = [results.summary()["Sharpe"] for results in seeds.values()]
    gaps = np.array([each["DEQMeanVariance"] - each["EqualWeight"] for each in ratios])
    assert table["difference"].item() == pytest.approx(gaps.mean())
    assert table["error"].item() == pytest.approx(gaps.std(ddof=1) / 3**0.5)
    assert "3 seeds" in repr(seeds)


def test_configurations_are_paired_on_the_seeds_that_both_have(seeds):
    def named(results, cap, seed):
        strategy = {**results.strategy, "parameters": {"cap": cap}}
        return type(results)(
            **{
                **vars(results),
                "strategy": strategy,
                "settings": {**results.settings, "seed": seed},
            }
        )

    own = [results["DEQMeanVariance"] for results in seeds.values()]
    one = {f"a{k}": named(result, 0.5, k) for k, result in enumerate(own)}
    two = {f"b{k}": named(result, 0.4, k + 1) for k, result in enumerate(own)}
    (row,) = paired_by_seed(one | two).to_dict("records")
    assert row["seeds"] == 2
    ratio = [result.summary()["Sharpe"] for result in own]
    assert row["difference"] == pytest.approx(np.mean([ratio[1] - ratio[0], ratio[2] - ratio[1]]))


def test_a_strategy_read_from_standard_input_runs(monkeypatch):
    """Its module has neither a file nor, to ``inspect``, any source."""
    program = (
        "from markets import random_walks\n"
        "from deqfolio import Strategy, WalkForward, backtest\n"
        "class Mine(Strategy):\n"
        "    lookback = 1\n"
        "    def allocate(self, history, holdings):\n"
        "        return holdings * 0 + 0.25\n"
        "plan = WalkForward(train='6M')\n"
        "results = backtest(Mine(), random_walks(300, 4), plan, ledger=False)\n"
    )
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(program, "<stdin>", "exec"), vars(main))
    assert list(main.results) == ["Mine"]
