"""The books of two fills, worked out in money."""

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import Panel
from engine import Costs
from engine.accounting.bookkeeping import keep_book, whole_shares
from engine.accounting.market import Market
from engine.accounting.positions import Positions
from engine.accounting.simulation import fills_of


def filled(prices, targets, costs):
    """Targets by row, filled a row later."""
    dates = pd.bdate_range("2020-01-01", periods=len(prices))
    positions = Positions(Market(Panel(pd.DataFrame({"A": prices}, dates, dtype=float)), costs))
    for row, weight in targets.items():
        positions.order(row, np.array([weight]))
    positions.advance(len(prices) - 1)
    return fills_of(positions)


def test_all_entries_of_a_book_by_hand():
    """100 in money: 4.95 of A at 10, after a fee of 1. A goes to 12, then to 9; all is put in A.

    The fill is on a Thursday, so that the weekend lies before the last row.
    """
    costs = Costs(0.0, fixed=1.0, cash_rate=0.5, capital=100.0)
    book = keep_book(filled([10, 10, 12, 9], {0: 0.5, 2: 1.0}, costs), costs)
    interest = 0.5 / 365.25 * 49.5  # a day, of the 49.5 in cash
    second, third = 49.5 + interest + 4.95 * 12, 49.5 + 4 * interest + 4.95 * 9
    bought = third - 1 - 4.95 * 9
    expected = {
        "weights": [[0.5], [4.95 * 12 / second], [1.0]],
        "gross": [0.0, 0.5 * 0.2, 4.95 * 12 / second * (9 / 12 - 1)],
        "net": [99 / 100 - 1, second / 99 - 1, (third - 1) / second - 1],
        "carried": [0.0, interest, 3 * interest],
        "value": [99.0, second, third - 1],
        "cost": [1 / 100, 1 / third],
        "turnover": [49.5 / 100, bought / third],
        "orders": [[4.95], [bought / 9]],
        "ordered": [[4.95], [bought / 9]],
        "fees": [[1.0], [1.0]],
    }
    assert set(expected) == set(book._fields)
    for name, entries in expected.items():
        np.testing.assert_allclose(getattr(book, name), entries, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("price", "ruined"), [(29.9, None), (30.0, "01-03"), (31.0, "01-03")])
def test_a_portfolio_without_value_is_ruined(price, ruined):
    """Half a share is sold short at 10, which leaves 15 in cash; at 30 all is lost."""
    costs = Costs(0.0, capital=10.0)
    fills = filled([10, 10, price, 10], {0: -0.5}, costs)
    if ruined is None:
        assert keep_book(fills, costs).value[1].item() == pytest.approx(15 - 29.9 / 2)
        return
    with pytest.raises(ValueError, match=f"ruined on 2020-{ruined}"):
        keep_book(fills, costs)


def test_an_odd_lot_is_not_sold_while_more_is_wanted():
    """10 shares of 100 a lot, of which 24 are wanted; of the other 100 stay of 130."""
    numbers = {"dtype": torch.float64}
    price, shares = torch.tensor([10.0, 10.0], **numbers), torch.tensor([10.0, 130.0], **numbers)
    value = torch.tensor(1400.0, **numbers)
    target = torch.tensor([240.0, 1040.0], **numbers) / value
    found, _, _ = whole_shares(target, shares, price, value, Costs(0.0), None, lot=100.0)
    assert found.tolist() == [10.0, 100.0]
