"""How many threads torch and BLAS may use while a backtest runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """At most ``count`` threads inside the block, as many as before after it."""
    before = torch.get_num_threads()
    with _pools(len(sys.modules)).limit(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The loaded libraries that have threads; a search takes milliseconds, so it is repeated only
    when the number of loaded modules has changed."""
    return ThreadpoolController()
