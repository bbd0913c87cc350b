"""Expected returns from signals that are believed to predict them, before anything is trained.

A ridge regression on the training rows gives each asset a score; its expected return is

    information coefficient x volatility x score   (Grinold 1994, "Alpha is volatility times IC
                                                    times score")

with the information coefficient as measured on rows that the regression had not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from data_loaders.suggestions import known_names
from strategies.contract_types import Inputs

KNOTS = 199  # quantiles of the training rows, by which a signal is ranked
RIDGE = 0.1  # of the regression, per sample: signals have a variance of one
GROUPS = 5  # of consecutive rows: each but the first is predicted from those before it
FEWEST = 10  # rows in a group, below which nothing is believed
AVERSION = 5.0  # to risk, at the start: as that of PredictThenOptimize
SPEED = 5.0  # the aversion spans decades: its logarithm is learned so many times faster


class SignalForecast(nn.Module):
    """Signals (B, N, S) to expected returns (B, N), in units of the mean variance.

    A signal's values become their ranks among those of the training rows, of all assets and dates
    together, and ranks normal scores; of these the mean over the assets is taken. What is predicted
    are the returns of the holding periods, each over its asset's volatility, likewise relative to
    the mean over the assets. The information coefficient is shrunk by its standard error; where it
    is below that, nothing is expected. Only the aversion to risk is trained.

    Args:
        inputs: of the training rows, with ``signals`` (R, N, S), NaN where one is not known, and
            ``growth`` (R, N) of prices over the holding periods. Of one row, without growth: a
            module into which a state is loaded.
        pairs: whether each asset is predicted from the signals of all assets, by coefficients of
            its own; otherwise from its own ones, by the same coefficients for all.
    """

    knots: Tensor
    coefficients: Tensor

    def __init__(self, inputs: Inputs, pairs: bool):
        super().__init__()
        signals, trades = inputs["signals"], inputs["trades"]
        rows, assets, count = signals.shape
        self.log_aversion = nn.Parameter(torch.zeros(()))  # over the start, divided by SPEED
        shape = (assets * count, assets) if pairs else (count,)
        self.register_buffer("knots", torch.zeros(count, KNOTS, dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(shape, dtype=torch.float64))
        if "growth" not in inputs and rows == 1:
            return
        seen = signals[trades]  # (M, S)
        at = torch.arange(1, KNOTS + 1, dtype=torch.float64) / (KNOTS + 1)
        if len(seen):
            self.knots = torch.stack([_quantiles(values, at) for values in seen.T])
        scores = self.scores(signals, trades)
        volatility = relative_volatility(inputs)
        known = trades & inputs["growth"].isfinite()
        earned = torch.where(known, (inputs["growth"] - 1) / volatility, 0.0)
        unit = (earned.square().sum() / known.sum().clamp_min(1)).sqrt().clamp_min(1e-12)
        label = _centred(earned / unit, known)
        believed = believed_correlation(scores, label, pairs)
        if believed:
            slopes = ridge(scores, label, pairs)
            spread = _predicted(scores, slopes).square().mean().sqrt()
            self.coefficients = slopes * (believed / spread / unit)

    def forward(self, inputs: Inputs) -> Tensor:
        scores = self.scores(inputs["signals"], inputs["trades"])
        expected = _predicted(scores, self.coefficients) * relative_volatility(inputs)
        return expected / (AVERSION * (SPEED * self.log_aversion).exp())

    def scores(self, signals: Tensor, trades: Tensor) -> Tensor:
        """Normal scores (B, N, S) less their mean over the assets, 0 where a signal is unknown."""
        known = trades.unsqueeze(-1) & ~signals.isnan()
        values = signals.movedim(-1, 0).flatten(1).nan_to_num()  # (S, B N)
        below = torch.searchsorted(self.knots, values.contiguous())
        upto = torch.searchsorted(self.knots, values.contiguous(), right=True)
        rank = (below + upto + 1).double() / (2 * (KNOTS + 1))  # in the middle, of equal values
        scores = torch.special.ndtri(rank).reshape(-1, *signals.shape[:2]).movedim(0, -1)
        return _centred(torch.where(known, scores, 0.0), known)


def ridge(scores: Tensor, label: Tensor, pairs: bool) -> Tensor:
    """Slopes (S,) of all assets, or (N S, N) of each, from scores (R, N, S) and labels (R, N)."""
    x = scores.flatten(1) if pairs else scores.flatten(0, 1)
    y = label if pairs else label.flatten()
    gram = x.T @ x / len(x)
    gram.diagonal().add_(RIDGE)
    return torch.linalg.solve(gram, x.T @ y / len(x))


def believed_correlation(scores: Tensor, label: Tensor, pairs: bool) -> float:
    """The correlation of predictions and labels on rows after those of the regression, shrunk.

    From c and its standard error e it is ``c (1 - (e / c)^2)``, and 0 where c is below e: the
    positive-part estimator of James & Stein (1961).
    """
    groups = torch.arange(len(label)).tensor_split(GROUPS)
    if len(groups[0]) < FEWEST:
        return 0.0
    found = []
    for rows in groups[1:]:
        first = int(rows[0])
        slopes = ridge(scores[:first], label[:first], pairs)
        found.append(_predicted(scores[rows], slopes))
    predicted, label = torch.cat(found), label[int(groups[1][0]) :]
    size = (predicted.square().mean() * label.square().mean()).sqrt()
    if not size > 0:
        return 0.0
    products = (predicted * label).mean(1) / size  # (R,)
    mean, error = float(products.mean()), float(products.std()) / math.sqrt(len(products))
    return mean * (1 - (error / mean) ** 2) if mean > error else 0.0


def signals_of(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The columns (N, S) of a table of features.

    Raises:
        ValueError: it has no such column, or the names are one text.
    """
    if not isinstance(names, list | tuple) or len(set(names)) < len(names):
        raise ValueError(f"signals is a list of names of features, each once; got {names!r}")
    for name in names:
        if name not in table:
            raise ValueError(f"signals: no feature {name!r}{known_names(name, table)}")
    return table[list(names)].to_numpy(np.float64, copy=True)  # a tensor may be written to


def relative_volatility(inputs: Inputs) -> Tensor:
    """Of each asset (B, N): the root of its variance over the mean variance."""
    if "loadings" in inputs:
        return (inputs["loadings"].square().sum(-1) + inputs["specific"]).sqrt()
    return inputs["covariance"].diagonal(dim1=-2, dim2=-1).sqrt()


def _predicted(scores: Tensor, slopes: Tensor) -> Tensor:
    """(B, N) of scores (B, N, S)."""
    return scores @ slopes if slopes.ndim == 1 else scores.flatten(1) @ slopes


def _centred(values: Tensor, known: Tensor) -> Tensor:
    """Values (B, N, ...) less their mean over the assets that are known, and 0 for the others."""
    mean = (values * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    return torch.where(known, values - mean, 0.0)


def _quantiles(values: Tensor, at: Tensor) -> Tensor:
    known = values[~values.isnan()].sort().values  # torch.quantile refuses more than 16 million
    if not len(known):
        return torch.zeros_like(at)
    return known[(at * len(known)).long().clamp_max(len(known) - 1)].double()
