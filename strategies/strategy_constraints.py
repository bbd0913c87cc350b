"""The constraints of a strategy at a date: for the optimiser, and to check weights against."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from data_loaders.panel import DELISTED_AFTER
from strategies.constraints import Constraints, amount, by_asset, percent
from strategies.contract_types import Inputs
from strategies.layers.optimisation.problem import InfeasibleError
from strategies.layers.solve_record import open_record

FALLBACKS = ("raise", "hold", "relax")
SLACK = 1e-9  # of a sum of caps, rounding
TOLERANCE = 1e-6  # of a weight: what a solver may leave
SAME = 1e-12  # a target this near to its holding is no order
KEPT = "kept: misses prices"  # in the record
LIMIT = "limit."  # inputs of a network so named are the optimiser's constraints


_read: tuple[Mapping[str, Any], Constraints] | None = None  # plain values, read at each decision
_capped = lru_cache(maxsize=8)(lambda cap: Constraints(upper=cap))  # likewise


def constraints_of(strategy: Any) -> Constraints:
    """A strategy's ``constraints``, given as an object or as plain values, or long-only with its
    ``cap``."""
    global _read
    given = strategy.constraints
    if given is None:
        return _capped(strategy.cap)
    if isinstance(given, Constraints):
        return given
    known = _read
    if known is None or known[0] != given:
        known = _read = copy.deepcopy(given), Constraints.from_dict(given)
    return known[1]


def limits_of(
    strategy: Any,
    history: Panel,
    holdings: pd.Series | None = None,
    constraints: Constraints | None = None,
) -> dict[str, Any]:
    """Arguments of the mean-variance layer for the last date of ``history``, (N,) each.

    From a strategy's ``constraints``, ``cap`` and, if it has one, ``fallback``. An asset that
    misses a price in ``history`` may not be bought; its holding is fixed where ``kept`` says so,
    and the record counts it. The first purchase is free of turnover terms. With the fallback
    "relax", caps that cannot hold the budget are raised in proportion, and the record counts it.

    Args:
        holdings: (N,) current weights by asset; None where they are not known.
        constraints: in force in place of its own, if they are not the same.

    Raises:
        ValueError: an unknown fallback, or names in the constraints that are not assets.
        InfeasibleError: the caps cannot hold the budget, and the fallback is "raise"; it says which
            parameter to change.
    """
    fallback = getattr(strategy, "fallback", "raise")
    if fallback not in FALLBACKS:
        raise ValueError(f"unknown fallback {fallback!r}; known are {', '.join(FALLBACKS)}")
    if constraints is None:
        constraints = constraints_of(strategy)
    if isinstance(constraints.budget, Mapping):
        constraints = constraints.on(history.dates[-1])
    held = None if holdings is None else torch.tensor(holdings.to_numpy())
    if held is not None and not held.any():
        constraints = replace(constraints, turnover_cost=0.0, turnover_limit=None)
    found = constraints.arguments(
        list(history.assets), held if constraints.needs_holdings else None
    )
    trades = torch.tensor(history.trades_throughout.to_numpy())
    found["lower"], found["upper"] = found["lower"] * trades, found["upper"] * trades
    fixed, now = torch.zeros_like(trades), torch.zeros_like(found["upper"])
    if holdings is not None and (left := kept(history, holdings)).any():
        count(KEPT, int(left.sum()))
        fixed, now = torch.from_numpy(left), torch.from_numpy(np.where(left, holdings, 0.0))
    needed = constraints.budget_ends[0]
    if fallback == "relax":
        found["upper"], relaxed = relax_caps(found["upper"], needed - float(now.sum()))
        if relaxed.any():
            count("fallback: relax")
    if fixed.any():
        fix_bounds(found, fixed, now)
    most = float(found["upper"].sum())
    if fallback == "raise" and most < needed - SLACK:
        name = type(strategy).__name__
        prefix = f"{name}: " if hasattr(strategy, "build") else ""  # the engine adds a rule's
        if strategy.constraints is None:
            way_out = f"raise the cap (--set {name}.cap=0.5 on the command line)"
        else:
            way_out = "raise upper or caps in its constraints"
        if hasattr(strategy, "fallback"):
            way_out += ', or set fallback="relax"'
        raise InfeasibleError(
            f"{prefix}caps sum to {most:.12g}, budget is {needed:g}: {int(trades.sum())} of "
            f"{len(trades)} assets can be held at {history.dates[-1].date()}, which takes prices "
            f"on all {len(history)} rows of the lookback; {way_out}",
            [0],
        )
    return found


def limit_inputs(limits: dict[str, Any]) -> Inputs:
    """The numeric limits of a date as inputs, to be stacked over dates; names of rows are left out.

    Args:
        limits: of ``limits_of``.
    """
    return {
        LIMIT + name: torch.as_tensor(value, dtype=torch.float64)
        for name, value in limits.items()
        if not isinstance(value, list)
    }


def limits_in(inputs: Inputs) -> dict[str, Any]:
    """The limits among the inputs, as the mean-variance layer takes them."""
    return {k.removeprefix(LIMIT): v for k, v in inputs.items() if k.startswith(LIMIT)}


def relax_caps(upper: torch.Tensor, budget: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Caps (..., N), raised in proportion where they sum to less than the budget; and where, (...).

    So it is when few assets trade. The second tensor is bool, to be counted and reported.
    """
    total = upper.sum(-1, keepdim=True)
    short = total < budget
    return torch.where(short, upper * (budget / total), upper), short.squeeze(-1)


def fix_bounds(found: dict[str, Any], fixed: torch.Tensor, now: torch.Tensor) -> None:
    """Set both bounds of ``fixed`` assets (..., N) to the weights ``now`` (..., N), zero elsewhere.

    A limit of a group that they alone exceed is raised to what they are.
    """
    found["lower"] = torch.where(fixed, now, found["lower"])
    found["upper"] = torch.where(fixed, now, found["upper"])
    if "rows" in found:
        sums = (found["rows"] >= 0).all(dim=-1) & (now >= 0).all(dim=-1, keepdim=True)
        raised = torch.maximum(found["row_upper"], (found["rows"] * now.unsqueeze(-2)).sum(-1))
        found["row_upper"] = torch.where(sums, raised, found["row_upper"])


def suspended(history: Panel) -> np.ndarray:
    """(N,) bool: misses a price in ``history``, so that it is not traded; held, it is kept.

    Not so where it trades outside of the universe, or has been without a price for so long that it
    is taken to be delisted: then it is to be sold.
    """
    missing = ~history.trades_throughout.to_numpy()
    if not missing.any():
        return missing
    priced = history.prices.notna().to_numpy()
    return missing & priced[-DELISTED_AFTER:].any(axis=0) & (~priced[-1] | history.last_members)


def kept(history: Panel, holdings: pd.Series) -> np.ndarray:
    """(N,) bool: held and suspended, so that it is left as it is."""
    return (holdings.to_numpy() != 0) & suspended(history)


def broken(strategy: Any, weights: pd.Series, history: Panel, holdings: pd.Series) -> list[str]:
    """Which of its own limits the weights (N,) of a strategy break, in words.

    Its limits are its attribute ``constraints``, a ``Constraints`` or plain values, or else
    ``cap``, a number: the largest absolute weight of an asset. Where its ``fallback`` is "relax",
    caps that cannot hold the budget are raised; where it is "hold", the current holdings break
    nothing. Floors hold for assets that trade throughout the history; the turnover limit does not
    hold for the first purchase. Where holdings are left as they are, drift may have brought them
    over a limit: their own bounds do not count, and sums may miss theirs by what the holdings do.
    """
    given = getattr(strategy, "constraints", None)
    if isinstance(given, Constraints | Mapping):
        constraints = constraints_of(strategy)
        if isinstance(constraints.budget, Mapping):
            constraints = constraints.on(history.dates[-1])
        budget = constraints.budget_ends[0]
    else:
        cap = getattr(strategy, "cap", None)
        if not isinstance(cap, Real):
            return []
        if not (np.abs(weights.to_numpy(np.float64)) > float(cap) + TOLERANCE).any():
            return []
        budget, total = 1.0, float(weights.sum())  # a cap alone promises no sum
        constraints = Constraints(-float(cap) if strategy.short else 0.0, float(cap), budget=total)
    fallback = getattr(strategy, "fallback", "raise")
    if fallback == "hold" and np.array_equal(weights, holdings):
        return []
    assets, trades = list(history.assets), torch.tensor(history.trades_throughout.to_numpy())
    lower, upper = constraints.bounds(assets)
    lower = lower * trades
    if fallback == "relax":
        upper = torch.maximum(upper, relax_caps(upper * trades, budget)[0])
    held = torch.tensor(holdings.to_numpy()) if holdings.any() else None
    wanted = torch.tensor(weights.to_numpy(np.float64))
    excused: dict[str, torch.Tensor] = {}
    if held is not None and (alone := ((wanted - held).abs() <= SAME) & (held != 0)).any():
        lower = torch.where(alone, torch.minimum(lower, held), lower)
        upper = torch.where(alone, torch.maximum(upper, held), upper)
        excused = constraints.missed(assets, held, held)
    missed = constraints.missed(assets, wanted, held, lower, upper)
    return _in_words(constraints, weights, missed, excused)


def _in_words(
    constraints: Constraints,
    weights: pd.Series,
    missed: Mapping[str, torch.Tensor],
    excused: Mapping[str, torch.Tensor],
) -> list[str]:
    """The limits that weights miss by more than the tolerance and what is excused, in words."""
    found, rows = [], {row.name: row for row in constraints.rows}
    for name, by in missed.items():
        if name in ("floors", "caps"):
            bound, sign = ("floor", 1) if name == "floors" else ("cap", -1)
            found += [
                f"{asset} at {percent(weight)}, its {bound} is {percent(weight + sign * each)}"
                for (asset, weight), each in zip(weights.items(), by.tolist(), strict=True)
                if each > TOLERANCE
            ]
        elif not by > TOLERANCE + max(0.0, float(excused.get(name, 0.0))):
            continue
        elif name == "budget":
            total = percent(weights.sum())
            found.append(f"weights sum to {total}, the budget is {constraints.budget_words}")
        else:
            much = amount(rows[name], float(by)) if name in rows else percent(float(by))
            found.append(f"{name} by {much}")
    return found


def binding(
    strategy: Any, weights: pd.Series, holdings: pd.Series, date: pd.Timestamp
) -> list[str]:
    """Which limits of a strategy the weights (N,) that it decided on at a date have reached.

    In words; floors of zero are left out. Empty for a strategy without the parameters
    ``constraints`` and ``cap``.
    """
    if not {"constraints", "cap"} <= set(strategy.get_params(deep=False)):
        return []
    constraints = constraints_of(strategy).on(date)
    assets, values, found = list(weights.index), torch.tensor(weights.to_numpy(np.float64)), []
    lower, upper = (bounds.tolist() for bounds in constraints.bounds(assets))
    for asset, weight, low, high in zip(assets, values.tolist(), lower, upper, strict=True):
        if abs(weight - low) <= TOLERANCE and low != 0:
            found.append(f"{asset} at its floor of {percent(low)}")
        if abs(weight - high) <= TOLERANCE:
            found.append(f"{asset} at its cap of {percent(high)}")
    for row in constraints.rows:
        value = float(values @ by_asset(assets, row.loadings, 0.0))
        for side in {row.lower, row.upper}:
            if abs(value - side) <= TOLERANCE:
                found.append(f"{row.name} at its limit of {amount(row, side)}")
    least, most = constraints.budget_ends
    totals: list[tuple[str, float | None, torch.Tensor]]
    totals = [("sum of weights", end, values.sum()) for end in (least, most) if least < most]
    totals.append(("gross exposure", constraints.gross_limit, values.abs().sum()))
    if holdings.any():
        traded = (values - torch.tensor(holdings.to_numpy())).abs().sum()
        totals.append(("turnover", constraints.turnover_limit, traded))
    for name, limit, total in totals:
        if limit is not None and abs(float(total) - limit) <= TOLERANCE:
            found.append(f"{name} at its limit of {percent(limit)}")
    return found


def count(event: str, times: int = 1) -> None:
    """Report to the open record that something happened so many times, such as a fallback."""
    record = open_record()
    if record is not None:
        once = torch.zeros(times)
        record.add(event, once, once, once == 0)
