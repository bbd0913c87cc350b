"""Whose code a run folder may run.

A run folder names code: strategies, costs, data sources as ``file.py:name`` or ``module:name``. It
may come from someone else, so that code is run only if it is what the run was made with and lies
outside of the folder, where a stranger cannot have put it; or if the user says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class NotTrusted(PermissionError):
    """A run folder names code that is not run without ``--trust``."""


def keep_code_hashes(folder: Path, experiment: dict[str, Any]) -> None:
    """Keep the hash of each file of code that an experiment names, as it is run now."""
    from data_loaders.atomic import write_text
    from data_loaders.plugins import code_files
    from engine.runs.run_directory import CODE, EXPERIMENT
    from engine.runs.sealed_files import digest, sealed

    hashes = {
        name: digest(path.read_bytes()) for name, path in code_files(experiment) if path is not None
    }
    write_text(folder / CODE, sealed({"code": hashes}, folder, [EXPERIMENT]))


def check_trust(
    folder: Path, experiment: dict[str, Any], trust: bool, changed: bool = False
) -> None:
    """Refuse an experiment read from a run folder that names code which is not known.

    Args:
        trust: run whatever it is.
        changed: run also what was changed since, outside of the folder.

    Raises:
        NotTrusted: the message names the code, and why it is not run.
    """
    from data_loaders.plugins import code_files
    from engine.runs.run_directory import CODE
    from engine.runs.sealed_files import digest, unsealed

    if trust:
        return
    place = folder / CODE
    known = unsealed(place).get("code", {}) if place.is_file() else {}
    for name, path in code_files(experiment):
        if path is None:
            why = "which is of an installed package"
        elif path.is_relative_to(folder.resolve()):
            why = "which is in that folder"
        elif name not in known:
            why = f"and does not say what {path} held when it was run"
        elif not changed and known[name] != digest(path.read_bytes()):
            why = f"and {path} is not what the run was made with"
        else:
            continue
        raise NotTrusted(
            f"{folder} names code to run, {name}, {why}; if you know where the folder comes from "
            "and what the code does, repeat the command with --trust"
        )
