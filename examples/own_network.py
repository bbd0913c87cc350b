"""Your own network: a torch module that maps a batch of windows to weights, and nothing else."""

import torch
from torch import nn

from deqfolio import EqualWeight, LearnedStrategy, Training, backtest, load, summary_table


class Momentum(nn.Module):
    def __init__(self):
        super().__init__()
        self.tilt = nn.Parameter(torch.zeros(()))  # starts at 1/N

    def forward(self, inputs):
        returns = inputs["returns"]  # (B, lookback - 1, N)
        score = returns.sum(dim=1) / returns.std(dim=1)  # (B, N)
        return torch.softmax(self.tilt * score, dim=-1)


class LearnedMomentum(LearnedStrategy):
    lookback = 127

    def build(self, inputs):
        return Momentum()


if __name__ == "__main__":
    panel = load("sp500", start="2008-01-01")
    results = backtest([LearnedMomentum(), EqualWeight()], panel, training=Training(epochs=10))
    print(summary_table(results).T)
