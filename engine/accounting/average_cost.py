"""Average cost: what positions were bought for, and what closing them earns."""

from __future__ import annotations

from math import copysign
from typing import NamedTuple


class Closed(NamedTuple):
    """What an order closes of a position."""

    shares: float  # positive
    side: float  # of the position: 1 long, -1 short
    opened: int  # row
    entry_price: float
    entry_fees: float  # money: the share of these shares


class AverageCost:
    """The shares of one asset, and their average price: a sale leaves it as it is.

    An order beyond the holding closes the position, and opens another on the other side.
    """

    def __init__(self) -> None:
        self.shares = self.price = self.fees = 0.0
        self.opened = -1

    def trade(
        self, row: int, shares: float, price: float, fees: float
    ) -> tuple[Closed | None, float]:
        """Fill an order of so many shares, negative for a sale.

        Returns:
            What it closes, and the part of its own fees that belongs to that.
        """
        size, side = abs(self.shares), copysign(1.0, self.shares)
        closing = min(size, abs(shares)) if shares * self.shares < 0 else 0.0
        if closing > size * (1 - 1e-9):  # all of it: what is left is rounding
            closing = size
        closed, own = None, 0.0
        if closing:
            part = closing / size
            closed = Closed(closing, side, self.opened, self.price, self.fees * part)
            own = fees * min(1.0, closing / abs(shares))
            self.fees *= 1 - part
            self.shares = side * (size - closing)
        rest = abs(shares) - closing
        if rest > abs(shares) * 1e-9:
            held = abs(self.shares)
            self.opened = self.opened if held else row
            self.price = (self.price * held + price * rest) / (held + rest)
            self.fees = (self.fees if held else 0.0) + fees - own
            self.shares += copysign(rest, shares)
        return closed, own
