"""Ask Yahoo for one ticker's history, through yfinance: a table, or the reason there is none.

yfinance leaves these to its user: ``auto_adjust`` is always passed, ``repair`` is off, requests
are made one at a time, waits and retries are bounded, the unfinished session is dropped, and dates
are session dates without a zone. A failed request, a ticker without data and an unknown ticker are
three different statuses.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.validation import DataError

COLUMNS = {
    "Close": "close",
    "Adj Close": "adjusted_close",
    "Volume": "volume",
    "Dividends": "dividends",
    "Stock Splits": "splits",
}
BEGINNING = pd.Timestamp("1927-01-01")  # Yahoo's longest history, ^GSPC, starts in that year
DELAY = pd.Timedelta("30min")  # after the close, until Yahoo's closing price is final
ONE_AT_A_TIME = threading.Lock()  # yfinance shares its state between threads


@dataclass(frozen=True)
class Policy:
    """Limits on requests to Yahoo; times are in seconds."""

    timeout: float = 10.0  # for one request
    deadline: float = 600.0  # over all tickers; after it no further request is made
    attempts: int = 4  # for each ticker, while they fail
    pause: float = 2.0  # before the second attempt; doubled before each further one
    longest_pause: float = 60.0


@dataclass(frozen=True)
class Answer:
    """Yahoo's answer for one ticker.

    Attributes:
        status: "ok"; "delisted" (Yahoo does not know it: gone, or misspelt); "empty" (known, no
            price); "failed" (no usable answer: network, rate limit, malformed body, deadline).
        message: the reason, if not "ok".
        table: one row per finished session, indexed by date, with ``COLUMNS``: close and volume
            adjusted for splits, adjusted_close for dividends too, dividends and splits on
            their dates (0 otherwise); without rows if not "ok".
        through: the last session that had finished when Yahoo was asked.
    """

    status: str
    message: str
    table: pd.DataFrame
    through: pd.Timestamp | None = None


def ask(ticker: str, since: pd.Timestamp | None, policy: Policy, end: float) -> Answer:
    """The daily history of a ticker from ``since`` on, or from its beginning; given up after the
    last attempt or at ``end`` (of time.monotonic()).
    """
    message = f"the deadline of {policy.deadline:g} s had passed before it was asked"
    for attempt in range(policy.attempts):
        pause = min(policy.longest_pause, policy.pause * 2 ** (attempt - 1)) if attempt else 0.0
        if end - time.monotonic() <= pause:
            message += "" if not attempt else f" (deadline, after {attempt} attempts)"
            break
        time.sleep(pause)
        with ONE_AT_A_TIME:
            answer = _asked(ticker, since or BEGINNING, min(policy.timeout, end - time.monotonic()))
        if answer.status != "failed":
            return answer
        message = answer.message
    return Answer("failed", message, nothing())


def _asked(ticker: str, since: pd.Timestamp, timeout: float) -> Answer:
    yfinance = _yfinance()
    moment = now()
    with _raising(yfinance):
        asked = yfinance.Ticker(ticker, session=_session())
        # Without a zone, yfinance makes a request for it and reports every failure of that as a
        # delisting. It only uses the zone to read start and end, which have one here.
        asked._tz = "UTC"
        # yfinance caches answers, malformed ones too, for the life of the process.
        yfinance.data.YfData.cache_get.cache_clear()
        try:
            raw = asked.history(
                start=since.tz_localize("UTC") - pd.Timedelta("1D"),  # Sydney opens the day before
                end=moment.normalize() + pd.Timedelta("2D"),
                interval="1d",
                auto_adjust=False,
                back_adjust=False,
                repair=False,
                actions=True,
                keepna=True,
                prepost=False,
                rounding=False,
                timeout=timeout,
            )
            table, through = _finished(raw, asked.get_history_metadata(), since, moment)
        except yfinance.exceptions.YFPricesMissingError as error:
            return _missing(error)
        except Exception as error:  # a malformed answer can raise anything inside yfinance
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return Answer("failed", reason[:200], nothing())
    if not table["close"].notna().any():
        return Answer("empty", "Yahoo knows the ticker, but has no price", nothing(), through)
    return Answer("ok", "", table, through)


def _missing(error: Any) -> Answer:
    """The status of an answer without prices, from the reason that Yahoo gives."""
    reason = getattr(error, "yahoo_reason", None)
    if reason is None:
        return Answer("empty", "Yahoo sent no price and no reason", nothing())
    words = str(reason).lower()
    if "delisted" in words or "not found" in words:
        return Answer("delisted", f"gone or misspelt; Yahoo says: {reason}", nothing())
    if "data doesn't exist" in words:
        return Answer("empty", f"Yahoo says: {reason}", nothing())
    return Answer("failed", f"Yahoo says: {reason}", nothing())


def _finished(
    raw: pd.DataFrame, about: Mapping[str, Any], since: pd.Timestamp, now: pd.Timestamp
) -> tuple[pd.DataFrame, pd.Timestamp]:
    """The finished sessions by naive date, and the last date whose session has finished."""
    table = raw[list(COLUMNS)].rename(columns=COLUMNS).astype(np.float64)
    table.index = pd.DatetimeIndex(raw.index).tz_localize(None).normalize().as_unit("ns")
    table.index.name = "date"
    if not table.index.is_unique or not table.index.is_monotonic_increasing:
        raise ValueError("the sessions are not in order")
    local = now.tz_convert(about["exchangeTimezoneName"])
    today = local.normalize().tz_localize(None)
    through = today - pd.Timedelta("1D")
    end = about.get("currentTradingPeriod", {}).get("regular", {}).get("end")
    if end is not None:
        close = pd.Timestamp(end) if not np.isscalar(end) else pd.Timestamp(end, unit="s", tz="UTC")
        close = close.tz_convert(local.tz)
        if close.date() == local.date() and local >= close + DELAY:  # today's session has ended
            through = today
    traded = table["close"].notna() | table["dividends"].ne(0) | table["splits"].ne(0)
    return table[traded & (table.index >= since) & (table.index <= through)], through


def nothing() -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame(
        columns=list(COLUMNS.values()), index=pd.DatetimeIndex([], name="date"), dtype=np.float64
    )


@contextlib.contextmanager
def _raising(yfinance: Any) -> Iterator[None]:
    """Make yfinance raise instead of logging, and silence its warnings about pandas."""
    setting = yfinance.config.debug.hide_exceptions
    yfinance.config.debug.hide_exceptions = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        yfinance.config.debug.hide_exceptions = setting


def _yfinance() -> Any:
    try:
        import yfinance
    except ImportError as error:
        raise DataError("yahoo: sources need yfinance: pip install 'yfinance>=1.7'") from error
    return yfinance


def _session() -> Any:
    from data_loaders.yahoo_session import session

    return session()


def now() -> pd.Timestamp:
    return pd.Timestamp.now("UTC")
