"""A first backtest: the flagship beside 1/N on bundled prices, net of 10 bp, and a report."""

from deqfolio import (
    Costs,
    DEQMeanVariance,
    EqualWeight,
    WalkForward,
    backtest,
    load,
    summary_table,
    write_report,
)

panel = load("sp500", start="2008-01-01")  # or "prices.csv": one row a date, one column an asset
plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
results = backtest([DEQMeanVariance(), EqualWeight()], panel, plan, Costs(commission=0.001))
print(summary_table(results).T)
print(write_report(results, "report.html"))
