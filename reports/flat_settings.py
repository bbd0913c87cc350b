"""The nested settings of a result as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows of (path, value), without what the page shows elsewhere."""
    for key, value in settings.items():
        if key in ("caveats", "quality", "simulation_difference", "run", "runs"):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            more = f" and {len(value) - 12} more" if len(value) > 12 else ""
            yield f"{path}{key}", ", ".join(map(str, value[:12])) + more
        else:
            yield f"{path}{key}", str(value)
