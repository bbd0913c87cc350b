"""The market's memory, compared before and after whatever code of a strategy runs.

Strategies are handed views of one history. Arrays of numpy can be made writable again, and a
strategy that writes prices trades at prices that never were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from data_loaders import Panel


class MarketChanged(RuntimeError):
    """A strategy wrote into the memory of the market; nothing of the run can be trusted."""


@contextmanager
def unchanged_market(panel: Panel, name: str) -> Iterator[None]:
    """A block in which the code of a strategy runs.

    Raises:
        MarketChanged: at its end, if the content of the panel is not what it was.
    """
    _ = panel.fingerprint
    yield
    if not is_unchanged(panel):
        raise MarketChanged(
            f"{name} wrote into the memory of the market: prices, features or members are not what "
            "they were, so no result of this run can be trusted. Let it write to copies, like "
            "history.prices.copy(), and load the data again"
        )


def is_unchanged(panel: Panel) -> bool:
    """Whether nobody wrote into its memory since its ``fingerprint`` was first asked for."""
    values, returns = panel.prices.to_numpy(), panel.returns.to_numpy()
    with np.errstate(all="ignore"):
        moves = values[1:] / values[:-1] - 1
    same = np.array_equal(moves, returns[1:], equal_nan=True)
    return same and panel.content_hash() == panel.fingerprint
