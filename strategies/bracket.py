"""Bracket: weights with the prices at which their orders and positions are closed or filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_loaders.suggestions import did_you_mean, listed


@dataclass(frozen=True)
class Bracket:
    """An answer of a strategy that carries protective orders, by asset; NaN or no entry is none.

    They are watched from the fill on in the open, high and low prices of each row, and stay until
    the next order in the asset, or until another answer names other ones. Where both are within a
    row's high and low, the stop comes before the take-profit. Where a price gaps through a level,
    the fill is at the open.

    Attributes:
        weights: as ``Strategy.allocate`` returns them.
        stop: price at which the position is closed: below today's close if it is long, above if it
            is short.
        trailing: the same as a fraction below the highest price since the fill (above the lowest
            of a short position): 0.1 is 10%.
        take_profit: price at which a profit is taken, on the other side of today's close.
        limit: worst price at which the order is filled. It rests until a row reaches the price,
            and is not counted among the holdings before that.
    """

    weights: pd.Series | None
    stop: pd.Series | Mapping[str, float] | None = None
    trailing: pd.Series | Mapping[str, float] | None = None
    take_profit: pd.Series | Mapping[str, float] | None = None
    limit: pd.Series | Mapping[str, float] | None = None

    def level(self, name: str, assets: pd.Index) -> np.ndarray:
        """The prices of that name (N,) by asset, NaN where none is given.

        Raises:
            ValueError: an unknown asset, one named twice, or something else than numbers.
        """
        given = getattr(self, name)
        if given is None:
            return np.full(len(assets), np.nan)
        if not isinstance(given, pd.Series | Mapping):
            raise ValueError(
                f"{name} of a Bracket is a Series or a dict by asset, got {type(given).__name__}; "
                f"{{{assets[0]!r}: ...}} names one asset"
            )
        found = given if isinstance(given, pd.Series) else pd.Series(dict(given), dtype=object)
        if not found.index.equals(assets):
            if len(unknown := found.index.difference(assets)):
                raise ValueError(
                    f"{name} names {listed(unknown)}, which the panel does not have"
                    f"{did_you_mean(str(unknown[0]), list(map(str, assets)))}"
                )
            if found.index.has_duplicates:
                twice = found.index[found.index.duplicated()]
                raise ValueError(f"{name} names {listed(twice)} twice")
            found = found.reindex(assets)
        values = pd.to_numeric(found, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        words = np.isnan(values) & found.notna().to_numpy()
        if words.any():
            raise ValueError(
                f"{name} of {listed(assets[words])} should be a number, "
                f"got {found[words].iloc[0]!r}"
            )
        return values
