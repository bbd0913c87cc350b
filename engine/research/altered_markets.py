"""Altered copies of a panel, and what a strategy decides on them.

Other futures, another calendar, another unit, other names: what is altered must not matter to what
``check_strategy`` checks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.accounting.market import Levels
from engine.planning.walk_forward import WalkForward, check_folds
from engine.training.settings import Training
from engine.walking.learner import Learner
from engine.walking.session import Session
from strategies.base import Strategy

CALENDAR = pd.Timedelta(days=28 * 365 + 7)  # after 28 years the weekdays fall on the same dates
BARS = ("open", "high", "low", "vwap")  # asset features that are prices, if they are there
KINDS = 4  # of futures


def with_prices(panel: Panel, prices: pd.DataFrame) -> Panel:
    """The panel at other prices: its bars lie to the closes as they did before."""

    def moved(bars: pd.DataFrame) -> pd.DataFrame:
        return (bars / panel.prices * prices).where(panel.prices.ne(prices), bars)

    features = {
        name: moved(frame) if name in BARS else frame
        for name, frame in panel.asset_features.items()
    }
    return panel.replaced(prices=prices, asset_features=features)


def reshaped(panel: Panel, change: Callable[[pd.DataFrame], pd.DataFrame], **market: Any) -> Panel:
    """The panel with its rows or assets in another order, or with other names.

    Args:
        change: of each table (T, N).
        market: ``market_features``, if they change too.
    """
    return panel.replaced(
        prices=change(panel.prices),
        asset_features={name: change(frame) for name, frame in panel.asset_features.items()},
        members=change(panel.members) if panel.has_universe else None,
        **market,
    )


def in_another_time(panel: Panel) -> Panel:
    """The same rows 28 years later."""
    dates = panel.dates + CALENDAR
    market = panel.market_features.set_axis(dates)
    return reshaped(panel, lambda frame: frame.set_axis(dates), market_features=market)


def another_market(panel: Panel, seed: int) -> Panel:
    """Noise on the same dates, in the same universe."""
    rng = np.random.default_rng(seed)

    def random(frame: pd.DataFrame) -> pd.DataFrame:
        walk = 50 * np.exp(rng.normal(0, 0.02, frame.shape).cumsum(axis=0))
        return frame.mask(frame.notna(), walk)

    prices = random(panel.prices)
    others = {n: random(frame) for n, frame in panel.asset_features.items() if n not in BARS}
    bars = dict(with_prices(panel, prices).asset_features)
    return panel.replaced(
        prices=prices,
        asset_features={name: others.get(name, bars[name]) for name in panel.asset_features},
        market_features=random(panel.market_features),
    )


class Futures:
    """Panels that share the rows up to a cut, and have another future after it.

    Returns of the future are drawn from all rows of the panel. By its kind, 0 to 3, a future then
    differs in more: 0 nothing more; 1 noise of the same volatility; 2 assets stop trading, leave
    the universe or trade on where they did not; 3 likewise from the second day on, and each asset
    jumps up or down on the first, as do features.
    """

    def __init__(self, panel: Panel, seed: int):
        self.panel, self.seed = panel, seed
        prices = panel.prices.to_numpy()
        self.known = ~np.isnan(prices)
        self.last = panel.prices.ffill().fillna(50.0).to_numpy()
        self.moves = np.nan_to_num(np.diff(np.log(self.last), axis=0))  # (T - 1, N)
        self.spread = np.maximum(self.moves.std(axis=0), 1e-3)

    def after(self, row: int, kind: int) -> Panel:
        """The panel with another future after ``row``."""
        panel, rows = self.panel, len(self.panel) - row - 1
        if not rows:
            return panel
        rng = np.random.default_rng((self.seed, row, kind))
        drawn = rng.integers(1, len(panel), rows)  # rows of the panel
        moves = self.moves[drawn - 1]
        if kind == 1:
            moves = rng.normal(0, self.spread, moves.shape)
        if kind == 3:
            moves[0] = rng.choice([-1, 1], len(panel.assets)) * rng.uniform(0.05, 0.4)
        known = self.known[row + 1 :]
        if kind >= 2:
            known = _another_pattern(rng, rows, len(panel.assets))
            known[: kind - 2] = self.known[row + 1 : row + kind - 1]  # where the jump is seen
        never = ~(self.known[: row + 1].any(axis=0) | known.any(axis=0))
        closes = self.last[row] * np.exp(moves.cumsum(axis=0))
        closes = np.where(known, closes, np.nan)
        closes[-1, never] = 50.0  # a panel has a price of each asset

        def joined(frame: pd.DataFrame, future: np.ndarray) -> pd.DataFrame:
            values = np.vstack([frame.to_numpy()[: row + 1], future])
            return pd.DataFrame(values, frame.index, frame.columns)

        def feature(frame: pd.DataFrame) -> pd.DataFrame:
            values = frame.to_numpy()
            future = values[drawn]
            if kind in (1, 3):
                noise = rng.normal(0, 1.0 if kind == 3 else 0.2, future.shape)
                positive = bool((np.nan_to_num(values, nan=1.0) > 0).all())
                spread = np.nanstd(values) if np.isfinite(values).any() else 0.0
                future = future * np.exp(noise) if positive else future + spread * noise
            return joined(frame, future)

        features = {}
        for name, frame in panel.asset_features.items():
            if name in BARS:
                ratio = frame.to_numpy()[drawn] / self.last[drawn]
                features[name] = joined(frame, closes * np.where(np.isnan(ratio), 1.0, ratio))
            else:
                features[name] = feature(frame)
        members = None
        if panel.has_universe:
            inside = panel.members.to_numpy()[drawn]
            members = joined(panel.members, inside if kind != 2 else rng.random(known.shape) < 0.5)
        return panel.replaced(
            prices=joined(panel.prices, closes),
            asset_features=features,
            market_features=feature(panel.market_features),
            members=members,
        )


def _another_pattern(rng: np.random.Generator, rows: int, assets: int) -> np.ndarray:
    """(rows, assets) bool: some trade throughout, some stop soon or late, some have gaps."""
    lives = rng.choice([1.0, 0.5, 0.05, 0.0], assets)
    known = np.arange(rows)[:, None] < np.ceil(rows * lives)
    return known & (rng.random((rows, assets)) > rng.choice([0.0, 0.3], assets))


class AlteredFutures(Learner):
    """A learner whose strategies see a panel with another future at each decision.

    The rows up to the decision are those of the true panel, so decisions must be the same. In
    training rows every tenth cut is altered, which is enough where all of them are learned from.
    """

    def alter(self, futures: Futures, turn: int) -> AlteredFutures:
        """Set the futures; ``turn`` shifts which kind of future a decision meets."""
        tests = [fold.test for fold in self.folds]
        refits = [fold.refit for fold in self.folds]
        cuts: Sequence[int] = sorted({*np.concatenate(tests), *refits, *self.dates[::10]})
        self._cuts = [int(cut) for cut in cuts]
        self._after = lru_cache(maxsize=64)(
            lambda place: futures.after(self._cuts[place], (place + turn) % KINDS)
        )
        return self

    def known(self, row: int, rows: int) -> Panel:
        place = bisect_left(self._cuts, row)
        whole = self._after(place) if place < len(self._cuts) else self.panel
        return whole.rows(max(0, row + 1 - rows), row + 1)


def targets_on(
    panel: Panel,
    strategy: Strategy,
    plan: WalkForward,
    costs: Costs,
    training: Training,
    futures: Futures | None = None,
    turn: int = 0,
) -> pd.DataFrame:
    """Target weights (K, N) of a whole walk-forward of a strategy through a panel.

    Where there are protective orders, columns for them follow: (K, 5 N) in all, prices as
    fractions of the close.

    Args:
        futures: what strategies see beyond each decision, instead of the panel's.
    """
    session = Session(strategy, panel, plan, costs, training, progress=False)
    folds = plan.folds(panel.dates, session.lookback)
    check_folds(folds, panel.dates)
    with session.open(folds, None, False):
        if futures is not None:
            own = session.learner
            session.learner = AlteredFutures(*own.__reduce__()[1]).alter(futures, turn)
        ((_, (decided,)),) = session.decisions([folds], observed=False)
    if decided.error is not None:
        raise decided.error
    found = decided.targets
    if not decided.levels:
        return found
    rows = list(decided.levels)
    closes = panel.prices.ffill().to_numpy()[rows]
    parts = [found]
    for name in Levels._fields:
        values = np.array([getattr(each, name) for each in decided.levels.values()])
        values = values if name == "trailing" else values / closes
        table = pd.DataFrame(values, panel.dates[rows], found.columns)
        parts.append(table.reindex(found.index).add_suffix(f", {name}"))
    return pd.concat(parts, axis=1)
