"""Prepared inputs: each date once, batches of consecutive dates without a copy, nothing shared by
mistake."""

import numpy as np
import pytest
import torch
from markets import random_walks

from engine import Costs, Training, WalkForward
from engine.walking.learner import InputCache, Learner
from strategies import DEQMeanVariance
from strategies.contract_types import stack


def of_row(row: int) -> dict[str, torch.Tensor]:
    return {"x": torch.full((3, 2), float(row)), "trades": torch.tensor([row % 2 == 0] * 3)}


@pytest.fixture
def made() -> list[int]:
    return []


@pytest.fixture
def prepared(made) -> InputCache:
    def make(row: int) -> dict[str, torch.Tensor]:
        made.append(row)
        return of_row(row)

    return InputCache("A", np.array([3, 8, 13, 18, 23]), make)


@pytest.mark.parametrize("rows", [[8], [3, 8, 13], [13, 18, 23], [3, 13], [23, 3], [8, 8]])
def test_a_batch_is_the_dates_stacked(prepared, rows):
    found, wanted = prepared(np.array(rows)), stack([of_row(row) for row in rows])
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert torch.equal(found[name], values)
        assert found[name].dtype == values.dtype
        assert found[name].is_contiguous()


def test_each_date_is_prepared_once_and_only_if_asked_for(prepared, made):
    prepared(np.array([8, 13]))
    prepared(np.array([13, 18]))
    assert made == [8, 13, 18]


def test_consecutive_dates_are_not_copied(prepared):
    """Neither those of one batch, nor of one that overlaps it."""
    first, second = prepared(np.array([3, 8, 13]))["x"], prepared(np.array([8, 13, 18]))["x"]
    assert first[1].data_ptr() == second[0].data_ptr()


def test_who_writes_to_a_batch_changes_nobody_elses(prepared, made):
    mine = prepared(np.array([3, 8, 13]))["x"]
    mine.add_(100)
    again = prepared(np.array([8, 13, 18]))["x"]
    assert torch.equal(again[:, 0, 0], torch.tensor([8.0, 13.0, 18.0]))
    assert torch.equal(mine[:, 0, 0], torch.tensor([103.0, 108.0, 113.0]))
    assert made == [3, 8, 13, 8, 13, 18]


def test_inputs_that_change_their_shape_are_named():
    def make(row: int) -> dict[str, torch.Tensor]:
        return {"x": torch.zeros(row)}

    said = r"A\.prepare\(\) should give .* got \{'x': \(2,\)\} after \{'x': \(1,\)\}"
    with pytest.raises(ValueError, match=said):
        InputCache("A", np.array([1, 2]), make)(np.array([1, 2]))


def test_training_rows_of_overlapping_folds_lie_in_one_place():
    panel, plan = random_walks(700, 4), WalkForward(train="1Y", refit="6M", rebalance="W-FRI")
    strategy = DEQMeanVariance(lookback=30, cap=0.5)
    folds = plan.folds(panel.dates, strategy.lookback)
    learner = Learner(panel, folds, plan, Costs(), Training(), 1)
    storages = set()
    for fold in folds:
        samples = learner.dataset("A", strategy, fold)
        storages.add(samples.inputs["covariance"].untyped_storage().data_ptr())
        alone = [strategy.prepare(learner.known(int(row), 30)) for row in fold.train]
        assert all(torch.equal(samples.inputs[k], v) for k, v in stack(alone).items())
    assert len(folds) > 2
    assert len(storages) == 1
