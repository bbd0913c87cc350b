"""Anyone's data sources and costs, by module, file and installed package."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from data_loaders import DataError, load
from deqfolio import main
from deqfolio.options import strategy_names
from engine import Costs, WalkForward, backtest
from engine.runs.experiment import describe_costs, read_costs, read_loss
from strategies import EqualWeight, create_strategy
from strategies.features import feature_table

SOURCE = """
import numpy as np, pandas as pd
from data_loaders import Panel
def frame(rows="600"):
    dates = pd.bdate_range("2012-01-02", periods=int(rows))
    return pd.DataFrame({"X": np.linspace(100, 120, int(rows)), "Y": 50.0}, dates)
def panel(what=""):
    return Panel(frame(), source=f"ours {what}".strip())
def depth(history):
    return pd.DataFrame({"depth": history.prices.iloc[-1] / history.prices.max()})
def wrong():
    return [1, 2]
"""
COSTS = """
from dataclasses import dataclass
import torch
from engine import Costs, Loss
from strategies import EqualWeight

@dataclass(frozen=True)
class StampDuty(Costs):
    \"\"\"Purchases pay a duty, sales do not.\"\"\"
    duty: float = 0.005
    proportional = False

    def paid(self, orders, illiquidity, value):
        return super().paid(orders, illiquidity, value) + self.duty * orders.clip(min=0)

class Regret(Loss):
    def __call__(self, account, periods_per_year):
        return -account.net_returns.mean()

class Still(EqualWeight):
    pass
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "our_data.py").write_text(SOURCE)
    (tmp_path / "our_costs.py").write_text(COSTS.replace("\\", ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def lake(here, tmp_path):
    """An installed package that has a source named lake."""
    about = tmp_path / "lake-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lake\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[deqfolio.sources]\nlake = our_data:panel\n"
        "[deqfolio.costs]\nduty = our_costs:StampDuty\n"
        "[deqfolio.losses]\nregret = our_costs:Regret\n"
        "[deqfolio.features]\ndepth = our_data:depth\nbroken = our_data:nothing\n"
        "[deqfolio.strategies]\nStill = our_costs:Still\n"
    )


@pytest.mark.parametrize("name", ["our_data:frame", "our_data.py:frame", "our_data:panel"])
def test_a_function_gives_the_data(here, name):
    panel = load(name, start="2013-01-01")
    assert list(panel.assets) == ["X", "Y"]
    assert panel.dates[0] == pd.Timestamp("2013-01-01")


def test_its_arguments_stand_after_a_question_mark(here):
    assert len(load("our_data:frame?rows=20")) == 20
    with pytest.raises(DataError, match="unexpected keyword argument 'row'"):
        load("our_data:frame?row=20")


def test_an_installed_source_has_a_name(lake):
    assert load("lake").source == "ours"
    assert load("lake:of water.csv").source == "ours of water.csv"
    with pytest.raises(DataError, match="did you mean 'lake'"):
        load("lakes")


def test_an_installed_package_names_its_costs_losses_features_and_strategies(lake, walks):
    assert read_costs({"class": "duty", "duty": 0.02, "capital": 1e6}).duty == 0.02
    with pytest.raises(ValueError, match="module:Class, or duty"):
        read_costs({"class": "dutty"})
    assert type(read_loss("regret")).__name__ == "Regret"
    with pytest.raises(ValueError, match="did you mean 'regret'"):
        read_loss("regrett")
    found = feature_table(walks, ["depth"])["depth"]
    np.testing.assert_array_equal(found, walks.prices.iloc[-1] / walks.prices.max())
    with pytest.raises(
        ValueError, match="known are 'prices', 'volatility', 'panel', 'lags:5', 'depth'"
    ):
        feature_table(walks, ["dept"])
    with pytest.raises(ValueError, match="'broken', installed as 'our_data:nothing'"):
        feature_table(walks, ["broken"])
    assert create_strategy("Still").lookback == EqualWeight().lookback
    assert "Still" in strategy_names("S")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("our_data:wrong", "returned a list; it should return a Panel"),
        ("our_data:none", "has nothing named 'none'"),
        ("no_such:panel", "cannot import no_such"),
        ("no_such.py:panel", "there is no file no_such.py"),
        ("our_data:np", "is not a function"),
    ],
)
def test_what_gives_no_panel_is_refused(here, name, message):
    with pytest.raises(DataError, match=message):
        load(name)


def test_ones_own_costs_are_charged_in_loss_and_simulation_alike(here):
    costs = read_costs({"class": "our_costs:StampDuty", "commission": 0.001, "capital": 1e6})
    assert read_costs(describe_costs(costs)) == costs
    plan = WalkForward(train="18M", refit="9M", rebalance="ME")
    # simulate() compares each day with vectorbt's orders, and stops at a difference of 1e-10
    result = backtest(EqualWeight(), random_walks(700, 3), plan, costs)["EqualWeight"]
    orders = result.orders
    value = orders["size"] * orders["price"]
    rate = np.where(orders["side"] == "buy", 0.006, 0.001)
    np.testing.assert_allclose(orders["fees"], rate * value, rtol=1e-9)
    assert result.settings["costs"]["class"] == "our_costs:StampDuty"


def test_ones_own_costs_in_a_run_its_orders_and_its_report(here, tmp_path, capsys, walks):
    walks.prices.to_csv("prices.csv")
    words = ["--data", "prices.csv", "--strategy", "EqualWeight", "--train", "18M"]
    words += ["--set", "costs.class=our_costs:StampDuty", "--set", "costs.capital=1e6"]
    assert main(["backtest", *words, "--rebalance", "ME", "--set", "costs.duty=0.01"]) == 0
    day = str(walks.dates[-1].date())
    words = ["orders", "runs/backtest", "--capital", "1000", "--fractions", "--out", "orders.csv"]
    words += ["--anyway"]  # the last date is no day of the plan
    assert main([*words, "--as-of", day]) == 0
    orders = pd.read_csv("orders.csv")
    np.testing.assert_allclose(orders["cost"], 0.011 * orders["value"])
    np.testing.assert_allclose(orders["value"].sum() + orders["cost"].sum(), 1000)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"class": "our_costs:torch"}, "should name a subclass of Costs"),
        ({"class": "Costs"}, "should name a subclass of Costs"),
        ({"class": "our_costs:StampDuty", "dutty": 1.0}, "did you mean 'duty'"),
        ({"comission": 0.1}, "did you mean 'commission'"),
    ],
)
def test_costs_that_are_none_are_refused(here, table, message):
    with pytest.raises(ValueError, match=message):
        read_costs(table)


def test_costs_of_ones_own_differ_from_ours(here):
    assert read_costs({"commission": 0.001}) == Costs(0.001)
