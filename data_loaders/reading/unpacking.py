"""Packed files are unpacked up to a limit: a few kilobytes can hold terabytes of zeros."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from data_loaders.validation import DataError

ALWAYS = 256 << 20  # bytes that may be unpacked, whatever the size of the file
RATIO = 200  # unpacked over packed bytes beyond that; tables of prices reach 20


def most_unpacked(packed: int) -> int:
    """The bytes that a file of this size may be unpacked to."""
    return max(ALWAYS, RATIO * packed)


class Unpacked(io.RawIOBase):
    """An unpacked stream that ends with an error where it becomes too long."""

    def __init__(self, stream: IO[bytes], name: str, packed: int):
        self.stream, self.name_, self.left = stream, name, most_unpacked(packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.stream.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise too_large(self.name_)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of a zip archive; its header says how long it is, and no more is read."""
    info = archive.getinfo(name)
    if info.file_size > most_unpacked(info.compress_size):
        raise too_large(f"{archive.filename}/{name}")
    return archive.read(name)


def too_large(name: str) -> DataError:
    return DataError(
        f"{name} unpacks to more than {ALWAYS >> 20} MB and {RATIO} times its own size, which no "
        "table of prices does; unpack it yourself if you know what is in it"
    )
