"""The problems that the mean-variance layer is measured and tested on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PORTFOLIO = ("factor", "sample", "wishart", "sector", "cost", "turnover", "gross", "everything")
ADVERSARIAL = ("steep", "ill", "chain", "ties", "twins", "tight", "vertex", "scales")


def make_problem(
    kind: str, batch: int, assets: int, seed: int
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Risk (B, N, N), expected returns (B, N) and the layer's other arguments."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    def holdings() -> Tensor:
        amounts = (uniform(batch, assets) - 0.4).clamp(min=0.01)
        return amounts / amounts.sum(1, keepdim=True)

    cap = max(0.2 if assets <= 20 else 0.1, 2.3 / assets)
    loadings = 0.01 * normal(batch, assets, 10)
    risk = loadings @ loadings.mT + torch.diag_embed(1e-4 * (0.2 + uniform(batch, assets)))
    q = 1e-4 * normal(batch, assets)
    constraints: dict[str, Any] = {"upper": cap}
    if kind == "sample":
        returns = 0.01 * normal(batch, 2 * assets, assets)
        risk = returns.mT @ returns / (2 * assets)
    elif kind == "wishart":
        factor = normal(batch, assets, assets + 5)
        risk, q = factor @ factor.mT, (assets + 5) * normal(batch, assets)
        constraints = {"lower": -1.0, "upper": 1.1, "budget": 0.13}
    elif kind == "steep":  # nearly a linear program
        q = 1e3 * q
    elif kind == "ill":
        basis, _ = torch.linalg.qr(normal(batch, assets, assets))
        risk = (basis * torch.logspace(-4, 2, assets, dtype=torch.float64)) @ basis.mT
        risk, q = (risk + risk.mT) / 2, normal(batch, assets)
        constraints = {"lower": -0.5, "upper": 0.5, "budget": 0.3}
    elif kind == "chain":  # neighbours nearly alike
        place = torch.arange(assets, dtype=torch.float64)
        risk = (-0.01 * (place[:, None] - place).abs()).exp().expand(batch, -1, -1)
        q = 0.1 * normal(batch, assets)
        constraints = {"lower": -1.0, "upper": 1.0}
    elif kind == "ties":  # many multipliers and distances exactly alike
        factor = torch.randint(-1, 2, (batch, assets, 2), generator=draw).double()
        risk = factor @ factor.mT + 2 * torch.eye(assets, dtype=torch.float64)
        q = torch.randint(-2, 3, (batch, assets), generator=draw).double()
        constraints = {"upper": max(0.25, 2.0 / assets)}
    elif kind == "twins":  # pairs of assets that differ by 1e-7
        half = (assets + 1) // 2
        loadings = loadings[:, :half].repeat(1, 2, 1)[:, :assets]
        loadings = loadings + 1e-9 * normal(batch, assets, 10)
        risk = loadings @ loadings.mT + 1e-9 * torch.eye(assets, dtype=torch.float64)
    elif kind == "tight":  # hardly room between the caps and the budget
        caps = 0.5 + uniform(batch, assets)
        constraints = {"upper": caps / caps.sum(1, keepdim=True) * (1 + 1e-9)}
    elif kind == "vertex":  # the caps fill the budget exactly
        constraints = {"upper": 1.0 / (1 + assets // 2)}
    elif kind == "scales":  # assets of very different risk
        size = 10 ** (2 * normal(batch, assets)).clamp(-4, 4)
        risk = risk * size.unsqueeze(1) * size.unsqueeze(2)
        q = q * size
    if kind in ("sector", "everything"):
        sector = torch.arange(assets) % 10 if assets >= 20 else torch.arange(assets) % 2
        members = torch.stack([(sector == s).double() for s in range(int(sector.max()) + 1)])
        beta = 0.5 + uniform(assets)
        limit = 1.6 / len(members)
        count = len(members)
        constraints |= {
            "rows": torch.cat([members, beta[None]]),
            "row_lower": torch.tensor([-torch.inf] * count + [float(beta.mean())]).double(),
            "row_upper": torch.tensor([limit] * count + [float(beta.mean())]).double(),
        }
    if kind in ("cost", "everything"):
        constraints |= {"holdings": holdings(), "turnover_cost": 5e-5}
    if kind in ("turnover", "everything"):
        start = torch.full((batch, assets), 1 / assets, dtype=torch.float64)
        start = start if kind == "everything" else (start + holdings()) / 2
        constraints |= {"holdings": start, "turnover_limit": 0.6}
    if kind == "gross":
        constraints |= {"lower": -cap, "gross_limit": 1.6}
    return risk.contiguous(), q, constraints
