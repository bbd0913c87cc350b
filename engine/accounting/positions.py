"""Positions: what becomes of a portfolio's orders and holdings, row after row.

Decisions ask it what they hold, and the simulation takes from it what was filled when: there is one
rule. Everything is a fraction of the portfolio's value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.accounting.holdings import BAR, BEFORE, CLOSE, Event, Holdings, Moment
from engine.accounting.market import Exit, Levels, Market

SAME = 1e-12  # a target this near to its holding is no order


class Delay(NamedTuple):
    """An order that found no price."""

    decided: int
    due: int
    asset: int
    outcome: str  # "waited", "waiting", "replaced", "cancelled" or "delisted"
    filled: int  # row; -1 where it was not


class _Guard(NamedTuple):
    """The protective orders of a position."""

    levels: Levels
    decided: int  # row
    exit: Exit | None  # what becomes of them


class _Answer(NamedTuple):
    """An answer on its way."""

    due: Moment
    decided: int
    targets: np.ndarray
    most: float
    levels: Levels | None
    sides: np.ndarray | None = None  # of orders with a limit: 1 buys, -1 sells


class _Order(NamedTuple):
    """An order that is due, or has a limit, and waits for a price."""

    target: float
    decided: int
    due: int
    most: float
    wake: Moment  # when it finds one
    levels: Levels | None  # that protect the position from then on
    price: float = np.nan  # of a limit order; NaN is that of the market
    side: float = 0.0  # of a limit order: 1 buys, -1 sells


@dataclass
class Positions:
    """The orders and holdings of one portfolio.

    An order is filled ``lag`` rows after its decision. One without a price then waits for the
    first, or is cancelled, as ``unpriced`` says; a later order in the same asset replaces it. While
    a sale waits, purchases are scaled down so that no more is invested than was decided. An asset
    that is delisted can be sold, at its last price, and not be bought. For protective orders see
    ``strategies.Bracket``.
    """

    market: Market
    lag: int = 1
    unpriced: str = "wait"
    delays: list[Delay] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._never = len(self.market.panel)
        self._at_fill = CLOSE if self.market.fill == "close" else BEFORE
        self._coming: list[_Answer] = []
        self._waiting: dict[int, _Order] = {}  # by asset
        self._guards: dict[int, _Guard] = {}  # by asset with a protected position
        self._opened: dict[int, tuple[int, float]] = {}  # first bar and entry price of positions
        self._watches = False  # whether there was ever a protective order
        self.filled = Holdings(self.market)
        self._asked: tuple[int, np.ndarray] | None = None  # holdings at a row, already known

    @property
    def events(self) -> list[Event]:
        """All fills, in order of time."""
        return self.filled.events

    @property
    def weights(self) -> np.ndarray:
        """(N,) after the last fill."""
        after = self.filled.after
        return after[-1] if after else np.zeros(len(self.market.panel.assets))

    def order(self, row: int, targets: np.ndarray, levels: Levels | None = None) -> np.ndarray:
        """Decide on ``targets`` (N,) at the close of ``row``; NaN, or the holding, is no order.

        Returns:
            The targets as ordered: NaN where a holding is left as it is, and itself where an order
            with a limit is cancelled for it. Ordered again, they come to the same.

        Raises:
            ValueError: there are ``levels``, and the panel has no open, high and low prices.
        """
        holdings = self.holdings(row)
        same = np.abs(targets - holdings) <= SAME
        if levels is None and not self._watches and not same.any() and not np.isnan(targets).any():
            self._come(row, targets)
            return targets
        silent = np.isnan(targets)
        alone = silent | same
        empty = alone & (holdings == 0)
        resting = self._resting()
        empty &= ~(resting & silent)
        cancelled = resting & alone & ~silent
        for asset in map(int, np.flatnonzero(cancelled)):
            self._waiting.pop(asset, None)
        for each in self._coming:
            if each.sides is not None:
                each.targets[cancelled] = np.nan
        ordered = np.where(alone, np.where(empty, 0.0, np.nan), targets)
        answer = np.where(cancelled, targets, ordered)
        most = max(1.0, float(np.where(alone, holdings, targets).sum()))
        coming = ordered
        if levels is not None:
            if not self._watches:
                self._watches = bool(self.market.bars)  # a panel without them is refused now
                self._look_back()
            limited = ~np.isnan(levels.limit) & ~alone
            first = row + max(self.lag, 1), BEFORE  # a bar may reach it from then on
            targets, coming = np.where(limited, ordered, np.nan), np.where(limited, np.nan, ordered)
            if limited.any():
                sides = np.sign(ordered - holdings)
                self._coming.append(_Answer(first, row, targets, most, levels, sides))
        self._come(row, coming, most, levels)
        return answer

    def replay(self, row: int, targets: np.ndarray, levels: Levels | None = None) -> None:
        """``order`` what it returned before."""
        if levels is None and not self._watches and not np.isnan(targets).any():
            self._come(row, targets)
        else:
            self.order(row, targets, levels)

    def _come(
        self, row: int, targets: np.ndarray, most: float | None = None, levels: Levels | None = None
    ) -> None:
        most = max(1.0, float(targets.sum())) if most is None else most
        self._coming.append(_Answer((row + self.lag, self._at_fill), row, targets, most, levels))
        if self._watches:
            self._coming.sort(key=lambda answer: answer.due)
        self._asked = None

    def _resting(self) -> np.ndarray:
        """(N,) bool: there is an order with a limit."""
        found = np.zeros(len(self.market.panel.assets), bool)
        found[[asset for asset, order in self._waiting.items() if order.side]] = True
        for answer in self._coming:
            if answer.sides is not None:
                found |= ~np.isnan(answer.targets)
        return found

    def holdings(self, row: int) -> np.ndarray:
        """Weights (N,) at the close of ``row``, as if all orders on their way were filled there.

        Costs of these are left out, and so are orders with a limit.
        """
        if self._asked is not None and self._asked[0] == row:
            return self._asked[1]
        # Without a lag, all that is filled at the close of the row is filled together.
        self.advance(row, CLOSE if self.lag else BAR)
        held = self.filled.before(self.market.closes[row], row)[0]
        for asset, order in self._waiting.items():
            if not order.side:
                held[asset] = order.target
        for answer in self._coming:
            if answer.sides is None:
                held = np.where(np.isnan(answer.targets), held, answer.targets)
        self._asked = row, held
        return held

    def pending(self) -> Iterator[tuple[int, int, float, float]]:
        """Asset, row of the decision, target and limit of the orders that are not yet filled."""
        for asset, order in self._waiting.items():
            limit = order.levels.limit[asset] if order.side and order.levels else np.nan
            yield asset, order.decided, order.target, float(limit)
        for answer in self._coming:
            limits = answer.levels.limit if answer.sides is not None and answer.levels else None
            for asset in map(int, np.flatnonzero(~np.isnan(answer.targets))):
                if answer.targets[asset] != 0 or self.weights[asset] != 0:
                    limit = np.nan if limits is None else limits[asset]
                    yield asset, answer.decided, float(answer.targets[asset]), float(limit)

    def advance(self, row: int, moment: int = CLOSE) -> None:
        """Fill what is due up to a moment of ``row``."""
        while True:
            now = self._coming[0].due if self._coming else (self._never, 0)
            arrives = now
            if self._waiting or self._guards:
                times = [order.wake for order in self._waiting.values()]
                times += [(guard.exit.row, BAR) for guard in self._guards.values() if guard.exit]
                now = min([now, *times])
            if now > (row, moment):
                return
            leaving = {a: g for a, g in self._guards.items() if g.exit and (g.exit.row, BAR) == now}
            if leaving:
                self._leave(now, leaving)
                continue
            if now == arrives:
                answer = self._coming.pop(0)
                simple = answer.sides is None and not self._waiting and not self._watches
                simple = simple and bool(self.market.all_quoted[answer.due[0]])
                if simple and not np.isnan(answer.targets).any():
                    prices = self.market.at_fills[now[0]]
                    decided = np.full(len(prices), answer.decided)
                    self.filled.fill(Event(*now, prices, answer.targets, answer.most, decided, {}))
                    continue
                self._accept(answer)
                if answer.sides is not None:
                    continue
            self._fill_waiting(now)

    def unfilled(self) -> list[Delay]:
        """The orders that found no price when they were due, those that still wait last."""
        waiting = [
            Delay(order.decided, order.due, asset, "waiting", -1)
            for asset, order in self._waiting.items()
            if not order.side
        ]
        return self.delays + waiting

    def _accept(self, answer: _Answer) -> None:
        """The orders of an answer that is due take the place of others that wait."""
        row, decided, levels = answer.due[0], answer.decided, answer.levels
        for asset in map(int, np.flatnonzero(~np.isnan(answer.targets))):
            old = self._waiting.get(asset)
            if answer.sides is None and answer.targets[asset] == 0:
                halted = self.market.next_quoted[row, asset] > row
                sold = self.weights[asset] == 0 and halted if old is None else old.target == 0
                if sold and not (old and old.side):  # or will be: this orders nothing
                    continue
            if old is not None and not old.side:
                self._note(asset, old, "replaced")
            wake, price, side = (
                (int(self.market.next_quoted[row, asset]), self._at_fill),
                np.nan,
                0.0,
            )
            if answer.sides is not None and levels is not None:
                side, price = float(answer.sides[asset]), levels.limit[asset]
                found = self.market.first_touch(asset, row, side, price)
                wake = (self._never, 0) if found is None else (found.row, BAR)
                price = price if found is None else found.price
            target = float(answer.targets[asset])
            self._waiting[asset] = _Order(
                target, decided, row, answer.most, wake, levels, price, side
            )
        if answer.sides is not None:
            return
        if answer.levels is not None:
            named = answer.levels.protects() & np.isnan(answer.targets) & (self.weights != 0)
            for asset in map(int, np.flatnonzero(named)):
                if asset not in self._waiting:
                    self._guard(asset, answer.levels, decided, row + (self._at_fill == CLOSE))

    def _fill_waiting(self, now: Moment) -> None:
        """Fill the orders that find a price now; of the others forget those that never will."""
        market, (row, moment) = self.market, now
        prices = self._valued(now)
        targets, decided = np.full(len(prices), np.nan), np.zeros(len(prices), int)
        most, reasons, filled = 1.0, {}, {}
        unfilled: dict[int, float] = {}  # targets of orders that find no price
        for asset, order in list(self._waiting.items()):
            if order.wake != now:
                if order.side:
                    continue
                due = order.due == row and moment == self._at_fill
                if not due or row < market.delisted[asset]:
                    unfilled[asset] = order.target
                    if due and self.unpriced == "cancel":
                        self._note(asset, order, "cancelled")
                        del self._waiting[asset]
                    continue
                held = self.filled.before(prices, row)[0][asset]
                if abs(order.target) >= abs(held) or order.target * held < 0:  # it buys
                    if abs(order.target - held) > SAME:
                        self._note(asset, order, "delisted")
                    del self._waiting[asset]
                    continue
            elif order.due < row and not order.side:
                self._note(asset, order, "waited", row)
            if order.side:
                prices[asset], reasons[asset] = order.price, "limit"
            targets[asset], decided[asset], most = order.target, order.decided, order.most
            filled[asset] = order
            del self._waiting[asset]
        if unfilled:  # others buy no more than what was decided leaves beside what is not sold
            meant = self.filled.before(prices, row)[0]
            meant[list(unfilled)] = list(unfilled.values())
            most = min(most, float(np.where(np.isnan(targets), meant, targets).sum()))
        if filled or not self.events:
            self.filled.fill(Event(row, moment, prices, targets, most, decided, reasons))
        for asset, order in filled.items() if self._watches else ():
            self._protect(asset, order, now, prices[asset])

    def _leave(self, now: Moment, leaving: dict[int, _Guard]) -> None:
        """Close the positions whose stop or take-profit a bar reaches."""
        prices = self._valued(now)
        targets, decided = np.full(len(prices), np.nan), np.zeros(len(prices), int)
        reasons = {}
        for asset, guard in leaving.items():
            assert guard.exit is not None
            prices[asset], reasons[asset] = guard.exit.price, guard.exit.reason
            targets[asset], decided[asset] = 0.0, guard.decided
            del self._guards[asset], self._opened[asset]
        self.filled.fill(Event(*now, prices, targets, np.inf, decided, reasons))

    def _protect(self, asset: int, order: _Order, now: Moment, price: float) -> None:
        """Watch a position from its fill on, or no longer."""
        row, moment = now
        side = np.sign(self.weights[asset])
        first = row + (moment != BEFORE)
        if side == 0:
            self._opened.pop(asset, None)
        elif asset not in self._opened or np.sign(self._opened[asset][1]) != side:
            self._opened[asset] = first, side * price  # the sign of the price is its side
        self._guards.pop(asset, None)
        if side != 0 and order.levels is not None and order.levels.protects()[asset]:
            self._guard(asset, order.levels, order.decided, first)
            if moment == BAR and side == order.side:  # through the limit, and maybe to the stop
                level = order.levels.floor(asset, side, self._best(asset, row, side))
                low = side * self.market.bars[2 if side > 0 else 1][row, asset]
                if low <= level:
                    leave = Exit(row, side * min(side * price, level), "stop")
                    self._guards[asset] = _Guard(order.levels, order.decided, leave)

    def _look_back(self) -> None:
        """Find where the positions were opened that are held without protective orders so far."""
        for event, after in zip(self.events, self.filled.after, strict=True):
            for asset, side in enumerate(np.sign(after)):
                if side == 0:
                    self._opened.pop(asset, None)
                elif asset not in self._opened or np.sign(self._opened[asset][1]) != side:
                    first = event.row + (event.moment != BEFORE)
                    self._opened[asset] = first, side * event.prices[asset]

    def _best(self, asset: int, until: int, side: float) -> float:
        opened, entry = self._opened[asset]
        return self.market.best_price(asset, opened, until, side, abs(entry))

    def _guard(self, asset: int, levels: Levels, decided: int, first: int) -> None:
        side = np.sign(self.weights[asset])
        trailing = not np.isnan(levels.trailing[asset])
        best = self._best(asset, first, side) if trailing else np.nan
        found = self.market.first_exit(asset, first, side, levels, best)
        self._guards[asset] = _Guard(levels, decided, found)

    def _note(self, asset: int, order: _Order, outcome: str, filled: int = -1) -> None:
        self.delays.append(Delay(order.decided, order.due, asset, outcome, filled))

    def _valued(self, now: Moment) -> np.ndarray:
        """Prices (N,) at which the portfolio is valued at a moment; a bar knows its open."""
        row, moment = now
        if moment == self._at_fill or self.market.fill == "open":
            return self.market.at_fills[row].copy()
        return self.market.closes[max(row - 1, 0)].copy()
