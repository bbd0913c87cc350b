"""The folder of the sockets by which multiprocessing reaches its worker server.

Python's own, ``pymp-*``, stays where a process is killed. Ours is named by machine and process, so
that the next process removes what a dead one left.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import tempfile
from multiprocessing import process, util
from pathlib import Path

from engine.compute.process_check import is_alive

LONGEST = 50  # characters of the folder for temporary files; the name of a socket has 107 at most


def use_own_folder() -> None:
    """Let multiprocessing use a folder of ours, unless it has one; remove those of the dead."""
    config = process.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") is not None or len(tempfile.gettempdir()) > LONGEST:
        return
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
    start = f"deqfolio-{machine}-"
    for old in Path(tempfile.gettempdir()).glob(f"{start}*"):
        number = old.name.removeprefix(start).partition("-")[0]
        if number.isdecimal() and not is_alive(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{start}{process.current_process().pid}-")
    util.Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-100)
    config["tempdir"] = folder
