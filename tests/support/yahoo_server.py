"""A local server that speaks Yahoo's chart API, and the real yfinance pointed at it.

Every address of yahoo.com that yfinance asks (charts, cookies, crumbs, consent) goes to
127.0.0.1; any other address is an error.
"""

import contextlib
import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pandas as pd

from data_loaders.yahoo_session import YahooSession

NEW_YORK = "America/New_York"


@dataclass
class History:
    """What Yahoo knows of one symbol; ``close`` is adjusted for splits, as Yahoo has it."""

    dates: pd.DatetimeIndex
    close: np.ndarray
    dividends: dict = field(default_factory=dict)  # {date: amount}
    splits: dict = field(default_factory=dict)  # {date: (numerator, denominator)}
    zone: str = NEW_YORK
    hours: tuple = ("09:30", "16:00")
    kind: str = "EQUITY"

    @property
    def adjusted(self):
        factor = np.ones(len(self.dates))
        for date, amount in self.dividends.items():
            row = self.dates.get_loc(date)
            factor[:row] *= 1 - amount / self.close[row - 1]
        return self.close * factor

    def at(self, date, hour):
        return int(pd.Timestamp(f"{date.date()} {hour}").tz_localize(self.zone).timestamp())

    def chart(self, symbol, start, end, today):
        stamps = np.array([self.at(date, self.hours[0]) for date in self.dates])
        kept = (stamps >= start) & (stamps < end)

        def listed(values):
            return [None if np.isnan(v) else float(v) for v in np.asarray(values, float)[kept]]

        close = listed(self.close)
        events = {"dividends": {}, "splits": {}}
        for date, amount in self.dividends.items():
            stamp = self.at(pd.Timestamp(date), self.hours[0])
            if start <= stamp < end:
                events["dividends"][str(stamp)] = {"amount": amount, "date": stamp}
        for date, (up, down) in self.splits.items():
            stamp = self.at(pd.Timestamp(date), self.hours[0])
            if start <= stamp < end:
                events["splits"][str(stamp)] = {
                    "date": stamp, "numerator": up, "denominator": down,
                    "splitRatio": f"{up}:{down}",
                }  # fmt: skip
        regular = {
            "timezone": "EST",
            "gmtoffset": -18000,
            "start": self.at(today, self.hours[0]),
            "end": self.at(today, self.hours[1]),
        }
        meta = {
            "currency": "USD", "symbol": symbol, "exchangeName": "PCX", "instrumentType": self.kind,
            "firstTradeDate": int(stamps[0]), "regularMarketTime": int(stamps[-1]),
            "gmtoffset": -18000, "timezone": "EST", "exchangeTimezoneName": self.zone,
            "regularMarketPrice": 1.0, "priceHint": 2, "dataGranularity": "1d", "range": "",
            "currentTradingPeriod": {"pre": regular, "regular": regular, "post": regular},
            "validRanges": ["1d", "5d", "1mo", "max"],
        }  # fmt: skip
        quote = {
            "open": close, "high": close, "low": close, "close": close,
            "volume": [1000] * len(close),
        }  # fmt: skip
        indicators = {"quote": [quote], "adjclose": [{"adjclose": listed(self.adjusted)}]}
        if not len(close):
            return {"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}
        return {
            "meta": meta, "timestamp": stamps[kept].tolist(), "events": events,
            "indicators": indicators,
        }  # fmt: skip


class YahooServer(ThreadingHTTPServer):
    """Histories by symbol, and a list of faults that the next answers for a symbol have."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.histories = {}
        self.faults = defaultdict(list)  # {symbol: [name of a fault, ...]}, one an answer
        self.today = pd.Timestamp("2024-03-15")
        self.requests = []  # (symbol, start, end) of the chart requests
        self.slowness = 0.0  # seconds before each answer
        self.crumb_limited = False
        self.at_once = 0
        self.most_at_once = 0
        self.counting = threading.Lock()
        self.closing = threading.Event()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that left, killed or out of patience, is no error of the server."""


class Answer(BaseHTTPRequestHandler):
    server: YahooServer

    def do_GET(self):
        url = urlsplit(self.path)
        if "/v8/finance/chart/" not in url.path:
            if "getcrumb" in url.path and self.server.crumb_limited:
                return self.send(429, "Too Many Requests")
            return self.send(200, "crumb" if "getcrumb" in url.path else "<html></html>")
        with self.server.counting:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            self.chart(unquote(url.path.rsplit("/", 1)[1]), parse_qs(url.query))
        finally:
            with self.server.counting:
                self.server.at_once -= 1

    def chart(self, symbol, query):
        start, end = int(query["period1"][0]), int(query["period2"][0])
        self.server.requests.append((symbol, start, end))
        time.sleep(self.server.slowness)
        faults = self.server.faults[symbol]
        fault = faults.pop(0) if faults else None
        history = self.server.histories.get(symbol)
        if history is None or fault == "delisted":
            return self.refuse(404, "Not Found", "No data found, symbol may be delisted")
        body = {"result": [history.chart(symbol, start, end, self.server.today)], "error": None}
        text = json.dumps({"chart": body})
        if fault == "429":
            self.send(429, "Too Many Requests\r\n")
        elif fault == "500":
            self.send(500, "<html>Internal Server Error</html>")
        elif fault == "error":
            self.refuse(500, "Internal Server Error", "Something went wrong")
        elif fault == "timeout":
            self.server.closing.wait(60)  # longer than anyone asks for
        elif fault == "empty":
            body["result"] = [history.chart(symbol, 0, 0, self.server.today)]
            self.send(200, json.dumps({"chart": body}))
        elif fault == "none":
            self.send(200, json.dumps({"chart": {"result": None, "error": None}}))
        elif fault == "shape":
            self.send(200, json.dumps({"chart": {"result": [{"meta": {}, "indicators": []}]}}))
        elif fault == "misaligned":
            body["result"][0]["indicators"]["quote"][0]["close"].pop()
            self.send(200, json.dumps({"chart": body}))
        elif fault == "redirect" and self.headers["Host"].startswith("127.0.0.1"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}{self.path}")
            self.end_headers()
        elif fault == "huge":
            self.send(200, text, said=200 << 20)
        elif fault == "deep":
            self.send(200, "[" * 200_000)
        elif fault == "types":
            body["result"][0]["indicators"]["quote"][0]["close"] = ["x"] * len(history.close)
            self.send(200, json.dumps({"chart": body}))
        elif fault == "cut":
            self.send(200, text, length=len(text) // 2)
        else:
            self.send(200, text)

    def refuse(self, status, code, description):
        error = {"code": code, "description": description}
        self.send(status, json.dumps({"chart": {"result": None, "error": error}}))

    def send(self, status, text, length=None, said=None):
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(said or len(content)))
        self.end_headers()
        self.wfile.write(content[:length])
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    server = YahooServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class LocalSession(YahooSession):
    """The session of production, with yahoo.com at a local address."""

    HOSTS = ("127.0.0.1",)

    def __init__(self, address, **settings):
        super().__init__(**settings)
        self.address = address

    def request(self, method, url, *arguments, **rest):
        host = urlsplit(url).hostname
        assert host.endswith(".yahoo.com"), f"the test would reach {url}"
        local = url.replace(f"https://{host}", self.address, 1)
        return super().request(method, local, *arguments, **rest)
