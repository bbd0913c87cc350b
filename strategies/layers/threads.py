"""The samples of a batch over threads; the compiled kernels release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np


def in_parts(
    count: int,
    threads: int,
    work: Callable[[slice], None],
    begins: np.ndarray | None = None,
) -> None:
    """Call ``work`` on slices of ``count`` samples, in at most as many threads.

    Args:
        begins: (count,) bool, where a slice may begin; anywhere, if it is empty or None.
    """
    if threads <= 1:
        work(slice(0, count))
        return
    edges = [count * i // threads for i in range(threads + 1)]
    if begins is not None and len(begins):
        possible = np.append(np.flatnonzero(begins), count)
        edges = sorted({int(possible[np.abs(possible - edge).argmin()]) for edge in edges})
    first, *others = (slice(low, high) for low, high in pairwise(edges))
    if not others:
        work(first)
        return
    pool = _pool(threads - 1, os.getpid())
    started = [pool.submit(work, part) for part in others]
    try:
        work(first)
    finally:
        for each in started:
            each.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay, since to start them takes as long as a small batch; a fork has its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="layers")
