"""The books of a portfolio, kept in shares and cash, one close after the other.

It shares no code with the engine: what the engine computes in fractions of the portfolio's value,
and for all dates at once, is compared with this loop over money.
"""

import numpy as np
import pandas as pd

YEAR = pd.Timedelta(days=365.25)


def paid_for(order, value, illiquidity, c):
    """Cost in money of one order of so much money, in a portfolio of so much value."""
    if abs(order) <= 1e-12 * value:
        return 0.0
    fee = max(c["commission"] * abs(order) + c["fixed"], c["minimum"])
    impact = c["impact"] * illiquidity * abs(order) ** 1.5 if c["impact"] else 0.0
    return fee + c["spread"] / 2 * abs(order) + impact


def keep_books(prices, targets, lag, c, illiquidity=None, charged_at=None):
    """Follow target weights through a market.

    Args:
        prices: (T, N) by date, of any calendar; NaN where an asset does not trade. It is then
            worth, and is sold at, its last price. Yearly rates accrue over the time from one date
            to the next.
        targets: weights (N,) by the row of their decision, filled ``lag`` rows later. Cash is the
            remainder. They are fractions of what is left after the costs of the fill.
        c: the arguments of ``Costs``, all of them, by name.
        illiquidity: (T, N), for market impact.
        charged_at: a portfolio value; costs are then charged as if it were the portfolio's.

    Returns:
        Lists of one entry a row from the first fill on (gross and net: returns; before and after:
        weights (N,) at the close before and after a fill) and of one entry a fill (value: money
        before it; turnover, cost: fractions of that).
    """
    dates, prices = prices.index, prices.to_numpy()
    fills = {row + lag: w for row, w in targets.items()}
    cash, shares = c["capital"] or 1.0, np.zeros(prices.shape[1])
    last, yearly, value = np.ones(prices.shape[1]), 0.0, cash
    names = ("gross", "net", "before", "after", "turnover", "cost", "value")
    kept = {name: [] for name in names}
    for row in range(len(prices)):
        worth_before = shares * last
        last = np.where(np.isnan(prices[row]), last, prices[row])
        if row:  # interest on what is held since the last fill
            cash += yearly * ((dates[row] - dates[row - 1]) / YEAR)
        worth = shares * last
        now = cash + worth.sum()
        before = after = worth / now
        gross = (worth - worth_before).sum() / value
        if row in fills:
            scale = (charged_at or now) / now
            lack = np.zeros(len(shares)) if illiquidity is None else illiquidity[row]
            left, earlier = now, 0.0
            while abs(left - earlier) > 1e-15 * now:  # the costs are paid out of what is traded
                orders = fills[row] * left - worth
                asked = zip(orders * scale, lack, strict=True)
                paid = sum(paid_for(order, now * scale, each, c) for order, each in asked)
                left, earlier = now - paid / scale, left
            kept["turnover"].append(abs(orders).sum() / now)
            kept["cost"].append(1 - left / now)
            kept["value"].append(now)
            now, shares, cash = left, fills[row] * left / last, left * (1 - fills[row].sum())
            after = fills[row]
            short = -np.minimum(shares * last, 0).sum()
            yearly = c["cash_rate"] * max(cash, 0) + c["financing"] * min(cash, 0)
            yearly -= c["borrow"] * short
        if row >= min(fills):
            for name, entry in (("before", before), ("after", after), ("gross", gross)):
                kept[name].append(entry)
            kept["net"].append(now / value - 1)
        value = now
    return kept
