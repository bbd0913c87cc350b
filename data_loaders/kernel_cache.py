"""Where compiled kernels are kept: a place that can be written, whatever the user and the machine.

Numba keeps them in NUMBA_CACHE_DIR, beside the source file, or in the user's cache folder, and
raises an error where it can write to none of them, even if all is compiled there already: as in a
container with a read-only root file system. Then they go to a temporary folder, which begins with
what a NUMBA_CACHE_DIR that cannot be written holds.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def writable_cache() -> str:
    """Set NUMBA_CACHE_DIR where Numba's own places cannot be written; call it before importing it.

    Returns its folder, empty where Numba chooses.
    """
    given = os.environ.get(VARIABLE, "")
    if given and _can_write(Path(given)):
        return given
    if not given:
        own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "numba"
        found = find_spec("numba")
        package = Path(str(found.origin)).parent if found is not None else own
        if _can_write(own) or _can_write(package):
            return ""
    place = _private_folder()
    if given and Path(given).is_dir():
        shutil.copytree(given, place, dirs_exist_ok=True)
    os.environ[VARIABLE] = str(place)
    if (numba := sys.modules.get("numba")) is not None:
        numba.config.CACHE_DIR = str(place)
    return str(place)


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False


def _private_folder() -> Path:
    """A temporary folder of this user, the same each time: code is loaded from it, so that one that
    others can write to is not taken."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()) / f"deqfolio-kernels-{user}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        about = place.lstat()
        safe = stat.S_ISDIR(about.st_mode) and about.st_uid == user and not about.st_mode & 0o077
        if safe or not hasattr(os, "getuid"):
            return place
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="deqfolio-kernels-"))
