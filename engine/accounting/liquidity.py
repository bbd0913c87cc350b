"""Illiquidity of each asset on each date, which market impact is proportional to."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from data_loaders import DataError, Panel
from engine.accounting.costs import Costs

FEWEST = 12  # rows behind the volatility and the volume of a date, where a quarter has fewer


def illiquidity(panel: Panel, costs: Costs) -> Tensor | None:
    """l = sigma / sqrt(v) of each date and asset, (T, N); None where no impact is charged.

    sigma is the standard deviation of daily returns and v the mean money traded a day, both over
    the quarter to that close. Rows of n a day, or one in n days, need no conversion: the variance
    and the money traded of a row are both that many times a day's. The first rows of an asset take
    its first figure. Volume is in shares a row, counted as prices are: as adjusted for splits.

    Raises:
        DataError: the panel has no feature "volume", or an asset without any.
    """
    if not costs.impact:
        return None
    if "volume" not in panel.asset_features:
        raise DataError(
            'market impact needs the asset feature "volume" (shares a session); the panel has '
            f"{', '.join(panel.asset_features) or 'no features'}; impact=0 goes without"
        )
    found = measured(panel)
    empty = found.columns[found.isna().any()]
    if len(empty):
        raise DataError(
            f"no volume of {', '.join(map(str, empty[:5]))}; market impact cannot be charged there"
        )
    return torch.from_numpy(found.to_numpy().copy())


def measured(panel: Panel) -> pd.DataFrame:
    """l as in ``illiquidity``, (T, N), whether or not it is charged; NaN where nothing is known.

    Without the feature "volume" the frame is empty.
    """
    if "volume" not in panel.asset_features:
        return pd.DataFrame()
    rows = max(FEWEST, round(panel.periods_per_year / 4))
    traded = (panel.asset_features["volume"] * panel.prices).rolling(rows, min_periods=2).mean()
    spread = panel.returns.rolling(rows, min_periods=2).std()
    return (spread / traded.where(traded > 0) ** 0.5).ffill().bfill()
