"""Results as the engine fills them, from seeded noise, for the tests of the report."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from engine.runs.result import BacktestResult


def make_result(
    name: str,
    periods: int = 1300,
    assets: int = 20,
    seed: int = 0,
    learned: bool = False,
    cls: str = "strategies.baselines:EqualWeight",
    net: np.ndarray | None = None,
    short: bool = False,
    end: str = "2022-12-28",
) -> BacktestResult:
    """A result as the engine fills it, from seeded noise; ``net`` replaces the returns."""
    random = np.random.default_rng(seed)
    dates = pd.bdate_range(end=end, periods=periods)
    names = [f"A{number:03d}" for number in range(assets)]
    market = np.random.default_rng(99).standard_t(5, periods) * 0.009 + 0.0004
    gross = market + random.normal(0, 0.003, periods) if net is None else np.asarray(net, float)
    if net is None:
        gross[0] = 0.0  # nothing was held before the first fill
    fills = dates[::5]
    shape = random.gamma(1.0 if learned else 30.0, size=(len(fills), assets))
    drifting = pd.DataFrame(shape).ewm(span=12).mean().to_numpy()
    targets = drifting / drifting.sum(axis=1, keepdims=True)
    if short:
        targets = targets - 1.5 * targets[:, ::-1] * (np.arange(assets) % 2)
    weights = pd.DataFrame(targets, fills, names).reindex(dates).ffill()
    turnover = pd.Series(np.abs(np.diff(targets, axis=0, prepend=0)).sum(axis=1), fills)
    costs = 0.001 * turnover
    paid = gross.copy()
    if net is None:
        paid[::5] = (1 + gross[::5]) * (1 - costs.to_numpy()) - 1
    starts = range(0, periods, 252)
    folds = pd.DataFrame(
        {
            "train_start": (dates[0] - pd.DateOffset(years=5)).isoformat(),
            "train_end": [dates[start].isoformat() for start in starts],
            "test_start": [dates[start].isoformat() for start in starts],
            "test_end": [dates[min(start + 251, periods - 1)].isoformat() for start in starts],
            "decisions": 52,
        }
    )
    decisions, reasons = _decisions(random, fills, names, targets, learned)
    return BacktestResult(
        name=name,
        strategy={"class": cls, "parameters": {"lookback": 60, "cap": 0.25}},
        targets=pd.DataFrame(targets, fills, names),
        weights=weights,
        gross_returns=pd.Series(gross, dates),
        net_returns=pd.Series(paid, dates),
        turnover=turnover,
        costs=costs,
        orders=_orders(targets, fills, names) if learned else _orders(targets[:0], fills, names),
        folds=folds,
        training=_training(random, len(folds)) if learned else pd.DataFrame(),
        solves=_solves(random, len(folds)) if learned else pd.DataFrame(),
        settings={
            "panel": {
                "source": "synthetic noise with one factor",
                "fingerprint": "5f" * 32,
                "caveats": [
                    "Invented: nothing here ever traded.",
                    "The survivors were hand-picked.",
                ],
                "start": str(dates[0].date()),
                "end": str(dates[-1].date()),
                "assets": names,
            },
            "plan": {"train": "5Y", "refit": "1Y", "rebalance": "W-FRI", "execution_lag": 1},
            "costs": {"commission": 0.001, "spread": 0.0},
            "training": {"epochs": 30, "learning_rate": 0.003},
            "seed": 0,
            "periods_per_year": 252,
            "versions": {"python": "3.11.9", "torch": "2.6.0"},
            "simulation_difference": 3.1e-16,
        },
        checks=_checks(len(folds)) if learned else pd.DataFrame(),
        asset_returns=_asset_returns(weights, gross),
        fractional_returns=pd.Series(paid * 1.001, dates) if learned else pd.Series(dtype=float),
        limits=_limits(fills, assets) if learned else pd.DataFrame(),
        sensitivity=_sensitivity(len(folds)) if learned else pd.DataFrame(),
        illiquidity=pd.DataFrame(2e-6, fills, names) if learned else pd.DataFrame(),
        decisions=decisions,
        reasons=reasons,
    )


def _decisions(
    random: np.random.Generator,
    fills: pd.DatetimeIndex,
    names: list[str],
    targets: np.ndarray,
    learned: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of the decisions that ``fills`` fill; they are dated by the targets."""
    shape = targets.shape
    held = np.vstack([np.zeros(shape[1]), targets[:-1]])
    values = {"held": held, "aimed": targets}
    decisions = pd.DataFrame()
    if learned:
        marginal = np.abs(random.normal(0.2, 0.02, shape))
        decisions = pd.DataFrame(
            {
                "date": fills,
                "sample": np.int16(0),
                "variance": (targets * marginal).sum(axis=1),
                "exposure": targets.sum(axis=1),
                "gross": np.abs(targets).sum(axis=1),
                "hurdle": -0.2,
                "trading_cost": 1.0,
                "steps": 12.0,
                "contraction": 0.3,
                "residual": 1e-9,
            }
        )
        price = np.zeros(shape)
        price[:, 0], price[:, -1] = 0.05, -0.04
        free = np.full(shape, np.nan)
        free[:, 0] = 0.31
        values |= {
            "forecast": random.normal(0, 0.1, shape),
            "variance": np.full(shape, 1.0),
            "marginal": marginal,
            "limit_price": price,
            "no_forecast": targets,
            "no_trading_cost": 0.9 * targets,
            "no_cap": free,
        }
    columns = {name: value.astype(np.float32).ravel() for name, value in values.items()}
    about = {
        "date": np.repeat(fills, shape[1]),
        "sample": np.int16(0),
        "asset": pd.Categorical.from_codes(np.tile(np.arange(shape[1]), len(fills)), names),
    }
    return decisions, pd.DataFrame(about | columns)


def _asset_returns(weights: pd.DataFrame, gross: np.ndarray) -> pd.DataFrame:
    """Noise that the weights of the day before add up to the gross returns."""
    noise = np.random.default_rng(7).normal(0, 0.01, weights.shape)
    held = weights.shift(1).fillna(0.0).to_numpy()
    total = held.sum(axis=1)
    common = np.divide(
        gross - (held * noise).sum(axis=1), total, out=np.zeros_like(gross), where=total != 0
    )
    return pd.DataFrame(noise + common[:, None], weights.index, weights.columns)


def _orders(targets: np.ndarray, fills: pd.DatetimeIndex, names: list[str]) -> pd.DataFrame:
    """At a price of 100 and 10 bp, out of a million."""
    moved = 1e4 * np.diff(targets, axis=0, prepend=0)  # shares
    row, column = np.nonzero(moved)
    shares = moved[row, column]
    fees = 0.1 * np.abs(shares)
    return pd.DataFrame(
        {
            "date": fills[row],
            "asset": np.array(names, dtype=object)[column],
            "side": np.where(shares > 0, "buy", "sell"),
            "size": np.abs(shares).round(),
            "price": 100.0,
            "fees": fees,
            "decided": fills[row] - pd.Timedelta("1D"),
            "ordered": np.abs(shares),
            "paid": 100 * shares + fees,
        }
    )


def _limits(fills: pd.DatetimeIndex, assets: int) -> pd.DataFrame:
    """A cap that binds at every second decision, a floor at all, a group at none."""
    rows = []
    for number, date in enumerate(fills):
        odd = number % 2
        rows += [
            (date, "floor", 1 + odd, assets, 0.1, 0.2),
            (date, "cap", odd, assets, 0.05 * odd, 0.2),
            (date, "budget", 1, 1, -0.2, 0.2),
            (date, "tech", 0, 1, 0.0, 0.2),
        ]
    return pd.DataFrame(rows, columns=["date", "limit", "held", "of", "price", "variance"])


def _sensitivity(folds: int) -> pd.DataFrame:
    changes = {"momentum, a year": 0.1, "volatility": 0.02, "covariance": 0.3}
    rows = [(f, 0, name, size, 48) for f in range(folds) for name, size in changes.items()]
    return pd.DataFrame(rows, columns=["fold", "seed", "feature", "change", "decisions"])


def _training(random: np.random.Generator, folds: int, epochs: int = 30) -> pd.DataFrame:
    rows = []
    for fold in range(folds):
        fall = np.exp(-np.arange(epochs) / 8)
        validation = -0.4 + 0.3 * fall + 0.004 * np.arange(epochs) + random.normal(0, 0.02, epochs)
        kept = np.minimum.accumulate(validation) == validation
        for epoch in range(epochs):
            loss = -0.7 + 0.6 * fall[epoch] + random.normal(0, 0.01)
            rows.append((fold, epoch, loss, validation[epoch], bool(kept[epoch]), 0.4, 0))
    columns = ["fold", "epoch", "loss", "validation_loss", "best", "gradient_norm", "skipped"]
    return pd.DataFrame(rows, columns=columns)


def _solves(random: np.random.Generator, folds: int) -> pd.DataFrame:
    rows = []
    for fold in range(folds):
        for phase, samples in (("training", 9000), ("allocation", 52)):
            for solve, steps in (("fixed point", 11), ("adjoint", 9), ("mean-variance", 8)):
                if phase == "training" or solve != "adjoint":
                    mean = steps + random.normal()
                    rows.append((fold, phase, solve, samples, mean, int(mean) + 5, 3e-9, 0))
    columns = [
        "fold",
        "phase",
        "solve",
        "samples",
        "mean_steps",
        "most_steps",
        "residual",
        "failures",
    ]
    return pd.DataFrame(rows, columns=columns)


def _checks(folds: int) -> pd.DataFrame:
    rows = [(fold, "after training", 4, 2.4e-11, 7.7e-9) for fold in range(folds)]
    return pd.DataFrame(rows, columns=["fold", "when", "samples", "weights", "gradients"])


def typical(periods: int = 1300) -> dict[str, BacktestResult]:
    """A learned strategy, its benchmark and one more."""
    return {
        "DEQMeanVariance": make_result(
            "DEQMeanVariance", periods, learned=True, seed=1, cls="strategies.deq:DEQMeanVariance"
        ),
        "EqualWeight": make_result("EqualWeight", periods, seed=2),
        "MinimumVariance": make_result(
            "MinimumVariance", periods, seed=3, cls="strategies.baselines:MinimumVariance"
        ),
    }


def text_of(page: str) -> str:
    """What a reader sees: no style, no tags."""
    return html.unescape(re.sub(r"<[^>]*>", " ", page.split("</style>", 1)[1]))


HOSTILE = {
    "<script>alert(1)</script>": "markup",
    "<img src=x onerror=alert(1)>": "an event handler",
    "\"' onmouseover='alert(1)' x=\"": "quotes",
    "{{ 7 * 7 }} {% raw %}": "template syntax",
    "$\\frac{1}{0}$ \\undefined": "mathematics",
    "\U0001f680 \u05e9\u05dc\u05d5\u05dd \u202e": "emoji and right to left",
    "w" * 200: "200 characters",
}


def hostile_results() -> dict[str, BacktestResult]:
    """Every hostile name as strategy, asset, caveat, parameter and setting."""
    results = {}
    for seed, name in enumerate(HOSTILE):
        result = make_result(name, 120, seed=seed, assets=len(HOSTILE), learned=seed == 0, cls=name)
        for frame in (result.weights, result.asset_returns):
            frame.columns = list(HOSTILE)
        if seed == 0:
            result.orders["asset"] = name
            result.reasons["asset"] = result.reasons["asset"].cat.rename_categories(list(HOSTILE))
            for frame, column in ((result.limits, "limit"), (result.sensitivity, "feature")):
                frame[column] = [list(HOSTILE)[row % len(HOSTILE)] for row in range(len(frame))]
        result.strategy["parameters"][name] = name
        result.settings["panel"]["caveats"] = list(HOSTILE)
        result.settings["panel"]["source"] = name
        result.settings[name] = {name: [name]}
        results[name] = result
    return results
