"""An experiment: one TOML file with all settings of a run, written by every run.

[data]                 source, and other arguments of data_loaders.load()
[[strategies]]         class, and its parameters beside it; once for each strategy
[plan]                 arguments of WalkForward
[costs]                arguments of Costs, or of a user's own class
[training]             arguments of Training
[simulation]           whole_shares, risk_free (a number, or a CSV file of rates)
[report]               benchmark, about: as of deqfolio report
folder                 of a run: where it was started, as seen from the run's own folder
[sweep]                what deqfolio sweep tries: trials, folds, [sweep.ranges], ...

Keys are the names of arguments. ``class`` (of costs) and ``loss`` (of training) may name a user's
own class, ``"my_costs:Tiered"`` or ``"my_losses.py:Omega"``, or the entry point of an installed
package.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from data_loaders.plugins import installed, load_plugin, shown_module
from data_loaders.suggestions import known_names
from engine.accounting.costs import Costs
from engine.accounting.risk_free import Rates, read_rates
from engine.losses import portfolio, returns
from engine.losses.returns import Loss
from engine.planning.walk_forward import WalkForward
from engine.runs.run_files import CODE, EXPERIMENT, FILES, RunDamaged, contents, unsealed
from engine.training.settings import Training

TABLES = ("data", "plan", "costs", "training", "simulation", "report")
COSTS, LOSSES = "deqfolio.costs", "deqfolio.losses"  # entry points of installed packages
T = TypeVar("T")


def read_experiment(path: Path) -> dict[str, Any]:
    """The tables of a file, empty where left out; their contents are checked where they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, or no experiment.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment file {path}")
    try:
        asked = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    for name, value in asked.items():
        if name == "folder" and isinstance(value, str):
            continue
        if name not in (*TABLES, "strategies", "sweep"):
            raise ValueError(
                f"{path}: unknown table {name!r}{known_names(name, TABLES)}, strategies, sweep"
            )
        if name in TABLES and not isinstance(value, dict):
            raise ValueError(f"{path}: {name} should be a table, [{name}]")
    listed = asked.get("strategies")
    named = isinstance(listed, list) and all(
        isinstance(each, dict) and isinstance(each.get("class"), str) for each in listed
    )
    if not (named and listed):
        raise ValueError(f'{path} needs [[strategies]], each with its class = "..."')
    if "source" not in asked.get("data", {}):
        raise ValueError(f'{path} needs [data] with its source, like source = "prices.csv"')
    return {name: {} for name in TABLES} | asked


def experiment_of(folder: Path) -> dict[str, Any]:
    """The experiment of a run, as it was when the run began.

    Raises:
        FileNotFoundError: the folder has none.
        RunDamaged: it is not what was written.
    """
    if not (folder / EXPERIMENT).is_file():
        raise FileNotFoundError(
            f"{folder} has no {EXPERIMENT}, so it is not the folder of a run of the command line"
        )
    index = unsealed(folder / CODE) if (folder / CODE).is_file() else {}
    if EXPERIMENT in index.get(FILES, ()):
        try:
            contents(folder, index, EXPERIMENT)
        except RunDamaged as error:
            raise RunDamaged(
                f"{error}; if you changed it, run it as another: deqfolio backtest "
                f"{folder / EXPERIMENT} --out FOLDER"
            ) from None
    return read_experiment(folder / EXPERIMENT)


def enter(asked: dict[str, Any], text: str) -> None:
    """Set ``Name.parameter=value`` in an experiment, where Name is a strategy or a table.

    ``Name.strategy.parameter=value`` is one of the strategy inside a wrapper.

    Raises:
        ValueError: the text has another form, or the name is unknown.
    """
    left, equals, value = text.partition("=")
    owner, dot, parameter = left.partition(".")
    if not equals or not dot:
        raise ValueError(f"--set {text}: write it like DEQMeanVariance.hidden=32")
    named = {short_name(each["class"]): each for each in asked["strategies"]}
    places = named | {name: asked[name] for name in TABLES}
    if owner not in places:
        raise ValueError(f"--set {text}: no --strategy has that name{known_names(owner, places)}")
    place, (*inner, last) = places[owner], parameter.split(".")
    for name in inner:
        if isinstance(place.get(name), str):
            place[name] = {"class": place[name]}
        if not isinstance(place.get(name), dict):
            raise ValueError(f"--set {text}: first set {owner}.{name} to the strategy that it is")
        place = place[name]
    try:
        place[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        place[last] = value  # a word needs no quotes


def short_name(cls: str) -> str:
    """The name under which a strategy is shown: "my_alpha:Fast" is Fast."""
    return cls.rpartition(":")[2]


def with_parameters(asked: dict[str, Any], number: int, chosen: dict[str, Any]) -> dict[str, Any]:
    """The experiment with other parameters of one strategy, and of the training ("training.x")."""
    found = {name: value for name, value in chosen.items() if "." not in name}
    trained = {k.partition(".")[2]: value for k, value in chosen.items() if "." in k}
    entries = list(asked["strategies"])
    entries[number] = entries[number] | found
    return asked | {"strategies": entries, "training": asked["training"] | trained}


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
    built_in = vars(returns) | vars(portfolio)
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
