"""The books of a portfolio, kept in shares and cash: one plain loop over the rows of a market.

It shares no code with the engine: what the engine computes in fractions of the portfolio's value,
and for all dates at once, is compared with this loop over money.
"""

import numpy as np
import pandas as pd

YEAR = pd.Timedelta(days=365.25)
DELISTED = 10  # rows without a price at the end of the data


def paid_for(order, value, illiquidity, c):
    """Cost in money of one order of so much money, in a portfolio of so much value."""
    if abs(order) <= 1e-12 * value:
        return 0.0
    fee = max(c["commission"] * abs(order) + c["fixed"], c["minimum"])
    impact = c["impact"] * illiquidity * abs(order) ** 1.5 if c["impact"] else 0.0
    return fee + c["spread"] / 2 * abs(order) + impact


def trade(worth, cash, targets, most, lack, c, scale):
    """Orders (N,) in money that reach ``targets``, and their costs; NaN is no order.

    Targets are fractions of what is left after costs, which is found by bisection. Where assets
    are left alone, buys are scaled down so that all comes to ``most`` of that; where there is cash,
    and less than the fees of buys, nothing is bought.
    """
    value, alone, buying = cash + worth.sum(), np.isnan(targets), True
    wanted = np.where(alone, 0.0, targets)

    def orders_for(left):
        orders = np.where(alone, 0.0, wanted * left - worth)
        buys, sells = np.maximum(orders, 0) * buying, np.minimum(orders, 0)
        if alone.any() and buys.sum() > 0:
            room = most * left - worth.sum() - sells.sum()
            buys = buys * min(1.0, max(0.0, room / buys.sum()))
        return buys + sells

    def paid(left):
        each = zip(orders_for(left) * scale, lack, strict=True)
        return sum(paid_for(order, value * scale, gap, c) for order, gap in each) / scale

    def left_after():
        low, high = 0.0, value
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if middle + paid(middle) < value else (low, middle)
        return high

    left = left_after()
    if alone.any() and abs(left + paid(left) - value) > 1e-9 * value:  # it jumps over the value
        buying = False
        left = left_after()
    return orders_for(left), paid(left)


def is_order(wanted, shares, quoted, waits):
    """Whether a target is an order that is due: NaN is none, nor is 0 of what is sold already."""
    sold = waits == 0 if waits is not None else shares == 0 and not quoted
    return not np.isnan(wanted) and not (wanted == 0 and sold)


def keep_books(
    prices, answers, lag, c, illiquidity=None, charged_at=None, unpriced="wait", opens=None
):
    """Follow the answers of a strategy through a market.

    Args:
        prices: closes (T, N) by date, of any calendar; NaN where an asset does not trade. Yearly
            rates accrue over the time from one date to the next.
        answers: weights (N,) by the row of their decision, or functions of the holdings (N,) that
            give them. An order is filled ``lag`` rows later, and without a price waits for the
            first; a later one replaces it. None, NaN, and a weight that is the holding, are no
            order. Holdings are those once all orders are filled, at the prices of the decision.
        c: the arguments of ``Costs``, all of them, by name.
        illiquidity: (T, N), for market impact.
        charged_at: a portfolio value; costs are then charged as if it were the portfolio's.
        unpriced: "cancel": orders that find no price do not wait.
        opens: (T, N); orders are filled at the open of a row instead of at its close.

    Returns:
        Lists of one entry a row from the first fill on (gross and net: returns; before and after:
        weights (N,) at the close before and after a fill there), of one entry a fill (row; value:
        money before it; turnover, cost: fractions of that), and holdings by decision.
    """
    dates, prices = prices.index, prices.to_numpy()
    rows, count = prices.shape
    gone = rows - np.argmax(~np.isnan(prices[::-1]), axis=0)
    gone = np.where(rows - gone >= DELISTED, gone, rows)
    cash, shares, last, yearly = c["capital"] or 1e6, np.zeros(count), np.ones(count), 0.0
    coming, waiting, most, value = [], {}, 1.0, cash
    names = ("gross", "net", "before", "after", "row", "turnover", "cost", "value")
    kept = {name: [] for name in names} | {"holdings": {}}

    def fill(row, price, quoted):
        nonlocal cash, shares, yearly, most
        arrived = [each for each in coming if each[0] == row]
        for each in arrived:
            coming.remove(each)
            new = enumerate(zip(each[1], shares, quoted, strict=True))
            waiting.update((i, x[0]) for i, x in new if is_order(*x, waiting.get(i)))
            most = each[2]
        worth, targets = shares * price, np.full(count, np.nan)
        meant = worth / (cash + worth.sum())  # weights, were all orders filled that can be
        held_up = False
        for asset, wanted in list(waiting.items()):
            share = worth[asset] / (cash + worth.sum())
            if not quoted[asset] and row < gone[asset]:
                meant[asset], held_up = wanted, True
            sold = row >= gone[asset] and abs(wanted) < abs(share) and wanted * share >= 0
            if quoted[asset] or sold:
                targets[asset] = meant[asset] = wanted
            if quoted[asset] or row >= gone[asset] or unpriced == "cancel":
                del waiting[asset]
        if np.isnan(targets).all() and (kept["row"] or not arrived):
            return
        targets = np.where(np.isnan(targets) & (shares == 0), 0.0, targets)
        now = cash + worth.sum()
        lack = np.zeros(count) if illiquidity is None else illiquidity[row]
        room = min(most, meant.sum()) if held_up else most
        orders, paid = trade(worth, cash, targets, room, lack, c, (charged_at or now) / now)
        for name, entry in zip(
            names[4:], (row, abs(orders).sum() / now, paid / now, now), strict=True
        ):
            kept[name].append(entry)
        shares, cash = shares + orders / price, cash - orders.sum() - paid
        yearly = c["cash_rate"] * max(cash, 0) + c["financing"] * min(cash, 0)
        yearly += c["borrow"] * np.minimum(shares * price, 0).sum()

    for row in range(rows):
        if row:  # interest on the holdings since the last fill
            cash += yearly * ((dates[row] - dates[row - 1]) / YEAR)
        growth, since, worth_before = 1.0, value, shares * last
        if opens is not None:
            quoted = ~np.isnan(opens[row])
            price, fills = np.where(quoted, opens[row], last), len(kept["row"])
            held = shares
            fill(row, price, quoted)
            if len(kept["row"]) > fills:  # the row has two parts
                growth += (held * price - worth_before).sum() / value
                since, worth_before = cash + (shares * price).sum(), shares * price
        last = np.where(np.isnan(prices[row]), last, prices[row])
        gross = growth * (1 + (shares * last - worth_before).sum() / since) - 1
        before = shares * last / (cash + (shares * last).sum())
        if opens is None and not (lag == 0 and row in answers):
            fill(row, last, ~np.isnan(prices[row]))
        if row in answers:
            held = shares * last / (cash + (shares * last).sum())
            for asset, wanted in waiting.items():
                held[asset] = wanted
            for each in coming:
                held = np.where(np.isnan(each[1]), held, each[1])
            kept["holdings"][row] = held
            answer = answers[row](held) if callable(answers[row]) else answers[row]
            targets = np.full(count, np.nan) if answer is None else np.array(answer, float)
            alone = np.isnan(targets) | (abs(targets - held) <= 1e-12)
            targets = np.where(alone, np.where(held == 0, 0.0, np.nan), targets)
            coming.append((row + lag, targets, max(1.0, np.where(alone, held, targets).sum())))
            if lag == 0:
                fill(row, last, ~np.isnan(prices[row]))
        now = cash + (shares * last).sum()
        if kept["row"]:
            entries = (gross, now / value - 1, before, shares * last / now)
            for name, entry in zip(names[:4], entries, strict=True):
                kept[name].append(entry)
        value = now
    return kept
