"""Your own constraints: said once by name, kept exactly, checked and shown in the report."""

from deqfolio import Constraints, Exposure, Group, MinimumVariance, WalkForward, backtest, load

limits = Constraints(
    upper=0.15,  # no asset above 15 %
    caps={"AAPL": 0.05},  # this one lower
    floors={"JNJ": 0.02},
    groups=[Group("health", ["JNJ", "LLY", "MRK", "PFE", "UNH"], lower=0.1, upper=0.3)],
    exposures=[Exposure("oil less banks", {"CVX": 1, "XOM": 1, "BAC": -1, "JPM": -1}, upper=0.1)],
    turnover_limit=0.25,  # bought plus sold in one rebalance
)

panel = load("sp500", start="2012-01-01")
plan = WalkForward(train="5Y", rebalance="ME")
# The same for DEQMeanVariance, but for turnover terms: its loss charges turnover already.
strategies = {
    "free": MinimumVariance(),
    "limited": MinimumVariance(constraints=limits),
}
for name, result in backtest(strategies, panel, plan).items():
    health = result.targets[["JNJ", "LLY", "MRK", "PFE", "UNH"]].sum(axis=1)
    turnover = result.turnover.iloc[1:].max()
    print(
        f"{name:8s} AAPL at most {result.targets['AAPL'].max():.1%}, health {health.min():.1%} to "
        f"{health.max():.1%}, largest turnover {turnover:.1%}"
    )
