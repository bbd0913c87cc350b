"""Seeds that are trained side by side leave what each leaves alone, to the last bit."""

import shutil

import numpy as np
import pytest
import torch
from comparisons import equal, same
from learned import Tilt, TiltModule, samples
from markets import random_walks
from sklearn.base import clone
from small_runs import MONTHLY as PLAN
from small_runs import QUICK, SMALL, given

import engine.training.trainer
from engine import Costs, Training, TrainingError, backtest, backtest_seeds, train
from engine.training.trainer import train_seeds
from engine.walking.weight_checks import AllocationError
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    SoftmaxAllocation,
    UnrolledMeanVariance,
)
from strategies.base import ConvergenceError
from strategies.deq import DEQMeanVarianceNetwork


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def alone_and_together(strategy, data, costs=Costs(), training=QUICK, seeds=(3, 4, 5, 6)):
    alone = {
        seed: train(clone(strategy), data, costs, Training(**{**vars(training), "seed": seed}))
        for seed in seeds
    }
    together = train_seeds(strategy, data, costs, training, seeds)
    for seed in seeds:
        equal(alone[seed], together[seed])
    return alone


@pytest.mark.parametrize(
    "strategy",
    [
        DEQMeanVariance(**SMALL),
        DEQMeanVariance(cell="graph", **SMALL),
        DEQMeanVariance(embedding=2, risk="factor", factors=2, **SMALL),
        DEQMeanVariance(solver="qpth", **SMALL),
        ExplicitMeanVariance(**SMALL),
        UnrolledMeanVariance(steps=2, **SMALL),
        SoftmaxAllocation(**SMALL),
    ],
    ids=lambda s: f"{type(s).__name__} {s.get_params().get('cell', '')}",
)
def test_side_by_side_as_alone_to_the_last_bit(panel, strategy):
    alone = alone_and_together(strategy, given(panel, strategy))
    states = [trained.module.state_dict() for trained in alone.values()]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_with_all_that_training_can_do(panel):
    """Noise, bootstrap, a schedule, all costs, a forecast in the loss."""
    from engine import NegativeSharpe, PredictionError

    costs = Costs(0.001, borrow=0.01, cash_rate=0.02, fixed=1.0, capital=1e6)
    training = Training(
        epochs=5, block=10, learning_rate=0.02, noise=0.5, bootstrap=True, schedule="cosine",
        loss=NegativeSharpe() + 0.1 * PredictionError(),
    )  # fmt: skip
    strategy = DEQMeanVariance(**SMALL)
    alone_and_together(strategy, given(panel, strategy, costs), costs, training)


def test_seeds_stop_each_at_its_own_epoch():
    """And leave the batch: a module that has a ``together`` sees fewer and fewer."""
    seen = []

    class Joint(TiltModule):
        def __init__(self):
            super().__init__()
            torch.nn.init.normal_(self.strength)

        @staticmethod
        def together(modules, inputs, sizes):
            seen.append(len(modules))
            parts = inputs["feature"].split(list(sizes))
            weights = [m({"feature": part}) for m, part in zip(modules, parts, strict=True)]
            return torch.cat(weights), None

    class JointTilt(Tilt):
        def build(self, inputs):
            return Joint()

    training = Training(epochs=30, learning_rate=0.05, patience=2, cost_factor=1.0)
    alone = alone_and_together(JointTilt(), samples(), training=training)
    assert len({len(trained.history) for trained in alone.values()}) > 1
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 4
    assert len(set(seen)) > 1


def broken(inputs):
    raise IndexError("list index out of range")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (broken, "Faulty.together failed where each alone did not: list index out of range"),
        (lambda inputs: inputs["feature"] * 0 + 0.25 + 1e-7, "gives weights 1.0e-07 from those"),
    ],
)
def test_a_faulty_together_is_said_and_not_used(weights, told, caplog):
    class Faulty(TiltModule):
        @staticmethod
        def together(modules, inputs, sizes):
            return weights(inputs), None

    class FaultyTilt(Tilt):
        def build(self, inputs):
            return Faulty()

    alone_and_together(FaultyTilt(), samples(), training=Training(epochs=4, learning_rate=0.01))
    assert caplog.text.count(told) == 1


def test_a_module_that_cannot_is_trained_one_by_one():
    alone_and_together(Tilt(), samples(), training=Training(epochs=4, learning_rate=0.01))


class Flaky(TiltModule):
    """Fails for the seed whose first number is the largest."""

    def __init__(self, error):
        super().__init__()
        self.drawn = torch.randn(())
        self.error = error

    def forward(self, inputs):
        if torch.is_grad_enabled() and self.drawn > 1.5:
            raise self.error
        return super().forward(inputs)

    @staticmethod
    def together(modules, inputs, sizes):
        parts = inputs["feature"].split(list(sizes))
        weights = [m({"feature": part}) for m, part in zip(modules, parts, strict=True)]
        return torch.cat(weights), None


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (ConvergenceError("not converged", [0], [1.0]), "2 of 2 steps of epoch 1 had a solve"),
        (RuntimeError("no such luck"), "no such luck"),
    ],
)
def test_a_seed_that_fails_does_not_take_the_others_with_it(error, match):
    class FlakyTilt(Tilt):
        def build(self, inputs):
            return Flaky(error)

    first = {seed: torch.Generator().manual_seed(seed) for seed in range(12)}
    fails = {s for s, g in first.items() if torch.randn((), generator=g) > 1.5}
    assert 0 < len(fails) < 6
    training = Training(epochs=3, learning_rate=0.01)
    found = train_seeds(FlakyTilt(), samples(), Costs(), training, range(12))
    for seed, outcome in found.items():
        own = Training(epochs=3, learning_rate=0.01, seed=seed)
        if seed in fails:
            assert isinstance(outcome, RuntimeError)
            with pytest.raises(type(outcome), match=match):
                train(FlakyTilt(), samples(), Costs(), own)
        else:
            equal(outcome, train(FlakyTilt(), samples(), Costs(), own))


def test_a_backtest_of_seeds_is_a_backtest_for_each(panel, tmp_path):
    strategies = [DEQMeanVariance(**SMALL), EqualWeight()]
    quick = Training(epochs=2, block=20, learning_rate=0.01, seed=1)
    options = {"progress": False, "ledger": False}
    found = backtest_seeds(
        strategies, panel, PLAN, training=quick, seeds=2, run_dir=tmp_path, **options
    )
    assert list(found) == [1, 2]
    for seed, results in found.items():
        own = Training(epochs=2, block=20, learning_rate=0.01, seed=seed)
        for name, alone in backtest(strategies, panel, PLAN, training=own, **options).items():
            same(results[name], alone)
            assert results[name].settings["seed"] == seed
    targets = [results["DEQMeanVariance"].targets for results in found.values()]
    assert np.abs(targets[0] - targets[1]).to_numpy().max() > 1e-6
    assert len(list((tmp_path / "fits").iterdir())) == 6
    with pytest.raises(ValueError, match="not both"):
        backtest_seeds(strategies, panel, PLAN, training=Training(ensemble=3))


def test_an_interrupted_ensemble_goes_on_with_the_seeds_that_are_left(panel, tmp_path):
    """Half of a fold's seeds alone, half side by side: the same bits."""
    strategy = DEQMeanVariance(**SMALL)

    def run(**rest):
        training = Training(epochs=2, block=20, learning_rate=0.01, ensemble=3)
        return backtest(
            strategy, panel, PLAN, training=training, progress=False, ledger=False, **rest
        )["DEQMeanVariance"]

    whole = run(run_dir=tmp_path)
    for place in ("0-1", "1-0", "1-2"):
        shutil.rmtree(tmp_path / "fits" / f"DEQMeanVariance-{place}")
    (tmp_path / "run.json").unlink()
    same(run(run_dir=tmp_path), whole)


def test_an_error_names_the_seed(panel):
    class Broken(DEQMeanVariance):
        def build(self, inputs):
            module = super().build(inputs)
            if float(torch.rand(())) > 0.8:
                module.log_ridge.data.fill_(float("nan"))
            return module

    drawn = [
        s for s in range(8)
        if torch.isnan(_built(Broken(**SMALL), panel, s).log_ridge)
    ]  # fmt: skip
    assert drawn
    training = Training(epochs=1, block=20, ensemble=8)
    with pytest.raises(TrainingError, match=f"fold 0, seed {drawn[0]}: "):
        backtest(Broken(**SMALL), panel, PLAN, training=training, progress=False, ledger=False)


def _built(strategy, panel, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return engine.training.trainer.build(strategy, given(panel, strategy), QUICK)


def test_a_date_that_fails_for_one_seed_is_named(panel, monkeypatch):
    compute = DEQMeanVarianceNetwork.weights_and_forecast

    def broken_once(network, inputs):
        if "holdings" in inputs and bool((inputs["holdings"] > 0.3).any()):
            raise ConvergenceError("not converged", [0], [1.0])
        return compute(network, inputs)

    monkeypatch.setattr(DEQMeanVarianceNetwork, "weights_and_forecast", broken_once)
    with pytest.raises(AllocationError, match=r"DEQMeanVariance on 201\d-\d\d-\d\d: not conv"):
        backtest_seeds(
            DEQMeanVariance(**SMALL), panel, PLAN, training=QUICK, seeds=2, progress=False,
            ledger=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [({"panel": "sp500"}, "panel should be a Panel"), ({"callbacks": 3}, "callbacks is a list")],
)
def test_what_is_no_argument_is_said_before_any_work(panel, given, said):
    with pytest.raises(TypeError, match=said):
        backtest_seeds(**{"strategies": EqualWeight(), "panel": panel, "plan": PLAN, **given})
