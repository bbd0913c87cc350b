"""Why there are no orders."""

from __future__ import annotations

import pandas as pd


class OrderError(ValueError):
    """There can be no orders: the message names assets, reasons and the remedy."""


class NoDecision(OrderError):
    """The plan of the run decides on another day; ``next`` is that day, as far as is known."""

    next: pd.Timestamp | None = None
