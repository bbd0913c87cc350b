"""The file from which a training that was interrupted resumes."""

from __future__ import annotations

import logging
import pickle
import time
import zipfile
from pathlib import Path

import torch

from data_loaders.atomic import atomic
from engine.training.progress import Progress

LOG = logging.getLogger("deqfolio")
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
            progress.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
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
            with atomic(self.path) as scratch:
                torch.save(progress.state_dict(), scratch)
        except (OSError, RuntimeError) as error:  # a full disk: torch says it in its own words
            reason = getattr(error, "strerror", None) or "its disk is full, or gone"
            LOG.warning(
                "%s cannot be written, training continues without it: %s", self.path, reason
            )
            self.path = None
