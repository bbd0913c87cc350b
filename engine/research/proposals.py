"""What a search proposes for a slot: distinct configurations, from the seed and the slot.

Optuna's tree-structured Parzen estimator draws each value from the trials that have ended. Of
several processes each has other random numbers, as no two have the same slot, and what is known
already, or is being tried for an earlier slot, is drawn again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna import distributions
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from engine.research.search_settings import Search

DRAWS = 10  # at most; where all are known, the last one is a duplicate


def propose(search: Search, trial: Trial, slot: int) -> dict[str, Any]:
    """The values of the ranges for a trial; they are stored with it."""
    study = trial.study
    known = [
        each.params
        for each in study.get_trials(deepcopy=False)
        if each.params and each.user_attrs.get("slot") != slot
        and (each.state.is_finished() or each.user_attrs.get("slot", slot) < slot)
        and each.state != TrialState.WAITING
    ]  # fmt: skip
    for draw in range(DRAWS):
        seed = np.random.SeedSequence((search.seed, slot, draw)).generate_state(1)[0]
        sampler = TPESampler(seed=int(seed), constant_liar=True)
        chosen = search.propose(_Draw(study, trial, sampler))
        if chosen not in known:
            break
    study.sampler = _Given(chosen)
    return search.propose(trial)


class _Draw:
    """Draws values as a ``Trial`` does, and stores none."""

    def __init__(self, study: Study, trial: Trial, sampler: BaseSampler):
        self.study, self.sampler = study, sampler
        self.frozen = study._storage.get_trial(trial._trial_id)

    def _draw(self, name: str, range_: distributions.BaseDistribution) -> Any:
        return self.sampler.sample_independent(self.study, self.frozen, name, range_)

    def suggest_categorical(self, name: str, choices: tuple) -> Any:
        return self._draw(name, distributions.CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> int:
        return int(self._draw(name, distributions.IntDistribution(low, high, **how)))

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> float:
        return float(self._draw(name, distributions.FloatDistribution(low, high, **how)))


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
