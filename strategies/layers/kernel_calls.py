"""What layers around compiled kernels share: threads, notes on compiling, one derivative only."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)


def run_kernel(kernel: Any, words: str, *arguments: Any) -> Any:
    """Call a kernel; where it has to be compiled first, say so if that takes a while."""
    if kernel.overloads:
        return kernel(*arguments)
    note = threading.Timer(3.0, logger.warning, ("compiling %s", words))
    note.start()
    try:
        return kernel(*arguments)
    finally:
        note.cancel()


def in_parts(
    count: int,
    threads: int,
    work: Callable[[slice], None],
    begins: np.ndarray | None = None,
) -> None:
    """Call ``work`` on slices of ``count`` samples, in at most as many threads; kernels release the
    GIL.

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


def refuse_second_derivative(what: str, instead: str) -> None:
    """Raises RuntimeError in a backward pass that keeps a graph; for the first line of a backward.

    torch's ``once_differentiable`` lets ``torch.autograd.grad(..., inputs)`` pass in silence: it
    cuts the graph, and a path that is cut is not an error there.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{what} is not differentiable (create_graph=True): {instead} for second derivatives"
        )
