"""Training.first: what it leaves is what a training on its own rows leaves, and nothing more."""

from dataclasses import replace

import pytest
from comparisons import equal
from learned import Tilt, samples

import engine.training.progress
from engine import Costs, NegativeLogGrowth, NegativeSharpe, RealizedVariance, Training, train
from engine.runs.experiment import read_training
from engine.training.fit_records import TrainingError, TrainingWarning, training_summary

FREE = Costs(0.0)
STILL = 0.0 * NegativeSharpe()  # moves nothing
PLAIN = Training(loss=NegativeLogGrowth(), epochs=6, learning_rate=0.05, validation_blocks=1)
AFTER = replace(PLAIN, first=PLAIN.loss, loss=STILL)


def strength(data, training):
    strategy = Tilt()
    trained = train(strategy, data, FREE, training)
    return strategy.module_.strength.item(), trained


def until(data, last):
    inputs = data.rows_until(last)
    rest = {"growth": data.growth[:last], "rows": data.rows[:last], "ends": data.ends[:last]}
    return replace(data, inputs=inputs, **rest)


@pytest.mark.filterwarnings("ignore::engine.training.fit_records.TrainingWarning")
def test_it_is_a_training_of_the_rows_before_validation():
    data = samples()
    last, cut = data.split(PLAIN.validation)
    found, trained = strength(data, AFTER)
    alone, expected = strength(until(data, last), PLAIN)
    assert found == alone
    assert abs(found) > 0.1
    history = expected.history
    gain = history["validation_loss"].iloc[0] - history["validation_loss"].min()
    assert trained.history["first_gain"].iloc[-1] == gain > 0
    row = training_summary(trained.history.assign(fold=0)).iloc[0]
    assert (row["epoch"], row["learned"]) == (0, True)

    growth = data.growth.clone()
    growth[cut:] = growth[cut:].flip(0) * 1.01
    assert strength(replace(data, growth=growth), AFTER)[0] == found


def test_the_loss_starts_from_there_and_is_shrunk_towards_it():
    data = samples(signal=0.01)
    first = replace(PLAIN, first=PLAIN.loss, loss=NegativeSharpe(), validation_blocks=3)
    strategy = Tilt()
    trained = train(strategy, data, FREE, first)
    share = trained.history["share"].iloc[-1]
    with pytest.warns(TrainingWarning, match="gradient"):
        start, _ = strength(data, replace(AFTER, validation_blocks=3))
    best = trained.best_state["strength"].item()
    kept = strategy.module_.strength.item()
    assert kept == pytest.approx(start + share * (best - start))
    assert trained.history["epoch"].iloc[0] == 0


def test_untrained_has_no_first_training():
    assert strength(samples(), replace(AFTER, epochs=0))[0] == 0.0


def test_a_killed_training_resumes_bitwise_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.training.progress, "SECONDS", 0.0)
    training = replace(AFTER, loss=NegativeSharpe(), validation_blocks=3, patience=6)
    data, file = samples(), tmp_path / "0.pt"
    whole = train(Tilt(), data, FREE, training)

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Tilt(), data, FREE, training, stop, checkpoint=file)
    monkeypatch.setattr("engine.training.trainer.learn_first", None)
    equal(whole, train(Tilt(), data, FREE, training, checkpoint=file))


def test_too_few_rows_for_two_losses():
    with pytest.raises(TrainingError, match="too few for two losses, one after the other"):
        train(Tilt(), samples(rows=9), FREE, replace(AFTER, validation=0.4))


def test_in_a_file_it_is_a_loss_like_the_other():
    found = read_training({"first": {"class": "RealizedVariance", "log": True}})
    assert found.first == RealizedVariance(log=True)
    assert found.within
    assert not read_training({}).within
