"""The limits of a portfolio's weights, by name.

The mean-variance layer takes them as ``arguments``, the engine checks weights against them
(``broken``, ``binding``), people read them (``describe``), and files hold them (``from_dict``):

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

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from data_loaders.suggestions import did_you_mean, known_names
from strategies.constraint_validation import (
    budget_by_date,
    check_assets,
    check_by_asset,
    check_constraints,
    check_keys,
    check_row,
)
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
        check_row(self)
        check_assets(self)

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
        check_row(self)
        check_by_asset(f"exposure {self.name!r}: loadings", self.loadings)


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
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "exposures", tuple(self.exposures))
        if isinstance(self.budget, list):  # of a file
            object.__setattr__(self, "budget", tuple(self.budget))
        if isinstance(self.budget, pd.Series):
            object.__setattr__(self, "budget", self.budget.to_dict())
        if isinstance(self.budget, Mapping):
            object.__setattr__(self, "budget", budget_by_date(self.budget))
        check_constraints(self)

    @property
    def rows(self) -> list[Group | Exposure]:
        return [*self.groups, *self.exposures]

    def on(self, date: pd.Timestamp) -> Constraints:
        """These, with the budget that is in force on a date.

        Raises:
            ValueError: there is none yet.
        """
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
        lower, upper = self._bounds(assets)
        found: dict[str, Any] = {"lower": lower, "upper": upper, "budget": self.budget}
        if self.rows:
            found["rows"] = torch.stack(
                [self._by_asset(assets, r.loadings, 0.0) for r in self.rows]
            )
            found["row_lower"] = torch.tensor([r.lower for r in self.rows], dtype=torch.float64)
            found["row_upper"] = torch.tensor([r.upper for r in self.rows], dtype=torch.float64)
            found["row_names"] = [row.name for row in self.rows]
        if self.needs_holdings:
            if holdings is None:
                raise ValueError("a turnover cost or limit needs the holdings traded from")
            found["holdings"] = holdings
            if self.turnover_cost > 0:
                found["turnover_cost"] = self.turnover_cost
            if self.turnover_limit is not None:
                found["turnover_limit"] = self.turnover_limit
        if self.gross_limit is not None:
            found["gross_limit"] = self.gross_limit
        if self.tracking > 0:
            found["benchmark"] = self._by_asset(assets, self.benchmark, 0.0)
            found["tracking"] = self.tracking
        return found

    def broken(
        self,
        assets: Sequence[str],
        weights: Tensor,
        holdings: Tensor | None = None,
        lower: Tensor | None = None,
        upper: Tensor | None = None,
        tolerance: float = 1e-6,
        excused: Mapping[str, Tensor] | None = None,
    ) -> list[str]:
        """Which limits the weights (N,) break, in words.

        Args:
            lower, upper: (N,) bounds in force, where they differ from these: on a date on which
                an asset does not trade, or caps had to be raised.
            excused: by how much limits may be missed, by their name as in ``missed``.
        """
        excused = excused or {}
        weights = weights.to(torch.float64)
        rows, found = {row.name: row for row in self.rows}, []
        for name, value in self.missed(assets, weights, holdings, lower, upper).items():
            if not (value > tolerance + excused.get(name, torch.zeros(())).clamp_min(0)).any():
                continue
            if name in ("floors", "caps"):
                bound, sign = ("floor", 1) if name == "floors" else ("cap", -1)
                for asset, weight, by in zip(assets, weights.tolist(), value.tolist(), strict=True):
                    if by > tolerance:
                        limit = _percent(weight + sign * by)
                        found.append(f"{asset} at {_percent(weight)}, its {bound} is {limit}")
            elif name == "budget":
                total = _percent(weights.sum().item())
                found.append(f"weights sum to {total}, the budget is {self._budget_words}")
            elif isinstance(rows.get(name), Exposure):
                found.append(f"{name} by {float(value):g}")
            else:
                found.append(f"{name} by {_percent(float(value))}")
        return found

    def missed(
        self,
        assets: Sequence[str],
        weights: Tensor,
        holdings: Tensor | None = None,
        lower: Tensor | None = None,
        upper: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """By how much weights (..., N) miss each limit, by its name; not positive where met."""
        floors, caps = self._bounds(assets)
        total, (least, most) = weights.sum(-1), self.budget_ends
        missed = {
            "floors": (floors if lower is None else lower) - weights,
            "caps": weights - (caps if upper is None else upper),
            "budget": torch.maximum(total - most, least - total),
        }
        for row in self.rows:
            value = (weights * self._by_asset(assets, row.loadings, 0.0)).sum(-1)
            missed[row.name] = torch.maximum(value - row.upper, row.lower - value)
        if self.gross_limit is not None:
            missed["gross"] = weights.abs().sum(-1) - self.gross_limit
        if self.turnover_limit is not None and holdings is not None:
            missed["turnover"] = (weights - holdings).abs().sum(-1) - self.turnover_limit
        return missed

    def binding(
        self,
        assets: Sequence[str],
        weights: Tensor,
        holdings: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> list[str]:
        """Which limits the weights (N,) have reached, in words; floors of zero are left out."""
        weights = weights.to(torch.float64)
        lower, upper = self._bounds(assets)
        found = [
            f"{asset} at its {word} of {_percent(limit)}"
            for asset, weight, low, high in zip(
                assets, weights.tolist(), lower.tolist(), upper.tolist(), strict=True
            )
            for word, limit in (("floor", low), ("cap", high))
            if abs(weight - limit) <= tolerance and (word == "cap" or limit != 0)
        ]
        for row in self.rows:
            value = float(weights @ self._by_asset(assets, row.loadings, 0.0))
            text = _percent if isinstance(row, Group) else "{:g}".format
            for side in {row.lower, row.upper}:
                if abs(value - side) <= tolerance:
                    found.append(f"{row.name} at its limit of {text(side)}")
        least, most = self.budget_ends
        for end in (least, most) if least < most else ():
            if abs(float(weights.sum()) - end) <= tolerance:
                found.append(f"sum of weights at its limit of {_percent(end)}")
        totals = [("gross exposure", self.gross_limit, weights)]
        if holdings is not None:
            totals.append(("turnover", self.turnover_limit, weights - holdings))
        for name, limit, parts in totals:
            if limit is not None and abs(float(parts.abs().sum()) - limit) <= tolerance:
                found.append(f"{name} at its limit of {_percent(limit)}")
        return found

    def describe(self) -> list[tuple[str, str]]:
        """Name and limits of every constraint in force, in words."""
        lines = [("each weight", f"{_percent(self.lower)} to {_percent(self.upper)}")]
        lines += [(name, f"at least {_percent(floor)}") for name, floor in self.floors.items()]
        lines += [(name, f"at most {_percent(cap)}") for name, cap in self.caps.items()]
        lines.append(("sum of weights", self._budget_words))
        lines += [(group.name, _range(group, _percent)) for group in self.groups]
        lines += [(exposure.name, _range(exposure, "{:g}".format)) for exposure in self.exposures]
        if self.gross_limit is not None:
            lines.append(("gross exposure", f"at most {_percent(self.gross_limit)}"))
        if self.turnover_limit is not None:
            lines.append(("turnover", f"at most {_percent(self.turnover_limit)}"))
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
        for name, kind, needed in (
            ("groups", Group, "assets"),
            ("exposures", Exposure, "loadings"),
        ):
            keys = [f.name for f in fields(kind)]
            rows = plain.get(name, ())
            if not isinstance(rows, Sequence) or isinstance(rows, str):
                raise ValueError(f"{name} is a list of tables, got {rows!r}")
            for number, row in enumerate(rows):
                check_keys(f"{name}[{number}]", row, keys, ("name", needed))
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
    def _budget_words(self) -> str:
        least, most = map(_percent, self.budget_ends)
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

    def _bounds(self, assets: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The lower and upper bound of each asset, (N,) each."""
        floors = self._by_asset(assets, self.floors, self.lower)
        return floors, self._by_asset(assets, self.caps, self.upper)

    def _by_asset(self, assets: Sequence[str], values: Mapping[str, float], other: float) -> Tensor:
        return torch.tensor([values.get(asset, other) for asset in assets], dtype=torch.float64)


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


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _range(row: Group | Exposure, text: Any) -> str:
    if row.lower == row.upper:
        return str(text(row.upper))
    parts = [f"at least {text(row.lower)}"] if row.lower > -INFINITY else []
    parts += [f"at most {text(row.upper)}"] if row.upper < INFINITY else []
    return ", ".join(parts)
