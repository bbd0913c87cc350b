"""Modules of files, under names of their own, so that no file takes the place of another module.

A strategy's file may be called random.py or engine.py. The name holds the path, by which other
processes find the module when they are sent an instance of its classes.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "_deqfolio_file_"


def file_module(path: Path) -> ModuleType:
    """Run a file as a module; where it fails, none is left.

    Raises:
        Exception: whatever the file raises.
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
    return file_of(name).stem if name.startswith(PREFIX) else name


def file_of(name: str) -> Path:
    """The file of a private name."""
    return Path(bytes.fromhex(name.removeprefix(PREFIX)).decode())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        return importlib.util.spec_from_file_location(name, file_of(name))


sys.meta_path.append(_Finder())
