import pickle

import numpy as np
import pytest
import torch
from learned import Tilt, TiltModule, samples
from torch import nn

from engine import (
    Costs,
    NegativeSharpe,
    PredictionError,
    TrackingError,
    Training,
    TrainingError,
    WalkForward,
    train,
)
from engine.training.dataset import Dataset, epoch_blocks
from engine.training.fit_records import TrainingWarning
from engine.training.rollout import noise_factors
from engine.walking.learner import Learner
from strategies import DEQMeanVariance
from strategies.layers import fixed_point
from strategies.layers.equilibrium.fixed_point_loop import ConvergenceError


def test_training_finds_a_planted_signal():
    strategy = Tilt()
    training = Training(epochs=60, learning_rate=0.05, cost_factor=1.0)
    history = train(strategy, samples(), Costs(0.0), training).history
    assert strategy.module_.strength.item() > 1
    best = history.loc[history["best"]].iloc[-1]
    assert best["validation_loss"] < history["validation_loss"].iloc[0] - 1
    assert history["epoch"].tolist() == list(range(len(history)))


def test_a_signal_that_does_not_last_leaves_the_untrained_state():
    given = samples()
    turned = given.growth.clone()
    turned[240:] = 2 - turned[240:]  # what worked loses in the validation rows
    given = Dataset(given.inputs, turned, given.rows, given.ends, given.per_year)
    strategy = Tilt()
    history = train(
        strategy, given, Costs(), Training(epochs=50, patience=4, validation_blocks=1)
    ).history
    assert history.loc[history["best"], "epoch"].tolist() == [0]
    assert len(history) == 5  # stopped early
    assert strategy.module_.strength.item() == 0


def test_costs_are_charged_in_training():
    strengths = []
    for rate in (0.0, 0.01):
        strategy = Tilt()
        train(strategy, samples(), Costs(rate), Training(epochs=60, learning_rate=0.05))
        strengths.append(strategy.module_.strength.item())
    assert strengths[1] < strengths[0] / 2


def test_same_seed_same_weights_bit_for_bit():
    def parameters(seed):
        strategy = Tilt()
        train(strategy, samples(), Costs(), Training(epochs=8, seed=seed, learning_rate=0.01))
        return strategy.module_.strength.item()

    before = torch.random.get_rng_state()
    assert parameters(1) == parameters(1)
    assert parameters(1) != parameters(2)  # another order of the blocks
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_labels_of_training_rows_end_before_validation():
    seen = []

    class Spy(Tilt):
        def build(self, inputs):
            seen.append(len(inputs["feature"]))
            return TiltModule()

    given = samples(rows=100)
    train(Spy(), given, Costs(), Training(epochs=1))
    last, first = seen[0] - 1, 80
    assert given.ends[last] <= given.rows[first] < given.ends[last + 1]


def test_the_edges_of_blocks_are_charged():
    # Weights that never change would cost nothing but drift; a jump at an edge must be seen.
    from engine.training.rollout import rollout

    given = samples(rows=40)
    module = TiltModule().double()
    module.strength.data.fill_(3.0)
    whole = rollout(module, given, (1, 40), Costs(0.01))
    parts = [rollout(module, given, block, Costs(0.01)) for block in ((1, 15), (15, 40))]
    joined = torch.cat([part.net_returns for part in parts])
    assert torch.allclose(joined, whole.net_returns, atol=1e-15)


def test_a_step_that_does_not_converge_is_skipped_and_counted():
    class Flaky(TiltModule):
        calls = 0

        def forward(self, inputs):
            if torch.is_grad_enabled():
                Flaky.calls += 1
                if Flaky.calls % 3 == 0:
                    raise ConvergenceError("not converged", [0], torch.ones(1))
            return super().forward(inputs)

    class FlakyTilt(Tilt):
        def build(self, inputs):
            return Flaky()

    history = train(FlakyTilt(), samples(), Costs(), Training(epochs=3, block=40)).history
    assert history["skipped"].sum() == Flaky.calls // 3 > 0


def test_training_that_cannot_go_on_says_why():
    with pytest.raises(TrainingError, match="4 training decisions are too few"):
        train(Tilt(), samples(rows=4), Costs(), Training())

    class Broken(Tilt):
        def build(self, inputs):
            module = TiltModule()
            module.strength.data.fill_(float("nan"))
            return module

    with pytest.raises(TrainingError, match="loss is nan at epoch 1"):
        train(Broken(), samples(), Costs(), Training())

    class Empty(Tilt):
        def build(self, inputs):
            return nn.Identity()

    with pytest.raises(TrainingError, match="no parameter to train"):
        train(Empty(), samples(), Costs(), Training())

    class Flat(Tilt):
        def build(self, inputs):
            return nn.Sequential(Pick(), nn.Linear(4, 3))

    with pytest.raises(TrainingError, match=r"shape \(\d+, 3\), expected \(\d+, 4\)"):
        train(Flat(), samples(), Costs(), Training())


class Pick(nn.Module):
    def forward(self, inputs):
        return inputs["feature"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"validation_blocks": 5},
        {"block": 2},
        {"learning_rate": 0.0},
        {"validation": 1.0},
        {"seed": -1},
        {"schedule": "steps"},
        {"warmup": 40},
        {"noise": -1.0},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Training(**wrong)


def test_settings_name_their_loss():
    assert "NegativeSharpe" in repr(Training(loss=NegativeSharpe()))


def test_the_learning_rate_warms_up_and_falls():
    training = Training(learning_rate=1.0, epochs=12, warmup=3, schedule="cosine")
    rates = [training.rate(epoch) for epoch in range(1, 13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [(1 + np.cos(np.pi * k / 9)) / 2 for k in range(9)]
    assert rates[3:] == pytest.approx(expected)
    assert {Training().rate(epoch) for epoch in range(1, 41)} == {Training().learning_rate}


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
    added = noise_factors(growth, 0.5).log()
    assert added.std(0).tolist() == pytest.approx([0.01, 0.01], rel=0.03)


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
        train(Broken(), samples(), Costs(), Training(learning_rate=0.05, validation_blocks=1))
    again = pickle.loads(pickle.dumps(found.value))  # as it comes from another process
    assert str(again) == str(found.value)
    assert f"epoch {again.epoch}, validation" in str(again)
    assert again.epoch > 0
    assert again.state["strength"].item() > 0


def test_a_loss_of_ones_own_that_is_nan_is_not_taken_for_a_lost_equilibrium(walks):
    class Odd(NegativeSharpe):
        def __call__(self, account, per_year):
            nan = float("nan") if account.net_returns.requires_grad else 0.0
            return super().__call__(account, per_year) + nan

    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.5)
    plan = WalkForward(train="18M", refit="5Y", rebalance="W-FRI")
    training = Training(epochs=3, block=20, loss=Odd())
    own = Learner(walks, plan.folds(walks.dates, 64)[:1], plan, Costs(), training, 1)
    data = own.dataset("s", strategy, own.folds[0])
    with pytest.raises(TrainingError, match="the loss is nan at epoch 1"):
        train(strategy, data, Costs(), training)


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
        train(Tilt(), Dataset(longer, *list(vars(given).values())[1:]), Costs(), Training())


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


class Growing(torch.nn.Module):
    """Scores z = gain z + x of one feature: an equilibrium only while the gain is below 1."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1, 1))

    def forward(self, inputs):
        x = inputs["feature"]
        return torch.softmax(fixed_point(lambda z: self.gain * z + x, torch.zeros_like(x)).value, 1)


class GrowingTilt(Tilt):
    def build(self, inputs):
        return Growing()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.05}, "epoch 10 cannot be validated: the residual of the slowest"),
        (
            {"learning_rate": 0.4, "block": 20},
            "9 of 12 steps of epoch 1 had a solve that did not converge: the residual of the slow",
        ),
    ],
)
def test_an_exploding_spectral_radius_stops_with_the_last_good_state(settings, message):
    rows = []
    plain = Training(weight_decay=0.0, cost_factor=0.0, validation_blocks=1, **settings)
    with pytest.raises(TrainingError, match=message) as found:
        train(GrowingTilt(), samples(signal=0.05), Costs(0.0), plain, rows.append)
    rates = [row["contraction"] for row in rows]
    assert rates == sorted(rates)  # of a linear map, the largest gain of the epoch
    assert rates[-1] < 1
    assert f"after {rates[-1]:.3f} in the epoch before; at 1" in str(found.value)
    assert f"the last good state is that of epoch {rows[-1]['epoch']}" in str(found.value)
    assert 0 <= found.value.state["gain"].item() < 1
    assert found.value.epoch == rows[-1]["epoch"]


def test_a_validation_that_cannot_be_solved_leaves_the_last_good_state():
    class Fails(TiltModule):
        calls = 0

        def forward(self, inputs):
            if not torch.is_grad_enabled():
                Fails.calls += 1
                if Fails.calls > 8:
                    raise ConvergenceError("no equilibrium", [0], [1.0])
            return super().forward(inputs)

    class FailsTilt(Tilt):
        def build(self, inputs):
            return Fails()

    with pytest.raises(TrainingError, match=r"epoch \d cannot be validated. no equi") as found:
        train(FailsTilt(), samples(), Costs(), Training(learning_rate=0.01, validation_blocks=1))
    assert found.value.state["strength"].item() > 0
