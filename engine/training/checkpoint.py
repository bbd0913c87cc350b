"""The file from which a training that was interrupted resumes."""

from __future__ import annotations

import hashlib
import logging
import pickle
import time
import zipfile
from io import BytesIO
from pathlib import Path

import torch

from data_loaders.writing import atomic
from engine.training.progress import Progress

LOG = logging.getLogger("deqfolio")
HASH = hashlib.sha256().digest_size  # bytes at the end of the file
SECONDS = 1.0  # between two writings of a file, so that short epochs take no longer for it


class Checkpoint:
    """The file of one training's progress.

    Args:
        path: of the file; None keeps nothing, nor does a folder that is not there, as on another
            machine of a cluster.
    """

    def __init__(self, path: Path | None):
        self.path = path if path is not None and path.parent.is_dir() else None
        self.written = time.monotonic()

    def load(self, progress: Progress) -> bool:
        """Whether there was a file, and the training stands where it left off."""
        if self.path is None or not self.path.exists():
            return False
        try:
            stored = self.path.read_bytes()
            content, own = stored[:-HASH], stored[-HASH:]
            if hashlib.sha256(content).digest() != own:
                raise ValueError("it does not hold what was written")
            state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
            progress.load_state_dict(state)
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError,
                zipfile.BadZipFile) as error:  # fmt: skip
            LOG.warning("%s cannot be read, its training restarts: %s", self.path, error)
            self.path.unlink(missing_ok=True)
            return False
        return True

    def save(self, progress: Progress) -> None:
        """Keep the progress, all of it or, if the process dies, what was there before."""
        if self.path is None or (
            not progress.finished and time.monotonic() - self.written < SECONDS
        ):
            return
        self.written = time.monotonic()
        try:
            content = BytesIO()
            torch.save(progress.state_dict(), content)
            own = hashlib.sha256(content.getbuffer()).digest()
            with atomic(self.path) as scratch:
                scratch.write_bytes(content.getvalue() + own)
        except (OSError, RuntimeError) as error:  # a full disk: torch says it in its own words
            reason = getattr(error, "strerror", None) or "its disk is full, or gone"
            LOG.warning(
                "%s cannot be written, training continues without it: %s", self.path, reason
            )
            self.path = None
