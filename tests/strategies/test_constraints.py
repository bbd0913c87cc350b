"""Constraints by name: what the layer is handed, what the report says, what files say."""

from __future__ import annotations

import json
import tomllib

import pandas as pd
import pytest
import torch

from strategies import MinimumVariance
from strategies.constraints import Constraints, Exposure, Group
from strategies.layers.optimisation.mean_variance import InfeasibleError, MeanVarianceLayer
from strategies.strategy_constraints import binding, relax_caps

ASSETS = ["AAPL", "MSFT", "XOM", "CVX", "JNJ"]
EVERYTHING = Constraints(
    lower=-0.1,
    upper=0.4,
    floors={"JNJ": 0.05},
    caps={"XOM": 0.15},
    groups=[Group("tech", ["AAPL", "MSFT"], upper=0.5), Group("oil", ["XOM", "CVX"], 0.1, 0.4)],
    exposures=[
        Exposure("beta", dict(zip(ASSETS, [1.2, 1.0, 0.8, 0.9, 0.6], strict=True)), 0.9, 0.9)
    ],
    gross_limit=1.2,
    turnover_cost=0.0005,
    turnover_limit=0.8,
    benchmark={"AAPL": 0.5, "JNJ": 0.5},
    tracking=1.0,
)


def problem(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Risk (B, N, N), expected returns (B, N), equal holdings (N,)."""
    draw = torch.Generator().manual_seed(0)
    loadings = 0.02 * torch.randn(batch, 5, 3, generator=draw, dtype=torch.float64)
    risk = loadings @ loadings.mT + 1e-4 * torch.eye(5, dtype=torch.float64)
    q = 1e-3 * torch.randn(batch, 5, generator=draw, dtype=torch.float64)
    return risk, q, torch.full((5,), 0.2, dtype=torch.float64)


def test_weights_meet_every_constraint() -> None:
    risk, q, holdings = problem()
    weights = MeanVarianceLayer()(risk, q, **EVERYTHING.arguments(ASSETS, holdings))
    missed = EVERYTHING.missed(ASSETS, weights, holdings)
    assert list(missed) == [
        "floors", "caps", "budget", "tech", "oil", "beta", "gross", "turnover",
    ]  # fmt: skip
    assert max(float(value.max()) for value in missed.values()) < 1e-14


def test_what_is_missed_is_measured() -> None:
    weights = torch.tensor([0.5, 0.3, 0.2, 0.1, 0.0])
    found = EVERYTHING.missed(ASSETS, weights, torch.full((5,), 0.2))
    missed = {name: max(0.0, float(value.max())) for name, value in found.items()}
    expected = {
        "floors": 0.05, "caps": 0.1, "budget": 0.1, "tech": 0.3, "oil": 0.0,
        "beta": 0.25, "gross": 0.0, "turnover": 0.0,
    }  # fmt: skip
    assert missed == pytest.approx(expected, abs=1e-7)


def test_what_cannot_be_met_is_refused_by_name() -> None:
    risk, q, _ = problem()
    constraints = Constraints(groups=[Group("tech", ["AAPL", "MSFT"], lower=0.5)], upper=0.2)
    with pytest.raises(InfeasibleError, match="tech is at least 0.5"):
        MeanVarianceLayer()(risk, q, **constraints.arguments(ASSETS))


def test_a_file_says_the_same() -> None:
    assert Constraints.from_dict(json.loads(json.dumps(EVERYTHING.to_dict()))) == EVERYTHING
    assert Constraints().to_dict() == {}
    cash = Constraints(budget=(0, 1))
    assert Constraints.from_dict(json.loads(json.dumps(cash.to_dict()))) == cash
    assert ("sum of weights", "0 % to 100 %") in cash.describe()
    full, strategy = pd.Series([0.5, 0.5, 0.0, 0.0, 0.0], ASSETS), MinimumVariance(constraints=cash)
    assert binding(strategy, full, 0 * full, pd.Timestamp("2008")) == [
        "sum of weights at its limit of 100 %"
    ]
    dated = Constraints(budget={"2009-03-09": (0.2, 1), "2008-09-15": 0.5})
    assert Constraints.from_dict(json.loads(json.dumps(dated.to_dict()))) == dated
    assert Constraints(budget=pd.Series(dated.budget)) == dated
    text = """
        upper = 0.3
        [[groups]]
        name = "oil"
        assets = ["XOM", "CVX"]
        upper = 0.2
    """
    expected = Constraints(upper=0.3, groups=[Group("oil", ["XOM", "CVX"], upper=0.2)])
    assert Constraints.from_dict(tomllib.loads(text)) == expected


def test_a_budget_by_date_is_in_force_from_its_date_on() -> None:
    dated = Constraints(budget={"2009-03-09": (0.2, 1), "2008-09-15": 0.5})
    for date, ends in ("2008-09-15", (0.5, 0.5)), ("2009-03-08", (0.5, 0.5)), ("2010", (0.2, 1)):
        assert dated.on(pd.Timestamp(date)).budget_ends == ends
    assert ("sum of weights", "20 % to 100 %, by date") in dated.describe()
    assert Constraints(budget={"2008": 0.5}).on(pd.Timestamp("2010")).budget == 0.5
    with pytest.raises(ValueError, match="begins on 2008-09-15, after 2008-09-14: add an entry"):
        dated.on(pd.Timestamp("2008-09-14"))
    with pytest.raises(ValueError, match=r"ask constraints.on\(date\)"):
        dated.arguments(ASSETS)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "has dates without a time zone"),
        ({"soon": 1.0}, r"each of them once, like .* got \['soon'\]"),
        ({2008: 1.0}, r"got \[2008\]"),
        ({"2008": 1.0, "2008-01-01": 0.5}, "each of them once"),
        ({"2008-01-01T00:00Z": 1.0}, "without a time zone"),
        ({"2008": "all"}, "budget should be a number"),
        ({"2008": (1.0, 0.5)}, "the least, 1, is above the most, 0.5"),
    ],
)
def test_budgets_by_date_that_mean_nothing_are_refused(budget, message) -> None:
    with pytest.raises(ValueError, match=message):
        Constraints(budget=budget)


def test_people_can_read_it() -> None:
    assert EVERYTHING.describe() == [
        ("each weight", "-10 % to 40 %"),
        ("JNJ", "at least 5 %"),
        ("XOM", "at most 15 %"),
        ("sum of weights", "100 %"),
        ("tech", "at most 50 %"),
        ("oil", "at least 10 %, at most 40 %"),
        ("beta", "0.9"),
        ("gross exposure", "at most 120 %"),
        ("turnover", "at most 80 %"),
        ("cost of turnover", "5 bp"),
        ("tracking of the benchmark", "1 times its variance"),
    ]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="not among the assets: APPL; did you mean 'AAPL'"):
        Constraints(caps={"APPL": 0.1}).arguments(ASSETS)
    with pytest.raises(ValueError, match="unknown constraint 'uper'; did you mean 'upper'"):
        Constraints.from_dict({"uper": 0.1})
    with pytest.raises(ValueError, match="needs the holdings"):
        Constraints(turnover_limit=0.1).arguments(ASSETS)
    with pytest.raises(ValueError, match="benchmark goes with a positive tracking"):
        Constraints(tracking=1.0)
    with pytest.raises(ValueError, match="different names"):
        Constraints(groups=[Group("a", ["X"]), Group("a", ["Y"])])
    with pytest.raises(ValueError, match="must not be negative"):
        Constraints(turnover_cost=-0.1)


def test_caps_are_relaxed_in_proportion_where_they_fall_short() -> None:
    upper = torch.tensor([[0.2, 0.2, 0.1, 0.0, 0.0], [0.3, 0.3, 0.3, 0.3, 0.3]]).double()
    relaxed, short = relax_caps(upper)
    assert short.tolist() == [True, False]
    assert relaxed[0].tolist() == pytest.approx([0.4, 0.4, 0.2, 0, 0])
    assert torch.equal(relaxed[1], upper[1])
    risk, q, _ = problem(batch=2)
    weights = MeanVarianceLayer()(risk, q, upper=relaxed)
    torch.testing.assert_close(weights[0], relaxed[0], rtol=0, atol=1e-12)
