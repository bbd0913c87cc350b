"""Plug-ins: objects named by ``module:name``, ``file.py:name`` or an installed entry point.

Data sources are loaded here; strategies, features, losses and costs are found in the same way.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import pandas as pd

from data_loaders.package_imports import PACKAGES
from data_loaders.panel import Panel
from data_loaders.suggestions import did_you_mean
from data_loaders.validation import DataError

PREFIX = "_deqfolio_file_"  # of the modules of files: a strategy's file may be called random.py
SOURCES = "deqfolio.sources"  # entry points of installed packages: functions returning a panel


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=group)}


def load_object(name: str) -> object:
    """The object that ``module:name`` or ``path/to/file.py:name`` names; its module is run."""
    place, _, attribute = name.rpartition(":")
    module = _module(place)
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        hint = did_you_mean(attribute, public)
        raise ValueError(f"{module.__file__ or place} has nothing named {attribute!r}{hint}")
    return getattr(module, attribute)


def load_plugin(name: str, group: str) -> object | None:
    """As ``load_object``, or the entry point of a plain name; None where none is installed."""
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
    try:
        return file_module(path)
    except Exception as error:
        raise ValueError(f"{place} does not run: {error!r}") from error


def file_module(path: Path) -> ModuleType:
    """Run a file as a module of a private name, which holds the path; where it fails, none is left.

    So no file takes the place of another module, and other processes find it when they are sent an
    instance of its classes.
    """
    name = PREFIX + str(path.resolve()).encode().hex()
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its instances can be pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def shown_module(name: str) -> str:
    """The name of a module as it is shown: of a file, that of the file without its ending."""
    return _file_of(name).stem if name.startswith(PREFIX) else name


def _file_of(name: str) -> Path:
    return Path(bytes.fromhex(name.removeprefix(PREFIX)).decode())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        return importlib.util.spec_from_file_location(name, _file_of(name))


sys.meta_path.append(_Finder())


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


OURS = re.compile(r"strategies(\.\w+)*:\w+")  # found by the name of the class alone


def code_files(settings: object) -> Iterator[tuple[str, Path | None]]:
    """The names of code anywhere in settings, and the file that each would be run from.

    Nothing is run or imported; what would be found nowhere is left out. The file is None of a
    module of Python, of an installed package, or ours.
    """
    if isinstance(settings, dict):
        settings = [*settings.keys(), *settings.values()]
    if isinstance(settings, list | tuple):
        for each in settings:
            yield from code_files(each)
    if not isinstance(settings, str) or OURS.fullmatch(settings):
        return
    for text in dict.fromkeys([settings.partition("?")[0], settings]):  # as functions, as classes
        place, _, attribute = text.rpartition(":")
        path = _code_file(place) if attribute.isidentifier() else None
        if path is not None:
            packed = path == INSTALLED or any(path.is_relative_to(each) for each in _library())
            yield settings, None if packed else path


def _code_file(place: str) -> Path | None:
    """The file that a module or a path ending in .py would be run from, if there is one."""
    if place.endswith(".py"):
        path: Path | None = Path(place)
    elif place and all(word.isidentifier() for word in place.split(".")):
        path = _module_file(place.split("."))
    else:
        return None
    if path is None or path == INSTALLED:
        return path
    return path.resolve() if path.is_file() else None


INSTALLED = Path("installed")  # in place of the file of a module that has none


def _library() -> set[Path]:
    """The folders of Python's own modules and of installed packages."""
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return {Path(paths[kind]).resolve() for kind in kinds}


def _module_file(names: list[str]) -> Path | None:
    """The file of a dotted name, found without an import of the packages around it."""
    try:
        spec = importlib.util.find_spec(names[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if names[0] in PACKAGES:
        return INSTALLED
    for folder in spec.submodule_search_locations or ():
        inside = Path(folder, *names[1:])
        for path in (inside.with_suffix(".py"), inside / "__init__.py"):
            if path.is_file():
                return path
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else INSTALLED
