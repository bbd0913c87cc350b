"""Where sweeps and the trial ledger are kept: a database, named by a URL.

A file of SQLite by default; PostgreSQL where several machines share it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine, MetaData

VARIABLE = "DEQFOLIO_STORAGE"
FILE = "~/.local/share/deqfolio/trials.sqlite3"
BUSY = 60  # seconds to wait for another process's write
ANSWER = 10  # seconds to wait for a server's answer


class StorageError(RuntimeError):
    """The storage cannot be reached, read or written; the message names it and the mend."""


def storage_url(url: str | None = None) -> str:
    """The URL asked for, else that of the environment variable DEQFOLIO_STORAGE, else a file's.

    The file is ~/.local/share/deqfolio/trials.sqlite3; its folder is made.

    Raises:
        StorageError: this is no URL of a database, its driver is not installed, or the folder
            of a file cannot be made.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    chosen = url or os.environ.get(VARIABLE) or f"sqlite:///{Path(FILE).expanduser()}"
    try:
        parsed = make_url(chosen)
    except ArgumentError:
        raise StorageError(
            f"{chosen!r} is no URL of a database; sqlite:///trials.sqlite3 or "
            "postgresql://user:password@host/database would be"
        ) from None
    try:
        parsed.get_dialect()
    except NoSuchModuleError:
        raise StorageError(
            f"{shown(chosen)}: there is no driver for {parsed.drivername!r}; sqlite:/// and "
            "postgresql:// have one"
        ) from None
    if parsed.drivername == "postgresql" and not find_spec("psycopg2"):
        parsed = parsed.set(drivername="postgresql+pg8000")
    if parsed.drivername.endswith("pg8000") and not find_spec("pg8000"):
        raise StorageError(
            f"{shown(chosen)} needs a driver for PostgreSQL: pip install 'deqfolio[postgres]'"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        try:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the folder of {parsed.database} cannot be made ({error.strerror}); set "
                f"{VARIABLE} to another storage"
            ) from error
    return parsed.render_as_string(hide_password=False)


def shown(url: str) -> str:
    """The URL as a user writes it, without its password."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    parsed = parsed.set(drivername=parsed.drivername.partition("+")[0])
    return parsed.render_as_string(hide_password=True)


def connect_arguments(url: str) -> dict:
    """What ``create_engine`` is told, so that nothing waits forever."""
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
def reported(url: str) -> Iterator[None]:
    """Errors of the database as one sentence that names the storage and the mend."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Exception as error:
        # Optuna wraps the database's error, or asserts that there is none while one is raised; it
        # is not imported for that.
        wrapped = {"StorageInternalError", "AssertionError"} & {type(error).__name__}
        if not (wrapped or isinstance(error, SQLAlchemyError | OSError)):
            raise
        first: BaseException | None = error
        while first is not None and not isinstance(first, SQLAlchemyError | OSError):
            first = first.__cause__ or first.__context__
        if first is None:
            raise
        if url.startswith("sqlite"):
            said, mend = "cannot be read or written", "Make room for it, or free it,"
        else:
            said, mend = "does not answer, or cannot be written", "Start it, or make room there,"
        raise StorageError(
            f"the storage {shown(url)} {said} ({_reason(first)}); what was stored before is safe. "
            f"{mend} and run the same command again, or name another with --storage or {VARIABLE}"
        ) from error


def _reason(error: BaseException) -> str:
    """Of a database's error: what the system said, where a driver only hides it."""
    found: Any = getattr(error, "orig", None) or error
    system = found
    while system is not None and not (isinstance(system, OSError) and str(system)):
        system = system.__cause__ or system.__context__
    if system is not None:
        return system.strerror or str(system)
    if found.args and isinstance(found.args[0], dict):  # as pg8000 says it
        found = found.args[0].get("M", found)
    return str(found).strip().splitlines()[0]


class Claims:
    """Who hands out which piece of work: of several processes, one.

    Args:
        url: of the storage.
        stale: seconds after which a claim whose work is still missing may be taken over.
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
        create_once(self._table.metadata, self._engine)

    def mine(self, study: str, slot: int, attempt: int) -> bool:
        """Whether this process, and no other, is to hand out this attempt at a slot."""
        from sqlalchemy import insert, update
        from sqlalchemy.exc import IntegrityError

        now, columns = time.time(), self._table.c
        try:
            with self._engine.begin() as connection:
                row = {"study": study, "slot": slot, "attempt": attempt, "time": now}
                connection.execute(insert(self._table).values(**row))
            return True
        except IntegrityError:
            late = (
                update(self._table)
                .where(columns.study == study, columns.slot == slot, columns.attempt == attempt)
                .where(columns.time < now - self.stale)
                .values(time=now)
            )
            with self._engine.begin() as connection:
                return connection.execute(late).rowcount == 1


def create_once(metadata: MetaData, engine: Engine) -> None:
    """Make the tables; another process that makes them at the same moment is no error."""
    from sqlalchemy.exc import DBAPIError

    try:
        metadata.create_all(engine)
    except DBAPIError:
        metadata.create_all(engine)  # now they are there, or the error is another
