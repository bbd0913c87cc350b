"""Files that say what was written: JSON with its own hash, and with those of the files beside it.

Stored numbers are read back only if they are the ones that were stored. What version 0.1 wrote has
no hashes, and is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_loaders.writing import atomic

SEAL, FILES = "sha256", "files"


class RunDamaged(ValueError):
    """A file of a run is missing, or holds something else than what was written."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seal_of(value: dict[str, Any]) -> str:
    """The hash of what JSON can hold."""
    return digest(json.dumps(value, sort_keys=True).encode())


def sealed(value: dict[str, Any], folder: Path | None = None, names: Iterable[str] = ()) -> str:
    """The JSON of ``value`` with its hash, and with those of files ``names`` in ``folder``."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    if folder is not None:
        plain[FILES] = {name: digest((folder / name).read_bytes()) for name in sorted(names)}
    return json.dumps({**plain, SEAL: seal_of(plain)}, indent=2, allow_nan=False)


@contextmanager
def sealed_folder(target: Path, index: str, about: dict[str, Any]) -> Iterator[Path]:
    """A folder that is written whole or not at all: what the block puts into the folder that it is
    given, and ``about`` it, sealed, in the file ``index``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as scratch:
        scratch.mkdir()
        yield scratch
        names = [path.name for path in scratch.iterdir()]
        (scratch / index).write_text(sealed(about, scratch, names))


def unsealed(path: Path) -> dict[str, Any]:
    """What a sealed file holds.

    Raises:
        RunDamaged: it is missing, or not what was written.
    """
    return opened(contents(path.parent, {}, path.name), path)


def opened(text: str | bytes, path: Path) -> dict[str, Any]:
    """What a sealed text holds, which is in ``path``.

    Raises:
        RunDamaged: it is not what was written.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged(path) from None
    if not isinstance(found, dict):
        raise damaged(path)
    own = found.pop(SEAL, None)
    if own != seal_of(found) and (own is not None or FILES in found):
        raise damaged(path)
    return found


def contents(folder: Path, index: dict[str, Any], name: str) -> bytes:
    """A file beside its index, as it was written.

    Raises:
        RunDamaged: it is missing, or not what was written.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunDamaged(f"{path} is missing") from None
    if FILES in index and index[FILES].get(name) != digest(content):
        raise damaged(path)
    return content


def damaged(path: Path) -> RunDamaged:
    return RunDamaged(f"{path} is damaged: it does not hold what was written")
