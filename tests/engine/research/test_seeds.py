"""A backtest of several seeds is bitwise that of each seed alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparisons import equal, same
from markets import random_walks
from sklearn.base import clone
from small_runs import BRIEF, QUICK, SMALL, given
from small_runs import MONTHLY as PLAN

import engine.training.trainer
from engine import Costs, Training, TrainingError, backtest, backtest_seeds, train
from engine.walking.weight_checks import AllocationError
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    SoftmaxAllocation,
    UnrolledMeanVariance,
)
from strategies.deq_network import DEQMeanVarianceNetwork
from strategies.layers.equilibrium.fixed_point_loop import ConvergenceError


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def test_a_failing_seed_keeps_the_fits_of_the_others(panel, tmp_path):
    class Broken(DEQMeanVariance):
        def build(self, inputs):
            if torch.random.initial_seed() == 2:
                raise ValueError("no such luck")
            return super().build(inputs)

    said = r"3 of 4 strategies finished; Broken \(seed 2\) failed in training on .*: no such luck"
    with pytest.warns(RuntimeWarning, match=said):
        found = backtest_seeds(
            Broken(**SMALL), panel, PLAN, training=BRIEF, seeds=4, run_dir=tmp_path,
            progress=False, ledger=False,
        )  # fmt: skip
    assert len(list((tmp_path / "fits").iterdir())) == 3 * 3  # seeds, in three folds
    assert [each["Broken"].complete for each in found.values()] == [True, True, False, True]
    assert len(found[2]["Broken"].net_returns) == 0


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
def test_a_seed_is_bitwise_repeated_and_unlike_another(panel, strategy):
    data = given(panel, strategy)
    once, again, other = (
        train(clone(strategy), data, Costs(), replace(QUICK, seed=seed, epochs=2))
        for seed in (3, 3, 4)
    )
    equal(once, again)
    states = once.module.state_dict(), other.module.state_dict()
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
    data = given(panel, strategy, costs)
    torch.manual_seed(5)
    once = train(clone(strategy), data, costs, training)
    torch.manual_seed(6)  # what others draw changes nothing
    equal(once, train(clone(strategy), data, costs, training, lambda row: torch.rand(1)))


@pytest.mark.parametrize("workers", [None, 2])
def test_a_backtest_of_seeds_is_a_backtest_for_each(panel, workers, tmp_path):
    strategies = [DEQMeanVariance(**SMALL), EqualWeight()]
    quick = Training(epochs=2, block=20, learning_rate=0.01, seed=1)
    options = {"progress": False, "ledger": False}
    found = backtest_seeds(
        strategies, panel, PLAN, training=quick, seeds=2, run_dir=tmp_path, workers=workers,
        **options,
    )  # fmt: skip
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


def test_an_interrupted_ensemble_resumes_with_the_seeds_that_are_left(panel, tmp_path):
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
            if float(torch.rand(())) > 0.7:
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
