"""A strategy against a benchmark or factors: active return, regression, capture.

The conventions are those of ``accounting.performance``; ``benchmark`` has the dates of
``returns``, and the active return of a period is r - b. Regressions are of excess returns on excess
returns (the capital asset pricing model); in r - b the risk-free return cancels, and capture is of
the returns themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from engine.accounting.performance import ROUNDING, annual_return, constant, volatility


def regression(values: np.ndarray, regressors: np.ndarray) -> Any:
    """Least squares of ``values`` (T,) on 1 and ``regressors`` (T, K), by statsmodels.

    The standard errors are robust to changing variance and autocorrelation (HAC): Bartlett
    kernel with floor(4 (T / 100) ** (2 / 9)) lags, times T / (T - K - 1). None where the
    regressors do not determine the coefficients.

    Source: Newey and West (1987), equation 5; the lags by their rule of 1994.
    """
    from statsmodels.regression.linear_model import OLS

    rows = len(values)
    design = np.column_stack([np.ones(rows), regressors])
    size = np.abs(design).max(axis=0)
    if rows <= design.shape[1] or not size.all():
        return None
    if np.linalg.matrix_rank(design / size, tol=ROUNDING * rows) < design.shape[1]:
        return None
    return OLS(values, design).fit(
        cov_type="HAC", cov_kwds={"maxlags": None, "use_correction": True}
    )


def on_benchmark(returns: pd.Series, benchmark: pd.Series) -> Any:
    """``regression`` of excess returns on the benchmark's; None where these are constant."""
    if constant(benchmark):
        return None
    return regression(returns.to_numpy(dtype=float), benchmark.to_numpy(dtype=float))


def active_return(returns: pd.Series, benchmark: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` less that of the benchmark, a fraction."""
    return annual_return(returns, periods_per_year) - annual_return(benchmark, periods_per_year)


def tracking_error(returns: pd.Series, benchmark: pd.Series, periods_per_year: float) -> float:
    """Annual standard deviation (ddof 1) of r - b, a fraction: std(r - b) * sqrt(P).

    Source: Grinold and Kahn (2000), Active Portfolio Management, chapter 3.
    """
    return volatility(returns - benchmark, periods_per_year)


def beta(fit: Any) -> float:
    """Slope of excess returns on the benchmark's: cov(r, b) / var(b); from three periods on."""
    return float(fit.params[1])


def beta_standard_error(fit: Any) -> float:
    """Standard error of ``beta``, robust to heteroskedasticity and autocorrelation (HAC).

    Source: Newey and West (1987), lags by their rule of 1994.
    """
    return float(fit.bse[1])


def alpha(fit: Any, periods_per_year: float) -> float:
    """Annual intercept of excess returns on the benchmark's, a fraction: (mean r - beta mean b) P.

    Source: Jensen (1968), The Performance of Mutual Funds; as in quantstats not compounded, so
    that its standard error is that of a sum. empyrical compounds it: (1 + alpha / P)^P - 1.
    """
    return float(fit.params[0] * periods_per_year)


def alpha_standard_error(fit: Any, periods_per_year: float) -> float:
    """Standard error of ``alpha``, in its unit, as that of ``beta``."""
    return float(fit.bse[0] * periods_per_year)


def r_squared(fit: Any) -> float:
    """Share of the variance that the benchmark explains: squared correlation with it."""
    return np.nan if constant(fit.model.endog) else float(fit.rsquared)


def treynor(fit: Any, periods_per_year: float) -> float:
    """Annual mean excess return over ``beta``, a fraction; NaN where beta is 0.

    Source: Treynor (1965), How to Rate Management of Investment Funds. quantstats divides the
    return over the whole history by beta, which grows with its length.
    """
    mean, slope = fit.model.endog.mean(), beta(fit)
    return float(mean * periods_per_year / slope) if abs(slope) > ROUNDING else np.nan


def up_capture(returns: pd.Series, benchmark: pd.Series) -> float:
    """Geometric mean return over the benchmark's, in the periods in which the benchmark rose.

    A fraction: 0.8 gains 80% of what the benchmark gains. Source: Bacon (2008), section 3.
    empyrical compounds both means to a year before it divides, which drives the ratio from 1.
    """
    return _capture(returns, benchmark, benchmark > 0)


def down_capture(returns: pd.Series, benchmark: pd.Series) -> float:
    """Geometric mean return over the benchmark's, in the periods in which the benchmark fell.

    A fraction: 0.8 loses 80% of what the benchmark loses. Source: Bacon (2008), section 3.
    empyrical compounds both means to a year first, as for the up capture.
    """
    return _capture(returns, benchmark, benchmark < 0)


def _capture(returns: pd.Series, benchmark: pd.Series, when: pd.Series) -> float:
    ours, theirs = (annual_return(line[when], 1) for line in (returns, benchmark))
    return ours / theirs if theirs else np.nan


def hit_rate(returns: pd.Series, benchmark: pd.Series) -> float:
    """Share of the periods in which r > b among those in which they differ, a fraction."""
    active = (returns - benchmark)[(returns - benchmark).abs() > 1e-15]
    return float((active > 0).mean()) if len(active) else np.nan


def factor_regression(
    returns: pd.Series, factors: pd.DataFrame, periods_per_year: float
) -> pd.DataFrame:
    """Least squares of excess returns on factors (T, K) of the same periods, HAC errors.

    Factors should be returns in excess, too, or of long-short portfolios, as published ones are.

    Returns:
        One row for "alpha" (annual, a fraction) and one per factor: coefficient, error, t, p
        (two-sided, normal), and r_squared, the same in every row. Empty where the common
        dates do not determine the coefficients.

    Source: Newey and West (1987); Fama and French (1993) for the use.
    """
    known = factors.reindex(returns.index).dropna()
    values = returns[known.index].to_numpy(dtype=float)
    fit = regression(values, known.to_numpy(dtype=float)) if len(known) else None
    if fit is None:
        return pd.DataFrame(columns=["coefficient", "error", "t", "p", "r_squared"], dtype=float)
    unit = np.r_[periods_per_year, np.ones(known.shape[1])]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(fit.bse > 0, fit.params / fit.bse, np.nan)
    return pd.DataFrame(
        {
            "coefficient": fit.params * unit,
            "error": fit.bse * unit,
            "t": t,
            "p": 2 * norm.sf(np.abs(t)),
            "r_squared": fit.rsquared,
        },
        index=pd.Index(["alpha", *map(str, known.columns)], name="factor"),
    )
