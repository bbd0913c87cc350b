"""The progress of an unfinished training in a file, from which it goes on to the same bits."""

from __future__ import annotations

import logging
import pickle
import time
import zipfile
from pathlib import Path

import torch

from data_loaders.atomic import atomic
from engine.training.seed_run import SeedRun

LOG = logging.getLogger("deqfolio")
SECONDS = 1.0  # between two writings of a file: a short epoch takes no longer for it


class Checkpoint:
    """The file of one seed's training.

    Args:
        path: of the file; None keeps nothing, nor does a folder that is not there, as on another
            machine of a cluster.
    """

    def __init__(self, path: Path | None):
        self.path = path if path is not None and path.parent.is_dir() else None
        self.written = time.monotonic()

    def load(self, run: SeedRun) -> bool:
        """Whether there was a file, and the training stands where it left off."""
        if self.path is None or not self.path.exists():
            return False
        try:
            run.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError,
                zipfile.BadZipFile) as error:  # fmt: skip
            LOG.warning("%s cannot be read, its training begins anew: %s", self.path, error)
            self.path.unlink(missing_ok=True)
            return False
        return True

    def save(self, run: SeedRun) -> None:
        """Keep the progress, all of it or, if the process dies, what was there before."""
        if self.path is None or (run.going and time.monotonic() - self.written < SECONDS):
            return
        self.written = time.monotonic()
        try:
            with atomic(self.path) as scratch:
                torch.save(run.state_dict(), scratch)
        except (OSError, RuntimeError) as error:  # a full disk: torch says it in its own words
            reason = (
                getattr(error, "strerror", None) or "its disk is full, or gone"
            )  # torch's is odd
            LOG.warning("%s cannot be written, training goes on without: %s", self.path, reason)
            self.path = None
