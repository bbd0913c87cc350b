"""What a run folder may run and open.

A run folder names code (strategies, costs, data sources as ``file.py:name`` or ``module:name``) and
files of data. It may come from someone else, so that code is run only if it is what the run was
made with and lies outside of the folder, where a stranger cannot have put it; and files are opened
only if they lie in the folder or in the one that the user is in, or are what the run was made with.
Else the user has to say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IF_KNOWN = "if you know where the folder comes from and what that is, repeat the command with"


class NotTrusted(PermissionError):
    """A run folder names code or files that are not run or opened without ``--trust``."""


def keep_hashes(folder: Path, experiment: dict[str, Any]) -> None:
    """Keep the hashes of an experiment, and of the code and the data that it names, as now."""
    from data_loaders.plugins import code_files
    from data_loaders.writing import write_text
    from engine.runs.run_files import CODE, EXPERIMENT, digest, sealed

    code = {
        name: digest(path.read_bytes()) for name, path in code_files(experiment) if path is not None
    }
    data = {name: _digest(path) for name, path in named_files(experiment) if path.is_file()}
    write_text(folder / CODE, sealed({"code": code, "data": data}, folder, [EXPERIMENT]))


def check_trust(
    folder: Path, experiment: dict[str, Any], trust: bool, here: Path, changed: bool = False
) -> None:
    """Refuse an experiment read from a run folder that names code or files which are not known.

    Args:
        trust: run and open whatever it is.
        here: the folder that the user is in, whose files may be opened.
        changed: run also what was changed since, outside of the folder.

    Raises:
        NotTrusted: the message names the code or the file, and why it is not run or opened.
    """
    from data_loaders.plugins import code_files
    from engine.runs.run_files import CODE, digest, unsealed

    if trust:
        return
    place, own = folder / CODE, folder.resolve()
    kept = unsealed(place) if place.is_file() else {}
    known = kept.get("code", {})
    for name, path in code_files(experiment):
        if path is None:
            why = "which is of an installed package"
        elif path.is_relative_to(own):
            why = "which is in that folder"
        elif name not in known:
            why = f"and does not say what {path} held when it was run"
        elif not changed and known[name] != digest(path.read_bytes()):
            why = f"and {path} is not what the run was made with"
        else:
            continue
        raise NotTrusted(f"{folder} names code to run, {name}, {why}; {IF_KNOWN} --trust")
    mine = (own, here.resolve())
    for name, path in named_files(experiment):
        if not path.exists():
            continue  # whoever opens it says so
        places = [path]
        if path.is_dir() and _inside(path, mine):  # a link in it leads elsewhere
            places += path.rglob("*")
        as_before = path.is_file() and kept.get("data", {}).get(name) == _digest(path)
        if not as_before and not all(_inside(each, mine) for each in places):
            raise NotTrusted(
                f"{folder} names a file to open, {name}, outside of the folder that you are in, "
                f"and not what the run was made with; {IF_KNOWN} --trust, or from a folder around "
                "the file"
            )


def _inside(path: Path, places: tuple[Path, ...]) -> bool:
    return any(path.resolve().is_relative_to(each) for each in places)


def named_files(settings: object) -> Iterator[tuple[str, Path]]:
    """The paths anywhere in settings; of a pattern, the folder in which it looks.

    Nothing is opened. The folder that an experiment was started in is none of them.
    """
    from data_loaders.files import is_file_name, is_pattern

    if isinstance(settings, dict):
        settings = [value for key, value in settings.items() if key != "folder"]
    if isinstance(settings, list):
        for each in settings:
            yield from named_files(each)
    if not isinstance(settings, str) or not (
        is_file_name(settings) or ("/" in settings and ":" not in settings)
    ):
        return
    path = Path(settings).expanduser()
    if is_pattern(settings) and not path.exists():
        path = next(each for each in path.parents if not is_pattern(str(each)))
    yield settings, path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
