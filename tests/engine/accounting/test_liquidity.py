"""The illiquidity of assets, against a loop over the dates."""

from statistics import mean, stdev

import numpy as np
import pytest
from markets import random_walks

from data_loaders import Panel
from engine import Costs
from engine.accounting.liquidity import illiquidity

COSTS = Costs(impact=1.0, capital=1e6)


@pytest.mark.parametrize("size", [1e6, 1e-3])  # of the volume: large, and below 1 in money
def test_illiquidity_is_that_of_the_quarter_to_each_date(size):
    """From the first two returns and volumes on; rows before take the first figure."""
    panel = random_walks(70, 2)
    prices = panel.prices.to_numpy()
    volume = size * (1 + np.arange(140.0).reshape(70, 2) % 7)
    volume[0, 0] = np.nan  # the first asset's figure of row 2 is of two volumes
    expected = np.zeros((70, 2))
    for column in range(2):
        for row in range(2, 70):
            since = max(row - 62, 0)
            window = range(since, row + 1)
            traded = [volume[t, column] * prices[t, column] for t in window]
            grown = [prices[t, column] / prices[t - 1, column] - 1 for t in window if t]
            sold = mean(x for x in traded if x == x)
            expected[row, column] = stdev(grown) / sold**0.5
        expected[:2, column] = expected[2, column]
    frame = panel.prices * 0 + volume
    found = illiquidity(Panel(panel.prices, {"volume": frame}), COSTS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
