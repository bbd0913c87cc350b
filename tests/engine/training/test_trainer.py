import pytest
import torch
from learned import Tilt, TiltModule, samples
from torch import nn

from engine import Costs, NegativeSharpe, Training, TrainingError, train
from engine.training.dataset import Dataset
from strategies.base import ConvergenceError


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
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Training(**wrong)


def test_settings_name_their_loss():
    assert "NegativeSharpe" in repr(Training(loss=NegativeSharpe()))
