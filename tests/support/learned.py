"""Small learned strategies, and training data whose signal is known."""

import numpy as np
import torch
from torch import nn

from engine.training.dataset import Dataset
from strategies import LearnedStrategy


class Softmax(LearnedStrategy):
    """A learned strategy is a module and nothing else."""

    lookback = 21

    def build(self, inputs):
        return SoftmaxModule(inputs["returns"].shape[1])


class SoftmaxModule(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.score = nn.Linear(rows, 1)

    def forward(self, inputs):
        score = self.score(inputs["returns"].transpose(1, 2) * 100).squeeze(-1)
        return torch.softmax(score.masked_fill(~inputs["tradable"], -torch.inf), dim=-1)


class Tilt(LearnedStrategy):
    """Softmax of a linear score of one feature."""

    def __init__(self, lookback=2):
        self.lookback = lookback

    def build(self, inputs):
        return TiltModule()


class TiltModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return torch.softmax(self.strength * inputs["feature"], dim=-1)


def samples(rows=300, assets=4, signal=0.02, seed=0):
    """Growth that follows a feature known at the decision, plus noise."""
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(rows, assets))
    growth = 1 + signal * feature + 0.02 * rng.normal(size=(rows, assets))
    days = np.arange(rows) * 5
    return Dataset({"feature": torch.tensor(feature)}, torch.tensor(growth), days, days + 6, 52.0)
