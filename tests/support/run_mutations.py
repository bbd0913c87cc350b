"""Damaged copies of a run folder."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path


def mutations(folder: Path, place: Path, each: int, seed: int) -> Iterator[tuple[str, Path]]:
    """A copy of a folder in which one file at a time is damaged, ``each`` times.

    Yields:
        What was done, and the copy, which is mended afterwards.
    """
    rng = random.Random(seed)
    shutil.copytree(folder, place)
    for path in sorted(place.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        for _ in range(each if content else 0):
            way = rng.choice(WAYS)
            if way(path, rng):
                yield f"{way.__name__} {path.relative_to(place)}", place
            path.write_bytes(content)


def flips_a_bit(path: Path, rng: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    return bool(content)


def cuts_short(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))] if content else b"")
    return bool(content)


def changes_a_digit(path: Path, rng: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    digits = [i for i, byte in enumerate(content) if byte in b"0123456789"]
    if digits:
        place = rng.choice(digits)
        content[place] = rng.choice([c for c in b"0123456789" if c != content[place]])
        path.write_bytes(content)
    return bool(digits)


def deletes(path: Path, rng: random.Random) -> bool:
    path.unlink()
    return True


def takes_another(path: Path, rng: random.Random) -> bool:
    others = [each for each in path.parent.iterdir() if each.is_file() and each != path]
    if others:
        other = rng.choice(sorted(others)).read_bytes()
        if other == path.read_bytes():
            return False
        path.write_bytes(other)
    return bool(others)


WAYS = (flips_a_bit, cuts_short, changes_a_digit, deletes, takes_another)
