"""Consecutive dates: from the weights of one to the holdings h that the next trades from, and back.

    h = w g / (sum w g + cash + carry),   cash = 1 - sum w

with g the growth of prices and the carry that of ``strategies/layers/drift.py``: interest on cash,
less that on borrowed cash and the fee of short positions.
"""

from __future__ import annotations

from strategies.layers.optimisation.active_set.compilation import helper


@helper
def cash_of(weights):
    cash = 1.0
    for i in range(weights.shape[0]):
        cash -= weights[i]
    return cash


@helper
def grown_total(chain, b, before):
    """What a portfolio of 1 is worth at date b, held at the weights ``before`` until then."""
    growth, rates = chain.growth[b], chain.rates[b]
    total, short = 1.0, 0.0
    for i in range(before.shape[0]):
        total += before[i] * growth[i] - before[i]
        short += min(before[i], 0.0)
    cash = cash_of(before)
    return total + rates[0] * max(cash, 0.0) + rates[1] * min(cash, 0.0) + rates[2] * short


@helper
def carry_over(chain, b, before, linear, trade):
    """Write the holdings h of date b, from the weights ``before`` it, and add c h to q."""
    holdings, growth = chain.holdings[b], chain.growth[b]
    total = grown_total(chain, b, before)
    for i in range(before.shape[0]):
        holdings[i] = before[i] * growth[i] / total
        linear[i] += chain.cost[b] * holdings[i]
    for i in range(trade.shape[1]):
        trade[0, i] = holdings[i]


@helper
def carry_back(chain, b, before, of_linear, of_trade, incoming):
    """Add to the gradient of the weights ``before`` what comes through the holdings of date b.

    ``of_linear`` is the gradient of the linear term of date b, ``of_trade`` that of the holdings
    that its turnover terms know, and of their cost.
    """
    holdings, growth, rates = chain.holdings[b], chain.growth[b], chain.rates[b]
    total, cost = grown_total(chain, b, before), chain.cost[b]
    kinks = of_trade.shape[1] > 0
    along = 0.0
    for i in range(before.shape[0]):
        along += (cost * of_linear[i] + (of_trade[0, i] if kinks else 0.0)) * holdings[i]
    interest = rates[0] if cash_of(before) > 0 else rates[1]
    for i in range(before.shape[0]):
        slope = growth[i] - 1 - interest + (rates[2] if before[i] < 0 else 0.0)
        of_holding = cost * of_linear[i] + (of_trade[0, i] if kinks else 0.0)
        incoming[i] += (of_holding * growth[i] - along * slope) / total
