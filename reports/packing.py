"""Data for the script of the page: JSON, deflated, as text."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any


def packed(value: Any) -> str:
    """JSON that the function ``unpacked`` of page/script.js reads; base64 of zlib's format."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
