"""What a column's name means: a field of prices, an identifier, or a row number.

Names are compared without case, punctuation and numbering: "Adj. Close", "adjClose", "5. adjusted
close" and "<CLOSE>" are matched by their letters alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import lru_cache

FIELDS = {
    "adjusted_close": "adjclose adjustedclose closeadj closeadjusted adjcloseprice adjustedprice "
    "adjprice adjustedclosingprice totalreturnprice pxlasttotret",
    "close": "close closingprice closeprice schlusskurs schluss prc dlyprc prccd mid midclose",
    "last": "last lastprice pxlast closelast pxclose",
    "settle": "settle settlement settlementprice pxsettle",
    "price": "price prices value",
    "return": "return returns ret rets dlyret totalreturn dailyreturn",
    "open": "open openprice pxopen openingprice",
    "high": "high highprice pxhigh",
    "low": "low lowprice pxlow",
    "adjusted_open": "adjopen adjustedopen openadj",
    "adjusted_high": "adjhigh adjustedhigh highadj",
    "adjusted_low": "adjlow adjustedlow lowadj",
    "adjusted_volume": "adjvolume adjustedvolume volumeadj",
    "volume": "volume vol totalvolume pxvolume dlyvol shares_traded volumetraded",
    "dividends": "dividends dividend divcash dividendamount divamt cashdividend",
    "splits": "splits split stocksplits splitfactor splitratio splitcoefficient stocksplit",
    "market_value": "marketcap marketvalue marketcapitalization mktcap mcap curmktcap marketcapusd",
    "open_interest": "openinterest openint oi pxopenint",
}  # also the names of the asset features
OTHERS = (
    "adjopen capitalgains change changepct changepercent pctchange chg chgpct vwap wap average "
    "barcount trades tradecount numberoftrades numtrd tickvol spread bid ask shrout cfacpr cfacshr "
    "closetime quotevolume quoteassetvolume takerbuybase takerbuyquote ignore prevclose "
    "previousclose turnover deliverable lastupdated"
)  # fields of one asset that stay features under their own names
CURRENCIES = "btc|eth|usdt?|usdc|busd|eur|gbp|jpy|krw|base|quote|from|to"
PRICES = ("adjusted_close", "close", "last", "settle", "price")
DATES = (
    "date datetime timestamp time day observationdate snappedat datum caldt dlycaldt tradedate "
    "opentime unix epoch unixtime unixtimestamp begins tradingday pricedate quotedate month year"
)
TIMES = ("time", "hour", "uhrzeit", "timeofday")
ASSETS = (
    "asset ticker symbol tic instrument sym permno isin figi cusip sedol ric gvkey permco "
    "security tickersymbol stocksymbol underlying code name stock pair coin id market"
)  # the first of these that a table has names its assets
WEAK = {"security", "underlying", "code", "name", "stock", "pair", "coin", "id", "market"}
ROW_NUMBERS = re.compile(r"(unnamed\d*|index\d*|indexlevel\d+|level\d+|rownames?|row|sno|id|x)$")
TICKERS = {"OPEN", "LOW", "HIGH", "VOL", "RET", "OI", "MID", "LAST", "CHG", "WAP", "PRC"}

_FIELD = {word: field for field, words in FIELDS.items() for word in words.split()}
_OTHER = set(OTHERS.split())
_DATES = set(DATES.split())
_RANKS = {word: rank for rank, word in enumerate(ASSETS.split())}
_BARS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


def is_code(name: str) -> bool:
    """Whether a column of that name holds codes of assets, whatever else a table has."""
    return plain(name) in _RANKS and plain(name) not in WEAK


@lru_cache(maxsize=100_000)
def plain(name: str) -> str:
    """The letters and digits of a name in lower case, without numbering: "1. open" is "open"."""
    name = re.sub(r"^\s*\d{1,2}[a-z]?[.)]\s*", "", name.strip().lower())
    return re.sub(r"[\W_]+", "", name)


def field(name: str) -> str | None:
    """The field that a name means, its own letters for a known other one, or None."""
    word = plain(name)
    if word in _FIELD:
        return _FIELD[word]
    if word in _OTHER:
        return word
    return "volume" if re.fullmatch(f"volume({CURRENCIES})", word) else None  # Volume USDT


def fields(names: Sequence[str]) -> list[str | None]:
    """The field of each name; the letters O, H, L and C are fields where all four are there."""
    found = [field(name) for name in names]
    words = [plain(name) for name in names]
    if {"o", "h", "l", "c"} <= set(words):
        found = [_BARS.get(word, known) for word, known in zip(words, found, strict=True)]
    return found


def is_date(name: str) -> bool:
    return plain(name) in _DATES


def may_be_stamp(name: str) -> bool:
    """Whether a name holds a word for dates, as "window_start" and "kline_open_time" do."""
    return re.search("date|time|stamp|start|epoch", plain(name)) is not None


def is_row_number(name: str) -> bool:
    return ROW_NUMBERS.match(plain(name)) is not None


def asset_rank(name: str) -> int | None:
    """How likely a column of that name is to hold the assets; the least is likeliest."""
    return _RANKS.get(plain(name))


def levels(name: str) -> tuple[str, ...]:
    """The levels of a name: pandas writes those of several as "('Close', 'ZZA')"."""
    if name.startswith("(") and name.endswith(")"):
        try:
            found = ast.literal_eval(name)
        except (ValueError, SyntaxError):
            return (name,)
        if isinstance(found, tuple) and found:
            return tuple(str(level).strip() for level in found)
    return (name.strip(),)


def split_names(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """(field, asset) of names that all hold both, as "Close_ZZA" or "ZZA Adj Close"; else None.

    The field stands first in all, or last in all. Beside "ZZA Volume", "ZZA" is its price.
    """
    for first in (True, False):
        found = [_split(name, first) for name in names]
        bare = {name for name, pair in zip(names, found, strict=True) if not pair}
        split = [pair for pair in found if pair]
        if bare and split and {asset for _, asset in split} <= bare:
            return [pair or ("price", name) for name, pair in zip(names, found, strict=True)]
        if split and not bare and len({known for known, _ in split}) > 1:
            return split
    return None


def _split(name: str, first: bool) -> tuple[str, str] | None:
    """The longest known field at one end of a name, and the asset that is the rest of it."""
    places = list(re.finditer(r"[\s_./:|-]+", name))
    for match in reversed(places) if first else places:
        left, right = name[: match.start()], name[match.end() :]
        known, asset = (left, right) if first else (right, left)
        known = _FIELD.get(plain(known), plain(known) if plain(known) in _OTHER else "")
        if known and asset and plain(asset):
            return known, asset
    return None
