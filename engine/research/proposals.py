"""What a search proposes for a slot: distinct configurations, from the seed and the slot.

Optuna's tree-structured Parzen estimator draws each value from the trials that have ended. Of
several processes each has other random numbers, as no two have the same slot, and what is known
already, or is being tried for an earlier slot, is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna import distributions
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

DRAWS = 10  # at most; where all are known, the last one is a duplicate


def propose(trial: Trial, slot: int, described: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The values for a trial, within ranges that are described as in ``Search``; stored with it."""
    study = trial.study
    known = [
        each.params
        for each in study.get_trials(deepcopy=False)
        if each.params and each.user_attrs.get("slot") != slot
        and (each.state.is_finished() or each.user_attrs.get("slot", slot) < slot)
        and each.state != TrialState.WAITING
    ]  # fmt: skip
    ranges = {name: _distribution(each) for name, each in described.items()}
    frozen = study._storage.get_trial(trial._trial_id)
    for draw in range(DRAWS):
        own_seed = np.random.SeedSequence((seed, slot, draw)).generate_state(1)[0]
        sampler = TPESampler(seed=int(own_seed), constant_liar=True)
        chosen = {
            name: sampler.sample_independent(study, frozen, name, range_)
            for name, range_ in ranges.items()
        }
        if chosen not in known:
            break
    study.sampler = _Given(chosen)
    return {name: trial._suggest(name, range_) for name, range_ in ranges.items()}


def _distribution(described: Any) -> distributions.BaseDistribution:
    """Of a range of ``Search``: whole numbers where both ends of it are."""
    if not isinstance(described, Mapping):
        return distributions.CategoricalDistribution(tuple(described))
    low, high, step = described["low"], described["high"], described.get("step")
    log = described.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log, step=int(step or 1))
    return distributions.FloatDistribution(low, high, log=log, step=step)


class _Given(BaseSampler):
    """Gives the values that were drawn."""

    def __init__(self, chosen: dict[str, Any]):
        self.chosen = chosen

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict) -> dict:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: Any
    ) -> Any:
        return self.chosen[name]
