"""Ablations: DEQMeanVariance with the equilibrium or the optimiser exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_loaders import Panel
from strategies.base import LearnedStrategy
from strategies.constraints import Constraints
from strategies.contract_types import Inputs
from strategies.deq import DEQMeanVariance
from strategies.deq_network import Standardise
from strategies.features import feature_table
from strategies.layers.equilibrium.deq_encoder import DEQEncoder
from strategies.parameter_ranges import at_least, one_of


class ExplicitMeanVariance(DEQMeanVariance):
    """DEQMeanVariance with two explicit layers, of as many parameters, for the equilibrium.

    Args:
        lookback, hidden, cap, constraints, fallback, ridge, inertia, cash, target: as there.
        features, solver, risk, factors: likewise.
    """

    def __init__(
        self,
        lookback: int = 253,
        hidden: int = 16,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
        ridge: float = 1.0,
        inertia: float = 1.0,
        cash: bool = True,
        target: float | None = None,
        features: Sequence[str] = ("prices", "panel"),
        solver: str = "active_set",
        risk: str = "auto",
        factors: int = 10,
    ):
        super().__init__(
            lookback=lookback,
            hidden=hidden,
            cap=cap,
            constraints=constraints,
            fallback=fallback,
            ridge=ridge,
            inertia=inertia,
            cash=cash,
            target=target,
            features=features,
            solver=solver,
            risk=risk,
            factors=factors,
        )

    def encoder(self, assets: int, features: int) -> nn.Module:
        return ExplicitEncoder(features, self.hidden)


class UnrolledMeanVariance(DEQMeanVariance):
    """DEQMeanVariance with a few steps of its cell, differentiated through, for the equilibrium.

    Args:
        steps: applications of the cell, from zero on: layers with the same weights.
        cell: "mean_field" or "graph".
        lookback, hidden, cap, constraints, fallback, ridge, inertia, cash, target: as there.
        features, solver, risk, factors: likewise.
    """

    ranges: ClassVar = {"steps": at_least(1), "cell": one_of("mean_field", "graph")}

    def __init__(
        self,
        steps: int = 3,
        lookback: int = 253,
        hidden: int = 16,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
        ridge: float = 1.0,
        inertia: float = 1.0,
        cash: bool = True,
        target: float | None = None,
        cell: str = "mean_field",
        features: Sequence[str] = ("prices", "panel"),
        solver: str = "active_set",
        risk: str = "auto",
        factors: int = 10,
    ):
        super().__init__(
            lookback=lookback,
            hidden=hidden,
            cap=cap,
            constraints=constraints,
            fallback=fallback,
            ridge=ridge,
            inertia=inertia,
            cash=cash,
            target=target,
            cell=cell,
            features=features,
            solver=solver,
            risk=risk,
            factors=factors,
        )
        self.steps = steps

    def encoder(self, assets: int, features: int) -> nn.Module:
        return UnrolledEncoder(features, self.hidden, self.cell, self.steps)


class SoftmaxAllocation(LearnedStrategy):
    """The equilibrium's states to weights by a softmax under a cap, without risk or optimiser.

    Before the first training step it holds 1/N.

    Args:
        lookback: rows of prices behind the features.
        hidden: width H of the encoder's state per asset.
        cap: largest weight of an asset, a fraction; where a softmax exceeds it, the rest is
            shared among the others in proportion. Long-only.
        cell, features: as for DEQMeanVariance.
    """

    equivariant = True
    feature_names = DEQMeanVariance.feature_names
    ranges: ClassVar = {
        name: DEQMeanVariance.ranges[name] for name in ("lookback", "hidden", "cap", "cell")
    }

    def __init__(
        self,
        lookback: int = 253,
        hidden: int = 16,
        cap: float = 0.2,
        cell: str = "mean_field",
        features: Sequence[str] = ("prices", "panel"),
    ):
        self.lookback = lookback
        self.hidden = hidden
        self.cap = cap
        self.cell = cell
        self.features = features

    def prepare(self, history: Panel) -> Inputs:
        trades = history.trades_throughout
        if trades.sum() * self.cap < 1 - 1e-9:
            raise ValueError(
                f"{history.dates[-1].date()}: {trades.sum()} assets trade, and a cap of {self.cap} "
                f"on each allows {trades.sum() * self.cap:.2f} of 1; raise the cap"
            )
        return {
            "features": torch.tensor(feature_table(history, self.features).to_numpy()),  # (N, F)
            "trades": torch.tensor(trades.to_numpy()),  # (N,)
        }

    def build(self, inputs: Inputs) -> nn.Module:
        return SoftmaxNetwork(
            Standardise(inputs["features"], inputs["trades"]),
            DEQEncoder(inputs["features"].shape[-1], self.hidden, cell=self.cell),
            self.hidden,
            self.cap,
        )


class SoftmaxNetwork(nn.Module):
    """Features (B, N, F) in, weights (B, N) out."""

    def __init__(self, scaler: nn.Module, encoder: nn.Module, hidden: int, cap: float):
        super().__init__()
        self.scaler = scaler
        self.encoder = encoder
        self.head = nn.Linear(hidden, 1, bias=False)  # a softmax does not see a bias
        self.cap = cap
        nn.init.zeros_(self.head.weight)

    def forward(self, inputs: Inputs) -> Tensor:
        trades = inputs["trades"]  # (B, N)
        state = self.encoder(self.scaler(inputs["features"]), trades)  # (B, N, H)
        return capped_softmax(self.head(state).squeeze(-1), trades, self.cap)


class ExplicitEncoder(nn.Module):
    """``tanh(Y W1 + mean(Y) W2)`` of ``Y = tanh(x U + b)``, over the assets that trade.

    As many parameters as the mean-field cell of the same size.
    """

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.inject = nn.Linear(features, hidden)
        self.own = nn.Linear(hidden, hidden, bias=False)
        self.others = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, trades: Tensor) -> Tensor:
        """x (B, N, F) and a mask (B, N) -> (B, N, H), zero where an asset does not trade."""
        present = trades.unsqueeze(2).to(x.dtype)
        first = torch.tanh(self.inject(x)) * present
        mean = first.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
        return torch.tanh(self.own(first) + self.others(mean)) * present


class UnrolledEncoder(nn.Module):
    """An encoder's cell applied a few times, as layers that share their weights."""

    def __init__(self, features: int, hidden: int, cell: str, steps: int):
        super().__init__()
        if not (isinstance(steps, int) and steps >= 1):
            raise ValueError(f"steps is a whole number from 1 on, got {steps!r}")
        self.cell = DEQEncoder(features, hidden, cell=cell).cell
        self.steps = steps

    def forward(self, x: Tensor, trades: Tensor) -> Tensor:
        """x (B, N, F) and a mask (B, N) -> (B, N, H), zero where an asset does not trade."""
        present = trades.unsqueeze(2).to(x.dtype)
        f, inputs = self.cell.problem(x * present, present)
        state = torch.zeros_like(inputs[0])
        for _ in range(self.steps):
            state = f(state, *inputs)
        return self.cell.read(state)


def capped_softmax(scores: Tensor, present: Tensor, cap: float) -> Tensor:
    """The weights nearest to a softmax, in relative entropy, that no cap is exceeded by.

    ``w_i = min(cap, t p_i)`` with p the softmax over what is present and t such that they sum to
    one. Differentiable but where a weight just reaches its cap.

    Args:
        scores: (B, N). present: (B, N) bool, with at least 1 / cap true in each row.

    Returns:
        (B, N), zero where not present.
    """
    p = torch.softmax(scores.masked_fill(~present, torch.finfo(scores.dtype).min), dim=-1)
    p = p * present
    with torch.no_grad():
        capped = torch.zeros_like(present)
        for _ in range(p.shape[-1]):  # each round caps one more at least, or is the last
            exceeds = (_shared(p, capped, cap) > cap) & ~capped
            if not exceeds.any():
                break
            capped |= exceeds
    return torch.where(capped, torch.full_like(p, cap), _shared(p, capped, cap))


def _shared(p: Tensor, capped: Tensor, cap: float) -> Tensor:
    """What the capped leave, shared among the others in proportion to p."""
    free = p * ~capped
    rest = 1 - cap * capped.sum(-1, keepdim=True, dtype=p.dtype)  # not in torch's default float32
    total = free.sum(-1, keepdim=True)
    return free * (rest / torch.where(total > 0, total, 1.0))
