"""A loss of one's own: the worst month counts. Run it, or name it in an experiment's TOML file:

[training]
loss = { class = "own_loss.py:WorstPeriod", softness = 0.01 }
"""

from dataclasses import dataclass

import torch

from deqfolio import (
    Costs,
    DEQMeanVariance,
    Loss,
    NegativeSharpe,
    Training,
    WalkForward,
    backtest,
    load,
    summary_table,
)


@dataclass(frozen=True)
class WorstPeriod(Loss):
    """A soft maximum of the losses of a block; ``softness`` in units of return."""

    softness: float = 0.01

    def __call__(self, account, periods_per_year):
        return self.softness * torch.logsumexp(-account.net_returns / self.softness, 0)


if __name__ == "__main__":
    panel = load("sp500", start="2016-01-01")
    training = Training(loss=NegativeSharpe() + 5 * WorstPeriod(), epochs=5)
    plan = WalkForward(train="3Y", refit="1Y", rebalance="W-FRI")
    result = backtest(DEQMeanVariance(), panel, plan, Costs(commission=0.001), training)
    print(summary_table(result).T)
