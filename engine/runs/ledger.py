"""The trial ledger: every backtest that was ever run, so that the number of trials is known.

The best of a hundred configurations looks skilled by luck alone. How many were tried is known only
if each is recorded when it is run, whatever its result. A trial is a configuration: the same one
run again is the same trial.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.accounting import performance
from engine.accounting.risk_free import own_risk_free, risk_free_in
from engine.runs.storage import (
    StorageError,
    add_columns,
    connect,
    create_tables,
    storage_errors,
    table_columns,
    upsert,
)

if TYPE_CHECKING:
    from sqlalchemy import Table

    from engine.runs.result import BacktestResult

IDENTITY = ("panel", "plan", "costs", "training", "strategy", "whole_shares", "code")
OUTCOME = (
    "risk_free",
    "observations",
    "sharpe",
    "active_sharpe",
    "annual_return",
    "volatility",
    "turnover",
)
NAME = "deqfolio_trials"  # of the table
BENCHMARK = "EqualWeight"  # active returns are those beyond the run's strategy of this class


class TrialLedger:
    """A table of trials in a database.

    Args:
        url: of the storage; by default the environment variable DEQFOLIO_STORAGE, or a file in the
            user's home (see ``storage_url``).

    Raises:
        StorageError: in every method, if the storage does not answer.
    """

    def __init__(self, url: str | None = None):
        self._engine = connect(url)
        self.url = self._engine.url.render_as_string(hide_password=False)

    def record(self, results: Mapping[str, BacktestResult], kind: str = "backtest") -> None:
        """Record each result; for one that is recorded already, that it was run once more.

        A strategy that failed was tried, too: its row has no figures until it is run to the end.
        """
        now = datetime.now(UTC).replace(tzinfo=None)
        benchmark = next(
            (r for r in results.values() if str(r.strategy["class"]).endswith(f":{BENCHMARK}")),
            None,
        )
        with storage_errors(self.url):
            again = {"runs": self._table.c.runs + 1, "last_run": now}
            for result in results.values():
                row = _trial(result, benchmark)
                known = {name: row[name] for name in OUTCOME if row[name] is not None}
                if result.complete:  # without a ratio where none is defined
                    known["sharpe"] = row["sharpe"]
                row |= {"kind": kind, "first_run": now, "last_run": now, "runs": 1}
                upsert(self._engine, self._table, row, again | known)

    def trials(self) -> pd.DataFrame:
        """All trials, oldest first, one row each; for the columns see ``COLUMNS``."""
        from sqlalchemy import select

        # Only read, so that a ledger that may not be written, or that an earlier version wrote, is
        # read as it is.
        with storage_errors(self.url):
            there = table_columns(self._engine, NAME)
            known = [self._columns.c[name] for name in COLUMNS if name in there]
            if not known:
                return pd.DataFrame(columns=list(COLUMNS))
            none = dict.fromkeys(COLUMNS)
            with self._engine.connect() as connection:
                rows = connection.execute(select(*known).order_by("first_run", "id")).mappings()
                return pd.DataFrame([{**none, **row} for row in rows], columns=list(COLUMNS))

    def on_the_same(self, result: BacktestResult) -> pd.DataFrame:
        """The trials on the data that ``result`` is judged by: its assets, in overlapping periods.

        Another snapshot of the same assets, other costs or another plan are no new evidence, so
        they count. A trial that ended before the result begins does not, such as the validation of
        a sweep: it saw none of the later data.
        """
        found = self.trials()
        first, last = _period(result)
        same = found["assets"] == _assets(result)
        return found[same & (found["start"] <= last) & (found["end"] >= first)]

    def summary(self, most: int = 20) -> str:
        """The latest trials, as text."""
        found = self.trials()
        if found.empty:
            return "no trial yet: every backtest and sweep is recorded here"
        shown = ["last_run", "kind", "name", "runs", "start", "end", "sharpe", "active_sharpe"]
        latest = found.sort_values("last_run").tail(most)
        differing, excess = _differing_settings(latest), in_excess(latest)
        latest = latest[shown].assign(last_run=latest["last_run"].dt.strftime("%Y-%m-%d %H:%M"))
        width = max(map(len, differing))
        latest["what differs".ljust(width)] = [text.ljust(width) for text in differing]
        table = latest.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="-")
        lines = "\n".join(line.rstrip() for line in table.splitlines())
        if not excess.all():
            lines += (
                "\n\nThe sharpe of these counts interest on cash as skill, as an earlier version "
                f"recorded it: {', '.join(sorted(set(latest['name'][~excess])))}; run them again"
            )
        return f"{len(found)} trials, the latest last (UTC):\n\n{lines}"

    @cached_property
    def _table(self) -> Table:
        """The table as it can be written: created, with all columns."""
        with storage_errors(self.url):
            create_tables(self._columns.metadata, self._engine)
            add_columns(self._columns, self._engine)
        return self._columns

    @cached_property
    def _columns(self) -> Table:
        import sqlalchemy

        columns = (
            sqlalchemy.Column(name, getattr(sqlalchemy, kind)(), primary_key=name == "id")
            for name, (kind, _) in COLUMNS.items()
        )
        return sqlalchemy.Table(NAME, sqlalchemy.MetaData(), *columns)


def _differing_settings(trials: pd.DataFrame, most: int = 4) -> list[str]:
    """For each trial, the settings that are not the same in all trials of its name."""
    tables = ("plan", "costs", "training")
    settings = [
        {"data": row["source"]}
        | json.loads(row["strategy"]).get("parameters", {})
        | {f"{name}.{key}": v for name in tables for key, v in json.loads(row[name]).items()}
        for row in trials.to_dict("records")
    ]
    found = []
    for name, mine in zip(trials["name"], settings, strict=True):
        others = [each for n, each in zip(trials["name"], settings, strict=True) if n == name]
        apart = [k for k in mine if any(each.get(k, mine[k]) != mine[k] for each in others)]
        words = [shorten(f"{k.removeprefix('training.')}={mine[k]}", 40) for k in apart]
        more = f", {len(words) - most} more" if len(words) > most else ""
        found.append(", ".join(words[:most]) + more)
    return found


def trial_id(result: BacktestResult) -> str:
    """The identity of the result's configuration in the ledger."""
    return str(_trial(result, None)["id"])


def keep_record(
    results: Mapping[str, BacktestResult], ledger: TrialLedger | bool, kind: str = "backtest"
) -> None:
    """Record results in the ledger; if that fails, warn, and lose nothing else."""
    if ledger is False or not results:
        return
    try:
        (TrialLedger() if ledger is True else ledger).record(results, kind)
    except StorageError as error:
        warnings.warn(f"the trial ledger misses this run: {error}", RuntimeWarning, stacklevel=3)


COLUMNS = {  # name: (type of SQLAlchemy, description)
    "id": ("String", "hash of the configuration"),
    "kind": ("Text", "backtest, cross-validation (its first path) or sweep (validation folds)"),
    "first_run": ("DateTime", "UTC"),
    "last_run": ("DateTime", "UTC"),
    "runs": ("Integer", "how often it was run"),
    "name": ("Text", "of the strategy, as shown"),
    "strategy": ("Text", "class and parameters, JSON"),
    "code": ("Text", "version of deqfolio and hash of the strategy's source"),
    "source": ("Text", "of the panel"),
    "panel": ("Text", "fingerprint of the panel"),
    "assets": ("Text", "hash of the names of the panel's assets"),
    "start": ("Text", "first date with a return"),
    "end": ("Text", "last date with a return"),
    "plan": ("Text", "JSON"),
    "costs": ("Text", "JSON"),
    "training": ("Text", "JSON"),
    "whole_shares": ("Boolean", "whether only whole shares were traded"),
    "periods_per_year": ("Float", "of the returns"),
    "observations": ("Integer", "number of returns"),
    "sharpe": ("Float", "net, in excess of the risk-free rate, a year; see ``in_excess``"),
    "active_sharpe": ("Float", "of the net return beyond 1/N in the same run, a year"),
    "annual_return": ("Float", "net, geometric"),
    "volatility": ("Float", "a year"),
    "turnover": ("Float", "traded value over portfolio value, a year"),
    "risk_free": ("Text", "yearly rate or what tells a series apart, JSON; none in older rows"),
}


def in_excess(trials: pd.DataFrame) -> np.ndarray:
    """Whether the ``sharpe`` of each row is in excess of the risk-free rate.

    Rows that an earlier version recorded are of net returns, interest on cash included, until the
    same configuration is run again. Without interest that is the same number.
    """
    interest = [json.loads(costs or "{}").get("cash_rate", 0) for costs in trials["costs"]]
    return trials["risk_free"].notna().to_numpy() | (np.array(interest, dtype=float) == 0)


def _trial(result: BacktestResult, benchmark: BacktestResult | None) -> dict[str, Any]:
    """The row of a result, except when and how often it was run."""
    settings, net = result.settings, result.net_returns
    a_year = settings["periods_per_year"]
    versions = settings.get("versions", {})
    described = {key: result.strategy.get(key) for key in ("class", "parameters")}
    row: dict[str, Any] = {
        "name": result.name,
        "strategy": _json(described),
        "code": f"{versions.get('deqfolio', '')}+{str(result.strategy.get('code', ''))[:16]}",
        "source": settings["panel"]["source"],
        "panel": settings["panel"]["fingerprint"],
        "assets": _assets(result),
        "plan": _json(settings["plan"]),
        "costs": _json(settings["costs"]),
        "training": _json(settings["training"] if result.strategy.get("learned") else {}),
        "whole_shares": bool(settings.get("whole_shares", False)),
    }
    identity = [row[name] for name in IDENTITY]
    own = own_risk_free(settings) if result.strategy.get("learned") else None
    if own is not None:  # a rule holds the same, whatever it is measured against
        identity.append(own)
    row["id"] = hashlib.sha256(_json(identity).encode()).hexdigest()
    row["risk_free"] = _json(risk_free_in(settings))
    net = net if result.complete else net.iloc[:0]
    active = np.nan
    if len(net) and benchmark is not None and benchmark is not result and benchmark.complete:
        active = performance.information_ratio(net, benchmark.net_returns, a_year)
    found = {**result.figures, "active_sharpe": active}
    # A database has no NaN.
    figures = {name: value if np.isfinite(value) else None for name, value in found.items()}
    start, end = _period(result)
    period = {"start": start, "end": end, "periods_per_year": a_year, "observations": len(net)}
    return {**row, **period, **figures}


def _period(result: BacktestResult) -> tuple[str, str]:
    """First and last date of the run's returns, also of one that failed before the end."""
    if result.complete:
        first, last = result.net_returns.index[[0, -1]]
    elif len(result.folds):
        first, last = result.folds["test_start"].iloc[0], result.folds["last_fill"].iloc[-1]
    else:
        first, last = (result.settings["panel"][name] for name in ("start", "end"))
    return str(pd.Timestamp(first).date()), str(pd.Timestamp(last).date())


def _assets(result: BacktestResult) -> str:
    names = sorted(map(str, result.settings["panel"]["assets"]))
    return hashlib.sha256(_json(names).encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
