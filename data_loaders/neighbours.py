"""The four packages stand beside each other; one that is hidden by a user's folder is noticed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NEIGHBOURS = ("strategies", "engine", "reports")


def check_neighbours() -> None:
    """Look where Python would find the other three packages; nothing is imported.

    Raises:
        ImportError: something else stands in the place of one, as a folder ``strategies/`` beside
            the script that runs; the message names it.
    """
    ours = Path(__file__).resolve().parent.parent
    for name in NEIGHBOURS:
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        found = [Path(place).resolve() for place in places if place]
        if found and not any(path.is_relative_to(ours / name) for path in found):
            raise ImportError(
                f"{found[0]} hides deqfolio's package {name!r}, which is in {ours}: rename it, "
                "or run from another folder"
            )
