"""Progress: a bar on a terminal; elsewhere lines of the logger "deqfolio"."""

from __future__ import annotations

import logging

from tqdm.auto import tqdm

LOG = logging.getLogger("deqfolio")
LINES = 4  # logged for each bar


class Progress(tqdm):
    """A bar that, without a terminal, logs each quarter of its progress at level INFO."""

    def __init__(self, what: str, total: int, unit: str, hidden: bool | None):
        super().__init__(total=total, desc=what, unit=unit, disable=hidden)
        self.what, self.goal, self.units, self.counted = what, total, unit, 0
        self.quiet = hidden is True

    def reach(self, count: int) -> None:
        """Set the number of units that are done."""
        self.update(count - self.counted)

    def update(self, n: float | None = 1) -> bool | None:
        before, self.counted = self.counted, self.counted + int(n or 0)
        if (
            self.disable
            and not self.quiet
            and self.goal
            and LINES * before // self.goal < LINES * self.counted // self.goal
        ):
            LOG.info("%s: %d of %d %ss", self.what, self.counted, self.goal, self.units)
        return super().update(n)


def progress_bar(what: str, total: int, unit: str, show: bool | None) -> Progress:
    """A bar of ``total`` units; None shows it on a terminal and logs elsewhere, False is silent."""
    return Progress(what, total, unit, None if show is None else not show)
