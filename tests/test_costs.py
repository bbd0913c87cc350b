import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import Costs
from engine.costs import account, drift


def weights(rows, assets, seed=0, cash=False):
    rng = np.random.default_rng(seed)
    drawn = rng.dirichlet(np.ones(assets + cash), rows)[:, :assets]
    return torch.tensor(drawn)


def test_buying_in_from_cash_by_hand():
    # All cash into one asset at 1%: V+ = V / 1.01, so k = 1 - 1 / 1.01.
    trade = Costs(0.01).charge(torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    assert trade.cost.item() == pytest.approx(1 - 1 / 1.01, rel=1e-15)
    assert trade.turnover.item() == pytest.approx(1 / 1.01, rel=1e-15)


def test_switching_by_hand():
    # Sell all of A (value 1, cost c), buy B with what is left: V+ (1 + c) = 1 - c.
    c = 0.002
    held, wanted = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    trade = Costs(commission=0.001, spread=0.002).charge(wanted, held)
    assert trade.cost.item() == pytest.approx(1 - (1 - c) / (1 + c), rel=1e-14)


def test_no_trade_costs_nothing():
    w = weights(4, 3)
    trade = Costs(0.01).charge(w, w)
    assert torch.equal(trade.cost, torch.zeros(4).double())


def test_drift_by_hand():
    w = torch.tensor([0.5, 0.25], dtype=torch.float64)  # and a quarter in cash
    after = drift(w, torch.tensor([1.2, 0.8], dtype=torch.float64))
    expected = torch.tensor([0.6 / 1.05, 0.2 / 1.05], dtype=torch.float64)
    torch.testing.assert_close(after, expected, rtol=1e-15, atol=0)


@given(st.integers(0, 10_000), st.floats(0, 0.09), st.booleans())
def test_the_cost_equation_holds(seed, rate, cash):
    wanted, held = weights(6, 5, seed, cash), weights(6, 5, seed + 1, cash)
    trade = Costs(rate).charge(wanted, held)
    owed = rate * (wanted * (1 - trade.cost.unsqueeze(-1)) - held).abs().sum(-1)
    assert torch.allclose(owed, trade.cost, rtol=0, atol=1e-16)
    assert torch.allclose(rate * trade.turnover, trade.cost, rtol=0, atol=1e-16)


def test_the_cost_has_its_exact_gradient():
    wanted, held = weights(3, 4).requires_grad_(), weights(3, 4, 1).requires_grad_()
    costs = Costs(0.05)
    assert torch.autograd.gradcheck(lambda w, h: costs.charge(w, h).cost, (wanted, held))
    assert torch.autograd.gradcheck(lambda w, h: costs.charge(w, h).turnover, (wanted, held))


def test_an_account_equals_a_loop_over_money():
    w, before = weights(7, 4, cash=True), weights(1, 4, 5, cash=True)[0]
    growth = torch.tensor(np.random.default_rng(2).uniform(0.8, 1.3, (7, 4)))
    result = account(w, growth, Costs(0.01), before)

    holdings, cash = before.numpy().copy(), 1 - before.sum().item()
    for k in range(7):
        value = holdings.sum() + cash
        after = value
        for _ in range(100):  # the trade pays for itself
            after = value - 0.01 * np.abs(w[k].numpy() * after - holdings).sum()
        holdings, cash = w[k].numpy() * after, (1 - w[k].sum().item()) * after
        assert result.cost[k].item() == pytest.approx(1 - after / value, abs=1e-15)
        holdings = holdings * growth[k].numpy()
        earned = (holdings.sum() + cash) / value - 1
        assert result.net_returns[k].item() == pytest.approx(earned, abs=1e-14)


def test_an_account_has_its_exact_gradient():
    w, growth = weights(4, 3).requires_grad_(), 1 + weights(4, 3, 1) / 10
    before = weights(1, 3, 2)[0].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, b: account(w, growth, Costs(0.02), b).net_returns, (w, before)
    )


def test_costs_are_fractions():
    with pytest.raises(ValueError, match="10 bp is 0.001"):
        Costs(commission=10)
    with pytest.raises(ValueError, match="spread=-0.1"):
        Costs(spread=-0.1)
