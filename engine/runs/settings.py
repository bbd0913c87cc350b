"""Plan, costs and training from the tables of an experiment's TOML file, and costs back.

Keys are the names of arguments. ``class`` (of costs) and ``loss`` (of training) may name a user's
own class, ``"my_costs:Tiered"`` or ``"my_losses.py:Omega"``, or the entry point of an installed
package.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from data_loaders.plugins import installed, load_plugin, shown_module
from data_loaders.suggestions import known_names
from engine.accounting.costs import Costs
from engine.accounting.risk_free import Rates, read_rates
from engine.losses import portfolio, returns, risk
from engine.losses.returns import Loss
from engine.planning.walk_forward import WalkForward
from engine.training.settings import Training

COSTS, LOSSES = "deqfolio.costs", "deqfolio.losses"  # entry points of installed packages
T = TypeVar("T")


def read_plan(table: Mapping[str, Any]) -> WalkForward:
    """The plan of a table like ``{"train": "5Y", "rebalance": "ME"}``."""
    return read_settings(WalkForward, table, "plan")


def read_costs(table: Mapping[str, Any]) -> Costs:
    """The costs of a table like ``{"commission": 0.001}``.

    ``class`` names a subclass of Costs, as module:Class or by an entry point; its parameters stand
    beside it.
    """
    rest = dict(table)
    name = rest.pop("class", None)
    if name is None:
        return read_settings(Costs, rest, "costs")
    found = load_plugin(name, COSTS) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, Costs)):
        known = f", or {', '.join(installed(COSTS))}" if installed(COSTS) else ""
        raise ValueError(
            f"costs: class = {name!r} should name a subclass of Costs, module:Class{known}"
        )
    return read_settings(found, rest, "costs")


def describe_costs(costs: Costs) -> dict[str, Any]:
    """The table from which ``read_costs`` makes the same costs; plain values."""
    cls = type(costs)
    own = {} if cls is Costs else {"class": f"{shown_module(cls.__module__)}:{cls.__qualname__}"}
    return own | asdict(costs)


def read_training(table: Mapping[str, Any]) -> Training:
    """The training of a table like ``{"epochs": 20, "loss": "NegativeLogGrowth"}``.

    ``loss``, as ``first``, is a name, or a table of ``class`` and parameters:
    ``{class = "NegativeMeanVariance", aversion = 10}``. ``log`` is left to ``read_logs``.
    """
    rest = {key: value for key, value in table.items() if key != "log"}
    for key in {"loss", "first"} & rest.keys():
        rest[key] = read_loss(rest[key])
    return read_settings(Training, rest, "training")


def read_logs(table: Mapping[str, Any]) -> list[str]:
    """The names of callbacks in a table like ``{"log": ["csv"]}``, where ``log`` is one or several.

    It is not a field of ``Training``, since no result depends on it: see ``callbacks.py``.
    """
    given = table.get("log", [])
    names = [given] if isinstance(given, str) else given
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f'training: log is a name, like "csv", or a list of names, got {given!r}')
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Simulation:
    """Args: as of ``backtest``; ``risk_free`` as a text names a CSV file, see ``read_rates``."""

    whole_shares: bool = False
    risk_free: float | str | None = None

    @property
    def rates(self) -> Rates | None:
        """The risk-free rate, read where it is in a file."""
        return read_rates(self.risk_free) if isinstance(self.risk_free, str) else self.risk_free


def read_simulation(table: Mapping[str, Any]) -> Simulation:
    """The simulation of a table like ``{"whole_shares": true, "risk_free": 0.02}``."""
    return read_settings(Simulation, table, "simulation")


@dataclass(frozen=True)
class Report:
    """Args: ``benchmark`` and ``subject`` of ``reports.write_report``, by name or file."""

    benchmark: str | None = None
    about: str | None = None


def read_report(table: Mapping[str, Any]) -> Report:
    """What a report is about, of a table like ``{"benchmark": "SPY", "about": "Momentum"}``."""
    return read_settings(Report, table, "report")


def read_loss(given: Any) -> Loss:
    """The loss of a name, built-in or module:Class, or of a table with ``class`` and parameters."""
    table = dict(given) if isinstance(given, Mapping) else {"class": given}
    name = str(table.pop("class", None))
    built_in = vars(returns) | vars(portfolio) | vars(risk)
    known = {key: cls for key, cls in built_in.items() if _is_loss(cls) and key[0] != "_"}
    found = known.get(name) or load_plugin(name, LOSSES)
    if not _is_loss(found):
        named = known_names(name, [*known, *installed(LOSSES)])
        raise ValueError(f"training: there is no loss {name!r}{named}, or your own module:Class")
    cls: Any = found
    checked: bool = is_dataclass(cls)  # others check their own arguments
    loss: Loss = read_settings(cls, table, name) if checked else cls(**table)
    return loss


def _is_loss(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Loss) and found is not Loss


def read_settings(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of a dataclass; names and types are checked here, ranges by the class."""
    hints = get_type_hints(cls)
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in names:
            raise ValueError(f"{where}: unknown setting {key!r}{known_names(key, names)}")
        if not _fits(value, hints[key]):
            wanted = getattr(hints[key], "__name__", str(hints[key]))
            raise ValueError(
                f"{where}: {key} = {value!r} is a {type(value).__name__}, expected {wanted}"
            )
    try:
        return cls(**table)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _fits(value: object, hint: Any) -> bool:
    """Whether a TOML value can be an argument of this type."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True
