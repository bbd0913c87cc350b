"""The layer that knows the holdings: by hand, by brute force, by finite differences."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.autograd import gradcheck

from engine import Costs, Training, WalkForward, backtest
from engine.walking.learner import Learner
from strategies import Constraints, DEQMeanVariance, ExplicitMeanVariance
from strategies.contract_types import stack
from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.consecutive import weights_from_holdings, weights_on_dates
from strategies.layers.optimisation.cross_check import cross_check
from strategies.layers.optimisation.mean_variance import FactorRisk, MeanVarianceLayer, Qpth
from strategies.layers.optimisation.problem import InfeasibleError
from strategies.layers.solve_record import record_solves


def market(M=7, N=4, seed=0):
    torch.manual_seed(seed)
    root = torch.randn(M, N, N, dtype=torch.float64)
    risk = root @ root.mT / N + torch.eye(N)
    drift = 1 + 0.05 * torch.randn(M, N, dtype=torch.float64)
    return risk, torch.randn(M, N, dtype=torch.float64), drift


def test_half_way_by_hand():
    """P = I, q = 0, c = 1: half of the way from the holdings to 1/N."""
    held = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
    zero, one = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    risk = torch.eye(3, dtype=torch.float64)
    found = weights_from_holdings(MeanVarianceLayer(), risk, zero, one, held)
    assert torch.allclose(found, (held + 1 / 3) / 2, atol=1e-12)
    free = weights_from_holdings(MeanVarianceLayer(), risk, zero, one, zero)  # nothing is held yet
    assert torch.allclose(free, torch.full((1, 3), 1 / 3, dtype=torch.float64), atol=1e-12)
    cost = torch.tensor(0.7, dtype=torch.float64)  # a scalar keeps its precision
    found = weights_from_holdings(MeanVarianceLayer(), risk, zero, cost, held)
    assert torch.allclose(found, (0.7 * held + 1 / 3) / 1.7, rtol=0, atol=1e-14)
    found = weights_from_holdings(MeanVarianceLayer(), risk, zero, one, held)
    # In a batch it is for each sample to say whether anything is held.
    both = [torch.cat(pair) for pair in ((zero, held / 3), (one, one), (held, zero))]
    mixed = weights_from_holdings(MeanVarianceLayer(), risk.expand(2, 3, 3), *both)
    assert torch.allclose(mixed[:1], found, atol=1e-12)
    assert torch.allclose(mixed[1:], held / 3 + 2 / 9, atol=1e-12)  # q, moved to a sum of 1


@pytest.mark.parametrize("factors", [False, True])
def test_consecutive_dates_are_solved_one_after_the_other(factors):
    risk, q, drift = market()
    if factors:
        risk = FactorRisk(torch.randn(7, 4, 2, dtype=torch.float64), torch.ones(7, 4).double())
    cost = torch.linspace(0.5, 4, 7, dtype=torch.float64)
    layer = MeanVarianceLayer()
    found = weights_on_dates(layer, risk, q, cost, drift, upper=0.6)
    held = torch.zeros(4, dtype=torch.float64)
    for t in range(7):
        if t:
            grown = found[t - 1] * drift[t]
            held = grown / grown.sum()
        if factors:
            part = FactorRisk(risk.loadings[t : t + 1], risk.specific[t : t + 1])
        else:
            part = risk[t : t + 1]
        alone = weights_from_holdings(
            layer, part, q[t : t + 1], cost[t : t + 1], held[None], upper=0.6
        )
        assert torch.allclose(found[t], alone[0], atol=1e-12)
        assert float(found[t].max()) <= 0.6


def test_several_rows_of_dates_do_not_mix():
    risk, q, drift = market(M=9)
    cost = torch.full((9,), 2.0, dtype=torch.float64)
    layer = MeanVarianceLayer()
    drift[4] = torch.nan  # a new row of dates begins
    both = weights_on_dates(layer, risk, q, cost, drift, upper=0.6)
    for part in (slice(0, 4), slice(4, 9)):
        alone = weights_on_dates(layer, risk[part], q[part], cost[part], drift[part], upper=0.6)
        assert torch.equal(both[part], alone)


def test_the_kernels_do_what_any_solver_does_step_by_step():
    class Stepwise:  # the same method, not recognised
        tolerance = 1e-10

        def solve(self, problem, start):
            return ActiveSet().solve(problem, start)

    risk, q, drift = market(M=9)
    drift[4] = torch.nan
    found = []
    for solver in (ActiveSet(), Stepwise()):
        tensors = [t.clone().requires_grad_() for t in (risk, q, torch.linspace(1, 3, 9).double())]
        weights = weights_on_dates(MeanVarianceLayer(solver), *tensors, drift, upper=0.6)
        pull = torch.linspace(-1, 1, 36, dtype=torch.float64).view(9, 4)
        found.append([weights, *torch.autograd.grad(weights, tensors, pull)])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


RATES = torch.tensor([0.03, 0.05, 0.02], dtype=torch.float64)  # cash, financing, short fee


def leveraged(budget):
    """Limits that leave cash, or borrow, and sell short."""
    return {"budget": budget, "lower": -0.5, "upper": 0.9}


@pytest.mark.parametrize("budget", [0.7, 1.3])
def test_holdings_on_consecutive_dates_are_those_of_a_loop_over_positions_and_cash(budget):
    risk, q, growth = market(M=9)
    growth[5] = torch.nan
    cost = torch.full((9,), 3.0, dtype=torch.float64)
    rates = torch.linspace(0.5, 1.5, 9, dtype=torch.float64).unsqueeze(1) * RATES
    layer = MeanVarianceLayer()
    found = weights_on_dates(layer, risk, q, cost, growth, rates, **leveraged(budget))
    assert float(found.min()) < -0.1
    holdings = np.zeros(4)
    for t in range(9):
        one = slice(t, t + 1)
        held = torch.from_numpy(holdings if t != 5 else np.zeros(4))[None]
        alone = weights_from_holdings(
            layer, risk[one], q[one], cost[one], held, **leveraged(budget)
        )
        assert torch.allclose(found[t], alone[0], atol=1e-12)
        if t + 1 < 9:
            earned, owed, fee = rates[t + 1].tolist()
            positions, cash, short = [], 1.0, 0.0
            for weight, grown in zip(found[t].tolist(), growth[t + 1].tolist(), strict=True):
                positions.append(weight * grown)
                cash -= weight
                short += max(-weight, 0.0)
            cash += cash * (earned if cash > 0 else owed) - fee * short
            holdings = np.array(positions) / (sum(positions) + cash)


@pytest.mark.parametrize("budget", [0.7, 1.3])
def test_gradients_flow_through_what_cash_earns(budget):
    risk, q, growth = market(M=4, N=3, seed=2)
    inputs = [risk.requires_grad_(), q.requires_grad_()]
    rates = (10 * RATES).expand(4, 3)

    class Stepwise:  # the same method, not recognised
        tolerance = 1e-10

        def solve(self, problem, start):
            return ActiveSet().solve(problem, start)

    def weights(risk, q, solver=None):
        layer, symmetric = MeanVarianceLayer(solver), (risk + risk.mT) / 2
        cost = torch.tensor(2.0, dtype=torch.float64)
        return weights_on_dates(layer, symmetric, 3 * q, cost, growth, rates, **leveraged(budget))

    assert float(weights(*inputs).detach().min()) < -0.1
    assert gradcheck(weights, inputs, eps=1e-6, atol=1e-6)
    pull = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    for one, two in zip(
        torch.autograd.grad(weights(*inputs), inputs, pull),
        torch.autograd.grad(weights(*inputs, Stepwise()), inputs, pull),
        strict=True,
    ):
        assert torch.allclose(one, two, atol=1e-12)


def test_gradients_flow_through_all_dates():
    risk, q, drift = market(M=4, N=3)
    cost = torch.full((4,), 1.5, dtype=torch.float64, requires_grad=True)
    q.requires_grad_()
    risk.requires_grad_()
    layer = MeanVarianceLayer()

    def weights(risk, q, cost):
        return weights_on_dates(layer, (risk + risk.mT) / 2, q, cost, drift)

    assert gradcheck(weights, (risk, q, cost), eps=1e-6, atol=1e-6)
    early = torch.autograd.grad(weights(risk, q, cost)[-1, 0], q)[0]
    assert early[0].abs().max() > 1e-4  # the first date's q still moves the last weights


def test_a_row_of_dates_is_recorded_and_cross_checked():
    risk, q, drift = market()
    cost = torch.ones(7, dtype=torch.float64)
    with record_solves() as record, cross_check() as check:
        weights_on_dates(MeanVarianceLayer(), risk, q, cost, drift, upper=0.5)
    assert record.summary()[0]["samples"] == 7
    assert check.samples == 4
    assert check.gradients < 1e-3
    by_qpth = weights_on_dates(MeanVarianceLayer(Qpth()), risk, q, cost, drift, upper=0.5)
    ours = weights_on_dates(MeanVarianceLayer(), risk, q, cost, drift, upper=0.5)
    assert torch.allclose(by_qpth, ours, atol=1e-5)


def test_what_is_infeasible_is_said():
    risk, q, drift = market()
    with pytest.raises(InfeasibleError):
        weights_on_dates(MeanVarianceLayer(), risk, q, torch.ones(7).double(), drift, upper=0.2)


CARRY = Costs(0.001, cash_rate=0.1, financing=0.2, borrow=0.3)


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("costs", [Costs(0.001), CARRY], ids=["no carry", "carry"])
@pytest.mark.parametrize("budget", [0.7, 1.3])
def test_training_and_backtest_hold_the_same(walks, costs, budget, lag):
    """The weights of the test dates, decided one by one from the current holdings, are those of
    the same network on these consecutive dates."""
    plan = WalkForward(train="2Y", refit="5Y", rebalance="W-FRI", execution_lag=lag)
    limits = Constraints(budget=budget, lower=-0.3, upper=0.7, gross_limit=2.5)
    strategy = ExplicitMeanVariance(lookback=64, constraints=limits, hidden=4, inertia=3.0)
    (result,) = backtest(strategy, walks, plan, costs, Training(epochs=2), ledger=False).values()
    folds = plan.folds(walks.dates, strategy.lookback)
    learner = Learner(walks, folds, plan, costs, Training(epochs=2), 1)
    test = folds[0].test
    tested = replace(folds[0], train=test, ends=np.append(test[1:], len(walks.dates) - 1) + lag)
    assert list(walks.dates[test]) == list(result.targets.index)
    inputs = learner.stacked("s", strategy, test)
    torch.manual_seed(0)
    strategy.module_ = strategy.build(inputs).double()
    strategy.module_.load_state_dict(result.states[(0, 0)])
    found = strategy.weights(inputs | learner.drift(tested)).numpy()
    np.testing.assert_allclose(found, result.targets, atol=1e-8)
    aim = strategy.weights(inputs).numpy()
    assert np.abs(np.diff(found, axis=0)).sum() < 0.7 * np.abs(np.diff(aim, axis=0)).sum()


def test_without_inertia_the_holdings_do_not_matter(walks):
    for inertia, same in ((0.0, True), (3.0, False)):
        strategy = DEQMeanVariance(lookback=64, cap=0.5, inertia=inertia)
        torch.manual_seed(0)
        history = walks.last(64)
        strategy.module_ = strategy.build(stack([strategy.prepare(history)])).double()
        held = [pd.Series(value, walks.assets) for value in ([0.2] * 5, [0.5, 0.5, 0, 0, 0])]
        one, two = (strategy.allocate(history, each) for each in held)
        assert (np.abs(one - two).max() < 1e-9) == same
    with pytest.raises(ValueError, match="inertia"):
        DEQMeanVariance(lookback=64, inertia=-1.0).build(stack([strategy.prepare(history)]))


def test_a_proportional_cost_in_closed_form():
    """P diagonal, no limits: z = h + soft(q - P h, d) / (P + c), and the gradient of each side."""
    p = torch.tensor([2.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    held = torch.tensor([[0.3, -0.2, 0.1, 0.4]], dtype=torch.float64)
    c, d = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)
    gap = torch.tensor([[0.9, -0.6, 0.2, 0.25]], dtype=torch.float64)  # the last: at the edge
    q = (p * held + gap).requires_grad_()
    c, d = c.requires_grad_(), d.requires_grad_()
    held = held.requires_grad_()
    limits = {"lower": -9.0, "upper": 9.0, "budget": (-9.0, 9.0)}
    found = weights_from_holdings(
        MeanVarianceLayer(), torch.diag(p), q, c, held, proportional=d, **limits
    )
    soft = gap.sign() * (gap.abs() - 0.25).clamp(min=0)
    assert torch.allclose(found, held + soft / (p + 0.7), atol=1e-14)
    assert found[0, 2] == held[0, 2]  # exactly: no order
    slope = 1 / (p + 0.7)
    moves = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)  # at the edge as one that moves
    sign = torch.tensor([1.0, -1.0, 0.0, 1.0], dtype=torch.float64)
    of_q, of_c, of_d, of_h = torch.autograd.grad(found.sum(), (q, c, d, held))
    assert torch.allclose(of_q[0], moves * slope, atol=1e-12)
    assert torch.allclose(of_d, -(sign * slope).sum(), atol=1e-12)
    assert torch.allclose(of_c, -(soft[0] * slope**2).sum(), atol=1e-12)
    # q was written as a number: through h alone, (c z - c h)' and the kink of what stays.
    assert torch.allclose(of_h[0], torch.where(moves > 0, 0.7 * slope, 1.0), atol=1e-12)


@pytest.mark.parametrize("budget", [0.7, 1.3])
def test_a_proportional_cost_on_consecutive_dates(budget):
    """As one date after the other by other solvers, with gradients through what stays."""
    cvxpy = pytest.importorskip("cvxpy")
    risk, q, growth = market(M=6, N=4, seed=1)
    growth[3] = torch.nan
    rates = (10 * RATES).expand(6, 3)
    cost, paid = torch.tensor([0.5, 0.6], dtype=torch.float64)
    limits = leveraged(budget)

    class Stepwise:  # the same method, not recognised
        tolerance = 1e-10

        def solve(self, problem, start):
            return ActiveSet().solve(problem, start)

    def weights(risk, q, cost, paid, solver=None):
        layer, symmetric = MeanVarianceLayer(solver), (risk + risk.mT) / 2
        return weights_on_dates(layer, symmetric, q, cost, growth, rates, paid, **limits)

    found = weights(risk, q, cost, paid)
    held, stays = np.zeros(4), 0
    for t in range(6):
        z, h = cvxpy.Variable(4), held if t != 3 else np.zeros(4)
        trade = 0.5 * float(cost) * cvxpy.sum_squares(z - h) + float(paid) * cvxpy.norm1(z - h)
        value = 0.5 * cvxpy.quad_form(z, cvxpy.psd_wrap(risk[t].numpy())) - q[t].numpy() @ z
        bounds = [cvxpy.sum(z) == budget, z >= -0.5, z <= 0.9]
        cvxpy.Problem(cvxpy.Minimize(value + (trade if t % 3 else 0)), bounds).solve(
            "CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
        )
        np.testing.assert_allclose(found[t], z.value, atol=2e-6)
        stays += int((np.abs(found[t].numpy() - h) < 1e-13).sum()) if t % 3 else 0
        if t + 1 < 6:
            earned, owed, fee = rates[t + 1].tolist()
            now = found[t].numpy()
            cash = 1 - now.sum()
            cash += cash * (earned if cash > 0 else owed) + fee * now.clip(max=0).sum()
            grown = now * growth[t + 1].numpy()
            held = grown / (grown.sum() + cash)
    assert 2 < stays < 12

    inputs = [each.clone().requires_grad_() for each in (risk, q, cost, paid)]
    assert gradcheck(weights, inputs, eps=1e-6, atol=1e-6)
    pull = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)
    for one, two in zip(
        torch.autograd.grad(weights(*inputs), inputs, pull),
        torch.autograd.grad(weights(*inputs, Stepwise()), inputs, pull),
        strict=True,
    ):
        assert torch.allclose(one, two, atol=1e-12)
