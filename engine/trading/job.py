"""The ledger of a daily job: an SQLite file with what is carried from one day to the next.

It is a list of events, which are only ever added: the account as it was stated or as fills left it,
deposits, and the orders of each decision with the document that proves them. All that is written on
a day is one transaction, so a process that is killed leaves the ledger of the day before.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from data_loaders.validation import day
from engine.runs.run_files import damaged, opened, sealed
from engine.trading.account import Account, OrderError
from engine.trading.todays_decision import Earlier

TABLE = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, date TEXT NOT NULL,
    content TEXT NOT NULL
)"""
ONCE = (
    "CREATE UNIQUE INDEX IF NOT EXISTS once ON events (kind, date) "
    "WHERE kind IN ('orders', 'fills', 'deposit')"
)
FILLS = ["asset", "shares", "price", "fees"]


class JobBusy(OrderError):
    """Another process works on the same ledger."""


class Job:
    """The ledger in a file, which is created on the first day; it is open inside ``day``."""

    _database: sqlite3.Connection

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def day(self) -> Iterator[Job]:
        """One transaction: all events that are added inside, or on an error none.

        Raises:
            JobBusy: another process is inside.
            OrderError: the file is no ledger, or cannot be opened.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=0.5, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise OrderError(f"the ledger {self.path} cannot be opened: {error}") from error
        with closing(self._database):
            try:
                for statement in ("BEGIN IMMEDIATE", TABLE, ONCE):
                    self._database.execute(statement)
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise JobBusy(
                        f"another process works on {self.path}: nothing is done"
                    ) from None
                raise OrderError(f"the ledger {self.path} cannot be written: {error}") from error
            except sqlite3.DatabaseError as error:
                raise OrderError(f"{self.path} is no ledger of a job: {error}") from error
            try:
                yield self
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def add(self, kind: str, date: str, content: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        whole = sealed({"kind": kind, "date": date, "content": content})
        self._database.execute(
            "INSERT INTO events (time, kind, date, content) VALUES (?, ?, ?, ?)",
            (now, kind, date, whole),
        )

    def events(self, *kinds: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Kind, date and content of the events of these kinds, oldest first.

        Raises:
            RunDamaged: one is not what was written.
        """
        found = []
        for kind, date, text in self._database.execute(
            "SELECT kind, date, content FROM events ORDER BY id"
        ):
            event = opened(text, self.path)
            if "content" not in event:  # of version 0.1, which kept no hash
                event = {"kind": kind, "date": date, "content": event}
            if (event["kind"], event["date"]) != (kind, date):
                raise damaged(self.path)
            if kind in kinds:
                found.append((kind, date, event["content"]))
        return found

    def documents(self) -> list[dict[str, Any]]:
        """Those of the orders of each decision."""
        return [text for _, _, text in self.events("orders")]

    def orders_of(self, date: pd.Timestamp) -> dict[str, Any] | None:
        """The document of the orders that were decided at a close, if there is one."""
        found = [text for _, when, text in self.events("orders") if when == str(date)]
        return found[-1] if found else None

    def open_orders(self) -> dict[str, Any] | None:
        """The document of orders of which no fills are known yet; None where nothing is ordered."""
        found = self.events("orders", "fills", "account")
        if not found or found[-1][0] != "orders":
            return None
        ordered = any(row["order"] for row in found[-1][2]["orders"])
        return found[-1][2] if ordered else None

    def state_account(self, account: Account, date: str) -> None:
        """Note an account as its owner states it."""
        shares = {str(name): float(count) for name, count in account.shares.items()}
        self.add("account", date, {"shares": shares, "cash": account.cash})

    def add_orders(self, document: Mapping[str, Any]) -> None:
        """Note the orders of a decision; where nothing is ordered, the account with its deposit.

        Raises:
            OrderError: the job is that of another strategy.
        """
        before = [each["run"]["strategy"] for each in self.documents()]
        if before and before[-1] != (name := document["run"]["strategy"]):
            raise OrderError(
                f"{self.path} is the job of {before[-1]}, not of {name}: take another file"
            )
        self.add("orders", document["decided"], document)
        if not any(row["order"] for row in document["orders"]):
            shares = {row["asset"]: row["held"] for row in document["orders"] if row["held"]}
            self.add(
                "account", document["decided"], {"shares": shares, "cash": document["cash after"]}
            )

    def note_deposit(self, date: str, amount: float) -> None:
        """Note a deposit, once a day.

        Raises:
            OrderError: another amount is noted for that day.
        """
        same = [text["amount"] for _, when, text in self.events("deposit") if when == date]
        if same and same[0] != amount:
            raise OrderError(f"a deposit of {same[0]:+,.2f} is noted for {date} already")
        if not same:
            self.add("deposit", date, {"amount": amount})

    def account(self) -> Account:
        """What is held now, and the deposits since the last decision.

        Raises:
            OrderError: no account was ever stated, or the fills of the last orders are not known.
        """
        if (waiting := self.open_orders()) is not None:
            raise OrderError(
                f"the fills of the orders of {waiting['decided'][:10]} are not known: deqfolio "
                f"fills {self.path} FILE (or --as-planned), or state the account (--cash)"
            )
        stated = self.events("account")
        if not stated:
            raise OrderError(
                f"{self.path} knows no account yet: give --cash and --holdings on the first day"
            )
        found = stated[-1][2]
        after = self.events("deposit", "orders")
        last = max((n for n, each in enumerate(after) if each[0] == "orders"), default=-1)
        deposit = sum(  # one before the account was stated is in its cash
            text["amount"] for _, when, text in after[last + 1 :] if when >= stated[-1][1][:10]
        )
        shares = pd.Series(found["shares"], dtype=float)
        return Account(shares, cash=found["cash"], deposit=deposit)

    def earlier(self) -> list[Earlier]:
        """The decisions so far."""
        return [Earlier(pd.Timestamp(d["decided"]), d["holdings"]) for d in self.documents()]

    def accepted(self) -> set[str]:
        """The changes since the run that were accepted before."""
        return {line for d in self.documents() for line in d["made with"]["accepted changes"]}

    def last_prices(self) -> dict[str, tuple[float, str]]:
        """{asset: (price, date)} of the last orders."""
        documents = self.documents()
        rows = documents[-1]["orders"] if documents else []
        return {r["asset"]: (r["price"], r["price_date"]) for r in rows if r["price"] is not None}

    def fill(self, fills: pd.DataFrame | None) -> tuple[dict[str, Any], pd.DataFrame]:
        """Note what became of the open orders; the account follows from it.

        Args:
            fills: asset, shares (negative: sold), price and fees (money); None is as planned.

        Returns:
            The document of the orders, and the fills by asset.

        Raises:
            OrderError: no orders are open, fills of what was not ordered, or more than ordered.
        """
        document = self.open_orders()
        if document is None:
            raise OrderError(f"{self.path} has no open orders, of which fills could be noted")
        planned = pd.DataFrame(document["orders"]).set_index("asset")
        ordered = planned[planned["order"] != 0]
        if fills is None:
            named = {"order": "shares", "price": "price", "cost": "fees"}
            fills = ordered[list(named)].rename(columns=named).reset_index()
        fills = fills.assign(paid=fills["shares"] * fills["price"])
        by_asset = fills.groupby("asset")[["shares", "paid", "fees"]].sum()
        odd = [str(name) for name in by_asset.index if name not in ordered.index]
        if odd:
            raise OrderError(f"fills of what was not ordered: {', '.join(odd)}; state the account")
        wanted = ordered["order"].astype(float).reindex(by_asset.index)
        more = by_asset.index[
            (by_asset["shares"] * wanted < 0) | (by_asset["shares"].abs() > wanted.abs() + 1e-9)
        ]
        if len(more):
            raise OrderError(f"fills of more than was ordered: {', '.join(map(str, more))}")
        held = planned["held"].astype(float).add(by_asset["shares"], fill_value=0.0)
        before = document["capital"] - float(
            (planned["held"].astype(float) * planned["price"].astype(float).fillna(0.0)).sum()
        )
        cash = before - float(by_asset["paid"].sum() + by_asset["fees"].sum())
        rows = fills.drop(columns="paid").to_dict("records")
        self.add("fills", document["decided"], {"fills": rows})
        shares = {str(name): float(count) for name, count in held.items() if count}
        self.add("account", document["decided"], {"shares": shares, "cash": cash})
        return document, by_asset


def read_fills(path: Path) -> pd.DataFrame:
    """Fills from a CSV file with the columns asset, shares, price and, if there are any, fees.

    Raises:
        OrderError: it cannot be read, has other columns, or amounts that are no numbers.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise OrderError(f"{path} cannot be read as fills: {error}") from error
    if not {"asset", "shares", "price"} <= set(table.columns) <= {*FILLS}:
        raise OrderError(f"{path} needs the columns asset,shares,price and perhaps fees")
    table = table.reindex(columns=FILLS).fillna({"fees": 0.0})
    for name in FILLS[1:]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    if table.isna().any(axis=None) or (table["price"] <= 0).any() or (table["fees"] < 0).any():
        raise OrderError(f"{path}: shares, prices above 0 and fees are numbers in every row")
    return table.assign(asset=table["asset"].astype(str))


def compared(job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Planned and realised, by order and by period.

    Returns:
        By order: decided, asset, ordered, filled (shares), planned, realised (prices), slippage
        (money lost to the price), fees, expected (money).
        By decision, once the next is known: realised and paper return until then, fractions; paper
        is that of the orders at their planned prices and costs.
    """
    documents = job.documents()
    fills = {when: text["fills"] for _, when, text in job.events("fills")}
    rows, periods = [], []
    for document in documents:
        found = pd.DataFrame(fills.get(document["decided"], []), columns=FILLS)
        for row in document["orders"]:
            if not row["order"]:
                continue
            own = found[found["asset"] == row["asset"]]
            shares = float(own["shares"].sum())
            paid = float((own["shares"] * own["price"]).sum())
            rows.append(
                {
                    "decided": day(pd.Timestamp(document["decided"])),
                    "asset": row["asset"],
                    "ordered": row["order"],
                    "filled": shares,
                    "planned": row["price"],
                    "realised": paid / shares if shares else float("nan"),
                    "slippage": paid - shares * row["price"],
                    "fees": float(own["fees"].sum()),
                    "expected": row["cost"],
                }
            )
    for one, two in itertools.pairwise(documents):
        prices = {row["asset"]: row["price"] or 0.0 for row in two["orders"]}
        worth = sum(row["wanted"] * prices[row["asset"]] for row in one["orders"])
        deposit = two["account"]["deposit"]
        periods.append(
            {
                "decided": day(pd.Timestamp(one["decided"])),
                "realised": (two["capital"] - deposit) / one["capital"] - 1,
                "paper": (one["cash after"] + worth) / one["capital"] - 1,
            }
        )
    orders = ["decided", "asset", "ordered", "filled", "planned", "realised", "slippage", "fees"]
    return (
        pd.DataFrame(rows, columns=[*orders, "expected"]),
        pd.DataFrame(periods, columns=["decided", "realised", "paper"]),
    )
