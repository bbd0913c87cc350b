"""Networks that look ahead; and every cheat, with the check that catches it."""

import torch
from audited_markets import MARKET
from cheats import (
    BreaksItsCap,
    CentredAverage,
    FitsOnEverything,
    FitsOnNextYear,
    FittedOnTheFuture,
    ForgetsItsParameter,
    HoldsTheDead,
    KnowsTheCrashes,
    KnowsTheWinners,
    LeakyFit,
    Leveraged,
    LikesTheFirst,
    LooksAtFrames,
    LooksAtTheCaller,
    LooksThroughMemory,
    MemoryBehindTheView,
    PriceLevel,
    ReadsAnArray,
    ReadsThePriceFile,
    RecognisesPrices,
    RecognisesReturns,
    RemembersTheLastRun,
    ScaledByTheWholeSample,
    ScalerOnAllData,
    SellsBeforeCrashes,
    Survivors,
    TableOfAnswers,
    TimesTheMarket,
    TomorrowsLow,
    TomorrowsMood,
    TomorrowsVolume,
    UnseededNoise,
    WhoJoinsTheIndex,
    WholePanel,
    WritesPrices,
    WritesReturns,
    whole,
)
from torch import nn

from strategies import LearnedStrategy


class Linear(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.register_buffer("bias", bias)

    def forward(self, inputs):
        score = self.scale * inputs["returns"].sum(dim=1) + self.bias
        return torch.softmax(score.masked_fill(~inputs["tradable"], -1e3), dim=-1)


class BuildCapturesThePanel(LearnedStrategy):
    """Its inputs are honest, and its module holds the mean returns of the whole panel."""

    lookback = 10

    def prepare(self, history):
        self.whole_ = history._whole
        return super().prepare(history)

    def build(self, inputs):
        if not hasattr(self, "whole_"):  # a fresh copy, built to load a state
            return Linear(torch.zeros(inputs["returns"].shape[-1], dtype=torch.float64))
        means = self.whole_.returns.mean().fillna(0.0).to_numpy()
        return Linear(100 * torch.tensor(means))


class LearnsFromTomorrow(LearnedStrategy):
    """One row too many among its features."""

    lookback = 10

    def prepare(self, history):
        inputs = super().prepare(history)
        everything, row = whole(history)
        later = everything.returns.iloc[min(row + 1, len(everything) - 1)].fillna(0.0)
        return inputs | {"returns": inputs["returns"] + torch.tensor(later.to_numpy())}

    def build(self, inputs):
        return Linear(torch.zeros(inputs["returns"].shape[-1], dtype=torch.float64))


class BuildCapturesAGlobal(LearnsFromTomorrow):
    """The market is a global of its module."""

    def prepare(self, history):
        row = int(MARKET.dates.searchsorted(history.dates[-1]))
        later = MARKET.returns.iloc[min(row + 1, len(MARKET) - 1)].fillna(0.0)
        inputs = LearnedStrategy.prepare(self, history)
        return inputs | {"returns": inputs["returns"] + torch.tensor(later.to_numpy())}


FUTURE = "the_future_does_not_matter"
CAPTURED = "no_prices_are_captured"
ENGINE = "the_engine_is_left_alone"
CHEATS = {  # the check that catches it, which fails or, where it begins with "warning:", warns
    MemoryBehindTheView(): FUTURE,
    WholePanel(): FUTURE,
    TimesTheMarket(): FUTURE,
    SellsBeforeCrashes(): FUTURE,
    TomorrowsVolume(): FUTURE,
    TomorrowsMood(): FUTURE,
    Survivors(): FUTURE,
    WhoJoinsTheIndex(): FUTURE,
    ScaledByTheWholeSample(): FUTURE,
    FitsOnEverything(): FUTURE,
    FitsOnNextYear(): FUTURE,
    TomorrowsLow(): FUTURE,
    BuildCapturesThePanel(): FUTURE,
    LearnsFromTomorrow(): FUTURE,
    BuildCapturesAGlobal(): CAPTURED,
    CentredAverage(): CAPTURED,
    RecognisesPrices(): CAPTURED,
    RecognisesReturns(): CAPTURED,
    TableOfAnswers(): CAPTURED,
    ReadsThePriceFile(): CAPTURED,
    ReadsAnArray(): CAPTURED,
    ScalerOnAllData(MARKET.returns): "parameters_are_settings",
    RemembersTheLastRun(): "runs_do_not_remember",
    UnseededNoise(): "runs_do_not_remember",
    LeakyFit(): "folds_do_not_remember",
    PriceLevel(): "the_unit_of_prices_does_not_matter",
    HoldsTheDead(): "weights_are_valid",
    LikesTheFirst(): "permuting_assets_permutes_weights",
    Leveraged(): "weights_are_valid",
    BreaksItsCap(): "its_limits_hold",
    ForgetsItsParameter(): "parameters_round_trip",
    KnowsTheCrashes(): "the_calendar_does_not_matter",
    WritesPrices(): "weights_are_valid",
    WritesReturns(): "weights_are_valid",
    LooksAtTheCaller(): ENGINE,
    LooksAtFrames(): ENGINE,
    LooksThroughMemory(): ENGINE,
    KnowsTheWinners(): "warning: names_do_not_matter",
    FittedOnTheFuture(): "warning: no_models_are_captured",
}
