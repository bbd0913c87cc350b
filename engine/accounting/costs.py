"""Costs: what trading and holding are charged, the same in the training loss and the simulation.

A portfolio of value V is rebalanced to target fractions w of what is left after costs. With w+
the drifted fractions before the trade, the order in asset i is x_i = w_i (1 - k) - w+_i. The total
cost k is a fraction of V, and is paid out of the trade itself:

    k = sum_i c_i(x_i),    c_i(x) = max(commission |x| + fixed / V, minimum / V)
                                    + spread / 2 |x| + impact l_i sqrt(V) |x|^(3/2),

where an order of zero is free. ``charge`` solves for k. The last term is the square-root law of
market impact: an order of value u moves the price by impact * sigma_i * sqrt(u / v_i), with the
daily volatility sigma_i and the value traded a day v_i (Grinold & Kahn 1999, chapter 16; Boyd et
al. 2017, "Multi-period trading via convex optimization", section 2.3). The illiquidity of an asset
is l_i = sigma_i / sqrt(v_i).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from strategies.layers.drift import carry

NO_ORDER = 1e-12  # fraction of the portfolio up to which a difference is rounding, not an order
PER_ORDER = ("fixed", "minimum")
PER_YEAR = ("borrow", "financing", "cash_rate")


class CostsTooHigh(ValueError):
    """The costs of a trade come to the whole portfolio; ``sample`` is the first such trade."""

    def __init__(self, message: str, sample: int = 0):
        super().__init__(message)
        self.sample = sample


@dataclass(frozen=True)
class Costs:
    """Costs of trading (fractions of the value traded: 0.001 = 10 bp) and of holding.

    Dividends need no entry: they are in adjusted prices.

    Args:
        commission: paid on every trade.
        spread: the full bid-ask spread; a trade pays half of it.
        impact: how many daily volatilities trading a whole day's volume moves the price; about
            1. Needs the panel's asset feature "volume", in shares a session, and ``capital``.
        fixed: money paid for each order, on top of the commission.
        minimum: money, the least that commission and fixed fee of an order come to.
        borrow: a year, on the value of short positions; 0.02 = 2%.
        financing: a year, on cash owed (leverage).
        cash_rate: a year, earned on cash, that of short sales included.
        capital: money at the start; ``impact``, ``fixed`` and ``minimum`` need it. The training
            loss charges them at this value, the simulation at the value at the time.
    """

    commission: float = 0.001
    spread: float = 0.0
    impact: float = 0.0
    fixed: float = 0.0
    minimum: float = 0.0
    borrow: float = 0.0
    financing: float = 0.0
    cash_rate: float = 0.0
    capital: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):  # those of a subclass, too, where they are numbers
            value = getattr(self, item.name)
            if "float" in str(item.type) and isinstance(value, str | bool):
                raise ValueError(f"{item.name}={value!r} should be a number")
        for name in ("commission", "spread"):
            if not 0 <= (value := getattr(self, name)) < 0.1:
                raise ValueError(
                    f"{name}={value} is a fraction of the value traded and must be from 0 to below "
                    "0.1; 10 bp is 0.001"
                )
        for name in ("impact", *PER_ORDER):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name}={value} must not be negative")
        for name in PER_YEAR:
            if not -0.1 < (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} is a fraction a year; 2% is 0.02")
        if self.capital is not None and not 0 < self.capital < float("inf"):
            raise ValueError(f"capital={self.capital} must be positive")
        if self.capital is None and not self.proportional:
            raise ValueError("impact, fixed and minimum depend on how much is traded: give capital")

    @property
    def rate(self) -> float:
        """Cost of a unit of value traded, as far as it is proportional."""
        return self.commission + self.spread / 2

    @property
    def proportional(self) -> bool:
        """Whether the fraction paid is the same for a large portfolio as for a small one."""
        return not (self.impact or self.fixed or self.minimum)

    @property
    def holding(self) -> bool:
        """Whether holding, apart from trading, costs or earns anything."""
        return any(getattr(self, name) for name in PER_YEAR)

    def times(self, factor: float) -> Costs:
        """The same, with the costs of trading multiplied."""
        trading = ("commission", "spread", "impact", *PER_ORDER)
        return replace(self, **{name: getattr(self, name) * factor for name in trading})

    def charge(
        self,
        targets: Tensor,
        drifted: Tensor,
        illiquidity: Tensor | None = None,
        value: Tensor | float | None = None,
        most: Tensor | float = 1.0,
    ) -> Trade:
        """Trade from ``drifted`` to ``targets`` weights, both (..., N); differentiable.

        The equation above is a contraction, of factor c sum |w| where costs are proportional; it
        is solved by iteration without a graph, and one Newton step on top gives its exact
        gradient.

        Args:
            targets: NaN is no order. What an asset without an order has come to is part of the
                portfolio: where cash does not suffice, all buys are scaled down in proportion, and
                not made where it does not come to their fees.
            illiquidity: (..., N), l of the equation, if there is market impact.
            value: (...) money before the trade; ``capital`` by default.
            most: (...) that weights may sum to after a trade that leaves assets alone.

        Raises:
            CostsTooHigh: the costs come to the whole portfolio.
        """
        value = self.capital if value is None else value
        money = None if value is None else torch.as_tensor(value).to(targets)
        alone = targets.isnan()
        partial = bool(alone.any())
        wanted = targets.where(~alone, 0.0) if partial else targets
        buys = torch.ones(targets.shape[:-1], dtype=torch.bool, device=targets.device)

        def orders(cost: Tensor) -> Tensor:
            found = wanted * (1 - cost.unsqueeze(-1)) - drifted
            if not partial:
                return found
            found = found.where(~alone, 0.0)
            bought, sold = found.clip(min=0), found.clip(max=0)
            room = most * (1 - cost) - (drifted + sold).sum(-1)
            scale = (room / bought.sum(-1).clip(min=NO_ORDER)).clip(0, 1) * buys
            return sold + bought * scale.where(alone.any(-1), 1.0).unsqueeze(-1)

        def owed(cost: Tensor) -> Tensor:
            return self.paid(orders(cost), illiquidity, money).sum(-1)

        with torch.no_grad():
            cost = targets.new_zeros(targets.shape[:-1])
            changing = torch.ones_like(cost, dtype=torch.bool)
            for count in range(400):
                found = owed(cost)
                change = (found - cost).abs()
                cost = torch.where(changing, found, cost)  # each sample stops on its own
                changing = changing & (change >= 1e-12)  # the last step is Newton's
                if not changing.any() or (cost >= 1).any():
                    break
                if count == 200 and partial:  # cash is left, and less of it than the fees of buys
                    buys &= ~(changing & (change > 1e-9) & alone.any(-1))
            unpaid = cost >= 1
            if not unpaid.any():
                unpaid = changing & (change > 1e-9)
            if unpaid.any():
                raise CostsTooHigh(
                    "the costs of a trade come to the whole portfolio; is the capital too small "
                    f"for the fees, or too large for the volume? {self}",
                    int(unpaid.flatten().nonzero()[0]),
                )
            step = 1e-6  # exact to 1e-10 where costs are smooth, and so is the gradient
            slope = (owed(cost + step) - owed(cost - step)) / (2 * step)
        cost = cost + (owed(cost) - cost) / (1 - slope)
        traded = orders(cost)
        weights = (drifted + traded) / (1 - cost.unsqueeze(-1)) if partial else targets
        return Trade(cost, traded.abs().sum(-1), weights)

    def paid(self, orders: Tensor, illiquidity: Tensor | None, value: Tensor | None) -> Tensor:
        """c_i (..., N) of orders (..., N), all fractions of ``value``; differentiable."""
        size = orders.abs()
        paid = self.commission * size
        if self.fixed or self.minimum:
            assert value is not None
            paid = paid + (self.fixed / value).unsqueeze(-1)
            paid = torch.maximum(paid, (self.minimum / value).unsqueeze(-1))
            paid = paid.where(size > NO_ORDER, 0.0)
        paid = paid + self.spread / 2 * size
        if self.impact:
            if illiquidity is None or value is None:
                raise ValueError("market impact needs the illiquidity of assets and a value")
            paid = paid + self.impact * illiquidity * value.sqrt().unsqueeze(-1) * size**1.5
        return paid

    def carry(self, weights: Any) -> Any:
        """What holding ``weights`` (..., N) earns a year (...), a fraction; prices apart."""
        return carry(weights, self.cash_rate, self.financing, self.borrow)


class Trade(NamedTuple):
    """Fractions (...) of the portfolio's value before the trade."""

    cost: Tensor
    turnover: Tensor
    weights: Tensor  # (..., N) after it, of the value that is left


class Account(NamedTuple):
    """What S holding periods earned, each from one fill to the next; fractions of the value."""

    gross_returns: Tensor  # (S,) of prices alone
    net_returns: Tensor  # (S,)
    cost: Tensor  # (S,), at the start of each period
    turnover: Tensor  # (S,), likewise
    weights: Tensor  # (S, N) at the start of each period, after the trade
    asset_returns: Tensor  # (S, N) of prices over each period
    expected_return: Tensor | None = None  # (S, N), where the network has forecasts
    risk_free: Tensor | None = None  # (S,) simple returns over each period; None is 0
    row_returns: Tensor | None = None  # (S, D) of the invested part at the rows within, if asked
    predicted_variance: Tensor | None = None  # (S,) of the invested part a year, likewise

    @property
    def excess_returns(self) -> Tensor:
        """(S,) net returns less the risk-free ones."""
        return self.net_returns if self.risk_free is None else self.net_returns - self.risk_free


def settle(
    weights: Tensor,
    growth: Tensor,
    before: Tensor,
    carried: Tensor,
    costs: Costs,
    illiquidity: Tensor | None = None,
) -> Account:
    """The account of S holding periods.

    Because the targets are fractions of the value after costs, what a period earns depends on
    nothing but its own row, and all periods are computed at once. Carry accrues on the weights at
    the fill, and is settled at the next fill.

    Args:
        weights: (S, N) target weights at the start of each period.
        growth: (S, N) growth factors of prices over each period.
        before: (S, N) drifted weights just before each trade.
        carried: (S,) carry of each period, a fraction, see ``Costs.carry``.
        illiquidity: (S, N) at the fills, if there is market impact (see ``Costs.charge``).
    """
    trade = costs.charge(weights, before, illiquidity)
    gross = (weights * (growth - 1)).sum(-1)
    net = (1 - trade.cost) * (1 + gross + carried) - 1
    return Account(gross, net, trade.cost, trade.turnover, weights, growth - 1)
