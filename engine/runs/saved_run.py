"""The results of a run in its folder: written, read, and compared with their hashes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_loaders.writing import safe_csv, write_text
from engine.runs.result import FORMAT, RESULT, BacktestResult
from engine.runs.result_views import Results
from engine.runs.run_directory import CODE, EXPERIMENT, PATHS, PLAN, RATES, RECORD, REFIT, RUN
from engine.runs.sealed_files import FILES, RunDamaged, contents, damaged, sealed, unsealed

SETTINGS = (EXPERIMENT, CODE, PLAN, RATES)  # files whose hashes are kept with the results


def save_run(results: Mapping[str, BacktestResult], directory: str | Path) -> Path:
    """Write all results of a backtest under ``directory``, one folder per strategy.

    ``run.json`` names them and is written last: without it the run counts as unfinished.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    (root / RUN).unlink(missing_ok=True)
    order = []
    for number, result in enumerate(results.values()):
        folder = f"{number:02d}-" + "".join(c if c.isalnum() else "-" for c in result.name)[:40]
        result.save(root / folder)
        order.append(folder)
    for old in root.iterdir():  # of an earlier run with more strategies
        if old.is_dir() and old.name not in order and (old / RESULT).is_file():
            shutil.rmtree(old)
    _write_index(root, order, [f"{folder}/{RESULT}" for folder in order])
    return root


def save_paths(table: pd.DataFrame, root: Path) -> None:
    """Write the table of a cross-validation to ``paths.csv`` in the folder of its fits."""
    write_text(root / PATHS, safe_csv(table.reset_index(), index=False))
    _write_index(root, [], [PATHS])


def _write_index(root: Path, folders: list[str], files: list[str]) -> None:
    files = files + [name for name in SETTINGS if (root / name).is_file()]
    write_text(root / RUN, sealed({"format": FORMAT, "results": folders}, root, files))


def unfinished(directory: str | Path) -> list[str]:
    """Names of the run's strategies that have no result yet."""
    root = Path(directory)
    if not ((root / PLAN).is_file() and (root / RUN).is_file()):
        return []
    asked = unsealed(root / PLAN)["strategies"]
    folders = _folders(root, unsealed(root / RUN))
    done = {unsealed(root / folder / RESULT)["name"] for folder in folders}
    return [name for name in asked if name not in done]


def load_run(directory: str | Path) -> Results[BacktestResult]:
    """Read what ``save_run`` wrote, in the same order.

    Raises:
        FileNotFoundError: nothing is saved there, or nothing is finished yet.
        RunDamaged: a file is missing, or is not what was written; the message names it.
    """
    root = Path(directory)
    started = (root / PLAN).is_file()
    if started and not any((root / name).exists() for name in (RUN, PATHS)):
        raise FileNotFoundError(
            f"{root} holds a run of which no strategy is finished yet; the same call resumes "
            f"it, or on the command line: deqfolio resume {root}"
        )
    if not (root / RUN).is_file():
        raise FileNotFoundError(f"{root} holds no {RUN}: it is not a saved run")
    try:
        run = unsealed(root / RUN)
        for name in run.get(FILES, ()):
            contents(root, run, name)
        results = [BacktestResult.load(root / folder) for folder in _folders(root, run)]
    except (RunDamaged, FileNotFoundError) as error:
        raise RunDamaged(
            f"{error}; deqfolio verify {root} lists what is damaged, and deqfolio resume {root}, "
            "or the same call, makes results again from the finished fits"
        ) from None
    if not results:
        raise FileNotFoundError(f"{root} holds a cross-validation, see {root / PATHS}: no results")
    return Results({result.name: result for result in results})


def _folders(root: Path, run: dict[str, Any]) -> list[str]:
    """The folders of the results, all of them inside of the run's."""
    folders = run.get("results")
    if not (isinstance(folders, list) and all(isinstance(each, str) for each in folders)):
        raise damaged(root / RUN)
    for each in folders:
        if Path(each).name != each or each in ("", ".", ".."):
            raise RunDamaged(f"{root / RUN} names {each!r}, which is no folder of the run")
    return folders


def verify_run(directory: str | Path) -> dict[str, str]:
    """Compare every file of a run with its hash.

    Returns:
        {file, relative to the folder: "ok", "damaged", "missing", or "no hash" (written by version
        0.1)}.
    """
    root = Path(directory)
    states: dict[str, str] = {}
    folders = [each for each in sorted(root.glob("[0-9][0-9]-*")) if each.is_dir()]
    indices = [root / name for name in (RUN, PLAN, CODE) if (root / name).is_file()]
    indices += [folder / RESULT for folder in folders]
    indices += [each / RECORD for each in sorted(root.glob("fits/[!.]*")) if each.is_dir()]
    indices += [each / REFIT for each in sorted(root.glob("refits/*/[!.]*")) if each.is_dir()]
    for path in indices:
        folder, found = path.parent, None
        own = str(path.relative_to(root))
        try:
            found = unsealed(path)
        except RunDamaged:
            states[own] = "damaged" if path.is_file() else "missing"
            continue
        hashed = FILES in found
        states.setdefault(own, "ok" if hashed else "no hash")
        beside = [each.name for each in folder.iterdir() if each.is_file() and each != path]
        names = found[FILES] if hashed else beside if folder != root else []
        for name in sorted(names):
            try:
                contents(folder, found, name)
            except RunDamaged:
                state = "damaged" if (folder / name).is_file() else "missing"
            else:
                state = "ok" if hashed else "no hash"
            states[str((folder / name).relative_to(root))] = state
    return states


def warn_of_damage(directory: Path) -> None:
    """Say which stored results are damaged, where a run is about to make them again."""
    wrong = [
        file
        for file, state in verify_run(directory).items()
        if state in ("damaged", "missing") and not file.startswith("fits/")
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        warnings.warn(
            f"{directory}: {', '.join(wrong[:3])}{more} damaged or missing; results are made again "
            "from the finished fits",
            RuntimeWarning,
            stacklevel=3,
        )
