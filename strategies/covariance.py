"""Trailing covariance of the assets that trade: dense, or in factor form for large universes;
and recent returns, for the volatility of a portfolio in the next rows."""

from __future__ import annotations

import numpy as np

from data_loaders import Panel
from data_loaders.machine import check_room
from data_loaders.suggestions import did_you_mean

SQUARES = 6  # at least, of N x N numbers, that a decision holds at once; 13 were measured
SMALLER = (
    "hold fewer assets, or take a rule without a covariance, like InverseVolatility, or a network "
    'with risk = "factor"'
)
FORMS = ("auto", "covariance", "factor", "cleaned")
MANY = 250  # assets, beyond which "auto" is "factor"
HALF_LIFE = 15.0  # rows, of the weights of recent returns
LEAST = 1e-10  # eigenvalues below are zero: those of more assets than rows
WINDOW = 8  # half-lives of returns that are looked at: the rest has 0.4% of the weight


def prepared_risk(history: Panel, form: str, factors: int) -> dict[str, np.ndarray]:
    """The risk in a form named in ``FORMS``: ``covariance``, or ``loadings`` and ``specific``, or
    what `correlation_parts` gives.

    "auto" goes by the assets of the panel, not by those that trade: it is the same on all dates.

    Raises:
        ValueError: an unknown form, or a number of factors that is not a whole one from 1 on.
    """
    if form == "auto":
        form = "factor" if len(history.assets) > MANY else "covariance"
    if form == "covariance":
        return {"covariance": shrunk_covariance(history)}
    if form == "cleaned":
        return correlation_parts(history)
    if form != "factor":
        hint = did_you_mean(form, FORMS)
        raise ValueError(f"risk must be one of {list(FORMS)}, got {form!r}{hint}")
    loadings, specific = factor_risk(history, factors)
    return {"loadings": loadings, "specific": specific}


def shrunk_covariance(history: Panel, kept: np.ndarray | None = None) -> np.ndarray:
    """Ledoit-Wolf covariance (N, N) of the returns in ``history``, over its mean variance.

    The scale is free in a mean-variance problem without expected returns; with them, they
    are in units of that variance. An asset that misses a price in ``history`` gets variance
    1 and no covariance: its bounds must hold it at zero. Ledoit & Wolf (2004). As scikit-learn's,
    which takes several times as long, most of it to check its arguments on every date anew.

    Args:
        kept: (N,) bool, assets that are held although they miss prices: they have a variance, of
            returns that are zero where there was no price.

    Raises:
        ValueError: no price moves in ``history``, or the matrix and what is computed from it would
            not fit in memory.
    """
    count = len(history.assets)
    check_room(f"a covariance of {count:,} assets", count, count, tables=SQUARES, remedy=SMALLER)
    trades = history.trades_throughout.to_numpy()
    trades = trades if kept is None else trades | kept
    covariance = np.eye(len(trades))
    if trades.any():
        returns = _scaled_returns(history, trades)
        sample = returns.T @ returns  # (n, n), n that trade
        mean = _positive(sample.trace() / len(sample), history)  # the mean variance
        shrink = ledoit_wolf_intensity((returns**2).sum(axis=1), (sample**2).sum(), len(sample))
        part = (1 - shrink) / mean * sample
        part[np.diag_indices_from(part)] += shrink
        covariance[np.ix_(trades, trades)] = part
    return covariance


def factor_risk(history: Panel, factors: int) -> tuple[np.ndarray, np.ndarray]:
    """The same in factor form: loadings F (N, K) and specific variances d (N,).

    F F' + diag(d) has the diagonal of `shrunk_covariance`, and of the rest the part that the K
    largest principal components of the returns explain; all of it, and so the same matrix, once
    K reaches their rank. With S the sample covariance over its mean variance, F0 its components
    (each by the root of its eigenvalue) and a the intensity of Ledoit & Wolf,

        F = sqrt(1 - a) F0,    d = (1 - a) (diag(S) - diag(F0 F0')) + a.

    No N x N matrix is formed: components and intensity come from the Gram matrix (L - 1, L - 1) of
    the returns, in O(L^2 N) time and O(L N) memory. K is ``factors``, or N where that is less;
    components that the returns do not have are zero.
    """
    if not (isinstance(factors, int) and factors >= 1):
        raise ValueError(f"factors is a whole number from 1 on, got {factors!r}")
    trades = history.trades_throughout.to_numpy()
    loadings = np.zeros((len(trades), min(factors, len(trades))))
    specific = np.ones(len(trades))
    if trades.any():
        returns = _scaled_returns(history, trades)
        count = returns.shape[1]
        gram = returns @ returns.T  # (R, R), of the eigenvalues of S
        mean = _positive(gram.trace() / count, history)  # the mean variance
        _, vectors = np.linalg.eigh(gram)
        found = (returns.T @ vectors[:, ::-1][:, : loadings.shape[1]]) / np.sqrt(mean)  # (n, <= K)
        squared = np.square(returns, out=returns)  # in its place: it was the copy of the window
        left = squared.sum(axis=0) / mean - (found**2).sum(axis=1)
        shrink = ledoit_wolf_intensity(gram.diagonal(), (gram**2).sum(), count)
        loadings[trades, : found.shape[1]] = np.sqrt(1 - shrink) * found
        specific[trades] = (1 - shrink) * np.maximum(left, 0.0) + shrink  # rounding, not below 0
    return loadings, specific


def correlation_parts(history: Panel) -> dict[str, np.ndarray]:
    """What a covariance is made of whose correlations are cleaned, see ``EigenvalueCleaning``.

    ``eigenvalues`` (N,) and ``eigenvectors`` (N, N) of the sample correlation of the returns in
    ``history``, the ``intensity`` () of Ledoit & Wolf for it, and ``deviations`` (N,), whose
    squares have the mean 1. An asset that misses a price has a deviation of 1, and no correlation.

    Raises:
        ValueError: no price moves in ``history``.
    """
    trades = history.trades_throughout.to_numpy()
    values, vectors = np.ones(len(trades)), np.eye(len(trades))
    deviations, intensity = np.ones(len(trades)), np.zeros(())
    if trades.any():
        returns = _scaled_returns(history, trades)
        moves = np.sqrt((returns**2).sum(axis=0))
        deviations[trades] = moves / np.sqrt(_positive((moves**2).mean(), history))
        returns /= np.where(moves > 0, moves, 1.0)
        sample = returns.T @ returns
        found, vectors[np.ix_(trades, trades)] = np.linalg.eigh(sample)
        values[trades] = np.where(found > LEAST, found, 0.0)
        lengths, squares = (returns**2).sum(axis=1), (sample**2).sum()
        intensity = np.array(ledoit_wolf_intensity(lengths, squares, len(sample)))
    return {
        "eigenvalues": values,
        "eigenvectors": vectors,
        "intensity": intensity,
        "deviations": deviations,
    }


def recent_returns(history: Panel, half_life: float = HALF_LIFE) -> np.ndarray:
    """Returns X (R, N) with exponential weights: |X w| is the volatility a year of weights w.

    Squares have weights that halve in ``half_life`` rows, and sum to the rows of a year. Where an
    asset has no price its return is zero.
    """
    rows = max(1, min(int(WINDOW * half_life), len(history) - 1))
    returns = np.nan_to_num(history.last(rows).returns.to_numpy())
    decay = 0.5 ** (np.arange(rows)[::-1] / half_life)
    return np.sqrt(decay / decay.sum() * history.periods_per_year)[:, None] * returns


def recent_risk(history: Panel, factors: int | None = None) -> dict[str, np.ndarray]:
    """``recent`` (M, N), M at most R and N, with the X'X of `recent_returns`.

    Args:
        factors: how many principal components to keep, (K, N); with them ``recent_specific`` (N,)
            is what they leave of the diagonal of X'X.
    """
    recent = recent_returns(history)
    if factors is None:
        rows, assets = recent.shape
        return {"recent": np.asarray(np.linalg.qr(recent, mode="r")) if assets < rows else recent}
    _, vectors = np.linalg.eigh(recent @ recent.T)
    found = vectors[:, ::-1][:, :factors].T @ recent
    specific = np.maximum((recent**2).sum(axis=0) - (found**2).sum(axis=0), 0.0)
    return {"recent": found, "recent_specific": specific}


def _positive(variance: float, history: Panel) -> float:
    """The mean variance, or a ValueError: without any, there is no risk to weigh."""
    if not variance > 0:
        raise ValueError(
            f"no price moved in the {len(history)} rows to {history.dates[-1].date()}, so that "
            "there is no risk to weigh"
        )
    return variance


def _scaled_returns(history: Panel, trades: np.ndarray) -> np.ndarray:
    """Returns X (R, n) of the assets that trade, centred and over sqrt(R): X'X is their sample
    covariance."""
    returns = history.returns.to_numpy()[1:, trades]  # a copy, and the only one of the window
    if (gaps := np.isnan(returns).any(axis=0)).any():  # the first after a gap spans it
        prices = history.prices.ffill().to_numpy()[:, np.flatnonzero(trades)[gaps]]
        returns[:, gaps] = np.nan_to_num(prices[1:] / prices[:-1] - 1)
    returns -= returns.mean(axis=0)
    returns /= np.sqrt(len(returns))
    return returns


def ledoit_wolf_intensity(lengths: np.ndarray, squares: float, count: int) -> float:
    """How far Ledoit & Wolf (2004, eq. 14) shrink towards the mean variance, from 0 to 1.

    Every sum over pairs of assets in it is one over pairs of rows: the squared entries of X'X sum
    to those of X X', and those of ``sum_t R x_ti^2 x_tj^2`` to the squared lengths of rows.

    Args:
        lengths: (R,) squared lengths of the rows of X, see ``_scaled_returns``.
        squares: sum of the squared entries of X'X, or of X X'.
        count: n, the columns of X.
    """
    if count == 1:
        return 0.0
    rows, trace = len(lengths), lengths.sum()
    error = ((lengths**2).sum() * rows - squares) / rows
    distance = squares - trace**2 / count
    return float(min(error, distance) / distance) if error > 0 else 0.0
