import dataclasses

import numpy as np
import pytest
import torch
from books import trade
from hypothesis import given
from hypothesis import strategies as st

from data_loaders import DataError, Panel
from engine import Costs
from engine.accounting.costs import settle
from engine.accounting.market import Market


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


def test_an_account_has_its_exact_gradient():
    w, growth = weights(4, 3).requires_grad_(), 1 + weights(4, 3, 1) / 10
    before, carried = weights(4, 3, 2).requires_grad_(), torch.full((4,), 0.01, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda w, b: settle(w, growth, b, carried, Costs(0.02)).net_returns, (w, before)
    )


def test_an_account_by_hand():
    # Of 100: 50 in A and 50 in cash, all moved to A at 1%: 100 - c = 50 + x, c = 0.01 x. Then A
    # gains 10%, and carry is 2%.
    w, before = torch.ones(1, 1).double(), torch.full((1, 1), 0.5).double()
    found = settle(w, w * 1.1, before, torch.tensor([0.02], dtype=torch.float64), Costs(0.01))
    traded = 0.5 / 1.01
    assert found.turnover.item() == pytest.approx(traded, rel=1e-14)
    assert found.cost.item() == pytest.approx(0.01 * traded, rel=1e-14)
    assert found.gross_returns.item() == pytest.approx(0.1, rel=1e-14)
    assert found.net_returns.item() == pytest.approx((1 - 0.01 * traded) * 1.12 - 1, rel=1e-14)
    assert found.weights is w
    assert found.asset_returns.item() == pytest.approx(0.1, rel=1e-14)
    assert found.expected_return is None


ALL = Costs(
    0.001, 0.002, impact=0.8, fixed=3.0, minimum=9.0, borrow=0.03, financing=0.05, cash_rate=0.01,
    capital=1e5,
)  # fmt: skip


def money_paid(order, price_of_risk, costs):
    """Cost in money of one order of so much money, written out."""
    if order == 0:
        return 0.0
    fee = max(costs.commission * abs(order) + costs.fixed, costs.minimum)
    return fee + costs.spread / 2 * abs(order) + costs.impact * price_of_risk * abs(order) ** 1.5


def long_short(rows, assets, seed):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(0.2, 0.4, (rows, assets)))


@pytest.mark.parametrize("seed", range(5))
def test_every_cost_against_a_search_for_the_value_left(seed):
    wanted, held = long_short(1, 4, seed)[0], long_short(1, 4, seed + 9)[0]
    wanted[1] = held[1] = 0  # no order
    risk = torch.tensor(np.random.default_rng(seed).uniform(1e-6, 1e-5, 4))
    trade = ALL.charge(wanted, held, risk)

    def shortfall(left):  # money: what is left plus what is paid, against what was there
        orders = (wanted * left - held * ALL.capital).tolist()
        paid = [money_paid(u, r, ALL) for u, r in zip(orders, risk.tolist(), strict=True)]
        return left + sum(paid) - ALL.capital

    low, high = 0.0, ALL.capital
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if shortfall(middle) < 0 else (low, middle)
    assert trade.cost.item() == pytest.approx(1 - low / ALL.capital, abs=1e-14)
    assert trade.cost.item() > 0.001


def test_nothing_is_bought_where_what_is_sold_does_not_come_to_the_fees():
    """Fees of 1 in 100,000: a sale of 1.5 leaves 0.5, too little for a purchase."""
    costs = Costs(0.0, minimum=1.0, capital=1e5)
    held = np.array([[0.1, 0.3, 0.6], [0.1, 0.3, 0.6]])
    wanted = np.array([[0.1 - 1.4e-5, 0.3 + 1.5e-5, np.nan], [0.1 - 4e-5, 0.3 + 4e-5, np.nan]])
    found = costs.charge(torch.tensor(wanted), torch.tensor(held))
    orders = found.weights * (1 - found.cost.unsqueeze(-1)) - torch.tensor(held)
    assert found.cost.tolist() == pytest.approx([1e-5, 2e-5], rel=1e-9)
    assert orders[0].tolist() == pytest.approx([-1.5e-5 + 1.4e-10, 0, 0], abs=1e-15)
    assert (orders[1, 1] > 1e-5).item()
    for k in range(2):
        expected, paid = trade(
            held[k] * 1e5, 0.0, wanted[k], 1.0, np.zeros(3), dataclasses.asdict(costs), 1.0
        )
        np.testing.assert_allclose(orders[k] * 1e5, expected, atol=1e-6)
        assert paid == pytest.approx(found.cost[k].item() * 1e5, rel=1e-9)


def test_an_order_of_nothing_is_free_and_a_small_one_pays_the_minimum():
    held = torch.tensor([0.5, 0.3], dtype=torch.float64)
    costs = Costs(0.001, fixed=2.0, minimum=5.0, capital=1e4)
    assert costs.charge(held, held).cost.item() == 0
    trade = costs.charge(held * torch.tensor([1.01, 1.0]).double(), held)
    # The first asset is bought for about 50: 2.05 is below the minimum. To keep the second at
    # 0.3 of what is left, a little of it is sold: the minimum again.
    assert trade.cost.item() == pytest.approx(10.0 / 1e4, rel=1e-12)


def test_all_costs_have_their_exact_gradient():
    wanted, held = long_short(3, 4, 0).requires_grad_(), long_short(3, 4, 7).requires_grad_()
    risk = torch.full((3, 4), 5e-6, dtype=torch.float64)
    for costs in (
        ALL, Costs(0.01, fixed=1.0, impact=1.0, capital=1e5), Costs(0.05, spread=0.09),
    ):  # fmt: skip

        def cost(w, h, costs=costs):
            return costs.charge(w, h, risk).cost

        assert torch.autograd.gradcheck(cost, (wanted, held))


def test_multiplied_costs_are_those_of_trading():
    twice = ALL.times(2)
    assert (twice.commission, twice.fixed, twice.minimum) == (0.002, 6.0, 18.0)
    assert (twice.spread, twice.impact) == (0.004, 1.6)
    for name in ("borrow", "financing", "cash_rate", "capital"):
        assert getattr(twice, name) == getattr(ALL, name)


def test_costs_that_eat_the_portfolio_are_refused():
    one = torch.ones(1, 3).double() / 3
    with pytest.raises(ValueError, match="come to the whole portfolio"):
        Costs(fixed=50.0, capital=100.0).charge(one, one * 0)
    one = torch.ones(1, 1).double()
    # What is left of 1 would pay 0.74; the orders of all of 1 would cost 0.7 + 0.31.
    with pytest.raises(ValueError, match="come to the whole portfolio"):
        Costs(0.0, fixed=0.7, impact=1.0, capital=1.0).charge(one, 0 * one, 0.31 * one)


def test_impact_needs_volume_and_capital(walks):
    with pytest.raises(ValueError, match="give capital"):
        Costs(impact=1.0)
    costs = Costs(impact=1.0, capital=1e6)
    with pytest.raises(DataError, match="needs the asset feature"):
        _ = Market(walks, costs).illiquidity
    with pytest.raises(ValueError, match="needs the illiquidity"):
        costs.charge(torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    volume = walks.prices * 0 + 1e6
    found = Market(Panel(walks.prices, {"volume": volume}), costs).illiquidity
    row = 500
    sigma = walks.returns.iloc[row - 62 : row + 1].std()
    money = (1e6 * walks.prices.iloc[row - 62 : row + 1]).mean()
    np.testing.assert_allclose(found[row], sigma / money**0.5, rtol=1e-9)
    volume["A2"] = 0.0
    with pytest.raises(DataError, match="no volume of A2"):
        _ = Market(Panel(walks.prices, {"volume": volume}), costs).illiquidity
    assert Market(walks, Costs()).illiquidity is None


def test_costs_are_fractions():
    assert Costs(capital=0.5).capital == 0.5
    for wrong in ({"fixed": -1}, {"borrow": 3.0}, {"capital": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Costs(**wrong)
    with pytest.raises(ValueError, match="10 bp is 0.001"):
        Costs(commission=10)
    with pytest.raises(ValueError, match="spread=-0.1"):
        Costs(spread=-0.1)


@pytest.mark.parametrize(
    ("names", "allowed", "refused"),
    [
        (("commission", "spread"), (0.0, 0.0999), (-1e-9, 0.1, "0.01", True)),
        (("impact", "fixed", "minimum"), (0.0, 1e9), (-1e-9, np.inf, np.nan, "1", True)),
        (("borrow", "financing", "cash_rate"), (-0.0999, 0.999), (-0.1, 1.0, "0.02", False)),
        (("capital",), (1e-9, 1e15), (0.0, -1.0, np.inf, np.nan, "1e6", True)),
    ],
)
def test_each_setting_has_its_range(names, allowed, refused):
    for name in names:
        for value in allowed:
            assert getattr(Costs(**{"capital": 1e6, name: value}), name) == value
        for value in refused:
            with pytest.raises(ValueError, match=f"^{name}="):
                Costs(**{"capital": 1e6, name: value})


@pytest.mark.parametrize("name", ["impact", "fixed", "minimum"])
def test_costs_that_depend_on_the_size_of_a_trade_need_capital(name):
    with pytest.raises(ValueError, match="give capital"):
        Costs(**{name: 1.0})


def test_carry_of_a_year_by_hand():
    costs = Costs(0.0, borrow=0.03, financing=0.05, cash_rate=0.01)
    weights = torch.tensor([[0.8, -0.3], [1.5, -0.1], [0.6, 0.4]], dtype=torch.float64)
    # Half of it is cash, 0.3 is short; then 0.4 is borrowed, 0.1 is short; then nothing is.
    expected = [0.01 * 0.5 - 0.03 * 0.3, -0.05 * 0.4 - 0.03 * 0.1, 0.0]
    np.testing.assert_allclose(costs.carry(weights), expected, atol=1e-15)


def test_fees_are_a_fraction_of_the_value_that_is_given():
    half = torch.full((2, 1), 0.5, dtype=torch.float64)
    trade = Costs(0.0, fixed=1.0, capital=100.0).charge(
        half, 0 * half, None, torch.tensor([50, 20])
    )
    np.testing.assert_allclose(trade.cost, [1 / 50, 1 / 20], rtol=1e-14)
    np.testing.assert_allclose(trade.turnover, [0.5 * 0.98, 0.5 * 0.95], rtol=1e-14)


def test_the_cost_equation_takes_few_steps_where_costs_are_small():
    steps = []

    class Counting(Costs):
        def paid(self, orders, illiquidity, value):
            steps.append(1)
            return super().paid(orders, illiquidity, value)

    Counting(0.001).charge(weights(20, 5), weights(20, 5, 1))
    assert 3 < len(steps) < 12  # each of them is 0.001 times as large as the one before


def test_a_cost_that_the_iteration_does_not_find_is_refused():
    """k = 0.99 (1 - k)^1.5 is jumped over, from 0 to nearly 1 and back."""
    one = torch.ones(1, 1).double()
    with pytest.raises(ValueError, match="too large for the volume"):
        Costs(0.0, impact=1.0, capital=1.0).charge(one, 0 * one, 0.99 * one)


def test_a_cost_that_is_approached_slowly_is_exact():
    """k = 0.7 (1 - k)^1.5 comes nearer by a factor of 0.85 a step; a Newton step ends it."""
    one = torch.ones(1, 1).double()
    found = Costs(0.0, impact=1.0, capital=1.0).charge(one, 0 * one, 0.7 * one).cost.item()
    assert found == pytest.approx(0.7 * (1 - found) ** 1.5, rel=1e-15)
    assert 0.3 < found < 0.4


def test_accounts_of_several_periods_with_market_impact():
    costs = Costs(0.002, impact=1.0, capital=1e4)
    w, before, growth = weights(3, 2, 0, cash=True), weights(3, 2, 1, cash=True), weights(3, 2, 2)
    lack = torch.tensor([[1e-4, 2e-4], [3e-4, 1e-4], [2e-4, 2e-4]], dtype=torch.float64)
    found = settle(w, growth, before, torch.zeros(3).double(), costs, lack)
    for row in range(3):
        alone = costs.charge(w[row], before[row], lack[row])
        earned = sum(w[row, k].item() * (growth[row, k].item() - 1) for k in range(2))
        assert found.cost[row].item() == pytest.approx(alone.cost.item(), rel=1e-14)
        assert found.gross_returns[row].item() == pytest.approx(earned, rel=1e-13)
        net = (1 - alone.cost.item()) * (1 + earned) - 1
        assert found.net_returns[row].item() == pytest.approx(net, rel=1e-13)
    free = Costs(0.002).charge(w, before).cost
    assert (found.cost > 1.5 * free).all()


def test_a_large_market_impact_has_its_exact_gradient():
    wanted, held = weights(2, 3).requires_grad_(), weights(2, 3, 1).requires_grad_()
    costs, lack = Costs(0.0, impact=1.0, capital=1.0), torch.full((2, 3), 0.4).double()
    assert torch.autograd.gradcheck(lambda w, h: costs.charge(w, h, lack).cost, (wanted, held))
