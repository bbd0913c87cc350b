"""The account that orders start from: shares and cash, and the money that comes or goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


class OrderError(ValueError):
    """There can be no orders: the message names assets, reasons and the remedy."""


@dataclass(frozen=True)
class Account:
    """What is held before the orders.

    Args:
        shares: by asset; an asset left out is not held.
        cash: money beside the shares.
        capital: instead of ``cash``, all money, including what the shares are worth.
        deposit: new money, on top of either; below zero, what is to be taken out. The strategy is
            asked with the weights before it, and what it answers is a share of all there is then.
    """

    shares: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    cash: float | None = None
    capital: float | None = None
    deposit: float = 0.0

    def money(self, worth: float, leverage: float) -> tuple[float, float]:
        """Cash before the deposit, and capital after it; the shares are worth so much.

        Raises:
            OrderError: the amounts do not go together, or nothing is left to invest.
        """
        given = [each for each in (self.cash, self.capital) if each is not None]
        if len(given) != 1:
            raise OrderError("give either the cash, or the capital with what the shares are worth")
        if not all(map(math.isfinite, (*given, self.deposit))):
            raise OrderError(
                f"cash, capital and deposit are amounts of money, got {given[0]:g}, "
                f"{self.deposit:g}"
            )
        if self.capital is not None and not self.capital + self.deposit > 0:
            raise OrderError(
                f"the capital should be an amount of money above 0, got {self.capital:g}"
            )
        cash = self.capital - worth if self.capital is not None else float(self.cash or 0.0)
        if cash < -1e-9 * max(worth, 1.0) and leverage <= 1:
            if self.capital is not None:
                raise OrderError(
                    f"the current holdings are worth {worth:,.2f}, more than the capital "
                    f"{self.capital:,.2f}"
                )
            raise OrderError(f"the cash is {cash:,.2f}: the strategy does not borrow money")
        capital = cash + worth + self.deposit
        if not capital > 0:
            raise OrderError(
                f"nothing is left to invest: {cash:,.2f} cash, {worth:,.2f} in shares, "
                f"{self.deposit:+,.2f} deposited or taken out"
            )
        return cash, capital


def read_holdings(path: Path) -> pd.Series:
    """Shares by asset, from a CSV file with the columns asset and shares.

    Raises:
        OrderError: no such file, other columns, an asset twice, or shares that are no number.
    """
    if not path.is_file():
        raise OrderError(f"there is no file of holdings {path}")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # empty, torn, or another encoding
        raise OrderError(f"{path} is not a readable CSV file: {error}") from error
    if list(table.columns) != ["asset", "shares"]:
        raise OrderError(f"{path} needs the columns asset,shares; it has {','.join(table.columns)}")
    shares = pd.to_numeric(table["shares"], errors="coerce")
    wrong = table["asset"][shares.isna() | table["asset"].duplicated()]
    if len(wrong):
        raise OrderError(f"{path}: {wrong.iloc[0]} is there twice, or its shares are no number")
    return pd.Series(shares.to_numpy(float), index=table["asset"].astype(str))
