"""The market: the illiquidity of assets, against a loop over the dates."""

from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from data_loaders import Panel
from engine import Costs
from engine.accounting.market import Market

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
    found = Market(Panel(panel.prices, {"volume": frame}), COSTS).illiquidity
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_illiquidity_of_bars_is_that_of_days():
    """Hours of 24 a day, each with a 24th of a day's variance and volume."""
    dates = pd.date_range("2021-01-01", periods=24 * 200, freq="h")
    moves = np.random.default_rng(0).normal(0, 0.004, len(dates)).cumsum()
    hours = pd.DataFrame({"A": 100 * np.exp(moves)}, dates)
    volume = pd.DataFrame({"A": 1000 / 24}, dates)
    last = Market(Panel(hours, {"volume": volume}), COSTS).illiquidity[-1].item()
    days = hours.iloc[23::24].set_axis(dates[23::24].normalize())
    daily = days * 0 + 1000.0
    same = Market(Panel(days, {"volume": daily}), COSTS).illiquidity[-1].item()
    assert last == pytest.approx(
        0.004 * 24**0.5 / (1000 * hours["A"].iloc[-2190:].mean()) ** 0.5, rel=0.03
    )
    assert last == pytest.approx(same, rel=0.15)  # of 91 days
