"""How these packages are imported: names on first use, and never a user's file instead of one.

Imports nothing heavy: every package of ours runs this before anything else.
"""

from __future__ import annotations

import ast
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PACKAGES = ("data_loaders", "strategies", "engine", "reports")


class LazyPackage(ModuleType):
    """A package whose public names are imported when they are used."""

    _places: dict[str, str]  # module by name

    def __getattr__(self, name: str) -> Any:
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(self._places[name]), name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in self._places and isinstance(value, ModuleType)):
            super().__setattr__(name, value)  # engine.backtest is the function, not its module

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._places})  # what a prompt completes to


def import_on_use(package: str) -> None:
    """Let a package's names be imported on use: those that its ``__init__.pyi`` imports.

    So type checkers and the interpreter read one list (as in Scientific Python's SPEC 1).
    """
    module = sys.modules[package]
    with open(os.path.splitext(str(module.__file__))[0] + ".pyi", encoding="utf-8") as stub:
        lines = [line for line in ast.parse(stub.read()).body if isinstance(line, ast.ImportFrom)]
    places: dict[str, str] = {}
    for line in lines:
        source, names = str(line.module), [each.name for each in line.names]
        for name in import_module(source).__all__ if names == ["*"] else names:
            places.setdefault(name, source)
    vars(module).update(_places=places, __all__=sorted(places))
    module.__class__ = LazyPackage


def refuse_hidden_packages() -> None:
    """Look where Python would find our packages; none of them is imported.

    Raises:
        ImportError: it would find a file ``engine.py`` or a folder ``strategies/`` before them.
    """
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in PACKAGES:
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        found = [os.path.realpath(place) for place in places if place]
        if found and not any(place.startswith(os.path.join(ours, name)) for place in found):
            raise ImportError(
                f"{found[0]} hides deqfolio's package {name!r}, which is in {ours}: rename it, "
                "or run from another folder"
            )
