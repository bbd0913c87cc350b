"""Settings as an experiment's TOML file has them, and back: plan, costs, training.

Keys are the arguments' names. ``class`` (of costs) and ``loss`` (of training) take anyone's own:
``"my_costs:Tiered"``, ``"my_losses.py:Omega"``, or the name that an installed package gives one.
"""

from __future__ import annotations

from data_loaders.suggestions import known_names
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from data_loaders.plugins import installed, load_plugin
from engine.losses import portfolio, returns
from engine.accounting.costs import Costs
from engine.losses.returns import Loss
from engine.training.settings import Training
from engine.planning.walk_forward import WalkForward

COSTS, LOSSES = "deqfolio.costs", "deqfolio.losses"  # entry points of installed packages
T = TypeVar("T")


def read_plan(table: Mapping[str, Any]) -> WalkForward:
    """The plan of a table like ``{"train": "5Y", "rebalance": "ME"}``."""
    return read_settings(WalkForward, table, "plan")


def read_costs(table: Mapping[str, Any]) -> Costs:
    """The costs of a table like ``{"commission": 0.001}``.

    ``class`` names a subclass of Costs, module:Class or an installed one's name, and its own
    parameters stand beside it.
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
    """What ``read_costs`` makes the same costs of; plain values."""
    cls = type(costs)
    own = {} if cls is Costs else {"class": f"{cls.__module__}:{cls.__qualname__}"}
    return own | asdict(costs)


def read_training(table: Mapping[str, Any]) -> Training:
    """The training of a table like ``{"epochs": 20, "loss": "NegativeLogGrowth"}``.

    ``loss`` is a name, or a table of ``class`` and parameters:
    ``{class = "NegativeMeanVariance", aversion = 10}``. What ``read_logs`` takes is left out.
    """
    rest = {key: value for key, value in table.items() if key != "log"}
    if "loss" in rest:
        rest["loss"] = read_loss(rest["loss"])
    return read_settings(Training, rest, "training")


def read_logs(table: Mapping[str, Any]) -> list[str]:
    """Where the epochs are told, by name, of a training like ``{"log": ["csv"]}``; or one name.

    It is no setting of the training, as no result depends on it: see ``callbacks.py``.
    """
    said = table.get("log", [])
    names = [said] if isinstance(said, str) else said
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f'training: log is a name, like "csv", or a list of names, got {said!r}')
    return list(dict.fromkeys(names))


def read_simulation(table: Mapping[str, Any]) -> bool:
    """Whether a table like ``{"whole_shares": true}`` asks for whole shares."""
    for key, value in table.items():
        if key != "whole_shares":
            raise ValueError(
                f"simulation: unknown setting {key!r}{known_names(key, ['whole_shares'])}"
            )
        if not isinstance(value, bool):
            raise ValueError(f"simulation: whole_shares is true or false, got {value!r}")
    return bool(table.get("whole_shares", False))


def read_loss(said: Any) -> Loss:
    """The loss of a name, one of ours or module:Class, or of a table with its parameters."""
    table = dict(said) if isinstance(said, Mapping) else {"class": said}
    name = str(table.pop("class", None))
    ours = vars(returns) | vars(portfolio)
    known = {key: cls for key, cls in ours.items() if _is_loss(cls) and key[0] != "_"}
    found = known.get(name) or load_plugin(name, LOSSES)
    if not _is_loss(found):
        named = known_names(name, [*known, *installed(LOSSES)])
        raise ValueError(f"training: there is no loss {name!r}{named}, or your own module:Class")
    cls: Any = found
    checked: bool = is_dataclass(found)
    made: Loss = read_settings(cls, table, name) if checked else cls(**table)
    return made


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
    """Whether a TOML value may stand where an argument of this type is expected."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True
