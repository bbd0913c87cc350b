"""What callbacks report of training, read back from where they reported it."""

import re
import sys

import pandas as pd
import pytest
from markets import random_walks
from small_runs import MONTHLY as PLAN
from small_runs import SMALL

from deqfolio import main
from engine import Callback, CsvLog, MLflow, TensorBoard, Training, backtest, load_run
from engine.runs.experiment import read_logs, read_training
from engine.training.callbacks import NUMBERS, named_callbacks
from strategies import DEQMeanVariance, EqualWeight

NAME = "DEQMeanVariance"
KEYS = ["strategy", "fold", "seed", "epoch"]


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def run(panel, callbacks, **rest):
    return backtest(
        [DEQMeanVariance(**SMALL), EqualWeight()],
        panel,
        PLAN,
        training=Training(epochs=2, block=20, learning_rate=0.01, ensemble=2),
        progress=False,
        ledger=False,
        callbacks=callbacks,
        **rest,
    )[NAME]


def reported(result):
    """What there is to tell: one row an epoch, by strategy, fold, seed and epoch."""
    return result.training.assign(strategy=NAME).set_index(KEYS)[list(NUMBERS)]


class Notes(Callback):
    def __init__(self):
        self.open, self.rows, self.fits = 0, [], []

    def __enter__(self):
        self.open += 1
        return self

    def __exit__(self, *how):
        self.open -= 1

    def epoch(self, fit, row):
        assert self.open == 1
        self.rows.append((*fit, row["epoch"]))

    def fitted(self, fit):
        assert self.rows[-1][:3] == tuple(fit) or fit.seed == 0  # two seeds end together
        self.fits.append(tuple(fit))


@pytest.mark.parametrize("workers", [None, 1])
def test_every_epoch_and_fit_is_told_once(panel, workers, tmp_path):
    notes = Notes()
    result = run(panel, [notes], workers=workers, run_dir=tmp_path)
    assert sorted(notes.rows) == sorted(reported(result).index)
    assert sorted(notes.fits) == [(NAME, fold, seed) for fold in range(3) for seed in (0, 1)]
    assert notes.open == 0
    again = Notes()
    run(panel, [again], run_dir=tmp_path)  # all there is to fit is there
    assert not again.rows
    assert not again.fits


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_is_closed_where_training_is_interrupted_or_it_fails_itself(panel, error):
    class Stops(Notes):
        def epoch(self, fit, row):
            super().epoch(fit, row)
            raise error("the log is full")

    notes = Stops()
    with pytest.raises(error, match="^the log is full$"):  # which is no failure of the strategy
        run(panel, [notes])
    assert len(notes.rows) == 1
    assert notes.open == 0


def test_csv(panel, tmp_path):
    file = tmp_path / "made" / "epochs.csv"
    result = run(panel, [CsvLog(file)])
    found = pd.read_csv(file).set_index(KEYS)
    expected = reported(result)
    pd.testing.assert_frame_equal(
        found.loc[expected.index, list(NUMBERS)], expected, check_dtype=False, rtol=1e-15
    )
    run(panel, [CsvLog(file)])
    assert len(pd.read_csv(file)) == 2 * len(expected)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns"):
        run(panel, [CsvLog(file)])
    assert file.read_text() == "a,b\n1,2\n"


def test_tensorboard(panel, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(panel, [TensorBoard(tmp_path)])
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == [f"{NAME}-{fold}-{seed}" for fold in range(3) for seed in (0, 1)]
    for (fold, seed), rows in result.training.groupby(["fold", "seed"]):
        events = EventAccumulator(str(tmp_path / f"{NAME}-{fold}-{seed}")).Reload()
        for name in NUMBERS:
            known = rows[rows[name].notna()]
            scalars = events.Scalars(name)
            assert [event.step for event in scalars] == known["epoch"].tolist()
            assert [event.value for event in scalars] == pytest.approx(known[name].tolist())


def test_mlflow(panel, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the store that needs no server
    mlflow = pytest.importorskip("mlflow")

    uri = (tmp_path / "store").as_uri()
    result = run(panel, [MLflow("growth", uri)])
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("growth")
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 6
    for one in found:
        assert one.info.status == "FINISHED"
        which = tuple(int(one.data.params[name]) for name in ("fold", "seed"))
        rows = dict(iter(result.training.groupby(["fold", "seed"])))[which]
        metrics = client.get_metric_history(one.info.run_id, "validation_loss")
        assert [metric.value for metric in metrics] == rows["validation_loss"].tolist()
        assert [metric.step for metric in metrics] == rows["epoch"].tolist()


@pytest.mark.parametrize(
    ("make", "module", "hint"),
    [
        (lambda: TensorBoard("x"), "torch.utils.tensorboard", "pip install tensorboard"),
        (MLflow, "mlflow", "pip install mlflow-skinny"),
    ],
)
def test_what_is_not_installed_is_named(make, module, hint, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=hint):
        make()


def test_the_command_line_logs_into_the_runs_folder(walks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    walks.prices.to_csv("prices.csv")
    (tmp_path / "shout.py").write_text(
        "from engine import Callback\nclass Shout(Callback):\n"
        "    def epoch(self, fit, row):\n        print('told', fit.name, int(row['epoch']))\n"
    )
    words = ["backtest", "--data", "prices.csv", "--train", "18M", "--rebalance", "ME"]
    words += ["--strategy", "DEQMeanVariance", "--out", "run", "--set", "training.epochs=2"]
    for name, value in {"cap": 0.5, "lookback": 64, "hidden": 2}.items():
        words += ["--set", f"DEQMeanVariance.{name}={value}"]
    assert main([*words, "--log", "csv", "--log", "shout:Shout"]) == 0
    assert "told DEQMeanVariance 2" in capsys.readouterr().out
    result = load_run("run")[NAME]
    written = pd.read_csv("run/epochs.csv", index_col=KEYS)[list(NUMBERS)]
    pd.testing.assert_frame_equal(written.sort_index(), reported(result).sort_index())
    assert result.settings["training"].get("log") is None, "no result depends on it"

    experiment = (tmp_path / "run/experiment.toml").read_text()
    assert re.search(r'log = \[\s*"csv",\s*"shout:Shout",\s*\]', experiment)
    assert main(["backtest", "run/experiment.toml", "--out", "run", "--restart"]) == 0
    again = pd.read_csv("run/epochs.csv", index_col=KEYS)[list(NUMBERS)]
    pd.testing.assert_frame_equal(again, written)  # what was thrown away is not in it twice
    assert main([*words]) == 0, "the same run without a log is the same run"
    (tmp_path / "run.toml").write_text(experiment.replace('"shout:Shout"', '"cvs"'))
    assert main(["backtest", "run.toml", "--out", "other"]) == 1
    assert "log = 'cvs' is not a log; did you mean 'csv'? known are" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("said", "names"), [({}, []), ({"log": "csv"}, ["csv"]), ({"log": ["b", "a", "b"]}, ["b", "a"])]
)
def test_logs_are_named_once(said, names, tmp_path):
    assert read_logs(said) == names
    assert read_training({"epochs": 3, **said}) == Training(epochs=3)


@pytest.mark.parametrize("said", [5, [5], {"csv": True}])
def test_a_log_that_is_no_name_is_refused(said):
    with pytest.raises(ValueError, match="log is a name, like"):
        read_logs({"log": said})


@pytest.mark.parametrize("name", ["test_callbacks:NAME", "tests", "test_callbacks:Training"])
def test_a_log_that_is_no_callback_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"is not a log; .*your own Callback as module:Class"):
        named_callbacks([name], tmp_path)
