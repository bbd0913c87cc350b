"""The session in which yfinance talks to Yahoo: only to Yahoo, and only so much."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from curl_cffi import CurlOpt, requests

LARGEST = 64 << 20  # bytes of an answer; the longest daily history has about 2 MB


class YahooSession(requests.Session):
    """yfinance's own kind of session, which refuses answers of other hosts and huge ones."""

    HOSTS = ("yahoo.com",)

    def __init__(self, **settings: Any):
        limit = {CurlOpt.MAXFILESIZE_LARGE: LARGEST}
        super().__init__(impersonate="chrome", curl_options=limit, **settings)

    def request(self, method: Any, url: str, *arguments: Any, **rest: Any) -> Any:
        answer = super().request(method, url, *arguments, **rest)
        host = urlsplit(answer.url).hostname or ""
        if not any(host == known or host.endswith(f".{known}") for known in self.HOSTS):
            raise requests.exceptions.RequestException(f"Yahoo redirected to another host, {host}")
        if len(answer.content) > LARGEST:
            raise requests.exceptions.RequestException(
                f"the answer has {len(answer.content) >> 20} MB, more than {LARGEST >> 20}"
            )
        return answer


@lru_cache(maxsize=1)
def session() -> YahooSession:
    """One for the process: it keeps Yahoo's cookie."""
    return YahooSession()
