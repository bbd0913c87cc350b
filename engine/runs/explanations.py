"""Why a portfolio holds what it holds: the record of its decisions as tables and sentences.

Forecast, risk and prices are over the variance of the portfolio that was aimed at, so that they do
not depend on the scale of the objective. At the solution

    forecast - beta - hurdle - trade  =  price of the cap - price of the floor

with beta what an asset adds to the risk, that of the portfolio itself being 1, hurdle the price of
the budget and of other sums, and trade the cost of trading at the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from string import Formatter

import numpy as np
import pandas as pd

SMALL = 5e-7  # of a weight or a price: rounding
ALIKE = 0.005  # of beta: rounding of what is shown
APART = 5e-4  # what is ordered differs from what was aimed at
WHY = {  # by the number in the column "kind"; the fields in braces are columns
    0: "as its rule says",
    1: "at its cap, whose price is {limit_price}; without the cap it would be {no_cap}",
    2: "at its cap, whose price is {limit_price}",
    3: "not held: its forecast of {forecast} would have to be {limit_price} higher to pay for its "
    "beta of {beta}",
    4: "at its floor, whose price is {limit_price}",
    5: "between its limits; without the forecast it would be {no_forecast}",
    6: "between its limits; without the forecast it would be {no_forecast}, and "
    "{no_trading_cost} if trading cost nothing",
    7: "not held: its beta of {beta} would have to be {limit_price} lower",
    8: "between its limits: its beta is {beta}, as that of all such assets",
    9: "between its limits; {no_trading_cost} if trading cost nothing",
    10: "between its limits",
    11: "not held: within the limits of sums neither buying nor selling it pays",
    12: "not to be held: it misses prices in the lookback, or is not in the universe",
    13: "left as it is, as it misses prices",
}
ORDERED = {0: "", 1: "; {ordered} was ordered", 2: "; no order was placed"}
TRADED = {
    1: "; bought {traded} for {cost}",
    -1: "; sold {traded} for {cost}",
    0: "; no trade",
    2: "; none of it was filled",
}


def positions_by_decision(
    reasons: pd.DataFrame,
    decisions: pd.DataFrame,
    targets: pd.DataFrame,
    orders: pd.DataFrame,
    turnover: pd.Series,
) -> pd.DataFrame:
    """See ``BacktestResult.positions_by_decision``."""
    if not len(reasons):
        return pd.DataFrame()
    keys = ["date", "asset"]
    own = reasons.astype({"asset": str})
    optimised = "forecast" in own
    if optimised:
        at = pd.MultiIndex.from_frame(own[["date", "sample"]])
        of_sample = decisions.set_index(["date", "sample"]).reindex(at)
        variance = of_sample["variance"].to_numpy()
        own["beta"] = own["marginal"] / variance
        hurdle = of_sample["hurdle"].to_numpy() / variance
        own["alike"] = np.abs(own["forecast"] / variance - own["beta"] - hurdle) < ALIKE
        own["risk"] = own["aimed"] * own["beta"]
        own["forecast"] /= variance
        own["limit_price"] /= variance
        if "scale" in of_sample:
            scale = of_sample["scale"].fillna(1.0).to_numpy()
            weights = [name for name in own if name == "aimed" or name.startswith("no_")]
            own[weights] = own[weights].mul(scale, axis=0)
    numbers = [c for c in own if c not in (*keys, "sample", "variance", "marginal")]
    several = own.duplicated(keys).any()
    table = own.groupby(keys, sort=False)[numbers].mean() if several else own.set_index(keys)
    alike = table["alike"].to_numpy() == 1 if optimised else np.zeros(len(table), bool)
    dropped = ("direction", "alike")
    table = table[[c for c in numbers if not c.startswith(dropped)]]
    ordered = targets.rename_axis(index="date", columns="asset")
    table["ordered"] = ordered.rename(columns=str).stack().reindex(table.index)
    filled = _fills(orders, turnover).reindex(table.index).fillna(0.0)
    table["traded"], table["cost"] = filled["traded"], filled["cost"]
    table["kind"] = _kinds(table, alike) if optimised else np.zeros(len(table), np.int8)
    return table


def explained(table: pd.DataFrame, date: pd.Timestamp | str | None, name: str) -> pd.DataFrame:
    """See ``BacktestResult.explain``.

    Args:
        table: of ``positions_by_decision``.
        name: of the strategy.
    """
    if not len(table):
        raise ValueError(
            f"{name} has no record of its decisions: it is from an earlier version, or was run "
            "without one; run the backtest again"
        )
    dates = pd.DatetimeIndex(table.index.get_level_values("date").unique())
    asked = dates[-1] if date is None else pd.Timestamp(date)
    place = dates.searchsorted(asked, side="right") - 1
    if place < 0:
        raise ValueError(
            f"the first recorded decision of {name} is on {dates[0].date()}, after {asked.date()}"
        )
    found = table.loc[dates[place]].copy()
    found["why"] = [sentence(row) for row in found.to_dict("records")]
    size = found[["held", "aimed"]].abs().max(axis=1)
    order = size.sort_values(ascending=False, kind="stable").index
    found = found.loc[order].drop(columns=["kind", "fixed"], errors="ignore")
    found.attrs["date"] = dates[place]
    return found


def sentence(row: Mapping[str, float]) -> str:
    """Why a weight is what it is, what was ordered and traded, in one sentence."""
    ordered, traded = row["ordered"], row["traded"]
    order = 2 if math.isnan(ordered) else int(abs(ordered - row["aimed"]) > APART)
    trade = 1 if traded > 0 else -1
    if abs(traded) <= SMALL:
        trade = 2 if abs(ordered - row["held"]) > APART else 0  # NaN is no order
    parts = WHY[int(row["kind"])] + ORDERED[order] + TRADED[trade]
    fields = [name for _, name, _, _ in Formatter().parse(parts) if name]
    return parts.format(**{name: FORMATS[name](float(row[name])) for name in fields}) + "."


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%".replace("-0.0%", "0.0%").replace("-", "\N{MINUS SIGN}")


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return text.replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")


FORMATS = {
    "no_cap": _percent,
    "no_forecast": _percent,
    "no_trading_cost": _percent,
    "ordered": _percent,
    "traded": lambda value: f"{100 * abs(value):.2f}%",
    "cost": lambda value: f"{1e4 * value:.2f} bp",
    "limit_price": lambda value: _number(abs(value)),
    "forecast": _number,
    "beta": _number,
}


def _kinds(table: pd.DataFrame, alike: np.ndarray) -> np.ndarray:
    """(rows,) which sentence of ``WHY`` fits.

    Args:
        alike: (rows,) bool, whether nothing but the budget stands beside forecast and beta.
    """
    price, aimed = table["limit_price"].to_numpy(), table["aimed"].to_numpy()
    forecast = bool((table["forecast"] != 0).any())
    taxed = table["no_trading_cost"].notna().to_numpy()
    kinds = np.where(taxed, 6, 5) if forecast else np.where(taxed, 9, 8)
    out = np.abs(aimed) <= SMALL
    kinds[(kinds == 8) & ~alike] = 10
    kinds[(kinds == 10) & out] = 11
    kinds[price < -SMALL] = 4
    kinds[(price < -SMALL) & (np.abs(aimed) <= SMALL)] = 3 if forecast else 7
    kinds[price > SMALL] = 2
    kinds[(price > SMALL) & table["no_cap"].notna().to_numpy()] = 1
    if "fixed" in table:
        fixed = table["fixed"].to_numpy() > 0
        kinds[fixed] = np.where(np.abs(aimed[fixed]) <= SMALL, 12, 13)
    kinds[table["forecast"].isna()] = 0
    return kinds.astype(np.int8)


def _fills(orders: pd.DataFrame, turnover: pd.Series) -> pd.DataFrame:
    """Traded and cost by decision date and asset, over the value of the portfolio at each fill."""
    columns = ["traded", "cost"]
    if not len(orders):
        empty = pd.MultiIndex.from_arrays([[], []], names=["date", "asset"])
        return pd.DataFrame(columns=columns, index=empty, dtype=float)
    money = orders["size"] * orders["price"]
    value = money.groupby(orders["date"]).sum() / turnover  # by definition of turnover
    at_fill = value.reindex(orders["date"]).to_numpy()
    table = pd.DataFrame(
        {
            "date": orders["decided"],
            "asset": orders["asset"].astype(str),
            "traded": money.where(orders["side"] == "buy", -money) / at_fill,
            "cost": orders["fees"] / at_fill,
        }
    )
    return table.groupby(["date", "asset"])[columns].sum()
