"""The share of training that the validation blocks support, each part from its formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learned import Tilt, samples

from engine import Costs, NegativeSharpe, Training, train
from engine.accounting.costs import Account
from engine.training.dataset import Dataset
from engine.training.evidence import (
    Compared,
    between,
    evidence,
    jackknife_error,
    positive_part,
)

FREE = Costs(0.0)
FAST = Training(epochs=12, learning_rate=0.05, weight_decay=0.0)


def account(returns):
    net = torch.as_tensor(returns)
    empty = torch.zeros_like(net)
    return Account(net, net, empty, empty, net[:, None], net[:, None])


@pytest.mark.parametrize(
    ("gain", "error", "share"),
    [(0.2, 0.1, 0.75), (0.1, 0.1, 0.0), (0.05, 0.1, 0.0), (-0.5, 0.1, 0.0), (0.3, 0.0, 1.0),
     (float("nan"), 0.1, 0.0), (0.3, float("nan"), 0.0)],
)  # fmt: skip
def test_a_gain_below_its_standard_error_moves_nothing(gain, error, share):
    assert positive_part(gain, error) == pytest.approx(share)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    error = jackknife_error(lambda rows: values[rows].mean(), np.arange(400))
    means = values.reshape(20, 20).mean(axis=1)  # groups of equal length: in closed form
    assert error == pytest.approx(means.std(ddof=1) / np.sqrt(20), rel=1e-9)


def test_evidence_is_of_all_blocks_together():
    rng = np.random.default_rng(1)
    one, two = rng.normal(0.001, 0.01, (2, 90))
    loss = NegativeSharpe()
    parts = [[account(x[a:b]) for a, b in ((0, 40), (40, 90))] for x in (one, two)]
    blocks = [Compared(lambda each: loss(each, 52.0), *pair) for pair in zip(*parts, strict=True)]
    found = evidence(blocks)
    ratio = [np.sqrt(52) * x.mean() / x.std(ddof=1) for x in (one, two)]
    assert found.gain == pytest.approx(ratio[1] - ratio[0], rel=1e-6)
    assert found.share == positive_part(found.gain, found.error)


def test_states_between_two():
    start, end = ({"a": torch.tensor([x]), "n": torch.tensor(7)} for x in (0.1, 0.9))
    assert between(start, end, 0.0) == start
    assert torch.equal(between(start, end, 1.0)["a"], end["a"])
    assert between(start, end, 0.25)["a"].item() == pytest.approx(0.3)


def test_what_is_kept_lies_between_the_untrained_and_the_best_state():
    whole, part = Tilt(), Tilt()
    given = samples(signal=0.004)
    plain = train(whole, given, FREE, replace(FAST, validation_blocks=1)).history
    trained = train(part, given, FREE, FAST)
    found = trained.history
    share, gain, error = (
        found[name].iloc[-1] for name in ("share", "validation_gain", "validation_error")
    )
    assert (plain["share"] == 1).all()
    assert 0.05 < share < 0.95
    assert share == pytest.approx(1 - (error / gain) ** 2)
    at_best = trained.best_state["strength"].item()
    assert at_best > 0
    assert part.module_.strength.item() == pytest.approx(share * at_best, rel=1e-12)  # from zero


def test_without_a_signal_nothing_is_learned_and_with_one_nearly_all():
    shares = {
        signal: [
            train(Tilt(), samples(signal=signal, seed=seed), FREE, FAST).history["share"].iloc[-1]
            for seed in range(8)
        ]
        for signal in (0.0, 0.02)
    }
    assert np.mean(shares[0.0]) < 0.2
    assert sum(share == 0 for share in shares[0.0]) >= 5
    assert min(shares[0.02]) > 0.9


def test_blocks_are_in_order_and_end_where_the_next_begins():
    given = samples(rows=100)
    cuts = [given.split(0.2, before) for before in (2, 1, 0)]
    assert [cut for _, cut in cuts] == [40, 60, 80]
    assert all(given.ends[last - 1] <= given.rows[cut] for last, cut in cuts)


def test_a_loss_in_the_last_block_alone_stops_nothing_that_the_others_confirm():
    given = samples()
    growth = given.growth.clone()
    growth[295:] = 2 - growth[295:]
    turned = Dataset(given.inputs, growth, given.rows, given.ends, given.per_year)
    strategy = Tilt()
    history = train(strategy, turned, FREE, FAST).history
    assert history["share"].iloc[-1] > 0.5
    assert strategy.module_.strength.item() > 0


def test_untrained_is_a_training_of_no_epochs():
    strategy = Tilt()
    history = train(strategy, samples(), FREE, Training(epochs=0)).history
    assert history["epoch"].tolist() == [0]
    assert history["share"].iloc[0] == 0
    assert strategy.module_.strength.item() == 0


def test_markets_that_move_together_are_no_more_evidence_than_one():
    rng = np.random.default_rng(2)
    one, two = rng.normal(0.001, 0.01, (2, 120))
    loss = NegativeSharpe()
    market = Compared(lambda each: loss(each, 52.0), account(one), account(two))
    alone = evidence([market], pooled=True)
    assert evidence([market] * 3, pooled=True) == pytest.approx(alone)
    assert alone == pytest.approx(evidence([market]))  # groups of equal length
    turned = Compared(market.loss, market.trained, market.untrained)
    assert evidence([market, turned], pooled=True) == (0.0, 0.0, 0.0)
