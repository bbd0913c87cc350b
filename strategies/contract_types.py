"""What a strategy is given besides its history (Book, Plan, Inputs), and may answer (Bracket)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.suggestions import did_you_mean, listed

if TYPE_CHECKING:
    from torch import Tensor

Inputs: TypeAlias = "dict[str, Tensor]"  # of a network, by name: of a date, or a batch of dates


@dataclass(frozen=True)
class Book:
    """The portfolio at the close of a decision, with all that was filled up to then.

    A strategy whose ``allocate`` has a third parameter named ``book`` is given it. Amounts are
    money. Where a run trades whole shares only, the book is that of the fractions before rounding.

    Attributes:
        date: of the decision.
        value: of the portfolio; cash: of it, negative if owed.
        shares: (N,) by asset, negative if short.
        entry_price: (N,) average price paid for the shares held, without fees (partial sales leave
            it as it is); NaN where nothing is held.
        entry_date: (N,) fill by which the position was opened; NaT where nothing is held.
        open_profit: (N,) of the shares held, at the last prices, before fees.
        realised: profit of what was sold or covered so far, less the fees of all orders.
            value = money at the start + realised + open profit + interest and borrowing fees.
        pending: one row an order on its way: asset, decided (date), target (weight), limit (price;
            NaN without one).
    """

    date: pd.Timestamp
    value: float
    cash: float
    shares: pd.Series
    entry_price: pd.Series
    entry_date: pd.Series
    open_profit: pd.Series
    realised: float
    pending: pd.DataFrame

    @classmethod
    def empty(cls, history: Panel, value: float = 1e6) -> Book:
        """That of a portfolio of cash at the last date of ``history``."""
        zeros = pd.Series(0.0, history.assets)
        return cls(
            date=history.dates[-1],
            value=value,
            cash=value,
            shares=zeros,
            entry_price=pd.Series(float("nan"), history.assets),
            entry_date=pd.Series(pd.NaT, history.assets, dtype="datetime64[ns]"),
            open_profit=zeros.copy(),
            realised=0.0,
            pending=pd.DataFrame(columns=["asset", "decided", "target", "limit"]),
        )


class Plan(Protocol):
    """What a strategy may ask of the plan that it is fitted for: the engine's ``WalkForward``."""

    @property
    def execution_lag(self) -> int:
        """Rows from a decision to its fill."""

    def decisions(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """The rows (K,) of ascending dates at which decisions are made."""


@dataclass(frozen=True)
class Bracket:
    """An answer of a strategy that carries protective orders, by asset; NaN or no entry is none.

    They are watched from the fill on in the open, high and low prices of each row, and stay until
    the next order in the asset, or until another answer names other ones. Where both are within a
    row's high and low, the stop comes before the take-profit. Where a price gaps through a level,
    the fill is at the open.

    Attributes:
        weights: as ``Strategy.allocate`` returns them.
        stop: price at which the position is closed: below today's close if it is long, above if it
            is short.
        trailing: the same as a fraction below the highest price since the fill (above the lowest
            of a short position): 0.1 is 10%.
        take_profit: price at which a profit is taken, on the other side of today's close.
        limit: worst price at which the order is filled. It rests until a row reaches the price,
            and is not counted among the holdings before that.
    """

    weights: pd.Series | None
    stop: pd.Series | Mapping[str, float] | None = None
    trailing: pd.Series | Mapping[str, float] | None = None
    take_profit: pd.Series | Mapping[str, float] | None = None
    limit: pd.Series | Mapping[str, float] | None = None

    def level(self, name: str, assets: pd.Index) -> np.ndarray:
        """The prices of that name (N,) by asset, NaN where none is given.

        Raises:
            ValueError: an unknown asset, one named twice, or something else than numbers.
        """
        given = getattr(self, name)
        if given is None:
            return np.full(len(assets), np.nan)
        if not isinstance(given, pd.Series | Mapping):
            raise ValueError(
                f"{name} of a Bracket is a Series or a dict by asset, got {type(given).__name__}; "
                f"{{{assets[0]!r}: ...}} names one asset"
            )
        found = given if isinstance(given, pd.Series) else pd.Series(dict(given), dtype=object)
        if not found.index.equals(assets):
            if len(unknown := found.index.difference(assets)):
                raise ValueError(
                    f"{name} names {listed(unknown)}, which the panel does not have"
                    f"{did_you_mean(str(unknown[0]), list(map(str, assets)))}"
                )
            if found.index.has_duplicates:
                twice = found.index[found.index.duplicated()]
                raise ValueError(f"{name} names {listed(twice)} twice")
            found = found.reindex(assets)
        values = pd.to_numeric(found, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        words = np.isnan(values) & found.notna().to_numpy()
        if words.any():
            raise ValueError(
                f"{name} of {listed(assets[words])} should be a number, "
                f"got {found[words].iloc[0]!r}"
            )
        return values


def stack(prepared: list[Inputs]) -> Inputs:
    """Stack the inputs of single dates to one batch, (B, ...) each.

    Raises:
        ValueError: an input has another shape on another date.
    """
    import torch

    try:
        return {name: torch.stack([row[name] for row in prepared]) for name in prepared[0]}
    except RuntimeError as error:
        for name in prepared[0]:
            shapes = list(dict.fromkeys(tuple(row[name].shape) for row in prepared))
            if len(shapes) > 1:
                raise ValueError(
                    f"the input {name!r} has the shape {shapes[0]} on one date and {shapes[1]} on "
                    "another: prepare, and any features, give the same numbers on every date"
                ) from error
        raise


def holdings_input(holdings: pd.Series) -> Inputs:
    """Holdings (N,) as the input of one decision."""
    import torch

    return {"holdings": torch.tensor(holdings.to_numpy(dtype="float64"))[None]}
