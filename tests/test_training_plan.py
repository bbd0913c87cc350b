import pickle

import numpy as np
import pytest
import torch
from test_training import Tilt, TiltModule, samples

from engine import Costs, PredictionError, TrackingError, Training, TrainingError, train
from engine.training import Samples
from engine.training_plan import TrainingWarning, epoch_blocks, learning_rate, with_noise


def test_the_learning_rate_warms_up_and_falls():
    training = Training(learning_rate=1.0, epochs=12, warmup=3, schedule="cosine")
    rates = [learning_rate(training, epoch) for epoch in range(1, 13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [(1 + np.cos(np.pi * k / 9)) / 2 for k in range(9)]
    assert rates[3:] == pytest.approx(expected)
    assert {learning_rate(Training(), epoch) for epoch in range(1, 41)} == {
        Training().learning_rate
    }


def test_bootstrap_blocks_keep_their_length_and_stay_inside():
    torch.manual_seed(0)
    blocks = [(1, 11), (11, 21), (21, 30)]
    assert sorted(epoch_blocks(blocks, bootstrap=False)) == blocks
    drawn = [block for _ in range(200) for block in epoch_blocks(blocks, bootstrap=True)]
    assert {b - a for a, b in drawn} == {9, 10}
    assert min(a for a, _ in drawn) == 1
    assert max(b for _, b in drawn) == 30
    assert len({a for a, _ in drawn}) > 15


def test_noise_has_the_share_it_is_given():
    torch.manual_seed(0)
    growth = 1 + 0.02 * torch.randn(20_000, 2).double()
    added = with_noise(growth, 0.5).log() - growth.log()
    assert added.std(0).tolist() == pytest.approx([0.01, 0.01], rel=0.03)
    assert with_noise(growth, 0.0) is growth


@pytest.mark.parametrize(
    "option",
    [{"schedule": "cosine"}, {"warmup": 2}, {"bootstrap": True}, {"noise": 0.5}],
    ids=lambda option: next(iter(option)),
)
def test_an_option_changes_the_training_and_repeats_bit_for_bit(option):
    def strength(**settings):
        strategy = Tilt()
        train(strategy, samples(), Costs(), Training(epochs=6, learning_rate=0.01, **settings))
        return strategy.module_.strength.item()

    assert strength(**option) == strength(**option) != strength()


def test_a_loss_that_turns_nan_leaves_the_last_good_state():
    class Breaks(TiltModule):
        calls = 0

        def forward(self, inputs):
            if torch.is_grad_enabled():
                Breaks.calls += 1
            weights = super().forward(inputs)
            return weights * float("nan") if Breaks.calls > 8 else weights

    class Broken(Tilt):
        def build(self, inputs):
            return Breaks()

    with pytest.raises(
        TrainingError, match=r"loss is nan at epoch 5; .* state is that of"
    ) as found:
        train(Broken(), samples(), Costs(), Training(learning_rate=0.05))
    again = pickle.loads(pickle.dumps(found.value))  # as it comes from another process
    assert str(again) == str(found.value)
    assert f"epoch {again.epoch}, validation" in str(again)
    assert again.epoch > 0
    assert again.state["strength"].item() > 0


def test_weights_that_no_parameter_moves_keep_the_untrained_module():
    class Dead(TiltModule):
        def forward(self, inputs):
            return super().forward({"feature": inputs["feature"] * 0})

    class DeadTilt(Tilt):
        def build(self, inputs):
            return Dead()

    strategy = DeadTilt()
    with pytest.warns(TrainingWarning, match="every gradient of epoch 1 is zero.*of epoch 0 is"):
        trained = train(strategy, samples(), Costs(), Training())
    assert trained.history["epoch"].tolist() == [0]
    assert strategy.module_.strength.item() == 0


def test_inputs_of_another_length_than_the_decisions():
    given = samples(rows=60)
    longer = {"feature": torch.zeros(61, 4)}
    with pytest.raises(ValueError, match="'feature' has 61 rows for 60 decisions"):
        train(Tilt(), Samples(longer, *list(vars(given).values())[1:]), Costs(), Training())


def test_what_a_loss_needs_is_asked_for_first():
    with pytest.raises(ValueError, match="TrackingError needs a benchmark"):
        train(Tilt(), samples(), Costs(), Training(loss=TrackingError()))
    with pytest.raises(TrainingError, match="TiltModule has no method weights_and_forecast"):
        train(Tilt(), samples(), Costs(), Training(loss=PredictionError()))


def test_prediction_error_alone_teaches_the_forecast():
    given = samples(signal=0.02)

    class Forecasts(TiltModule):
        def weights_and_forecast(self, inputs):
            return self(inputs), self.strength * inputs["feature"]

    class Forecaster(Tilt):
        def build(self, inputs):
            return Forecasts()

    strategy = Forecaster()
    training = Training(loss=PredictionError(), learning_rate=0.005, epochs=60, patience=60)
    train(strategy, given, Costs(), training)
    assert strategy.module_.strength.item() == pytest.approx(0.02, abs=0.003)  # least squares


def test_warnings_before_hours_are_spent():
    class Wide(Tilt):
        def build(self, inputs):
            module = TiltModule()
            module.idle = torch.nn.Linear(20, 10)
            return module

    with pytest.warns(TrainingWarning, match="211 parameters are trained on 156 returns"):
        train(Wide(), samples(rows=50), Costs(), Training(epochs=1))
    with pytest.warns(TrainingWarning, match="smallest block has 3 decisions"):
        train(Tilt(), samples(rows=100), Costs(), Training(epochs=1, block=3))


@pytest.mark.parametrize("wrong", [{"schedule": "steps"}, {"warmup": 40}, {"noise": -1.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Training(**wrong)
