"""Orders as a document that proves itself: what was decided when, from what, by which code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.writing import remove_abandoned, safe_csv, write_text
from engine.runs.description import described, installed_versions
from engine.runs.result import BacktestResult
from engine.runs.run_files import SEAL, seal_of, written
from engine.trading.account import Account, OrderError
from engine.trading.orders import OrderRules, Orders
from engine.trading.todays_decision import Earlier
from strategies.base import Strategy

FORMAT = "deqfolio orders 1"
NUMBERS = 1e-9  # relative difference of two amounts that are the same


def document(
    orders: Orders,
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    account: Account,
    rules: OrderRules,
    today: pd.Timestamp,
    run: str = "",
    earlier: Sequence[Earlier] = (),
    prices: Mapping[str, tuple[float, str]] | None = None,
    binding: Sequence[str] = (),
) -> dict[str, Any]:
    """All that tells these orders apart from others, as JSON can hold it; with its own sha256.

    Args:
        panel: what the orders were made from.
        run: the folder of the run.
        earlier, prices: as given to ``todays_orders``.
        binding: the constraints that the weights have reached, in words.
    """
    settings, table = result.settings, orders.table
    known = panel.without_benchmark().until(orders.date)
    whole = {
        "format": FORMAT,
        "decided": str(orders.date),
        "today": str(today),
        "run": {
            "folder": run,
            "strategy": result.name,
            "panel": settings["panel"]["fingerprint"],
            "snapshots": settings["panel"]["snapshots"],
            "last refit": str(result.folds["train_end"].iloc[-1]) if len(result.folds) else None,
            "seed": settings["seed"],
            "versions": settings["versions"],
            "strategy code": result.strategy.get("code"),
        },
        "made with": {
            "panel": known.fingerprint,
            "source": panel.source,
            "snapshots": dict(panel.snapshots),
            "versions": installed_versions(),
            "strategy code": described(strategy)["code"],
            "accepted changes": list(orders.changes),
        },
        "costs": settings["costs"],
        "rules": asdict(rules) | {"max_age": None if rules.max_age is None else str(rules.max_age)},
        "account": {
            "shares": {str(k): float(v) for k, v in account.shares.items()},
            "cash": account.cash,
            "capital": account.capital,
            "deposit": account.deposit,
        },
        "earlier": [{"date": str(each.date), "holdings": dict(each.holdings)} for each in earlier],
        "last prices": {name: list(each) for name, each in (prices or {}).items()},
        "holdings": {str(k): float(v) for k, v in orders.holdings.items()},
        "capital": orders.capital,
        "expected cost": float(table["cost"].sum()),
        "turnover": float(table["value"].abs().sum() / orders.capital),
        "cash after": orders.cash,
        "binding": list(binding),
        "limits": orders.limits,
        "notes": list(orders.notes),
        "orders": table.rename_axis("asset").reset_index().to_dict("records"),
    }
    plain: dict[str, Any] = json.loads(json.dumps(_plain(whole)))
    return plain | {SEAL: seal_of(plain)}


def read_document(path: Path) -> dict[str, Any]:
    """A document as it was written.

    Raises:
        OrderError: it is none, or was changed since.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OrderError(
            f"{path} cannot be read as orders in JSON ({error}); deqfolio orders --out x.json "
            "writes them"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OrderError(f"{path} holds no {FORMAT!r}: deqfolio orders --out x.json writes one")
    if found.get(SEAL) != seal_of({k: v for k, v in found.items() if k != SEAL}):
        raise OrderError(f"{path} was changed since it was written: its sha256 does not match")
    return found


def given_in(
    found: Mapping[str, Any],
) -> tuple[Account, OrderRules, pd.Timestamp, list[Earlier], dict[str, tuple[float, str]]]:
    """What the orders of a document were asked with."""
    account, rules = found["account"], dict(found["rules"])
    rules["max_age"] = None if rules["max_age"] is None else pd.Timedelta(rules["max_age"])
    rules |= {name: tuple(rules[name]) for name in ("allow_stale", "closed")}
    shares = pd.Series(account["shares"], dtype=float)
    rest = {name: account[name] for name in ("cash", "capital", "deposit")}
    earlier = [Earlier(pd.Timestamp(e["date"]), e["holdings"]) for e in found["earlier"]]
    prices = {name: (each[0], each[1]) for name, each in found["last prices"].items()}
    return (
        Account(shares, **rest),
        OrderRules(**rules),
        pd.Timestamp(found["today"]),
        earlier,
        prices,
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two documents, in words; the orders by asset."""
    found = []
    if before["decided"] != now["decided"]:
        found.append(f"decided on {now['decided']}, not {before['decided']}")
    for part in ("run", "made with"):
        for name, value in before[part].items():
            if name not in ("folder", "source") and now[part].get(name) != value:
                found.append(f"{part}: {name} is {now[part].get(name)}, was {value}")
    if before["costs"] != now["costs"]:
        found.append("the costs of the run differ")
    new = {row["asset"]: row for row in now["orders"]}
    for row in before["orders"]:
        again = new.pop(row["asset"], {})
        for name, value in row.items():
            if not _equal(value, again.get(name)):
                found.append(f"{row['asset']}: {name} is {again.get(name)}, was {value}")
    found += [f"{name} is new" for name in new]
    for name in ("cash after", "expected cost", "capital"):
        if not _equal(before[name], now[name]):
            found.append(f"{name} is {now[name]}, was {before[name]}")
    return found


def as_csv(found: Mapping[str, Any]) -> str:
    """The orders of a document by asset; each row names run, date, prices, code and document."""
    table = pd.DataFrame(found["orders"])
    made = found["made with"]
    return safe_csv(
        table.assign(
            decided=found["decided"],
            run=f"{found['run']['folder']} {found['run']['strategy']}",
            panel=made["panel"],
            code=made["strategy code"],
            deqfolio=made["versions"].get("deqfolio", ""),
            seed=found["run"]["seed"],
            document=found["sha256"],
        ),
        index=False,
    )


def as_text(found: Mapping[str, Any]) -> str:
    """The orders of a document as a table to read."""
    table = pd.DataFrame(found["orders"]).set_index("asset").astype({"order": float})
    levels = table.reindex(columns=["stop", "trailing", "take_profit", "limit"]).astype(float)
    levels = levels.dropna(axis=1, how="all")
    shown = table[(table["order"] != 0) | levels.notna().any(axis=1)]
    columns = ["weight", "price", "held", "wanted", "order", "value", "cost", *levels]
    lines = [f"{found['run']['strategy']}, decided at the close of {found['decided'][:10]}"]
    lines.append(
        shown[columns]
        .astype(float)
        .to_string(float_format=lambda x: f"{x:,.2f}", formatters={"trailing": "{:.6g}".format})
        if len(shown)
        else "no orders"
    )
    lines.append(f"costs {found['expected cost']:,.2f}, cash left {found['cash after']:,.2f}")
    lines += [f"{name}: {row['reason']}" for name, row in table.iterrows()]
    lines += [f"binds: {line}" for line in found["binding"]]
    lines += [f"note: {line}" for line in found["notes"]]
    lines += [f"accepted: {line}" for line in found["made with"]["accepted changes"]]
    return "\n".join(lines)


def write_orders(found: Mapping[str, Any], path: Path) -> None:
    """Write a document in the form that the file's name says: .json, .csv or .txt.

    Raises:
        OrderError: another ending; nothing is written.
    """
    text = form_of(path)(found)
    with written(path):
        remove_abandoned(path)
        write_text(path, text)


def form_of(path: Path) -> Any:
    """What makes the text of a file with this name."""
    forms = {
        ".json": lambda found: json.dumps(found, indent=1, allow_nan=False) + "\n",
        ".csv": as_csv,
        ".txt": as_text,
    }
    if path.suffix.lower() not in forms:
        raise OrderError(f"--out {path}: its name should end in {', '.join(forms)}")
    return forms[path.suffix.lower()]


def _equal(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return bool(np.isclose(one, other, rtol=NUMBERS, atol=NUMBERS))
    return one == other


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN is null, dates are texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, pd.Timestamp):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
