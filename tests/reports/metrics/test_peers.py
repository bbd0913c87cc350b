"""Metrics against what empyrical-reloaded 0.7.1 and quantstats 0.0.86 gave for the same returns.

Where the definitions agree the numbers agree to 1e-12; where they do not, the peer's number follows
from ours as the definition on the page says.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from engine.accounting import performance
from reports.metrics import catalogue, gains_and_losses, relative

YEAR, STEPS = 252, np.arange(60)
DATES = pd.bdate_range("2020-01-01", periods=60)
RETURNS = pd.Series(0.012 * np.sin(1.7 * STEPS) + 0.008 * np.cos(0.3 * STEPS**2) + 0.001, DATES)
OTHER = pd.Series(0.010 * np.sin(1.7 * STEPS + 0.4) + 0.006 * np.cos(0.9 * STEPS) + 0.0005, DATES)
RISK_FREE = pd.Series(0.0001 + 0.00005 * np.sin(0.2 * STEPS), DATES)
EXCESS, OTHER_EXCESS = RETURNS - RISK_FREE, OTHER - RISK_FREE
FIT = relative.on_benchmark(EXCESS, OTHER_EXCESS)

EMPYRICAL = {  # the risk-free rate as a series
    0.6076462348112872: lambda: performance.annual_return(RETURNS, YEAR),
    0.11967755710017558: lambda: performance.cumulative_return(RETURNS),
    0.1804725423799347: lambda: performance.volatility(RETURNS, YEAR),
    2.5808798015420216: lambda: performance.sharpe(EXCESS, YEAR),
    4.153105261268223: lambda: performance.sortino(EXCESS, YEAR),
    0.11215690142110134: lambda: performance.downside_deviation(EXCESS, YEAR),
    1.4475916060843772: lambda: performance.omega(EXCESS),
    20.925327220806654: lambda: performance.calmar(RETURNS, YEAR),
    -0.029038792483354194: lambda: performance.max_drawdown(RETURNS),
    1.1618277136722797: lambda: gains_and_losses.tail_ratio(RETURNS),
    -0.01607766334123063: lambda: gains_and_losses.value_at_risk(RETURNS),
    -0.017347954088649493: lambda: gains_and_losses.expected_shortfall(RETURNS),
    -0.13859429039787158: lambda: gains_and_losses.skewness(RETURNS),
    0.9447322067757666: lambda: relative.beta(FIT),
    0.6166666666666667: lambda: relative.hit_rate(RETURNS, OTHER),
    # Alpha is compounded to a year there, the information ratio is per period, and capture is of
    # means that are compounded to a year.
    0.42274722727552705: lambda: (1 + relative.alpha(FIT, YEAR) / YEAR) ** YEAR - 1,
    0.16934419447422025: lambda: performance.information_ratio(RETURNS, OTHER, YEAR) / YEAR**0.5,
    1.5589624140106921: lambda: _compounded(OTHER > 0),
    0.9207230001784986: lambda: _compounded(OTHER < 0),
}


def _compounded(when: pd.Series) -> float:
    ours, theirs = (performance.annual_return(line[when], YEAR) for line in (RETURNS, OTHER))
    return ours / theirs


@pytest.mark.parametrize(("value", "ours"), EMPYRICAL.items())
def test_empyrical(value, ours):
    assert ours() == pytest.approx(value, rel=1e-12)


def test_quantstats():
    plain = relative.on_benchmark(RETURNS, OTHER)
    assert performance.sharpe(RETURNS, YEAR) == pytest.approx(2.721849858851551, rel=1e-12)
    assert performance.sortino(RETURNS, YEAR) == pytest.approx(4.417667116727566, rel=1e-12)
    assert performance.omega(RETURNS) == pytest.approx(1.4771064767717634, rel=1e-12)
    assert gains_and_losses.payoff_ratio(RETURNS) == pytest.approx(1.1295520116489957, rel=1e-12)
    assert relative.alpha(plain, YEAR) == pytest.approx(0.3542522113712618, rel=1e-12)
    assert relative.r_squared(plain) == pytest.approx(0.4924049685267301, rel=1e-12)
    # Value at risk and expected shortfall are of a normal distribution there.
    mean, deviation = RETURNS.mean(), RETURNS.std()
    assert norm.ppf(0.05, mean, deviation) == pytest.approx(-0.016750567601493117, rel=1e-12)
    shortfall = mean - deviation * norm.pdf(norm.ppf(0.05)) / 0.05
    assert shortfall == pytest.approx(-0.021501083920263897, rel=1e-12)
    # Treynor is of the whole history, Kelly that of a coin, a drawdown in calendar days.
    treynor = performance.cumulative_return(RETURNS) / relative.beta(plain)
    assert treynor == pytest.approx(0.1266888670871962, rel=1e-12)
    won = gains_and_losses.periods_won(RETURNS)
    kelly = won - (1 - won) / gains_and_losses.payoff_ratio(RETURNS)
    assert kelly == pytest.approx(0.18303374948853302, rel=1e-12)
    longest = gains_and_losses.drawdown_periods(RETURNS).iloc[0]
    assert longest["length"] == gains_and_losses.longest_drawdown(RETURNS) == 15
    assert (longest["end"] - pd.offsets.BDay() - longest["start"]).days + 1 == 18


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("value at risk, 5%", "quantstats shows that of a normal distribution"),
        ("expected shortfall, 5%", "quantstats takes that of a normal distribution"),
        ("Treynor", "quantstats divides the return over the whole history"),
        ("up capture", "empyrical compounds both means to a year"),
        ("growth-optimal leverage", "quantstats shows the stake of a coin"),
        ("longest drawdown", "quantstats counts calendar days"),
        ("information ratio", "quantstats shows it per period, as empyrical does"),
        ("alpha", "empyrical compounds it"),
        ("annual return", "empyrical takes P for 252"),
    ],
)
def test_definitions_say_what_peers_show(name, peer):
    assert peer in catalogue.METRICS[name].definition


def test_a_regression_needs_three_periods():
    """Through (1, 2), (2, 3), (3, 7): beta 5 / 2, mean 4 less 2.5 times 2, R squared by hand."""
    ours, other = RETURNS[:3] * 0 + [0.02, 0.03, 0.07], RETURNS[:3] * 0 + [0.01, 0.02, 0.03]
    fit = relative.on_benchmark(ours, other)
    assert relative.beta(fit) == pytest.approx(2.5)
    assert relative.alpha(fit, 1) == pytest.approx(0.04 - 2.5 * 0.02)
    assert relative.r_squared(fit) == pytest.approx(1 - (0.005**2 * 2 + 0.01**2) / 0.0014)
    assert np.isfinite(
        [relative.beta_standard_error(fit), relative.alpha_standard_error(fit, 1)]
    ).all()
    assert relative.on_benchmark(ours[:2], other[:2]) is None
