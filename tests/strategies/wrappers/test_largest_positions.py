"""The largest weights, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from strategies import LargestPositions, Strategy

NAN = np.nan


class Fixed(Strategy):
    lookback = 1
    short = True
    leverage = 2.0

    def __init__(self, weights):
        self.weights = weights

    def allocate(self, history, holdings):
        return pd.Series(self.weights, history.assets)


@pytest.mark.parametrize(
    ("weights", "count", "least", "expected"),
    [
        ([0.4, 0.3, 0.2, 0.1], 2, 0.0, [4 / 7, 3 / 7, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], None, 0.25, [4 / 7, 3 / 7, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], None, 0.2, [4 / 9, 3 / 9, 2 / 9, 0]),
        ([0.4, 0.3, 0.2, 0.1], 3, 0.4, [4 / 7, 3 / 7, 0, 0]),
        ([0.2, -0.4, 0.1, 0.1], 2, 0.0, [0.8 / 3, -1.6 / 3, 0, 0]),
        ([0.4, NAN, 0.2, 0.1], 1, 0.0, [0.7, NAN, 0, 0]),  # left alone, and not counted
        ([0.2, 0.1, 0.1, 0.0], None, 0.5, [0, 0, 0, 0]),  # no position can be so large
        ([0.0, 0.0, 0.0, 0.0], 2, 0.1, [0, 0, 0, 0]),
    ],
)
def test_the_largest_are_kept_and_scaled(weights, count, least, expected):
    panel = random_walks(5, 4)
    held = pd.Series([0.01, 0.15, 0.05, 0.01], panel.assets)
    found = LargestPositions(Fixed(weights), count, least).allocate(panel, held)
    np.testing.assert_allclose(found, expected, atol=1e-12)
