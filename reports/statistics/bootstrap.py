"""The stationary bootstrap: histories resampled in blocks of random length.

The rows of all strategies are resampled at once, as the returns of one date belong together;
blocks, as volatility comes in clusters.

Source: Politis and Romano (1994), The Stationary Bootstrap; block length by Politis and White
(2004) with the 2009 correction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 2000
SEED = 0
FEWEST = 30  # periods; below, a resampled history says nothing


def block_length(moves: np.ndarray) -> int:
    """The longest of the best mean block lengths of the columns (T, S), between 1 and sqrt(T)."""
    from arch.bootstrap import optimal_block_length

    varying = moves[:, moves.std(axis=0) > 1e-10]
    if not varying.shape[1]:
        return 1
    best = optimal_block_length(varying)["stationary"].max()
    return int(np.ceil(np.clip(np.nan_to_num(best, nan=1.0), 1.0, np.sqrt(len(moves)))))


def draws(rows: int, block: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Of each resampled history, (rows,) how often each row is in it."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(block, np.arange(rows), seed=seed)
    for (index,), _ in bootstrap.bootstrap(resamples):
        yield np.bincount(index, minlength=rows).astype(float)


def resampled_sharpes(values: np.ndarray, block: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, S) Sharpe ratios a period (ddof 1) of resampled histories of values (T, S)."""
    rows = len(values)
    moments = np.hstack([values, values**2])  # (T, 2S): the Sharpe ratio needs no more
    ratios = np.empty((resamples, values.shape[1]))
    for number, counts in enumerate(draws(rows, block, resamples, seed)):
        mean, square = np.split(counts @ moments / rows, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[number] = mean / np.sqrt((square - mean**2) * rows / (rows - 1))
    return ratios
