"""Plug-ins: objects named by ``module:name``, ``file.py:name`` or an installed entry point.

Data sources are loaded here; strategies, features, losses and costs are found in the same way.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl

import pandas as pd

from data_loaders.panel import Panel
from data_loaders.suggestions import did_you_mean
from data_loaders.validation import DataError

SOURCES = "deqfolio.sources"  # entry points of installed packages: functions returning a panel


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=group)}


def load_object(name: str) -> object:
    """The object that ``module:name`` or ``path/to/file.py:name`` names; its module is run.

    Raises:
        ValueError: there is no such module, file or name, or it does not run.
    """
    place, _, attribute = name.rpartition(":")
    module = _module(place)
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        hint = did_you_mean(attribute, public)
        raise ValueError(f"{module.__file__ or place} has nothing named {attribute!r}{hint}")
    return getattr(module, attribute)


def load_plugin(name: str, group: str) -> object | None:
    """As ``load_object``, or the entry point of a plain name; None where none is installed.

    Raises:
        ValueError: there is no such module, file or name, or it does not run.
    """
    if ":" in name:
        return load_object(name)
    point = installed(group).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:
        raise ValueError(f"{name!r}, installed as {point.value!r}: {error!r}") from error


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise ValueError(f"cannot import {place}: {error}") from error
    path = Path(place).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {place}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that its instances can be pickled
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{place} does not run: {error!r}") from error
    return module


def is_plugin(source: str) -> bool:
    """Whether a source is an installed one, or has the form ``module:function``."""
    name, colon, rest = source.partition(":")
    if name in installed(SOURCES):
        return True
    place, _, function = source.partition("?")[0].rpartition(":")
    named = place.endswith(".py") or all(word.isidentifier() for word in place.split("."))
    return bool(colon and rest and named and function.isidentifier())


def plugged_panel(source: str) -> Panel:
    """The panel of an installed source, or of ``module:function``.

    An installed source ``name`` is called with the text after ``name:``, if there is any. A
    function, as in ``my_data:prices?years=3&market=US``, is called with keyword arguments, all of
    them strings. Either returns a Panel, or prices (T, N) as a DataFrame.

    Raises:
        DataError: it cannot be found, or returns something else.
    """
    name, colon, rest = source.partition(":")
    points = installed(SOURCES)
    try:
        if name in points:
            found = points[name].load()(*([rest] if colon else []))
        else:
            place, _, query = source.partition("?")
            function = load_object(place)
            if not callable(function):
                raise ValueError(f"{place!r} is not a function")
            found = function(**dict(parse_qsl(query, strict_parsing=bool(query))))
    except (ValueError, TypeError) as error:
        raise DataError(f"data source {source!r}: {error}") from error
    if isinstance(found, pd.DataFrame):
        return Panel(found, source=source)
    if not isinstance(found, Panel):
        raise DataError(
            f"data source {source!r} returned a {type(found).__name__}; it should return a Panel, "
            "or prices as a DataFrame with one row per date and one column per asset"
        )
    return found
