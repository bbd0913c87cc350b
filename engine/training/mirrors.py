"""Mirrored panels: the same market in which some assets go down when they went up.

A network that trains on them gains less from memorising which assets rose. All its inputs are
computed again from the mirrored prices, so features and returns stay consistent whatever the
features are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data_loaders import Panel
from engine.training.dataset import Dataset


def check_mirrored(panel: Panel, features: Sequence[str]) -> None:
    """Raise a ValueError where there is no asset feature of one of these names."""
    unknown = [name for name in features if name not in panel.asset_features]
    if unknown:
        known = ", ".join(map(repr, panel.asset_features)) or "none"
        raise ValueError(
            f"mirrored_features names {', '.join(map(repr, unknown))}, and the panel's asset "
            f"features are {known}"
        )


def mirrored(panel: Panel, number: int, features: Sequence[str] = (), fill: str = "close") -> Panel:
    """The panel with log returns of the opposite sign, of some assets.

    Prices p of these assets become 1 / p, row by row, so that a row of the result is known when
    that of the panel is.

    Args:
        number: which assets they are. Of the first mirror all; of each pair that follows about
            every second one at random (the seed is the pair's number), and those that it left. So
            every asset is turned in half of the panels, where the mirrors are odd in number.
        features: asset features that change sign with the returns, a forecast for example. Others,
            and those of the market, stay as they are.
        fill: the asset feature that is the price of fills, see ``WalkForward``.
    """
    turned = np.random.default_rng((number + 1) // 2).random(len(panel.assets)) < 0.5
    turned = np.ones_like(turned) if number == 0 else turned ^ (number % 2 == 0)
    prices = panel.prices.copy()
    prices.loc[:, turned] = 1 / prices.loc[:, turned]
    own = {}
    for name, frame in panel.asset_features.items():
        own[name] = frame * np.where(turned, -1.0, 1.0) if name in features else frame
        if name == fill:
            own[name] = frame.where(~turned, 1 / frame)
    return panel.replaced(
        prices=prices,
        asset_features=own,
        source=f"{panel.source}, mirrored",
    )


def with_mirrors(true: Dataset, copies: Sequence[Dataset]) -> Dataset:
    """The dataset with those of mirrored panels after it, from which blocks are drawn as well."""
    if not copies:
        return true
    every = [true, *copies]
    span = int(true.ends.max()) + 1
    inputs = {name: torch.cat([each.inputs[name] for each in every]) for name in true.inputs}
    inputs["row"] = torch.cat([each.inputs["row"] + k * span for k, each in enumerate(every)])
    return Dataset(
        inputs=inputs,
        growth=torch.cat([each.growth for each in every]),
        rows=true.rows,
        ends=true.ends,
        per_year=true.per_year,
        years=None if true.years is None else true.years.repeat(len(every)),
        illiquidity=None if true.illiquidity is None else true.illiquidity.repeat(len(every), 1),
        assets=true.assets,
        mirrors=len(copies),
        risk_free=None if true.risk_free is None else true.risk_free.repeat(len(every)),
        paths=None
        if true.paths is None
        else torch.cat([each.paths for each in every if each.paths is not None]),
        steps={k + n * len(true): s for n, each in enumerate(every) for k, s in each.steps.items()},
    )
