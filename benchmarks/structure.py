"""The rooms of the code: prints what may import what, how large each is, and whether it holds.

    python -m benchmarks.structure [--demo]

With ``--demo``, ``deqfolio demo`` is run, and the files and functions that it passes through are
counted. Every import counts: those inside functions and those for type checking, too.
"""

from __future__ import annotations

import ast
import contextlib
import cProfile
import pstats
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_loaders", "strategies", "engine", "reports", "deqfolio")

# Within a package a file imports its own room, and rooms in lines above its own. Rooms in one line
# do not know each other. A room is a folder or, without a folder, a single file.
ROOMS = {
    "engine": (
        "accounting compute planning",
        "losses",
        "training",
        "runs",
        "walking",
        "backtest",
        "research trading",
        "__init__",
    ),
    "strategies.layers": (
        "*",  # files beside the rooms, which both may use
        "equilibrium optimisation",
        "__init__",
    ),
}

# Between packages: what a package or room may import, if that is less than all to its left.
ALLOWED = {
    "engine": (
        "strategies",
        (
            "strategies.base",
            "strategies.contract_types",
            "strategies.parameter_ranges",
            "strategies.layers.drift",
            "strategies.layers.solve_record",
            "strategies.layers.equilibrium.fixed_point_loop",
            "strategies.layers.optimisation.cross_check",
            "strategies.layers.optimisation.explanation",
            "strategies.layers.optimisation.reasons",
        ),
    ),
    "strategies.layers": (
        "data_loaders",
        ("data_loaders.suggestions", "data_loaders.package_imports", "data_loaders.machine"),
    ),
}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """{dotted name: file} of all packages; a package is named as its ``__init__`` file."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts): file for file in files}


def imported(name: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules among ``known`` that a file imports, by whichever form of the statement."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            parts = full.split(".")
            choices = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            choices = [form for each in choices for form in (each, f"{each}.__init__")]
            yield from [each for each in choices if each in known][:1]


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """{module: the modules it imports}."""
    known = modules(root)
    return {name: set(imported(name, file, known)) - {name} for name, file in known.items()}


def violations(imports: dict[str, set[str]]) -> list[str]:
    """Imports that run the wrong way, in words."""
    found = []
    for name, others in imports.items():
        for other in sorted(others):
            reason = _forbidden(name, other)
            if reason:
                found.append(f"{name} imports {other}: {reason}")
    return found


def _forbidden(name: str, other: str) -> str:
    mine, its = name.split(".")[0], other.split(".")[0]
    if PACKAGES.index(its) > PACKAGES.index(mine):
        return f"{its} is to the right of {mine}"
    if other.endswith(".__init__") and name.startswith(other.removesuffix("__init__")):
        return "a package's list of names is for its users"
    for owner, (package, allowed) in ALLOWED.items():
        inside = name.startswith(f"{owner}.") and other.startswith(f"{package}.")
        if inside and other not in allowed:
            return f"of {package}, {owner} may import {', '.join(allowed)} only"
    for package in ROOMS:
        if name.startswith(f"{package}.") and other.startswith(f"{package}."):
            (room, line), (its_room, its_line) = _room(package, name), _room(package, other)
            if room != its_room and its_line >= line:
                return f"the room {its_room} is not to the left of {room}"
    return ""


def _room(package: str, name: str) -> tuple[str, int]:
    """The room that a module of ``package`` is in, and its line in ``ROOMS``."""
    room = name.removeprefix(f"{package}.").split(".")[0]
    for line, rooms in enumerate(ROOMS[package]):
        if room in rooms.split():
            return room, line
    for line, rooms in enumerate(ROOMS[package]):
        if rooms == "*":
            return "*", line
    raise ValueError(f"{name} is in no room: add {room!r} to ROOMS in benchmarks/structure.py")


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that all import each other, directly or through others."""
    reached = {name: _reachable(name, imports) for name in imports}
    found = {
        tuple(sorted(other for other in seen if name in reached[other]))
        for name, seen in reached.items()
        if name in seen
    }
    return sorted(map(list, found))


def _reachable(name: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = list(imports[name])
    while left:
        other = left.pop()
        if other not in seen:
            seen.add(other)
            left.extend(imports[other])
    return seen


def sizes(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """{room or package: (files, lines)}, in the order in which they may import each other."""
    counted: dict[str, tuple[int, int]] = {}
    for name, file in modules(root).items():
        place = ".".join(name.split(".")[:-1])
        files, lines = counted.get(place, (0, 0))
        counted[place] = files + 1, lines + len(file.read_text(encoding="utf-8").splitlines())
    return dict(sorted(counted.items(), key=lambda item: PACKAGES.index(item[0].split(".")[0])))


def on_the_way_of_the_demo() -> dict[str, tuple[int, int]]:
    """{package, and "in all": (files, functions)} that the demo runs through, without lambdas."""
    from deqfolio.__main__ import program

    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        sys.argv = ["deqfolio", "demo", "--out", str(Path(folder) / "run")]
        profile.runcall(program)
    passed = {
        (file, line) for file, line, name in pstats.Stats(profile).stats if name.isidentifier()
    }
    counted = {}
    for package in PACKAGES:
        functions: dict[Path, int] = {}
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                    if (str(file), first) in passed:
                        functions[file] = functions.get(file, 0) + 1
        counted[package] = len(functions), sum(functions.values())
    files, called = map(sum, zip(*counted.values(), strict=True))
    return counted | {"in all": (files, called)}


def main() -> int:
    if sys.argv[1:] == ["--demo"]:
        counted = on_the_way_of_the_demo()
        print(f"\n{'package':<14}{'files':>6}{'functions':>11}")
        for package, (files, functions) in counted.items():
            print(f"{package:<14}{files:>6}{functions:>11}")
        return 0
    imports = graph()
    print("packages:", " -> ".join(PACKAGES))
    for package, lines in ROOMS.items():
        print(f"in {package}:", " -> ".join(", ".join(rooms.split()) for rooms in lines))
    for owner, (package, allowed) in ALLOWED.items():
        print(f"of {package}, {owner} imports {', '.join(allowed)} only")
    print(f"\n{'room':<36}{'files':>6}{'lines':>7}")
    for place, (files, lines) in sizes().items():
        print(f"{place:<36}{files:>6}{lines:>7}")
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    longest = sorted(lengths, key=lengths.__getitem__, reverse=True)[:3]
    print(f"\n{sum(lengths.values())} lines; the longest files:", end=" ")
    print(", ".join(f"{name} {lengths[name]}" for name in longest))
    wrong, round_trips = violations(imports), circles(imports)
    print(f"\nimports that run the wrong way: {len(wrong)}", *wrong, sep="\n  ")
    print(f"circles: {len(round_trips)}", *map(" <-> ".join, round_trips), sep="\n  ")
    return int(bool(wrong or round_trips))


if __name__ == "__main__":
    sys.exit(main())
