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
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from data_loaders.suggestions import known_names

TABLES = ("data", "plan", "costs", "training", "simulation", "report")


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
    if not (isinstance(listed, list) and listed and all(map(_is_named, listed))):
        raise ValueError(f'{path} needs [[strategies]], each with its class = "..."')
    if "source" not in asked.get("data", {}):
        raise ValueError(f'{path} needs [data] with its source, like source = "prices.csv"')
    return {name: {} for name in TABLES} | asked


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("class"), str)


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
