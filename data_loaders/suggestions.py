"""Names in error messages: the nearest to a misspelt one, and the first few of many."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The nearest known name, whatever its case, as in ``"; did you mean 'cap'?"``; "" if none."""
    listed = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(str(name).lower(), listed, n=1)
    return f"; did you mean {listed[nearest[0]]!r}?" if nearest else ""


def known_names(name: object, known: Iterable[str]) -> str:
    """The same, then all of them: ``"; did you mean 'cap'? known are cap, lookback"``."""
    listed = list(known)
    return f"{did_you_mean(name, listed) or ';'} known are {', '.join(listed)}"


def listed(items: Iterable[object], separator: str = ", ", most: int = 5) -> str:
    """The first few, and how many more there are: ``"A, B, C, D, E and 3 more"``."""
    words = [str(item) for item in items]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return separator.join(words[:most]) + more
