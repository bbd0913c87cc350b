"""Whether a process of this machine still runs."""

from __future__ import annotations

import os
import sys


def is_alive(process: int) -> bool:
    """Whether there is a process of that number; on Windows, where to ask would end it, yes."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
