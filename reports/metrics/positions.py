"""What positions earned, and orders that found no price."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.runs.result import BacktestResult

NAMED = 5  # assets that a sentence names


def trip_summary(result: BacktestResult) -> pd.DataFrame:
    """One row about the closed round trips of a result; none without any.

    Columns: round trips; won (share with a profit after fees); mean win, mean loss, best, worst
    (returns, fractions); bars (mean rows held); adverse, favourable (mean largest moves,
    fractions); realised, open, fees (money).
    """
    trips = result.round_trips
    closed = trips[trips["reason"] != "open"]
    if not len(closed):
        return pd.DataFrame()
    earned = closed["return"].astype(float)
    won = closed["profit"] > 0
    row = {
        "round trips": len(closed),
        "won": won.mean(),
        "mean win": earned[won].mean() if won.any() else np.nan,
        "mean loss": earned[~won].mean() if (~won).any() else np.nan,
        "best": earned.max(),
        "worst": earned.min(),
        "bars": closed["bars"].mean(),
        "adverse": closed["adverse"].mean(),
        "favourable": closed["favourable"].mean(),
        "realised": closed["profit"].sum(),
        "open": trips["profit"].sum() - closed["profit"].sum(),
        "fees": trips["fees"].sum(),
    }
    return pd.DataFrame([row])


def delay_sentences(delays: pd.DataFrame) -> list[str]:
    """How many orders found no price when they were due, what became of them, and in which
    assets."""
    said = {
        "waited": "waited, and {were} filled at the first price after the gap",
        "waiting": "still {wait} for a price",
        "replaced": "{were} replaced by a later order while waiting",
        "cancelled": "{were} cancelled",
        "delisted": "{were} dropped, as the asset never traded again",
    }
    found = []
    for outcome, words in said.items() if len(delays) else ():
        names = delays.loc[delays["outcome"] == outcome, "asset"]
        if not len(names):
            continue
        assets = list(dict.fromkeys(map(str, names)))
        more = f" and {len(assets) - NAMED} other assets" if len(assets) > NAMED else ""
        one = len(names) == 1
        verb = words.format(were="was" if one else "were", wait="waits" if one else "wait")
        count = "1 order" if one else f"{len(names):,} orders"
        found.append(f"{count} {verb}: {', '.join(assets[:NAMED])}{more}.")
    return found
