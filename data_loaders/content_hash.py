"""The hash of a panel's content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def content_hash(panel: Any) -> str:
    """sha256 of the content of a ``Panel``, computed again; see ``Panel.fingerprint``."""
    digest = hashlib.sha256()
    parts = [("prices", panel.prices), ("market", panel.market_features)]
    parts += [(f"asset:{name}", frame) for name, frame in sorted(panel.asset_features.items())]
    if panel.benchmark is not None:
        parts.append(("benchmark", panel.benchmark.to_frame()))
    digest.update(panel.dates.values.astype("datetime64[ns]").tobytes())
    for name, frame in parts:
        digest.update("\x1f".join([name, *map(str, frame.columns)]).encode() + b"\x1e")
        values = np.ascontiguousarray(frame.to_numpy(np.float64))
        # NaN has many bit patterns: use one of them.
        digest.update(np.where(np.isnan(values), np.nan, values).data)
    members = panel.members.to_numpy()
    if not np.array_equal(members, panel.prices.notna().to_numpy()):
        digest.update(np.ascontiguousarray(members).data)
    if panel._given_year is not None:
        digest.update(f"periods_per_year {panel._given_year!r}".encode())
    return digest.hexdigest()
