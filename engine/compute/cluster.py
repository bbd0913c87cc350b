"""A Dask cluster as an executor; it is refused if its workers run other code than this process."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGES = ("data_loaders", "strategies", "engine", "reports")  # that tasks may import
WAIT = 20  # seconds for a cluster's answer
ADDRESS = r"(tcp|tls|ws|wss|ucx|inproc)://\S+"


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why, and the remedy."""


@contextmanager
def on_cluster(address: str | None) -> Iterator[Executor | None]:
    """The executor of the cluster at ``address``, like tcp://10.0.0.1:8786; None for None.

    Raises:
        ClusterError: distributed is not installed, nothing answers there, the cluster has no
            worker, or a worker runs another version of the code.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError(
            "a cluster needs Dask's distributed: pip install 'deqfolio[cluster]'"
        ) from None
    if not re.fullmatch(ADDRESS, address):
        raise ClusterError(
            f"{address} is no address of a cluster: it should be like tcp://10.0.0.1:8786, as the "
            "scheduler prints when it starts"
        )
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)  # failures are reported by the error that ends the call
    try:
        with _connected(Client, address) as client:
            _check(client, address)
            yield client.get_executor()
    finally:
        log.setLevel(before)


def _connected(client: Any, address: str) -> Any:
    """A client of the cluster, within 30 seconds; ``client`` is Dask's class.

    In a thread, which is abandoned if something answers that is no scheduler: Dask then waits
    forever.
    """
    found: list[Any] = []

    def connect() -> None:
        try:
            found.append(client(address, timeout=WAIT, set_as_default=False))
        except Exception as error:  # raised below, in the caller's thread
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(1.5 * WAIT)
    if not found:
        raise ClusterError(
            f"what answers at {address} is no Dask scheduler; its port is usually 8786, and the "
            "dashboard's 8787"
        )
    if isinstance(found[0], OSError | ValueError):
        raise ClusterError(
            f"no cluster answers at {address} ({found[0] or 'it timed out'}); start one with "
            "'dask scheduler' and 'dask worker ADDRESS'"
        ) from found[0]
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def client_of(executor: Executor) -> Any:
    """The Dask client behind an executor; None of any other executor."""
    return getattr(executor, "_client", None)


def _check(client, address: str) -> None:
    if not client.ncores():
        raise ClusterError(f"the cluster at {address} has no worker: dask worker {address}")
    try:
        found = client.run(code_version)
    except Exception as error:
        raise ClusterError(
            f"the workers at {address} cannot import deqfolio ({error}); install it on each"
        ) from error
    mine = code_version()
    others = [worker for worker, version in found.items() if version != mine]
    if others:
        raise ClusterError(
            f"other code than here runs on {', '.join(sorted(others))}; install the same version "
            "of deqfolio there and start the workers again"
        )


def code_version() -> str:
    """sha256 of the source of all packages on this machine."""
    root = Path(__file__).parents[2]
    files = sorted(path for name in PACKAGES for path in (root / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
