"""Wrappers of learned strategies: before training, and with parameters from elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import LearnedStrategy, Strategy, learned_inside
from strategies.contract_types import Inputs
from strategies.parameter_ranges import shown_parameters
from strategies.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import nn

LIMITS = ("cap", "constraints", "fallback", "target")  # may be others than in pretraining


class Pretrained(LearnedStrategy, Wrapper):  # type: ignore[misc]  # both have a fit
    """A learned strategy that starts from parameters pretrained on several markets.

    Each refit trains on from there, as far as its validation supports it; inside `Untrained` the
    pretrained parameters decide as they are. Scalers, and the target of an exposure, are taken from
    the training rows of each refit. A fold that decides before what the state has seen ends is
    refused.

    Args:
        strategy: the learned one that was pretrained, with the same parameters; its limits and
            target may be others.
        state: the file of ``engine.pretrain``.
    """

    def __init__(self, strategy: LearnedStrategy, state: str):
        self.strategy = strategy
        self.state = state

    @property
    def knows_holdings(self) -> bool:  # type: ignore[override]
        return self.strategy.knows_holdings

    @property
    def learned_until(self) -> pd.Timestamp:  # type: ignore[override]
        return pd.Timestamp(self._about()["until"])

    @property
    def state_hash(self) -> str:
        """sha256 of the state's file."""
        return hashlib.sha256(self._content()).hexdigest()

    def check_parameters(self) -> None:
        """Refuse another strategy, or other parameters, than those that were pretrained."""
        super().check_parameters()
        if not isinstance(self.strategy, LearnedStrategy):
            raise ValueError(f"Pretrained is for a learned strategy, got {self.strategy!r}")
        kept, own = self._about()["strategy"], shown_parameters(self.strategy)
        for name in [name for name in {**kept, **own} if name not in LIMITS]:
            if kept.get(name) != own.get(name):
                raise ValueError(
                    f"{self.state} was pretrained with {name} = {kept.get(name)}, and the strategy "
                    f"here has {own.get(name)}: give it the same, or pretrain again"
                )

    def broken_limits(
        self, weights: pd.Series, history: Panel, holdings: pd.Series
    ) -> Sequence[str]:
        return self.strategy.broken_limits(weights, history, holdings)

    @property
    def feature_names(self) -> Any:
        return getattr(self.strategy, "feature_names", {})

    def prepare(self, history: Panel) -> Inputs:
        """The strategy's inputs.

        Raises:
            ValueError: the panel is of another calendar, or gives other features, than those that
                the state was pretrained on.
        """
        if not hasattr(self, "_fits"):
            about, names = self._about(), self.feature_names
            own = {"rows a year": history.periods_per_year}
            own |= {"features": names(history)} if callable(names) else {}
            for name, value in own.items():
                if about[name] != value:
                    raise ValueError(
                        f"{self.state} was pretrained on {name}: {about[name]}, and this panel has "
                        f"{value}: pretrain on panels like this one"
                    )
            self._fits = True
        return self.strategy.prepare(history)

    def build(self, inputs: Inputs) -> nn.Module:
        import torch
        from safetensors.torch import load

        self._about()  # of a whole file
        module, state = self.strategy.build(inputs), load(self._content())
        own = dict(module.named_parameters())
        shapes = [{k: tuple(v.shape) for k, v in each.items()} for each in (state, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{self.state} was pretrained for another network: its parameters are {shapes[0]}, "
                f"and those here {shapes[1]}"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])
        return module

    def _about(self) -> dict[str, Any]:
        content = self._content()
        try:
            end = 8 + int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8:end])["__metadata__"]["about"])
            whole = hashlib.sha256(content[end:]).hexdigest() == about["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.state} is no state of engine.pretrain") from error
        if not whole:
            raise ValueError(f"{self.state} is damaged: pretrain again, or take another copy")
        return about

    def _content(self) -> bytes:
        if not isinstance(self.state, str | Path):
            raise ValueError(f"state is the name of a file of engine.pretrain, got {self.state!r}")
        try:
            return Path(self.state).read_bytes()
        except OSError as error:
            raise ValueError(
                f"the pretrained state {self.state} cannot be read: {error.strerror}"
            ) from error


class Untrained(Wrapper):
    """What a learned strategy decides untrained: what its training has to be compared with.

    Built on the training rows of each refit, like the strategy itself, with no step of training.
    The report shows the difference between the two, where both are among the results.

    Args:
        strategy: a learned one, or a wrapper around one.
    """

    trains = False

    def __init__(self, strategy: Strategy):
        self.strategy = strategy

    def check_parameters(self) -> None:
        super().check_parameters()
        if learned_inside(self.strategy) is None:
            raise ValueError(
                f"Untrained is for a strategy that is trained, and {self.strategy.shown_name()} is "
                "not: compare with the strategy itself"
            )

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        answer = self.answer("strategy", history, holdings.to_numpy(np.float64))
        return pd.Series(answer, history.assets)
