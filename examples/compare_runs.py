"""Compare two runs: keep each in a folder, and read them together in one report."""

from pathlib import Path

from deqfolio import (
    Costs,
    EqualWeight,
    MinimumVariance,
    WalkForward,
    backtest,
    load,
    summary_table,
    write_report,
)
from reports.compare import read_runs

panel = load("sp500", start="2012-01-01")
costs = Costs(commission=0.001)
folders = []
for name, rebalance in {"weekly": "W-FRI", "monthly": "ME"}.items():
    plan = WalkForward(train="5Y", rebalance=rebalance)
    folders.append(Path("runs") / name)
    backtest([MinimumVariance(), EqualWeight()], panel, plan, costs, run_dir=folders[-1])

# The same from the shell: deqfolio compare runs/weekly runs/monthly
together = read_runs(folders)  # over the dates that both have
print(summary_table(together).T)
print(write_report(together, "compare.html"))
