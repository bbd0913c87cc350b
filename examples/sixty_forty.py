"""60% stocks and 40% bonds, traded only once the mix is five points off."""

import numpy as np
import pandas as pd

from deqfolio import Costs, Panel, Strategy, WalkForward, backtest, load, summary_table


class SixtyForty(Strategy):
    """Back to 60/40 where a weight is more than ``band`` away from it; otherwise no order."""

    lookback = 1

    def __init__(self, band=0.05):
        self.band = band

    def allocate(self, history, holdings):
        target = pd.Series({"stocks": 0.6, "bonds": 0.4})
        off = (holdings - target).abs().max()
        return target if off > self.band else None


index = load("sp500_index", start="2005-01-01").prices.iloc[:, 0]
yields = np.random.default_rng(0).normal(1.2e-4, 0.004, len(index))
bonds = pd.Series(100 * np.exp(yields.cumsum()), index.index)  # in place of a bond index
panel = Panel(pd.DataFrame({"stocks": index, "bonds": bonds}))

plan = WalkForward(train="1Y", rebalance="D")
costs = Costs(commission=0.0005, minimum=5, capital=100_000, cash_rate=0.02)
strategies = {"no band": SixtyForty(band=0), "5-point band": SixtyForty()}
results = backtest(strategies, panel, plan, costs)
print(summary_table(results).T)
for name, result in results.items():
    orders = result.orders
    print(f"{name}: {len(orders)} orders, {orders['fees'].sum():,.0f} in fees")
print(results["5-point band"].orders[["date", "asset", "side", "size", "price"]].to_string())
