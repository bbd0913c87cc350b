"""How the kernels are compiled: helpers are inlined, entries are kept on disk.

Numba's cache on disk notices an edit of the file that an entry is in, but not of the helpers that
it calls. Every entry therefore closes over a hash of all sources of this folder, which Numba makes
part of the cache's key: an edit anywhere in the folder recompiles the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from data_loaders.machine import writable_cache

writable_cache()

from numba import njit  # noqa: E402 - it looks for its cache when it is imported

# Nothing that assumes NaN away: a NaN has to reach the residual.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}
# Helpers are inlined: a call would hand over the dozens of words that describe the arrays of Sample
# and Work, which takes as long as the arithmetic on a handful of free weights.
_INNER: dict[str, Any] = _OPTIONS | {
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
maker: Any = njit(**_INNER)  # for helpers that make or return arrays
# Counting references to the arrays on every access would take most of the time.
helper: Any = njit(**(_INNER | {"_nrt": False}))


def source_hash() -> str:
    """Of all files of this folder."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def entry(make: Callable[[str], Callable[..., Any]]) -> Any:
    """Compile the function that ``make(hash)`` returns for callers in Python.

    The function has to mention the hash.
    """
    function = make(source_hash())
    return njit(**_OPTIONS, nogil=True, cache=True)(function)
