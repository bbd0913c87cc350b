"""The database that sweeps and the trial ledger are stored in, named by a URL.

An SQLite file by default; PostgreSQL if several machines share it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Engine, MetaData, Table

VARIABLE = "DEQFOLIO_STORAGE"
FILE = "~/.local/share/deqfolio/trials.sqlite3"
BUSY = 60  # seconds to wait for another process's write
ANSWER = 10  # seconds to wait for a server's answer


class StorageError(RuntimeError):
    """The storage cannot be reached, read or written; the message names it and the remedy."""


def storage_url(url: str | None = None) -> str:
    """``url``, else the environment variable DEQFOLIO_STORAGE, else the URL of a file.

    The file is ~/.local/share/deqfolio/trials.sqlite3; its folder is created.

    Raises:
        StorageError: this is no URL of an SQLite or PostgreSQL database, its driver is not
            installed, or the folder of a file cannot be created.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    chosen = url or os.environ.get(VARIABLE) or f"sqlite:///{Path(FILE).expanduser()}"
    try:
        parsed = make_url(chosen)
    except ArgumentError:
        raise StorageError(
            f"{chosen!r} is no URL of a database; sqlite:///trials.sqlite3 or "
            "postgresql://user:password@host/database would be"
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(
            f"{shown(chosen)}: there is no driver for {parsed.drivername!r}; sqlite:/// and "
            "postgresql:// have one"
        )
    if parsed.drivername == "postgresql" and not find_spec("psycopg2"):
        parsed = parsed.set(drivername="postgresql+pg8000")
    if parsed.drivername.endswith("pg8000") and not find_spec("pg8000"):
        raise StorageError(
            f"{shown(chosen)} needs a driver for PostgreSQL: pip install 'deqfolio[postgres]'"
        )
    if parsed.get_backend_name() == "sqlite" and is_path(parsed.database):
        try:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the folder of {parsed.database} cannot be created ({error.strerror}); set "
                f"{VARIABLE} to another storage"
            ) from error
    return parsed.render_as_string(hide_password=False)


def is_path(database: str | None) -> bool:
    """Whether the database of an SQLite URL is a file named by its path."""
    return database not in (None, "", ":memory:") and not str(database).startswith("file:")


def shown(url: str) -> str:
    """The URL as a user writes it, without its password."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    parsed = parsed.set(drivername=parsed.drivername.partition("+")[0])
    return parsed.render_as_string(hide_password=True)


def connect_arguments(url: str) -> dict:
    """Arguments of ``create_engine`` that limit how long it waits."""
    waits = {"sqlite": BUSY, "postgresql+pg8000": ANSWER}
    driver = url.partition(":")[0]
    return {"connect_args": {"timeout": waits[driver]}} if driver in waits else {}


def connect(url: str | None = None) -> Engine:
    """An engine of SQLAlchemy on the storage; nothing is opened yet."""
    from sqlalchemy import NullPool, create_engine

    found = storage_url(url)
    try:
        return create_engine(found, poolclass=NullPool, **connect_arguments(found))
    except ModuleNotFoundError as error:
        raise StorageError(f"{shown(found)}: no driver for it is installed ({error})") from error


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise errors of the database as a StorageError that names the storage and the remedy."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Exception as error:
        # Optuna wraps the database's error, or fails an assertion because there is one; it is not
        # imported only to name its error.
        wrapped = {"StorageInternalError", "AssertionError"} & {type(error).__name__}
        if not (wrapped or isinstance(error, SQLAlchemyError | OSError)):
            raise
        first: BaseException | None = error
        while first is not None and not isinstance(first, SQLAlchemyError | OSError):
            first = first.__cause__ or first.__context__
        if first is None:
            raise
        if url.startswith("sqlite"):
            what, remedy = "cannot be read or written", "Make room for it, or unlock it,"
        else:
            what, remedy = "does not answer, or cannot be written", "Start it, or make room there,"
        raise StorageError(
            f"the storage {shown(url)} {what} ({_reason(first)}); what was stored before is safe. "
            f"{remedy} and run the same command again, or name another with --storage or {VARIABLE}"
        ) from error


def _reason(error: BaseException) -> str:
    """The message of a database's error: the system's own, if the driver hides one."""
    found: Any = getattr(error, "orig", None) or error
    system = found
    while system is not None and not (isinstance(system, OSError) and str(system)):
        system = system.__cause__ or system.__context__
    if system is not None:
        return system.strerror or str(system)
    if found.args and isinstance(found.args[0], dict):  # of pg8000
        found = found.args[0].get("M", found)
    return str(found).strip().splitlines()[0]


def upsert(
    engine: Engine,
    table: Table,
    row: Mapping[str, Any],
    changes: Mapping[str, Any],
    where: ColumnElement[bool] | None = None,
) -> int:
    """Insert a row or, if its primary key exists, change it; the number of rows written, 0 or 1.

    Args:
        changes: {column: value} of the existing row; it is changed only where ``where`` holds.
    """
    from sqlalchemy.dialects import postgresql, sqlite

    insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(**row)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_=changes, where=where
    )
    with engine.begin() as connection:
        return connection.execute(statement).rowcount


class Claims:
    """Which process may hand out a piece of work: of several that ask, one.

    Args:
        url: of the storage.
        stale: seconds after which a claim may be taken over, if its work is still missing.
    """

    def __init__(self, url: str, stale: int):
        from sqlalchemy import Column, Float, Integer, MetaData, String, Table

        self.stale = stale
        self._engine = connect(url)
        self._table = Table(
            "deqfolio_claims",
            MetaData(),
            Column("study", String(200), primary_key=True),
            Column("slot", Integer, primary_key=True),
            Column("attempt", Integer, primary_key=True),
            Column("time", Float),
        )
        create_tables(self._table.metadata, self._engine)

    def mine(self, study: str, slot: int, attempt: int) -> bool:
        """Whether this process, and no other, is to hand out this attempt at a slot."""
        now = time.time()
        row = {"study": study, "slot": slot, "attempt": attempt, "time": now}
        made = self._table.c.time
        late = (made < now - self.stale) | (made > now + self.stale)  # by a clock that was ahead
        return upsert(self._engine, self._table, row, {"time": now}, late) == 1


def add_columns(table: Table, engine: Engine) -> None:
    """Add the columns that a table of an earlier version lacks, empty."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    def missing() -> list[Any]:
        there = table_columns(engine, table.name)
        return [column for column in table.columns if column.name not in there]

    for column in missing():
        kind = column.type.compile(engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(
                    text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
                )
        except DBAPIError:
            if column in missing():  # else another process did so at the same moment
                raise


def table_columns(engine: Engine, name: str) -> set[str]:
    """The columns that a table has; none where there is no such table, or no file yet."""
    from sqlalchemy import inspect

    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if is_path(file) and not Path(str(file)).is_file():
        return set()
    known = inspect(engine)
    return {each["name"] for each in known.get_columns(name)} if known.has_table(name) else set()


def create_tables(metadata: MetaData, engine: Engine) -> None:
    """Create the tables that are missing; another process may do so at the same moment."""
    from sqlalchemy.exc import DBAPIError

    try:
        metadata.create_all(engine)
    except DBAPIError:
        metadata.create_all(engine)  # now they are there, or the error is another
