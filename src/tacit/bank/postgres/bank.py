"""A bank in PostgreSQL: opening it safely, its connections, its errors in plain words.

Builds on sql (everything that is not particular to PostgreSQL), address and schema. A write
transaction locks the bank's one row of ``bank`` first, and so waits for any other; reading sees one committed state
(REPEATABLE READ). A commit returns when the server has it on its disk, unless the server is set up otherwise.

A connection that is lost is made anew. A call outside a transaction is then tried again, for as long as a lock would be
waited for. One thing cannot be tried again: a commit whose answer was lost, which may have been stored or not.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast

import numpy as np
from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event, exc, func
from sqlalchemy.sql.elements import ColumnElement

from tacit.bank import schema
from tacit.bank.base import Hit, Query
from tacit.bank.copying import copy_between
from tacit.bank.postgres import schema as postgres_schema
from tacit.bank.postgres.address import Address, parse
from tacit.bank.search import vectors
from tacit.bank.search.compressed import EXACT_ROWS
from tacit.bank.search.large_groups import LargeGroups
from tacit.bank.search.matrices import checked_queries, refuse_other
from tacit.bank.sql import SQLBank
from tacit.bank.sqlite import BUSY_TIMEOUT, SQLiteBank
from tacit.errors import BankError, BankUnavailable, ConfigError, needed
from tacit.memory import State

_AGAIN = 0.05  # seconds between tries to connect
_POOLED, _AT_MOST = 5, 20

# What a server says that is not there yet, or no more. Failures to connect come with a text and no code.
_GONE = re.compile(
    "refused|No such file|starting up|shutting down|recovery mode|closed the connection|connection.*(closed|lost)|"
    "reset by peer|timeout expired|timed out|broken pipe|not yet accepting|terminating connection|could not receive|"
    "server closed|SSL SYSCALL|crash of another server process",
    re.IGNORECASE,
)
_LASTING = re.compile("2[123]|42|XX00[12]")  # of what was asked or is stored, which waiting does not mend
_GONE_CODES = re.compile("08|57P0[1235]")

_KNOWN = {
    "28": "refuses this user; check the name and password of its address, PGPASSWORD or ~/.pgpass",
    "3D000": "does not exist: the server has no database of that name; create it with createdb",
    "42501": "may not be used so by this user; ask for rights on the database or give another ?schema=",
    "25006": "cannot be written: the server is a standby or read-only; give the address of its primary",
    "53100": "cannot grow: the server's disk is full; nothing of this write was stored",
    "53300": "has no connection left; close some or raise max_connections",
    "42P01": "lacks a table; restore it from a copy",
    "XX001": "is damaged; restore it from a copy",
    "XX002": "is damaged; restore it from a copy",
}
_SAID = (
    ("password|authentication|role .* does not exist", "28"),
    ("database .* does not exist", "3D000"),
    ("too many clients|connection slots", "53300"),
)


class ConnectionLost(BankUnavailable):
    """The server is gone or was in between; ``unknown`` when a commit's answer got lost with it."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class PostgresBank(SQLBank):
    """A bank in a PostgreSQL database; implements the ``Bank`` protocol."""

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        search_threads: int | None = None,
        exact_rows: int | None = EXACT_ROWS,
    ) -> None:
        """Open the bank, making its schema and tables if there are none and ``create`` is true; see ``bank.open_bank``.
        The database must exist.

        Raises:
            BankError: none, not a bank, a newer one, locked, or a server that cannot be reached or refuses.
            ConfigError: a wrong address or setting, or no driver.
        """
        if not busy_timeout >= 0:
            raise ConfigError(f"the busy timeout must be at least 0 seconds, not {busy_timeout}")
        address = parse(url)
        self._driver = needed("postgres", "a bank in PostgreSQL", "psycopg")
        where = f"bank {address.shown}"
        self._index = LargeGroups(exact_rows, self.build_index, where)
        super().__init__(address.full, where, _engine(address, busy_timeout), busy_timeout, search_threads, exact_rows)
        try:
            with self._explained():
                postgres_schema.prepare(lambda: self._reached(autocommit=True), address.schema, where, create)
        except BaseException:
            self.close()
            raise
        self._engine.dispose()  # the connections so far knew nothing of what has been made
        event.listen(self._engine, "begin", _begin)

    def snapshot(self, path: str | Path) -> None:
        """See ``Bank.snapshot``: an SQLite bank, one file, complete in itself."""
        self._check_usable()
        target = Path(path).absolute()
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            if os.path.lexists(target):
                raise BankError(f"{target} exists already; give a path where there is nothing yet")
            with SQLiteBank(partial) as made:
                copy_between(self, made)
                made.snapshot(target)
        finally:
            for suffix in ("", "-wal", "-shm"):
                partial.with_name(partial.name + suffix).unlink(missing_ok=True)

    def search_many(self, keys: np.ndarray, **query: Unpack[Query]) -> list[list[Hit]]:
        """See ``Bank.search_many``; by the server, where the group has more keys than ``exact_rows`` and is indexed."""
        self._check_usable()
        namespace, k, floor = query["namespace"], query.get("k", 1), query.get("floor", -1.0)
        queries = checked_queries(keys, k, floor)
        group = (namespace, query["key_kind"], queries.shape[1])
        if len(queries) and self._index.to_ask(group, self._matrices.rows(*group)):
            with self._fresh_reading() as connection:
                now = connection.execute(vectors.NOW, vectors.named(group)).one()
                if now.fingerprint is not None:
                    refuse_other(namespace, now.fingerprint, query["fingerprint"], self._where)
                self._index.seen(group, now.grp is not None)
                if now.grp is not None:
                    self._matrices.forget(*group)
                    wanted = [State(state) for state in query.get("states", (State.ACTIVE,))]
                    return vectors.search(connection, group, queries, now.grp, k=k, floor=floor, states=wanted)
        return super().search_many(keys, **query)

    def build_index(self, namespace: str, key_kind: str, dim: int, told: Callable[[int], None] | None = None) -> bool:
        """Have the server search this group from now on; False where it cannot, or another process is building.

        Takes minutes for 100,000 keys; the bank stays in use meanwhile. Searches of large groups do so by themselves.
        """
        self._check_usable()
        with self._explained(), self._reached(autocommit=True) as connection:
            connection.detach()  # what is set and locked on it ends with it
            if not vectors.available(connection):
                return False
            self._index.working = connection.connection.dbapi_connection
            try:
                return vectors.build(connection, self._writing, (namespace, key_kind, dim), told or (lambda done: None))
            finally:
                self._index.working = None

    def close(self) -> None:
        self._index.stop()
        super().close()

    def _stored(self, connection: Connection, position: int, group: tuple[str, str, int], key: bytes) -> None:
        vectors.stored(connection, position, group, key)

    def _connect(self, *, write: bool) -> Connection:
        connection = self._reached()
        if write:
            return connection.execution_options(tacit_write=True)
        return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def _reached(self, *, autocommit: bool = False) -> Connection:
        """A connection; a server that is not there is waited for."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                connection = self._engine.connect()
                return connection.execution_options(isolation_level="AUTOCOMMIT") if autocommit else connection
            except exc.SQLAlchemyError as error:
                if not isinstance(self._explain(error), ConnectionLost) or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN)

    def _commit(self, transaction: RootTransaction) -> None:
        try:
            super()._commit(transaction)
        except ConnectionLost as error:
            raise ConnectionLost(
                f"the connection to {self._where} was lost during a commit, and whether it was stored is not known; "
                "look before you repeat it (adding again is safe, counting is not)",
                unknown=True,
            ) from error

    def _check_files(self) -> None:
        with self._fresh_reading() as connection:
            for table in schema.metadata.sorted_tables:
                connection.exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar_one()
            for table in (schema.keys, schema.payloads, schema.counters, schema.history):
                orphans = connection.exec_driver_sql(
                    f"SELECT count(*) FROM {table.name} t LEFT JOIN memories m USING (position) WHERE m.id IS NULL"
                ).scalar_one()
                if orphans:
                    raise BankError(
                        f"{self._where} is damaged: {orphans} rows of table {table.name!r} belong to memories that are "
                        "gone; restore it from a copy"
                    )

    def _position(self, connection: Connection, id: str, namespace: str) -> int | None:
        if "\x00" in id or "\x00" in namespace:  # no text in PostgreSQL, so no memory's name
            return None
        return super()._position(connection, id, namespace)

    def _lower(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return func.lower(text.collate("C"))

    def _explain(self, error: exc.SQLAlchemyError) -> BankError:
        if isinstance(error, exc.TimeoutError):
            return BankUnavailable(
                f"all {_AT_MOST} connections to {self._where} have been in use for more than "
                f"{self._lock_timeout:g} s; use fewer threads"
            )
        cause = error.orig if isinstance(error, exc.DBAPIError) else None
        code = getattr(cause, "sqlstate", None) or ""
        said = " ".join(str(cause or error).split())[:200]
        if code == "55P03":
            return BankUnavailable(
                f"{self._where} has been locked by another process for more than {self._lock_timeout:g} s; "
                "wait for that process, end it, or raise the busy timeout"
            )
        lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
        if lost or _GONE_CODES.match(code) or (not code and _GONE.search(said)):
            return ConnectionLost(f"the server of {self._where} cannot be reached ({said}); see that it runs")
        known = next((words for start, words in _KNOWN.items() if code.startswith(start)), None)
        if known is None and not code:
            known = next((_KNOWN[key] for pattern, key in _SAID if re.search(pattern, said)), None)
        kind = BankError if _LASTING.match(code) else BankUnavailable
        return kind(f"{self._where} {known or 'cannot be used'} ({said})")

    def _is_open(self, connection: Connection) -> bool:
        if connection.invalidated:
            return False
        raw: Any = connection.connection.dbapi_connection
        return bool(raw.info.transaction_status == self._driver.pq.TransactionStatus.INTRANS)


def _engine(address: Address, lock_timeout: float) -> Engine:
    defaults: dict[str, Any] = {
        "application_name": "tacit",
        "connect_timeout": "10",
        # A peer that fell silent is given up after a minute; without these it would hold its locks for two hours.
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    }
    engine = create_engine(
        address.url,
        connect_args={name: value for name, value in defaults.items() if name not in address.url.query},
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=_POOLED,
        max_overflow=_AT_MOST - _POOLED,
        pool_timeout=max(lock_timeout, 1.0),
        hide_parameters=True,
    )

    def settle(raw: Any, record: object) -> None:
        _adapt(raw)
        raw.autocommit = True
        raw.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('jit', 'off', false),"
            " set_config('search_path', quote_ident(%s) || coalesce((SELECT ', ' || quote_ident(n.nspname) FROM"
            " pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'), ''), false),"
            " CASE WHEN current_setting('synchronous_commit') IN ('off')"
            " THEN set_config('synchronous_commit', 'on', false) END",
            (f"{max(1, round(lock_timeout * 1000))}ms", address.schema),
        )
        raw.autocommit = False

    event.listen(engine, "connect", settle)
    return engine


def _adapt(raw: Any) -> None:
    from psycopg.types.string import StrDumper

    class Text(StrDumper):
        def dump(self, obj: str) -> Any:
            # A name with NUL is nobody's. What is written is checked before; were it not, it would be refused.
            if "\x00" in obj and getattr(self.connection, "read_only", False):
                obj = obj.replace("\x00", "\uffff")  # which is not printable, so no name has it either
            return super().dump(obj)

    raw.adapters.register_dumper(str, Text)


def _begin(connection: Connection) -> None:
    # READ COMMITTED is enough for writing: once this row is locked, nobody else commits anything in between.
    if connection.get_execution_options().get("tacit_write", False):
        connection.exec_driver_sql("SELECT one FROM bank WHERE one = 1 FOR UPDATE")


_Call = TypeVar("_Call", bound=Callable[..., Any])


def _again(method: _Call) -> _Call:
    """``method``, tried again while the server is away, unless inside a transaction or after a lost commit."""

    @wraps(method)
    def call(self: PostgresBank, *arguments: Any, **named: Any) -> Any:
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                return method(self, *arguments, **named)
            except ConnectionLost as error:
                if error.unknown or self._connection() is not None or time.monotonic() >= deadline:
                    raise
            time.sleep(_AGAIN)

    return cast(_Call, call)


for _name in (
    "bind", "add", "set_state", "count", "delete", "mark", "get", "find", "info", "counts", "page", "search_many",
    "history", "marked", "revision", "check",
):  # fmt: skip
    setattr(PostgresBank, _name, _again(getattr(PostgresBank, _name)))
