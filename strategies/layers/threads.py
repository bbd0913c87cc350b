"""The samples of a batch over threads; the compiled kernels release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise


def in_parts(count: int, threads: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` on slices of ``count`` samples, in as many threads as there are slices."""
    if threads <= 1:
        work(slice(0, count))
        return
    edges = [count * i // threads for i in range(threads + 1)]
    first, *others = (slice(low, high) for low, high in pairwise(edges))
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
