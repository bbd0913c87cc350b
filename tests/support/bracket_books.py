"""Books with stop, trailing, take-profit and limit orders: one plain loop over bars.

Every asset has a bar in every row. It shares no code with the engine.
"""

import numpy as np
from books import trade

NO_LEVELS = {"stop": np.nan, "trailing": np.nan, "take_profit": np.nan, "limit": np.nan}


def keep_bracket_books(bars, answers, lag, c, at_open=False):  # noqa: C901 - one plain loop
    """Follow answers with protective orders.

    Args:
        bars: open, high, low and close, (T, N) each.
        answers: {row: function of the holdings (N,) that gives weights (N,) and {asset: levels}}.
        lag: rows to the fill, at the close or the open of that row.

    Returns:
        Value (T,) after each row, all orders as (row, asset, price, shares), holdings by decision.
    """
    opens, highs, lows, closes = bars
    rows, count = closes.shape
    cash, shares, value, orders, holdings = 1e6, np.zeros(count), [], [], {}
    coming, placed, resting, guards = [], [], {}, {}
    nobody = np.zeros(count)

    def execute(row, price, targets, most):
        """Trade, and forget what protected positions that are gone or new."""
        nonlocal cash, shares
        targets = np.where(np.isnan(targets) & (shares == 0), 0.0, targets)
        made, paid = trade(shares * price, cash, targets, most, nobody, c, 1.0)
        made[abs(made) <= 1e-12 * (cash + shares @ price)] = 0.0
        cash -= made.sum() + paid
        shares = np.where(targets == 0, 0.0, shares + made / price)
        orders.extend((row, i, price[i], made[i] / price[i]) for i in np.flatnonzero(made))

    def protect(asset, levels, price):
        guards.pop(asset, None)
        if shares[asset] and not all(np.isnan(levels[k]) for k in list(NO_LEVELS)[:3]):
            guards[asset] = dict(levels)
        if shares[asset] and (asset not in best or np.sign(shares[asset]) != best[asset][0]):
            best[asset] = (np.sign(shares[asset]), price)
        elif not shares[asset]:
            best.pop(asset, None)

    best = {}  # side and best price of each position

    def floor_of(asset, side):
        levels, peak = guards[asset], best[asset][1]
        stops = [levels["stop"], peak * (1 - side * levels["trailing"])]
        known = [each for each in stops if not np.isnan(each)]
        return (max if side > 0 else min)(known) if known else np.nan

    def arrive(row, price):
        for each in [each for each in coming if each[0] == row]:
            coming.remove(each)
            _, targets, most, levels = each
            if not np.isnan(targets).all():
                execute(row, price, targets, most)
            for asset in range(count):
                mine = levels.get(asset, NO_LEVELS)
                if not np.isnan(targets[asset]):
                    resting.pop(asset, None)
                    protect(asset, mine, price[asset])
                elif (
                    asset in levels
                    and shares[asset]
                    and asset not in resting
                    and not all(np.isnan(mine[k]) for k in list(NO_LEVELS)[:3])
                ):
                    guards[asset] = dict(mine)

    def leave(row, valued, which):
        """Close positions at the prices {asset: price}."""
        price, targets = valued.copy(), np.full(count, np.nan)
        for asset, at in which.items():
            price[asset], targets[asset] = at, 0.0
        execute(row, price, targets, np.inf)
        for asset in which:
            guards.pop(asset), best.pop(asset)

    for row in range(rows):
        last = closes[max(row - 1, 0)]
        for each in [each for each in placed if each[0] == row]:
            placed.remove(each)
            resting[each[1]] = each[2]
        if at_open:
            last = opens[row]
            arrive(row, opens[row])
        exits = {}
        for asset in list(guards):
            side, take = np.sign(shares[asset]), guards[asset]["take_profit"]
            floor, first = floor_of(asset, side), opens[row, asset]
            low, high = (lows, highs) if side > 0 else (highs, lows)
            beyond = side * first >= side * take
            if side * low[row, asset] <= side * floor and not beyond:
                exits[asset] = side * min(side * first, side * floor)
            elif side * high[row, asset] >= side * take:
                exits[asset] = side * max(side * first, side * take)
        if exits:
            leave(row, last, exits)
        touched = {}
        for asset, (target, side, limit, most, levels) in list(resting.items()):
            if side * (lows if side > 0 else highs)[row, asset] <= side * limit:
                at = side * min(side * opens[row, asset], side * limit)
                touched[asset] = (target, side, at, levels, most)
                del resting[asset]
        older = {asset: side for asset, (side, _) in best.items()}
        if touched:
            price, targets = last.copy(), np.full(count, np.nan)
            for asset, (target, _, at, _, _) in touched.items():
                price[asset], targets[asset] = at, target
            execute(row, price, targets, most)  # of the last of them
            exits = {}
            for asset, (_, bought, at, levels, _) in touched.items():
                protect(asset, levels, at)
                if asset in guards and bought == np.sign(shares[asset]):
                    side = bought
                    floor = floor_of(asset, side)
                    if side * (lows if side > 0 else highs)[row, asset] <= side * floor:
                        exits[asset] = side * min(side * at, side * floor)
            if exits:
                leave(row, price, exits)
        new = {i for i in touched if i in best and older.get(i) != best[i][0]}
        for asset, (side, peak) in best.items():
            if asset not in new:
                reached = highs[row, asset] if side > 0 else lows[row, asset]
                best[asset] = (side, side * max(side * peak, side * reached))
        if not at_open and not (lag == 0 and row in answers):
            arrive(row, closes[row])
        if row in answers:
            held = shares * closes[row] / (cash + shares @ closes[row])
            for each in coming:
                held = np.where(np.isnan(each[1]), held, each[1])
            holdings[row] = held
            targets, levels = answers[row](held)
            targets = np.array(targets, float)
            silent = np.isnan(targets)
            alone = silent | (abs(targets - held) <= 1e-12)
            for asset in np.flatnonzero(alone & ~silent):
                resting.pop(asset, None)
                placed = [each for each in placed if each[1] != asset]
            most = max(1.0, np.where(alone, held, targets).sum())
            for asset, each in levels.items():
                if not np.isnan(each["limit"]) and not alone[asset]:
                    side = np.sign(targets[asset] - held[asset])
                    order = (targets[asset], side, each["limit"], most, each)
                    placed.append((row + max(lag, 1), asset, order))
                    targets[asset], alone[asset] = np.nan, True
            empty = (
                alone
                & (held == 0)
                & ~np.isin(np.arange(count), [*resting, *(each[1] for each in placed)])
            )
            targets = np.where(alone, np.where(empty, 0.0, np.nan), targets)
            coming.append((row + lag, targets, most, levels))
            if lag == 0:
                arrive(row, closes[row])
        value.append(cash + shares @ closes[row])
    return np.array(value), orders, holdings
