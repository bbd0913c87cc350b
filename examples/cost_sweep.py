"""A cost sweep: what the same decisions earn at other costs, and what training at them changes."""

from deqfolio import (
    Costs,
    DEQMeanVariance,
    EqualWeight,
    Training,
    WalkForward,
    backtest,
    cost_sweep,
    load,
    summary_table,
)

panel = load("sp500", start="2012-01-01")
plan = WalkForward(train="5Y", refit="3Y")
training = Training(epochs=10)  # its loss charges five times the costs, to curb overtrading

strategies = [DEQMeanVariance(), EqualWeight()]
results = backtest(strategies, panel, plan, Costs(commission=0.001), training)
for name, result in results.items():  # nothing is trained anew here
    print(f"{name}\n{cost_sweep(result, [0, 5, 10, 25, 50]).round(3)}\n")

# Trained and charged at 50 bp instead:
dear = backtest(DEQMeanVariance(), panel, plan, Costs(commission=0.005), training)
print(summary_table(dear).T)
