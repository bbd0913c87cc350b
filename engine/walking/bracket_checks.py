"""Checks of the prices in a ``Bracket``: what no order could mean is an error that says why."""

from __future__ import annotations

import numpy as np

from data_loaders import Panel
from data_loaders.suggestions import listed
from engine.accounting.protective_orders import Levels
from strategies.base import Bracket


def checked_levels(
    bracket: Bracket, targets: np.ndarray, holdings: np.ndarray, history: Panel
) -> Levels | None:
    """The prices of a bracket by asset, or None where it names none.

    They are compared with the last known close; those of an asset that has none in ``history``, or
    in which there will be no position, are not.

    Args:
        targets: (N,) weights that are wanted; NaN, or the holding, where there is no order.
        holdings: (N,) weights at the close of the decision.

    Raises:
        ValueError: an unknown asset, something else than numbers, a price that is not positive,
            ``trailing`` outside of (0, 1), or a price on the wrong side.
    """
    assets = history.assets
    levels = Levels(*(bracket.level(name, assets) for name in Levels._fields))
    if np.isnan(levels).all():
        return None
    for name, values in zip(Levels._fields, levels, strict=True):
        low, high, words = (
            (0, 1, "between 0 and 1") if name == "trailing" else (0, np.inf, "above 0")
        )
        odd = ~np.isnan(values) & ~((values > low) & (values < high))
        if odd.any():
            raise ValueError(
                f"{name} of {listed(assets[odd])} should be {words}, got {values[odd][0]:g}"
            )
    after = np.where(np.isnan(targets), holdings, targets)  # (N,) once the order is filled
    side = np.sign(after)
    last = history.prices.ffill().iloc[-1].to_numpy(np.float64)
    bought = np.sign(after - holdings) == side
    limited = np.where(bought, levels.limit, np.nan)  # limits at which positions are opened
    start = side * np.fmin(side * last, side * limited)  # the price that others lie around
    for name, wrong, right in (
        ("stop", side * levels.stop >= side * start, ("below", "above")),
        ("take_profit", side * levels.take_profit <= side * start, ("above", "below")),
    ):
        if (wrong := wrong & (side != 0)).any():
            first = int(np.flatnonzero(wrong)[0])
            long = side[first] > 0
            where = "limit" if start[first] != last[first] else "close"
            raise ValueError(
                f"{name} of {listed(assets[wrong])} is on the wrong side: of a "
                f"{'long' if long else 'short'} position it is {right[0 if long else 1]} the "
                f"{where} of {start[first]:g}, got {getattr(levels, name)[first]:g}"
            )
    return levels
