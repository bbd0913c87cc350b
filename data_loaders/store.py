"""Dated, hashed snapshots of tables, so that a backtest can be repeated on the same data.

    <store>/yahoo/SPY/20240503T201500123456-1f0c9a2b7d3e.parquet    the table
    <store>/yahoo/SPY/20240503T201500123456-1f0c9a2b7d3e.json       its manifest
    <store>/damaged/...                                             files that fail their hash

A snapshot exists once its manifest does. Both files are written atomically, the manifest last: a
process killed at any moment leaves either the whole snapshot or nothing. Snapshots are never
changed. Writers of one series hold a lock, which the operating system releases when they die.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd

from data_loaders.validation import DataError
from data_loaders.writing import atomic, remove_unfinished

PACKAGES = ("deqfolio", "yfinance", "pandas", "numpy", "pyarrow")


class DamagedSnapshot(DataError):
    """A stored file does not match its hash; it has been moved to ``moved_to``."""

    def __init__(self, message: str, identity: str, moved_to: Path):
        super().__init__(message)
        self.identity = identity
        self.moved_to = moved_to


@dataclass(frozen=True)
class Snapshot:
    """One table of the store, by its manifest.

    Attributes:
        name: of the series, like "yahoo/SPY".
        identity: of this version: the time it was fetched, and the start of the sha256 of its
            manifest, which holds the sha256 of the table.
        manifest: source, parameters, versions, fetched_at, sha256, bytes, rows, first, last,
            changed (what the provider rewrote since the previous snapshot).
    """

    name: str
    identity: str
    manifest: Mapping[str, Any]

    @property
    def fetched_at(self) -> pd.Timestamp:
        """UTC, without a zone."""
        return pd.Timestamp(self.manifest["fetched_at"]).tz_localize(None)

    @property
    def sha256(self) -> str:
        """Of the bytes of the Parquet file."""
        return self.manifest["sha256"]


class Store:
    """Snapshots in a folder.

    Args:
        folder: by default the environment variable DEQFOLIO_DATA, or ~/.cache/deqfolio/data. It
            is created when something is written.
    """

    def __init__(self, folder: str | Path | None = None):
        chosen = folder or os.environ.get("DEQFOLIO_DATA") or "~/.cache/deqfolio/data"
        self.folder = Path(chosen).expanduser()

    def names(self) -> list[str]:
        """The series that have a snapshot, like "yahoo/SPY", sorted."""
        found = {path.parent for path in self.folder.glob("*/*/*.json")}
        places = [path.relative_to(self.folder).parts for path in found]
        return sorted("/".join(map(unquote, part)) for part in places if part[0] != "damaged")

    def snapshots(self, name: str) -> list[Snapshot]:
        """The versions of a series, oldest first.

        Raises:
            DamagedSnapshot: a manifest does not match its hash; it has been moved aside.
        """
        found = []
        for path in sorted(self._place(name).glob("*.json")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # moved aside by another process since the listing
            if not path.stem.endswith(hashlib.sha256(content).hexdigest()[:12]):
                raise self._aside(name, path.stem, "its manifest does not match its hash")
            found.append(Snapshot(name, path.stem, json.loads(content)))
        return found

    def latest(self, name: str, as_of: pd.Timestamp | None = None) -> Snapshot | None:
        """The newest version, or the newest fetched at or before ``as_of`` (UTC)."""
        known = [s for s in self.snapshots(name) if as_of is None or s.fetched_at <= as_of]
        return known[-1] if known else None

    def read(self, snapshot: Snapshot) -> pd.DataFrame:
        """The table, with its hash verified.

        Raises:
            DamagedSnapshot: it does not match; the file has been moved aside.
        """
        path = self._place(snapshot.name) / f"{snapshot.identity}.parquet"
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
            raise self._aside(snapshot.name, snapshot.identity, reason) from error
        found = hashlib.sha256(content).hexdigest()
        if found != snapshot.sha256:
            reason = f"its sha256 is {found[:12]}..., not {snapshot.sha256[:12]}..."
            raise self._aside(snapshot.name, snapshot.identity, reason)
        return pd.read_parquet(io.BytesIO(content))

    def write(self, name: str, table: pd.DataFrame, **manifest: Any) -> Snapshot:
        """Store a table (rows indexed by date) as a new version of ``name``.

        Args:
            manifest: source, parameters, ... of the table; must fit JSON.
        """
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
        now = pd.Timestamp.now("UTC")
        about = {
            **manifest,
            "fetched_at": now.isoformat(),
            "sha256": digest,
            "bytes": len(content),
            "rows": len(table),
            "first": str(table.index[0].date()) if len(table) else None,
            "last": str(table.index[-1].date()) if len(table) else None,
            "versions": versions,
        }
        place = self._place(name)
        place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about, indent=1).encode()
        identity = f"{now:%Y%m%dT%H%M%S%f}-{hashlib.sha256(text).hexdigest()[:12]}"
        for suffix, written in ((".parquet", content), (".json", text)):
            with atomic(place / f"{identity}{suffix}", durable=True) as scratch:
                scratch.write_bytes(written)
        return Snapshot(name, identity, about)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a series while reading, fetching and writing it."""
        import fcntl  # of POSIX systems

        place = self._place(name)
        place.mkdir(parents=True, exist_ok=True)
        with open(place / "lock", "a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            remove_unfinished(place)
            yield

    def verify(self) -> list[tuple[str, str, str]]:
        """(name, identity, error) of every snapshot, with error "" if it is intact.

        Damaged snapshots are moved aside.
        """
        checked = []
        for name in self.names():
            found: list[Snapshot] | None = None
            while found is None:
                try:
                    found = self.snapshots(name)
                except DamagedSnapshot as error:
                    checked.append((name, error.identity, str(error)))
            for snapshot in found:
                try:
                    self.read(snapshot)
                    checked.append((name, snapshot.identity, ""))
                except DamagedSnapshot as error:
                    checked.append((name, snapshot.identity, str(error)))
        return checked

    def note(self, name: str) -> dict[str, Any] | None:
        """The note about a series without data, if there is one."""
        try:
            return json.loads((self._place(name) / "note").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write_note(self, name: str, note: Mapping[str, Any] | None) -> None:
        """Write a note about a series without data, or remove it (None)."""
        path = self._place(name) / "note"
        if note is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path, durable=True) as scratch:
                scratch.write_text(json.dumps(note), encoding="utf-8")

    def _place(self, name: str) -> Path:
        kind, _, series = name.partition("/")
        if not kind or not series:
            raise ValueError(f"a series is named like 'yahoo/SPY', got {name!r}")
        return self.folder / _safe(kind) / _safe(series)

    def _aside(self, name: str, identity: str, reason: str) -> DamagedSnapshot:
        kept = self.folder / "damaged" / f"{_safe(name)}-{uuid.uuid4().hex[:8]}"
        kept.mkdir(parents=True, exist_ok=True)
        for suffix in (".json", ".parquet"):  # the manifest first: without it there is no snapshot
            path = self._place(name) / f"{identity}{suffix}"
            with contextlib.suppress(FileNotFoundError):
                path.replace(kept / path.name)
        return DamagedSnapshot(
            f"the snapshot {identity} of {name} is damaged: {reason}. It was moved to {kept}",
            identity,
            kept,
        )


def _safe(name: str) -> str:
    """A file name for any text, like '^GSPC', 'BRK/B' or '..'; ``unquote`` reverses it."""
    return quote(name, safe="").replace(".", "%2E")
