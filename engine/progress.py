"""The progress bar, shown where there is a terminal."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress_bar(what: str, total: int, unit: str, show: bool | None) -> tqdm:
    """A bar of ``total`` units; ``show`` None leaves it to whether there is a terminal."""
    return tqdm(total=total, desc=what, unit=unit, disable=None if show is None else not show)
