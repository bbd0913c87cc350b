"""Progress bars, and callbacks: each epoch of training is reported to a bar, a CSV file,
TensorBoard or MLflow.

    backtest(..., callbacks=[CsvLog("epochs.csv"), TensorBoard("runs/board")])
    deqfolio backtest ... --log csv --log tensorboard

A callback of your own overrides what it needs of ``Callback``. Fits that were finished before, in
the run directory, are not reported again. Epochs of fits in other processes are reported when the
fit is done, all at once.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tqdm.auto import tqdm

from data_loaders.plugins import load_object
from data_loaders.suggestions import known_names
from data_loaders.writing import safe_text
from engine.training.fit_records import FitKey

NUMBERS = ("loss", "validation_loss", "gradient_norm", "skipped", "contraction")
COLUMNS = ("strategy", "fold", "seed", "epoch", "best", *NUMBERS)

LOG = logging.getLogger("deqfolio")
LINES = 4  # logged for each bar


class Bar(tqdm):
    """A progress bar of ``total`` units; without a terminal it logs each quarter, at level INFO.

    Args:
        show: None shows it on a terminal and logs elsewhere, False is silent.
    """

    def __init__(self, what: str, total: int, unit: str, show: bool | None):
        disable = None if show is None else not show
        super().__init__(total=total, desc=what, unit=unit, disable=disable)
        self.what, self.goal, self.units, self.counted = what, total, unit, 0
        self.quiet = show is False

    def reach(self, count: int) -> None:
        """Set the number of units that are done."""
        self.update(count - self.counted)

    def update(self, n: float | None = 1) -> bool | None:
        before, self.counted = self.counted, self.counted + int(n or 0)
        if (
            self.disable
            and not self.quiet
            and self.goal
            and LINES * before // self.goal < LINES * self.counted // self.goal
        ):
            LOG.info("%s: %d of %d %ss", self.what, self.counted, self.goal, self.units)
        return super().update(n)


class Callback:
    """Every epoch and fit is reported to it; entered before the first and left after the last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Also where the training was interrupted, or failed."""

    def epoch(self, fit: FitKey, row: Mapping[str, Any]) -> None:
        """An epoch has ended.

        Args:
            fit: name (of the strategy), fold and seed.
            row: epoch, loss, validation_loss, best, gradient_norm, skipped, contraction: as in
                ``BacktestResult.training``. Losses are those that are minimised.
        """

    def fitted(self, fit: FitKey) -> None:
        """A fit has ended; all of its epochs have been reported."""


class ProgressBar(Callback):
    """A bar of all fits, with the last epoch's losses."""

    def __init__(self, fits: int, done: int, folds: int, show: bool | None):
        self.fits, self.done, self.folds, self.show = fits, done, folds, show

    def __enter__(self) -> Self:
        self.bar = Bar("training", self.fits, "fit", self.show if self.fits else False)
        self.bar.update(self.done)
        return self

    def __exit__(self, *how: object) -> None:
        self.bar.close()

    def epoch(self, fit: FitKey, row: Mapping[str, Any]) -> None:
        steps = {s["solve"]: f"{s['mean_steps']:.1f}" for s in row.get("solves", [])}
        self.bar.set_postfix(
            strategy=fit.name,
            fold=f"{fit.fold + 1}/{self.folds}",
            epoch=int(row["epoch"]),
            loss=f"{row['loss']:.3f}",
            validation=f"{row['validation_loss']:.3f}",
            steps=steps.get("fixed point", "-"),
        )

    def fitted(self, fit: FitKey) -> None:
        self.bar.update()


class CsvLog(Callback):
    """A row an epoch in a CSV file, to the end of which rows are added.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        exists = self.path.exists() and self.path.stat().st_size > 0
        if exists:
            with self.path.open(newline="") as file:
                found = next(csv.reader(file))
            if found != list(COLUMNS):
                raise ValueError(f"{self.path} has the columns {found}, expected {list(COLUMNS)}")
        self.file: IO[str] = self.path.open("a", newline="")
        self.rows = csv.writer(self.file)
        if not exists:
            self.rows.writerow(COLUMNS)
        return self

    def __exit__(self, *how: object) -> None:
        self.file.close()

    def epoch(self, fit: FitKey, row: Mapping[str, Any]) -> None:
        self.rows.writerow([safe_text(fit.name), *fit[1:], *(row[name] for name in COLUMNS[3:])])
        self.file.flush()  # to be watched while it grows


class TensorBoard(Callback):
    """Scalars for TensorBoard, one run a fit: ``tensorboard --logdir FOLDER``.

    Args:
        folder: of the event files.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard is not installed: pip install tensorboard") from error
        self.folder, self.make = Path(folder), SummaryWriter
        self.writers: dict[FitKey, Any] = {}

    def __exit__(self, *how: object) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()

    def epoch(self, fit: FitKey, row: Mapping[str, Any]) -> None:
        if fit not in self.writers:
            self.writers[fit] = self.make(str(self.folder / _label(fit)))
        for name, value in _known(row).items():
            self.writers[fit].add_scalar(name, value, row["epoch"])

    def fitted(self, fit: FitKey) -> None:
        if fit in self.writers:
            self.writers.pop(fit).close()


class MLflow(Callback):
    """Metrics for MLflow, one run a fit, with strategy, fold and seed as parameters.

    Args:
        experiment: its name; made if it is not there.
        uri: of the tracking server or store; MLflow's own default if not given. The package
            mlflow-skinny talks to servers; a database of its own needs all of mlflow.

    Raises:
        ImportError: MLflow is not installed.
    """

    def __init__(self, experiment: str = "deqfolio", uri: str | None = None):
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ImportError("MLflow is not installed: pip install mlflow-skinny") from error
        self.client = MlflowClient(tracking_uri=uri)
        known = self.client.get_experiment_by_name(experiment)
        self.experiment = (
            known.experiment_id if known is not None else self.client.create_experiment(experiment)
        )
        self.runs: dict[FitKey, str] = {}

    def __exit__(self, *how: object) -> None:
        for run in self.runs.values():
            self.client.set_terminated(run, "KILLED")
        self.runs.clear()

    def epoch(self, fit: FitKey, row: Mapping[str, Any]) -> None:
        if fit not in self.runs:
            run = self.client.create_run(self.experiment, run_name=_label(fit)).info.run_id
            for name, value in fit._asdict().items():
                self.client.log_param(run, "strategy" if name == "name" else name, value)
            self.runs[fit] = run
        for name, value in _known(row).items():
            self.client.log_metric(self.runs[fit], name, value, step=row["epoch"])

    def fitted(self, fit: FitKey) -> None:
        if fit in self.runs:
            self.client.set_terminated(self.runs.pop(fit), "FINISHED")


LOGS = {  # what the command line calls them, and what they are in a run's folder
    "csv": lambda folder: CsvLog(folder / "epochs.csv"),
    "tensorboard": lambda folder: TensorBoard(folder / "tensorboard"),
    "mlflow": lambda folder: MLflow(),
}


def named_callbacks(names: Sequence[str], folder: Path) -> list[Callback]:
    """Those of ``LOGS``, which write below ``folder``, or anyone's own as module:Class.

    Raises:
        ValueError: a name that is none of these; ImportError: its package is not installed.
    """
    made: list[Callback] = []
    for name in names:
        if name in LOGS:
            made.append(LOGS[name](folder))
            continue
        found = load_object(name) if ":" in name else None
        if not (isinstance(found, type) and issubclass(found, Callback)):
            raise ValueError(
                f"training: log = {name!r} is not a log{known_names(name, LOGS)}, or your own "
                "Callback as module:Class"
            )
        made.append(found())
    return made


def _known(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch that are numbers: not the gradient of an epoch without steps."""
    found = {name: float(row[name]) for name in NUMBERS}
    return {name: value for name, value in found.items() if value == value}


def _label(fit: FitKey) -> str:
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in fit.name)
    return f"{name}-{fit.fold}-{fit.seed}"
