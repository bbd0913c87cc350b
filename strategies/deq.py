"""DEQMeanVariance: features -> equilibrium of the assets -> q and P -> the optimal portfolio.

Read ``DEQMeanVarianceNetwork.forward``: it is the whole strategy, top to bottom.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from data_loaders import Panel
from strategies.base import Inputs, LearnedStrategy
from strategies.features import price_features
from strategies.layers.deq import DEQEncoder
from strategies.layers.mean_variance import ActiveSet, MeanVarianceLayer, Qpth
from strategies.risk import shrunk_covariance

SOLVERS = {"active_set": ActiveSet, "qpth": Qpth}


class DEQMeanVariance(LearnedStrategy):
    """A portfolio that is the solution of an optimisation inside the network.

    A deep equilibrium encoder reads features of every asset in the light of all others; its
    heads say the expected returns q and adjust a trailing covariance to the risk P; the
    weights solve  min 1/2 z'Pz - q'z,  1'z = 1,  0 <= z <= cap.

    Before the first training step q is zero and P the Ledoit-Wolf covariance plus a ridge:
    the network starts as a minimum-variance portfolio and leaves it only with evidence.

    Args:
        lookback: rows of prices behind the features and the covariance.
        hidden: width H of the encoder's state per asset.
        cap: largest weight of an asset, a fraction; 0.2 = 20%.
        ridge: added to the diagonal of P at the start, in units of the mean variance; from 0
            (minimum variance) towards infinity (1/N).
        solver: "active_set" (exact and fast) or "qpth" (the reference).
    """

    equivariant = True

    def __init__(
        self,
        lookback: int = 253,
        hidden: int = 16,
        cap: float = 0.2,
        ridge: float = 1.0,
        solver: str = "active_set",
    ):
        self.lookback = lookback
        self.hidden = hidden
        self.cap = cap
        self.ridge = ridge
        self.solver = solver

    def prepare(self, history: Panel) -> Inputs:
        return {
            "features": torch.from_numpy(price_features(history)),  # (N, F)
            "covariance": torch.from_numpy(shrunk_covariance(history)),  # (N, N)
            "trades": torch.from_numpy(history.trades_throughout.to_numpy()),  # (N,)
        }

    def build(self, inputs: Inputs) -> nn.Module:
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; known are {', '.join(SOLVERS)}")
        if not self.ridge > 0:
            raise ValueError(f"ridge must be positive, got {self.ridge}")
        return DEQMeanVarianceNetwork(
            scaler=Standardise(inputs["features"], inputs["trades"]),
            encoder=DEQEncoder(inputs["features"].shape[-1], self.hidden),
            optimiser=MeanVarianceLayer(solver=SOLVERS[self.solver]()),
            hidden=self.hidden,
            cap=self.cap,
            ridge=self.ridge,
        )


class DEQMeanVarianceNetwork(nn.Module):
    """Features (B, N, F) and covariances (B, N, N) in, weights (B, N) out."""

    def __init__(
        self,
        scaler: nn.Module,
        encoder: nn.Module,
        optimiser: nn.Module,
        hidden: int,
        cap: float,
        ridge: float,
    ):
        super().__init__()
        self.scaler = scaler
        self.encoder = encoder
        self.optimiser = optimiser
        self.cap = cap
        self.heads = nn.Linear(hidden, 3)  # expected return, risk scale, ridge of each asset
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.log_ridge = nn.Parameter(torch.tensor(math.log(ridge)))

    def forward(self, inputs: Inputs) -> Tensor:
        trades = inputs["trades"]  # (B, N)
        state = self.encoder(self.scaler(inputs["features"]), trades)  # (B, N, H), f(z*) = z*
        expected_return, scale, ridge = self.heads(state).unbind(-1)  # (B, N) each
        scale = within(scale, 2.0)
        risk = scale.unsqueeze(-1) * inputs["covariance"] * scale.unsqueeze(-2)  # (B, N, N)
        risk = risk + torch.diag_embed(self.log_ridge.exp() * within(ridge, 4.0))
        return self.optimiser(
            risk, expected_return * trades, upper=self.cap * trades, keys=known_by(inputs)
        )


def known_by(inputs: Inputs) -> list[int] | None:
    """What identifies each sample in training, so that its next solve can start from its last."""
    return inputs["row"].tolist() if "row" in inputs else None


class Standardise(nn.Module):
    """Features to mean 0 and deviation 1, as measured on the training rows that trade."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, trades: Tensor):
        super().__init__()
        seen = features[trades]  # (rows that trade, F)
        self.register_buffer("mean", seen.mean(dim=0))
        self.register_buffer("deviation", seen.std(dim=0).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-5, 5)


def within(raw: Tensor, factor: float) -> Tensor:
    """A positive multiplier between 1/factor and factor; 1, with slope 1, at raw = 0."""
    bound = math.log(factor)
    return (bound * torch.tanh(raw / bound)).exp()
