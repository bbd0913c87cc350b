"""A run directory: finished fits are kept, whatever happens to the process, and the results.

What is in it: see ``run_files.py``.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from data_loaders.writing import remove_unfinished, safe_csv, write_text
from engine.runs.result import FORMAT, RESULT, BacktestResult
from engine.runs.result_views import Results
from engine.runs.run_files import (
    CODE,
    EXPERIMENT,
    FILES,
    LOCK,
    PATHS,
    PLAN,
    RATES,
    RECORD,
    REFIT,
    RUN,
    RunDamaged,
    contents,
    damaged,
    folder_name,
    sealed,
    sealed_folder,
    unsealed,
    written,
)
from engine.training.fit_records import FitKey, Fitted

SETTINGS = (EXPERIMENT, CODE, PLAN, RATES)  # files whose hashes are kept with the results


class RunMismatch(ValueError):
    """The directory holds another run than this one."""


class RunDirectory:
    """Keeps finished fits.

    Args:
        path: the directory; created if it does not exist.
        identity: of the run, by part; plain JSON.
        restart: remove the fits that this or another run left here.

    Raises:
        RunMismatch: the directory belongs to another run; the message names what differs.
        RunNotWritten: it cannot be created.
    """

    def __init__(self, path: str | Path, identity: dict, restart: bool = False):
        self.path = Path(path)
        plan = self.path / PLAN
        identity = json.loads(json.dumps(identity))
        if plan.exists():
            try:
                before = unsealed(plan)
            except RunDamaged as error:
                if not restart:
                    raise RunDamaged(
                        f"{error}; restart the run, or choose another directory"
                    ) from None
                before = {}
            before.pop(FILES, None)
            changed = [
                key for key in {**before, **identity} if before.get(key) != identity.get(key)
            ]
            if changed and not restart and holds_work(self.path):
                raise RunMismatch(
                    f"{self.path} holds another run: {', '.join(sorted(changed))} changed since; "
                    "choose another directory, or restart (all its finished fits are then lost)"
                )
            if restart or changed:
                for folder in ("fits", "checkpoints"):
                    shutil.rmtree(self.path / folder, ignore_errors=True)
                for name in (RUN, PATHS):
                    (self.path / name).unlink(missing_ok=True)
        elif holds_work(self.path):
            raise RunMismatch(f"{self.path} holds files that are no run; choose another directory")
        for place in (self.path, self.path / "fits", self.path / "checkpoints"):
            remove_unfinished(place)
        with written(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(plan, sealed(identity, self.path))

    def finished(self, keys: list[FitKey]) -> dict[FitKey, Fitted]:
        """Those of the fits that are stored here, in the order of ``keys``.

        One that is not what was stored is removed, so that it is trained again.
        """
        from safetensors.torch import load

        found = {}
        for key in keys:
            place = self._place(key)
            if not place.is_dir():
                continue
            try:
                record = unsealed(place / RECORD)
                if record.get("key") != list(key):  # of another fit
                    raise damaged(place)
                names = ("state", "history.parquet")
                state, history = (contents(place, record, name) for name in names)
                table = pd.read_parquet(BytesIO(history))
                found[key] = Fitted(load(state), table, record["solves"], record["checks"])
            except RunDamaged as error:
                warnings.warn(f"{error}; this fit is trained again", RuntimeWarning, stacklevel=4)
                shutil.rmtree(place)
        return found

    def store(self, key: FitKey, fitted: Fitted) -> None:
        """Store a finished fit: all of it or, if the process dies, nothing."""
        from safetensors.torch import save_file

        place = self._place(key)
        record = {"key": key, "solves": fitted.solves, "checks": fitted.checks}
        state = {name: tensor.contiguous() for name, tensor in fitted.state.items()}
        with written(self.path), sealed_folder(place, RECORD, record) as scratch:
            save_file(state, scratch / "state")
            fitted.history.to_parquet(scratch / "history.parquet")
        self.checkpoint(key).unlink(missing_ok=True)

    def checkpoint(self, key: FitKey) -> Path:
        """The file for the progress of a fit; its folder is created."""
        folder = self.path / "checkpoints"
        with written(self.path):
            folder.mkdir(exist_ok=True)
        return folder / f"{self._place(key).name}.pt"

    def tidy(self) -> None:
        """Remove the folder of checkpoints, if it is empty."""
        folder = self.path / "checkpoints"
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _place(self, key: FitKey) -> Path:
        return self.path / "fits" / f"{folder_name(key.name)}-{key.fold}-{key.seed}"


def holds_work(path: Path) -> bool:
    """Whether the directory holds anything that another run must not overwrite."""
    if (path / PLAN).exists():
        results = any((path / name).exists() for name in (RUN, PATHS))
        return results or any((path / "fits").glob("[!.]*"))
    names = {item.name for item in path.iterdir()} if path.exists() else set()
    return any(
        name not in (EXPERIMENT, CODE, LOCK) and not name.endswith(".part") for name in names
    )


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

    Raises:
        FileNotFoundError: nothing of a run is there.
    """
    root = Path(directory)
    states: dict[str, str] = {}
    folders = [each for each in sorted(root.glob("[0-9][0-9]-*")) if each.is_dir()]
    indices = [root / name for name in (RUN, PLAN, CODE) if (root / name).is_file()]
    indices += [folder / RESULT for folder in folders]
    indices += [each / RECORD for each in sorted(root.glob("fits/[!.]*")) if each.is_dir()]
    indices += [each / REFIT for each in sorted(root.glob("refits/*/[!.]*")) if each.is_dir()]
    if not indices:
        raise FileNotFoundError(f"{root} is not the folder of a run: there is nothing to compare")
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
