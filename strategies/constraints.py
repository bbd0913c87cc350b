"""The limits of a portfolio's weights, by name.

The mean-variance layer takes them as ``arguments``, people read them (``describe``), and files hold
them (``from_dict``); ``strategy_constraints.py`` has those of a strategy at a date:

    constraints = Constraints(
        upper=0.1,
        caps={"TSLA": 0.05},
        groups=[Group("tech", ["AAPL", "MSFT"], upper=0.3)],
        exposures=[Exposure("beta", {"AAPL": 1.2, "MSFT": 0.9}, lower=0, upper=0.5)],
        turnover_limit=0.3,
    )
    weights = layer(risk, expected_return, **constraints.arguments(assets, holdings=holdings))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import date as Date
from numbers import Real
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from data_loaders.suggestions import did_you_mean, known_names
from strategies.layers.optimisation.arguments import budget_ends

INFINITY = float("inf")


@dataclass(frozen=True)
class Group:
    """Limits of the sum of some assets' weights, such as a sector's; fractions, 0.3 = 30 %."""

    name: str
    assets: Sequence[str]
    lower: float = -INFINITY
    upper: float = INFINITY

    def __post_init__(self) -> None:
        _check_row(self)
        if isinstance(self.assets, str) or not all(isinstance(each, str) for each in self.assets):
            raise ValueError(f"group {self.name!r}: assets is a list of names, got {self.assets!r}")
        if not self.assets:
            raise ValueError(f"group {self.name!r} has no assets")

    @property
    def loadings(self) -> dict[str, float]:
        return dict.fromkeys(self.assets, 1.0)


@dataclass(frozen=True)
class Exposure:
    """Limits of ``sum of loading times weight``; equal limits make an equality (beta-neutral: 0
    and 0). An asset without a loading has zero."""

    name: str
    loadings: Mapping[str, float]
    lower: float = -INFINITY
    upper: float = INFINITY

    def __post_init__(self) -> None:
        _check_row(self)
        _numbers_by_asset(f"exposure {self.name!r}: loadings", self.loadings)


@dataclass(frozen=True)
class Constraints:
    """Limits of a portfolio's weights and what it pays to change them.

    Args:
        lower, upper: bounds of every weight, fractions; 0.1 = 10 %. A negative lower bound allows
            short positions, within ``gross_limit``.
        floors, caps: bounds of single assets, in place of ``lower`` and ``upper``.
        budget: sum of the weights; 0 for dollar-neutral. Or the least and the most it may be:
            with (0, 1) cash is a choice. Or either by date, as a mapping or a Series, in force from
            that date on: ``{"2005-01-01": 1.0, "2008-09-15": 0.5}``.
        groups, exposures: limits of sums of weights.
        gross_limit: of the sum of absolute weights; 1.6 with a budget of 1 is 130/30.
        turnover_cost: in the objective, ``c sum |z - holdings|``, in the unit of expected returns;
            0.001 = 10 bp.
        turnover_limit: of ``sum |z - holdings|``; 0.3 = 30 % bought plus sold.
        benchmark, tracking: weights by asset (others zero), and how strongly to stay near them:
            ``tracking / 2`` times the variance of the difference is added to the objective.

    Raises:
        ValueError: a limit that is not a number, or limits that contradict each other whatever the
            assets and the date.
    """

    lower: float = 0.0
    upper: float = 1.0
    floors: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    budget: float | Sequence[float] | Mapping[Any, float | Sequence[float]] = 1.0
    groups: Sequence[Group] = ()
    exposures: Sequence[Exposure] = ()
    gross_limit: float | None = None
    turnover_cost: float = 0.0
    turnover_limit: float | None = None
    benchmark: Mapping[str, float] = field(default_factory=dict)
    tracking: float = 0.0

    def __post_init__(self) -> None:
        budget = _plain_budget(self.budget)
        object.__setattr__(self, "budget", budget)
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "exposures", tuple(self.exposures))
        for name in ("lower", "upper"):
            _number(name, getattr(self, name), infinite=True)
        for each in budget.values() if isinstance(budget, Mapping) else [budget]:
            least, most = budget_ends(each)
            for end in (least, most):
                _number("budget", end)
            if least > most:
                raise ValueError(f"budget: the least, {least:g}, is above the most, {most:g}")
            nearest = max(least, -most, 0.0)  # to zero that the sum can be
            if self.gross_limit is not None and self.gross_limit < nearest:
                raise ValueError(
                    f"the budget of {nearest if least > 0 else -nearest:g} cannot be held within a "
                    f"gross_limit of {self.gross_limit:g}"
                )
        for name in ("gross_limit", "turnover_limit", "turnover_cost", "tracking"):
            value = getattr(self, name)
            if value is not None:
                _number(name, value)
                if value < 0:
                    raise ValueError(f"{name} must not be negative, got {value:g}")
        for name in ("floors", "caps", "benchmark"):
            _numbers_by_asset(name, getattr(self, name))
        if self.lower > self.upper:
            raise ValueError(f"lower {self.lower:g} is above upper {self.upper:g}")
        for asset in {**self.floors, **self.caps}:
            floor, cap = self.floors.get(asset, self.lower), self.caps.get(asset, self.upper)
            if floor > cap:
                raise ValueError(f"{asset} has a floor of {floor:g} above its cap of {cap:g}")
        if bool(self.benchmark) != (self.tracking > 0):
            raise ValueError("a benchmark goes with a positive tracking, and the reverse")
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"groups and exposures need different names, got {names}")

    @property
    def rows(self) -> list[Group | Exposure]:
        return [*self.groups, *self.exposures]

    def on(self, date: pd.Timestamp) -> Constraints:
        """These, with the budget in force on a date; ValueError where there is none yet."""
        if not isinstance(self.budget, Mapping):
            return self
        begun = [begins for begins in self.budget if begins <= date]
        if not begun:
            raise ValueError(
                f"the budget by date begins on {min(self.budget).date()}, after {date.date()}: add "
                "an entry for the dates before"
            )
        return replace(self, budget=self.budget[begun[-1]])

    @property
    def budget_ends(self) -> tuple[float, float]:
        """What the weights sum to, at least and at most, on any date."""
        if not isinstance(self.budget, Mapping):
            return budget_ends(self.budget)
        least, most = zip(*map(budget_ends, self.budget.values()), strict=True)
        return min(least), max(most)

    @property
    def needs_holdings(self) -> bool:
        return self.turnover_cost > 0 or self.turnover_limit is not None

    def arguments(self, assets: Sequence[str], holdings: Tensor | None = None) -> dict[str, Any]:
        """Keyword arguments for ``MeanVarianceLayer``, for assets in this order.

        Args:
            assets: N names.
            holdings: (N,) or (B, N) weights traded from; needed by the turnover terms.

        Raises:
            ValueError: names that are not among the assets, or holdings missing.
        """
        self.check_names(assets)
        if isinstance(self.budget, Mapping):
            raise ValueError("the budget differs by date: ask constraints.on(date).arguments(...)")
        lower, upper = self.bounds(assets)
        found: dict[str, Any] = {"lower": lower, "upper": upper, "budget": self.budget}
        if self.rows:
            found["rows"] = torch.stack([by_asset(assets, r.loadings, 0.0) for r in self.rows])
            found["row_lower"] = torch.tensor([r.lower for r in self.rows], dtype=torch.float64)
            found["row_upper"] = torch.tensor([r.upper for r in self.rows], dtype=torch.float64)
            found["row_names"] = [row.name for row in self.rows]
        if self.needs_holdings:
            if holdings is None:
                raise ValueError("a turnover cost or limit needs the holdings traded from")
            found["holdings"] = holdings
        if self.tracking > 0:
            found["benchmark"] = by_asset(assets, self.benchmark, 0.0)
        numbers = {
            "turnover_cost": self.turnover_cost or None,
            "turnover_limit": self.turnover_limit,
            "gross_limit": self.gross_limit,
            "tracking": self.tracking or None,
        }
        return found | {name: value for name, value in numbers.items() if value is not None}

    def missed(
        self,
        assets: Sequence[str],
        weights: Tensor,
        holdings: Tensor | None = None,
        lower: Tensor | None = None,
        upper: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """By how much weights (..., N) miss each limit, by its name; not positive where met."""
        floors, caps = self.bounds(assets)
        total, (least, most) = weights.sum(-1), self.budget_ends
        missed = {
            "floors": (floors if lower is None else lower) - weights,
            "caps": weights - (caps if upper is None else upper),
            "budget": torch.maximum(total - most, least - total),
        }
        for row in self.rows:
            value = (weights * by_asset(assets, row.loadings, 0.0)).sum(-1)
            missed[row.name] = torch.maximum(value - row.upper, row.lower - value)
        if self.gross_limit is not None:
            missed["gross"] = weights.abs().sum(-1) - self.gross_limit
        if self.turnover_limit is not None and holdings is not None:
            missed["turnover"] = (weights - holdings).abs().sum(-1) - self.turnover_limit
        return missed

    def describe(self) -> list[tuple[str, str]]:
        """Name and limits of every constraint in force, in words."""
        lines = [("each weight", f"{percent(self.lower)} to {percent(self.upper)}")]
        lines += [(name, f"at least {percent(floor)}") for name, floor in self.floors.items()]
        lines += [(name, f"at most {percent(cap)}") for name, cap in self.caps.items()]
        lines.append(("sum of weights", self.budget_words))
        for row in self.rows:
            sides = [f"at least {amount(row, row.lower)}"] if row.lower > -INFINITY else []
            sides += [f"at most {amount(row, row.upper)}"] if row.upper < INFINITY else []
            equal = row.lower == row.upper
            lines.append((row.name, amount(row, row.upper) if equal else ", ".join(sides)))
        for name, limit in ("gross exposure", self.gross_limit), ("turnover", self.turnover_limit):
            if limit is not None:
                lines.append((name, f"at most {percent(limit)}"))
        if self.turnover_cost > 0:
            lines.append(("cost of turnover", f"{1e4 * self.turnover_cost:g} bp"))
        if self.tracking > 0:
            lines.append(("tracking of the benchmark", f"{self.tracking:g} times its variance"))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values for JSON or TOML; see ``from_dict``."""
        return _plain(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Constraints:
        """From plain values, as a JSON or TOML file has them.

        Raises:
            ValueError: a key that is not a constraint, with the nearest that is.
        """
        known = [f.name for f in fields(cls)]
        for key in plain:
            if key not in known:
                raise ValueError(f"unknown constraint {key!r}{known_names(key, known)}")
        values = dict(plain)
        for name, kind in (("groups", Group), ("exposures", Exposure)):
            keys = [f.name for f in fields(kind)]
            allowed = ", ".join(keys)
            rows = plain.get(name, ())
            if not isinstance(rows, Sequence) or isinstance(rows, str):
                raise ValueError(f"{name} is a list of tables, got {rows!r}")
            for number, row in enumerate(rows):
                where = f"{name}[{number}]"
                if not isinstance(row, Mapping):
                    raise ValueError(f"{where} is a table with {allowed}, got {row!r}")
                for key in row:
                    if key not in keys:
                        raise ValueError(f"{where}: unknown key {key!r}; known are {allowed}")
                for key in keys[:2]:  # the others have defaults
                    if key not in row:
                        raise ValueError(f"{where} needs {key}")
            values[name] = [kind(**row) for row in rows]
        return cls(**values)

    @property
    def short(self) -> bool:
        """Whether some weight may be negative."""
        return self.lower < 0 or any(floor < 0 for floor in self.floors.values())

    @property
    def gross(self) -> float:
        """What the absolute weights may sum to."""
        return max(map(abs, self.budget_ends)) if self.gross_limit is None else self.gross_limit

    @property
    def budget_words(self) -> str:
        least, most = map(percent, self.budget_ends)
        words = least if least == most else f"{least} to {most}"
        return f"{words}, by date" if isinstance(self.budget, Mapping) else words

    def check_names(self, assets: Sequence[str]) -> None:
        """ValueError where a limit names what is not among the assets."""
        named = {*self.floors, *self.caps, *self.benchmark}
        named.update(name for row in self.rows for name in row.loadings)
        missing = sorted(named - set(assets))
        if missing:
            hint = did_you_mean(missing[0], assets)
            raise ValueError(f"not among the assets: {', '.join(missing)}{hint}")

    def bounds(self, assets: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The lower and upper bound of each asset, (N,) each."""
        floors = by_asset(assets, self.floors, self.lower)
        return floors, by_asset(assets, self.caps, self.upper)


def by_asset(assets: Sequence[str], values: Mapping[str, float], other: float) -> Tensor:
    """Values (N,) in the order of the assets, ``other`` where there is none."""
    return torch.tensor([values.get(asset, other) for asset in assets], dtype=torch.float64)


def _check_row(row: Group | Exposure) -> None:
    """ValueError where a group or an exposure could not be met by any weights."""
    kind = type(row).__name__.lower()
    if not (isinstance(row.name, str) and row.name):
        raise ValueError(f"a {kind} needs a name, got {row.name!r}")
    where = f"{kind} {row.name!r}"
    for side in ("lower", "upper"):
        _number(f"{where}: {side}", getattr(row, side), infinite=True)
    if row.lower > row.upper:
        raise ValueError(f"{where}: lower {row.lower:g} is above upper {row.upper:g}")


def _numbers_by_asset(name: str, values: object) -> None:
    """ValueError where ``values`` are not numbers by asset, like ``{"AAPL": 0.05}``."""
    if not isinstance(values, Mapping):
        raise ValueError(f'{name} is a table by asset, like {{"AAPL": 0.05}}, got {values!r}')
    for asset, value in values.items():
        _number(f"{name} of {asset}", value, infinite=name in ("floors", "caps"))


def _number(what: str, value: object, infinite: bool = False) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{what} should be a number, got {value!r}")
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise ValueError(f"{what} should be a number, got {float(value)}")


def _plain_budget(budget: Any) -> Any:
    """By date in order, and all of them pairs where one of them is a pair, so that dates stack."""
    if isinstance(budget, pd.Series):
        budget = budget.to_dict()
    if not isinstance(budget, Mapping):
        return tuple(budget) if isinstance(budget, list) else budget  # a list in a file
    try:
        dates = [pd.Timestamp(date) for date in budget if isinstance(date, str | Date)]
    except ValueError:
        dates = []
    sound = len(set(dates)) == len(budget) and not any(pd.isna(date) or date.tz for date in dates)
    if not (dates and sound):
        raise ValueError(
            "a budget by date has dates without a time zone, each of them once, like "
            f"{{'2005-01-01': 1.0, '2008-09-15': 0.5}}, got {list(budget)[:5]!r}"
        )
    ends = dict(sorted(zip(dates, map(budget_ends, budget.values()), strict=True)))
    pairs = any(least != most for least, most in ends.values())
    return {date: each if pairs else each[0] for date, each in ends.items()}


def _plain(given: Constraints | Group | Exposure) -> dict[str, Any]:
    """Fields that differ from their defaults, as plain values."""
    found: dict[str, Any] = {}
    for f in fields(given):
        value = getattr(given, f.name)
        if value == f.default or (f.default_factory is not MISSING and not value):
            continue
        if f.name in ("groups", "exposures"):
            value = [_plain(row) for row in value]
        elif isinstance(value, Mapping):
            value = {
                key.isoformat() if isinstance(key, pd.Timestamp) else key: each
                for key, each in value.items()
            }
        elif not isinstance(value, int | float | str):
            value = list(value)
        found[f.name] = value
    return found


def percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def amount(row: Group | Exposure, value: float) -> str:
    """What a row sums to, in words: loadings may be of any unit."""
    return percent(value) if isinstance(row, Group) else f"{value:g}"
