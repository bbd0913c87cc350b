"""Every loss against its definition in plain numpy, and its gradient against differences; those on
risk by hand, on paths that can be seen at a glance."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks

import engine
from data_loaders import Panel
from engine import QLIKE, Costs, NegativeSharpe, RealizedVariance, Training, WalkForward
from engine.accounting.costs import settle
from engine.runs.experiment import read_loss
from engine.training.rollout import rollout, row_returns
from engine.walking.learner import Learner
from strategies import DEQMeanVariance, LearnedStrategy
from strategies.layers.drift import drift

PLAN = WalkForward(train="6M", refit="3M", rebalance="W-FRI")

ASSETS = ("A", "B", "C")
S = 40
RNG = np.random.default_rng(3)
WEIGHTS = RNG.dirichlet(np.ones(3), S)
RETURNS = RNG.normal(0.002, 0.02, (S, 3))
FORECAST = RNG.normal(0, 0.01, (S, 3))


def account(weights, returns, costs):
    """Of consecutive periods, entered from cash."""
    growth = 1 + torch.as_tensor(returns)
    before = torch.cat([torch.zeros_like(weights[:1]), drift(weights[:-1], growth[:-1])])
    return settle(weights, growth, before, torch.zeros_like(weights[:, 0]), costs)


def held(weights):
    kept = account(weights, RETURNS, Costs(0.001))
    return kept._replace(expected_return=torch.tensor(FORECAST) * weights.sum(-1, keepdim=True))


def net():
    return held(torch.tensor(WEIGHTS)).net_returns.numpy()


def drawdown(returns):
    worst, peak, wealth = 0.0, 1.0, 1.0
    for r in returns:
        wealth *= 1 + r
        peak = max(peak, wealth)
        worst = max(worst, 1 - wealth / peak)
    return worst


def cvar(returns, level):
    """The objective on every candidate of its piecewise linear minimum."""
    return min(t + np.maximum(-returns - t, 0).mean() / (1 - level) for t in -returns)


def risk_parity():
    covariance = np.cov(RETURNS.T)
    total = 0.0
    for w in WEIGHTS:
        shares = [w[i] * (covariance[i] @ w) / (w @ covariance @ w) for i in range(3)]
        total += sum((share - 1 / 3) ** 2 for share in shares)
    return total / S


def turnover():
    before, total = np.zeros(3), 0.0
    for w, r in zip(WEIGHTS, RETURNS, strict=True):
        new, old = torch.from_numpy(w[None]), torch.from_numpy(before[None])
        total += Costs().charge(new, old).turnover.item()
        before = w * (1 + r) / (w @ (1 + r))
    return total / S * 52


EXPECTED = [
    (
        "NegativeSortino",
        {"target": 0.05},
        lambda r: (
            -(r - 0.05 / 52).mean() / np.sqrt(np.mean(np.minimum(r - 0.05 / 52, 0) ** 2)) * 52**0.5
        ),
    ),
    ("CVaR", {"level": 0.9}, lambda r: cvar(r, 0.9)),
    ("CVaR", {"level": 0.93}, lambda r: cvar(r, 0.93)),  # 2.8 of 40 periods
    ("MaxDrawdown", {}, drawdown),
    (
        "NegativeOmega",
        {"threshold": 0.02},
        lambda r: (
            -sum(x - 0.02 / 52 for x in r if x > 0.02 / 52)
            / sum(0.02 / 52 - x for x in r if x < 0.02 / 52)
        ),
    ),
    ("NegativeCalmar", {}, lambda r: -(np.prod(1 + r) ** (52 / S) - 1) / drawdown(r)),
    (
        "TrackingError",
        {"benchmark": "B"},
        lambda r: (r - RETURNS[:, 1]).std(ddof=1) * 52**0.5,
    ),
    (
        "NegativeInformationRatio",
        {"benchmark": "1/N"},
        lambda r: -(r - RETURNS.mean(1)).mean() / (r - RETURNS.mean(1)).std(ddof=1) * 52**0.5,
    ),
    ("Turnover", {}, lambda r: turnover()),
    ("Concentration", {}, lambda r: np.mean([w @ w for w in WEIGHTS])),
    ("RiskParity", {}, lambda r: risk_parity()),
    (
        "PredictionError",
        {"scale": 2.0},
        lambda r: ((RETURNS - 2 * FORECAST) ** 2).sum() / (RETURNS**2).sum(),
    ),
]


@pytest.mark.parametrize(("name", "parameters", "definition"), EXPECTED)
def test_value_and_gradient(name, parameters, definition):
    loss = read_loss({"class": name, **parameters}).bound(ASSETS)  # as a TOML file has it
    assert type(loss) is getattr(engine, name)
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    assert loss(held(weights), 52).item() == pytest.approx(definition(net()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda w: loss(held(w), 52), (weights,))


def test_a_loss_in_the_first_period_is_a_drawdown():
    falls = account(torch.ones(3, 1).double(), np.array([[-0.2], [0.1], [0.1]]), Costs(0.0))
    assert engine.MaxDrawdown()(falls, 52).item() == pytest.approx(0.2)


def test_equal_risk_has_no_risk_parity_loss_and_equal_weights_no_tracking_error():
    flat = torch.full((4, 2), 0.5).double()
    returns = np.array([[0.1, 0.1], [0.1, -0.1], [-0.1, 0.1], [-0.1, -0.1]])
    earned = account(flat, returns, Costs(0.0))
    assert engine.RiskParity()(earned, 52).item() == pytest.approx(0, abs=1e-15)
    assert engine.TrackingError(benchmark="1/N")(earned, 52).item() < 1e-6
    assert engine.Concentration()(earned, 52).item() == 0.5


def test_where_a_denominator_is_zero_it_is_the_floor():
    """Of 1e-8, or of its square under a root, so that training has a finite gradient."""
    earned = account(torch.full((5, 2), 0.5).double(), np.full((5, 2), 0.01), Costs(0.0))
    year, gain = 52**0.5, 1.01**52 - 1
    for loss, expected in (
        (engine.NegativeSharpe(), -0.01 / 1e-8 * year),
        (engine.NegativeSortino(), -0.01 / 1e-8 * year),
        (engine.NegativeOmega(), -0.05 / 1e-8),
        (engine.NegativeCalmar(), -gain / 1e-4),
        (engine.TrackingError("1/N"), 1e-8 * year),
        (engine.NegativeInformationRatio("1/N"), 0.0),
    ):
        assert loss(earned, 52).item() == pytest.approx(expected, rel=1e-9, abs=1e-12), loss
    ahead = earned._replace(net_returns=earned.net_returns + 0.001)
    ratio = engine.NegativeInformationRatio("1/N")(ahead, 52).item()
    assert ratio == pytest.approx(-0.001 / 1e-8 * year, rel=1e-9)
    still = account(torch.full((5, 2), 0.5).double(), np.zeros((5, 2)), Costs(0.0))
    guess = still._replace(expected_return=torch.full((5, 2), 1e-9).double())
    assert engine.PredictionError()(guess, 52).item() == pytest.approx(10 * 1e-18 / 1e-16)
    tiny = 1e-9 * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])  # variance 1e-18 and 0
    calm = account(torch.full((3, 2), 0.5).double(), tiny, Costs(0.0))
    parts = 0.25 * 1e-18 / 1e-16
    assert engine.RiskParity()(calm, 52).item() == pytest.approx((parts - 0.5) ** 2 + 0.25)


def test_expected_returns_that_are_missing():
    with pytest.raises(ValueError, match="PredictionError needs expected returns, which"):
        engine.PredictionError()(account(torch.ones(3, 1).double(), np.ones((3, 1)), Costs()), 52)


def test_sums_carry_the_benchmark_and_the_forecast():
    mixed = engine.NegativeSharpe() + 2 * engine.TrackingError("C") + engine.PredictionError()
    assert mixed.forecasts
    assert not engine.NegativeSharpe().forecasts
    earned = held(torch.tensor(WEIGHTS))
    parts = [
        engine.NegativeSharpe()(earned, 52),
        2 * engine.TrackingError("C").bound(ASSETS)(earned, 52),
        engine.PredictionError()(earned, 52),
    ]
    assert mixed.bound(ASSETS)(earned, 52).item() == pytest.approx(sum(parts).item(), rel=1e-14)


def test_a_benchmark_that_is_missing():
    with pytest.raises(ValueError, match="TrackingError needs a benchmark"):
        (engine.NegativeSharpe() + engine.TrackingError()).bound(ASSETS)
    with pytest.raises(ValueError, match="'Bb' is no asset of the panel; did you mean 'B'"):
        engine.NegativeInformationRatio("Bb").bound(("B", "Bbbbbbbb"))


def test_level_is_checked():
    with pytest.raises(ValueError, match="level is a share"):
        engine.CVaR(level=1.0)


def test_a_misspelt_parameter_in_a_file():
    with pytest.raises(ValueError, match="CVaR: unknown setting 'levl'; did you mean 'level'"):
        read_loss({"class": "CVaR", "levl": 0.9})


class Halves(LearnedStrategy):
    """Half of the value in the first two assets, and a constant prediction of the variance."""

    lookback = 2

    def build(self, inputs):
        class Module(torch.nn.Module):
            def forward(self, inputs):
                return self.weights_and_forecast(inputs)[0]

            def weights_and_forecast(self, inputs):
                rows = len(inputs["returns"])
                weights = torch.tensor([[0.25, 0.25, 0.0]]).double().expand(rows, 3)
                return weights, weights, torch.full((rows,), 0.04, dtype=torch.float64)

        return Module()


@pytest.mark.parametrize("fill", ["close", "open"])
def test_they_are_of_what_a_half_of_two_assets_earned_row_by_row(fill):
    panel = random_walks(200, 3)
    opens = (panel.prices.shift(1) * 1.002).bfill()
    panel = Panel(panel.prices, {"open": opens})
    plan = WalkForward(train="6M", refit="3M", rebalance="W-FRI", fill=fill)
    folds = plan.folds(panel.dates, 2)
    training = Training(loss=RealizedVariance() + QLIKE())
    learner = Learner(panel, folds, plan, Costs(), training, 1)
    data = learner.dataset("s", Halves(), folds[0])
    module = Halves().build({})
    found = rollout(module, data, (1, len(data)), Costs(), forecasts=True)

    variances = []
    for row, end in zip(data.rows[1:] + 1, data.ends[1:], strict=True):
        at = opens if fill == "open" else panel.prices
        nodes = [at.iloc[row], *(panel.prices.iloc[r] for r in range(row, end)), at.iloc[end]]
        value = pd.DataFrame(nodes)[["A0", "A1"]].div(nodes[0][["A0", "A1"]]).mean(axis=1)
        variances.append((value.pct_change().dropna() ** 2).sum() * data.per_year)
    variances = np.array(variances)
    value = RealizedVariance()(found, data.per_year).item()
    assert value == pytest.approx(variances.mean(), rel=1e-10)
    value = RealizedVariance(log=True)(found, data.per_year).item()
    assert value == pytest.approx(np.log(variances).mean(), rel=1e-10)
    ratio = variances / 0.04
    expected = (ratio - np.log(ratio) - 1).mean()
    assert QLIKE()(found, data.per_year).item() == pytest.approx(expected, rel=1e-10)


def test_qlike_is_least_at_the_mean_of_the_realized_variances():
    from engine.accounting.costs import Account

    torch.manual_seed(0)
    returns = 0.01 * torch.randn(400, 5).double()
    nothing = torch.zeros(400).double()

    def loss(variance):
        given = torch.full((400,), variance, dtype=torch.float64)
        account = Account(*[nothing] * 6, row_returns=returns, predicted_variance=given)
        return QLIKE()(account, 50.4).item()

    best = 50.4 * returns.square().sum(-1).mean().item()
    assert loss(best) < min(loss(0.99 * best), loss(1.01 * best))


def test_weights_that_sum_to_nothing_are_taken_as_they_are():
    paths = torch.tensor([[[1.0, 1.0], [1.1, 1.0], [1.1, 1.1]]], dtype=torch.float64)
    found = row_returns(torch.tensor([[0.5, -0.5]], dtype=torch.float64), paths)
    np.testing.assert_allclose(found, [[0, 0.05, 1.0 / 1.05 - 1]], atol=1e-15)
    found = row_returns(torch.tensor([[0.1, 0.3]], dtype=torch.float64), paths)
    np.testing.assert_allclose(found, [[0, 0.025, 1.1 / 1.025 - 1]], atol=1e-15)


def test_sums_know_what_they_read():
    loss = NegativeSharpe() + 0.1 * RealizedVariance()
    assert loss.within
    assert not loss.forecasts
    assert (2 * QLIKE()).forecasts
    assert not NegativeSharpe().within
    assert read_loss("QLIKE") == QLIKE()


def test_what_is_missing_is_named():
    panel = random_walks(200, 3)
    folds = PLAN.folds(panel.dates, 60)
    fully = DEQMeanVariance(lookback=60, hidden=4, cap=0.5, cash=False)
    learner = Learner(panel, folds, PLAN, Costs(), Training(loss=QLIKE()), 1)
    data = learner.dataset("s", fully, folds[0])
    module = fully.build(data.inputs).double()
    account = rollout(module, data, (1, 9), Costs(), forecasts=True)
    with pytest.raises(ValueError, match="QLIKE needs a predicted variance, which .* cash=True"):
        QLIKE()(account, 52)
    with pytest.raises(ValueError, match="RealizedVariance needs the returns of the rows"):
        RealizedVariance()(account._replace(row_returns=None), 52)
