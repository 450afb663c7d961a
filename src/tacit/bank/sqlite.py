"""A bank in one SQLite file: opening it safely, its errors in plain words, snapshots.

Builds on sql (everything that is not particular to SQLite). The file is in write-ahead-log mode with
synchronous=FULL: readers and a writer do not block each other, and a commit returns only when it is on the disk.
``application_id`` marks the file as a bank, ``user_version`` is the number of migrations applied to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RootTransaction, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from tacit.bank.schema import MIGRATIONS
from tacit.bank.search.compressed import EXACT_ROWS
from tacit.bank.search.kept import Kept
from tacit.bank.sql import SQLBank
from tacit.errors import BankError, BankMissing, BankUnavailable, ConfigError

APPLICATION_ID = 0x54616369
"""Marks an SQLite file as a memory bank ("Taci" in ASCII)."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process's write by default."""

ROOM = 2**23
"""Bytes: on a disk with less room the write-ahead log is folded into the file after every write."""

_MAGIC = b"SQLite format 3\x00"
_EVERYTHING = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_STATISTICS = {  # what ANALYZE makes
    ("table", "sqlite_stat1", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "sqlite_stat4", "sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
}
_TYPES = {
    "serial": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "blob": "BLOB",
    "real": "DOUBLE",
    "random": "lower(hex(randomblob(16)))",
}


class SQLiteBank(SQLBank):
    """A bank in the SQLite file ``path``; implements the ``Bank`` protocol."""

    def __init__(
        self,
        path: str | Path,
        *,
        create: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        search_threads: int | None = None,
        exact_rows: int | None = EXACT_ROWS,
    ) -> None:
        """Open the bank, making it (and its folder) if there is none and ``create`` is true; see ``bank.open_bank``.

        Raises:
            BankError: none, not a bank, a newer one, locked, or a place that cannot be read or written.
            ConfigError: a negative ``busy_timeout`` or fewer than one search thread or exact row.
        """
        if not busy_timeout >= 0:
            raise ConfigError(f"the busy timeout must be at least 0 seconds, not {busy_timeout}")
        self.path = Path(path).absolute()
        self._busy_timeout = busy_timeout
        with plainly(self.path, busy_timeout):
            prepare(self.path, create, busy_timeout)
            self._place = place_of(self.path)
        engine = create_engine(
            "sqlite://", creator=lambda: connect(self.path, busy_timeout), poolclass=QueuePool, max_overflow=-1
        )
        event.listen(engine, "begin", _begin)
        url, where = f"sqlite:///{self.path}", f"bank {self.path}"
        super().__init__(url, where, engine, busy_timeout, search_threads, exact_rows)
        self._matrices.kept = Kept(self, self.path)

    def snapshot(self, path: str | Path) -> None:
        """See ``Bank.snapshot``: one SQLite file, complete in itself."""
        self._check_usable()
        self._check_place()
        target = Path(path).absolute()
        with plainly(self.path, self._busy_timeout), contextlib.closing(connect(self.path, self._busy_timeout)) as ours:
            copy(ours, target, self._busy_timeout)

    def fault(self) -> str | None:
        """See ``SQLBank.fault``: the file is no longer the one that was opened.

        SQLite itself would go on with both: the old one where a connection is open, the new one for the next.
        """
        try:
            found = place_of(self.path)
        except OSError:
            found = None
        if found == self._place:
            return None
        what = "is gone from its place" if found is None else "is another file than the one that was opened"
        return f"{self._where} {what}; put that one back, or start again with what is there now"

    def shrink(self) -> int:
        """See ``Bank.shrink``: written anew, and locked meanwhile, where a quarter and a megabyte of it are empty."""
        self._check_usable()
        self._check_place()
        with plainly(self.path, self._busy_timeout), contextlib.closing(connect(self.path, self._busy_timeout)) as ours:
            names = ("page_size", "page_count", "freelist_count")
            page, pages, free = (int(ours.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
            if free * page < 2**20 or 4 * free < pages or shutil.disk_usage(self.path).free < 2 * page * pages:
                return 0
            ours.execute("VACUUM")
            ours.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return free * page

    def _check_place(self) -> None:
        fault = self.fault()
        if fault:
            raise BankUnavailable(fault)

    def _connect(self, *, write: bool) -> Connection:
        self._check_place()
        return super()._connect(write=write)

    def _commit(self, transaction: RootTransaction) -> None:
        self._check_place()  # what was begun in time must not be acknowledged either
        super()._commit(transaction)

    def _ended(self, connection: Connection) -> None:
        # By itself SQLite folds the log in at some 4 MB only. On a disk that is small, or gets full, the log would take
        # the room that the file needs to take it in. Folded in, it is written from its start; nobody is waited for.
        with contextlib.suppress(SQLAlchemyError, sqlite3.Error, OSError):
            raw = connection.connection.dbapi_connection
            if shutil.disk_usage(self.path).free < ROOM and isinstance(raw, sqlite3.Connection):
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _check_files(self) -> None:
        with self._fresh_reading() as connection:
            found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(3)")]
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        wrong = "; ".join(found) if found != ["ok"] else ""
        if orphans and not wrong:
            wrong = f"{len(orphans)} rows (the first in table {orphans[0][0]!r}) belong to memories that are gone"
        if wrong:
            raise BankError(f"{self._where} is damaged: {' '.join(wrong.split())[:200]}; restore a snapshot")

    def _explain(self, error: SQLAlchemyError) -> BankError:
        if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
            return explain(error.orig, self.path, self._busy_timeout)
        return BankError(f"{self._where} cannot be used: {error}")

    def _is_open(self, connection: Connection) -> bool:
        raw = connection.connection.dbapi_connection
        return isinstance(raw, sqlite3.Connection) and raw.in_transaction


def _begin(connection: Connection) -> None:
    # A write transaction takes the lock at once: one that starts reading and then writes could find itself behind
    # another writer, and would have to be thrown away however long it waited.
    immediate = connection.get_execution_options().get("tacit_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def place_of(path: Path) -> tuple[int, int]:
    """Device and number of the file at ``path``, which no other file has while that one is there."""
    status = path.stat()
    return status.st_dev, status.st_ino


def connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection to an existing file with this module's settings; transactions are begun by hand."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False
    )
    # Text whose bytes are damaged is still handed out, so that the check can name the memory it belongs to.
    connection.text_factory = lambda data: data.decode(errors="replace")
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, create: bool, busy_timeout: float) -> None:
    """See that ``path`` is a bank of the latest schema: refuse what is not a bank, make or migrate what may be.

    Nothing is written to a file that is not a bank. Several processes may do this at once.
    """
    exists = look(path)
    if not exists and not create:
        raise BankMissing(f"there is no bank at {path}; check the address, or create one there first")
    if not exists:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    with contextlib.closing(connect(path, busy_timeout)) as connection:
        version = version_of(connection, path, create)
        # Asked even of a bank of the right version, since a rollback-journal copy may have been put in its place.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            _retry_locked(lambda: connection.execute("PRAGMA journal_mode = WAL"), busy_timeout)
        if version < len(MIGRATIONS):
            migrate(connection, path, create)


def look(path: Path) -> bool:
    """Whether there is a file that may be a bank, judged by its first bytes; BankError where it cannot be one."""
    if path.exists() and not path.is_file():  # a pipe would be waited at for ever
        what, where = ("a folder", "in it ") if path.is_dir() else ("no file", "")
        raise BankError(f"{path} is {what}, not a bank; give the path of a file {where}such as {path / 'bank.db'}")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return False
    if head and not head.startswith(_MAGIC):
        raise BankError(f"{path} is not a memory bank (not an SQLite file); give another path, nothing was changed")
    marked = int.from_bytes(head[68:72], "big")
    # 0 may be a bank whose first transaction is still in its write-ahead log; SQLite itself tells, in a moment.
    if marked not in (0, APPLICATION_ID):
        raise foreign(path)
    return True


def foreign(path: Path) -> BankError:
    return BankError(f"{path} is an SQLite database of another application, not a memory bank; give another path")


def version_of(connection: sqlite3.Connection, path: Path, create: bool) -> int:
    """Number of migrations applied; BankError unless the file has exactly the tables and indexes that these make.

    A trigger or a view in place of a table could change what is written or read.
    """
    connection.execute("BEGIN")  # so that no other process makes or migrates the bank between two readings
    try:
        version = _marked_version(connection, path, create)
        found = set(connection.execute(_EVERYTHING).fetchall())
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    for kind, name, *_ in sorted((found ^ tables_of(version)) - _STATISTICS, key=str):
        what = f"the {kind} {name[:60]!r} is not as Tacit makes it"
        raise BankError(f"{path} is not used: {what}; restore a copy that nothing else has written to")
    return version


def _marked_version(connection: sqlite3.Connection, path: Path, create: bool) -> int:
    """Number of migrations applied; BankError for a foreign database or a newer bank. Asked in a transaction."""
    marked = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if marked == 0 and version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        if not create:
            raise BankError(f"{path} is an empty file, not a bank; check the address, or create a bank there first")
        return 0
    if marked != APPLICATION_ID:
        raise foreign(path)
    if version > len(MIGRATIONS):
        newer = f"schema {version}, this one knows {len(MIGRATIONS)}"
        raise BankError(f"bank {path} was written by a newer Tacit ({newer}); update Tacit to open it")
    return version


@cache
def tables_of(version: int) -> frozenset[tuple[Any, ...]]:
    """What SQLite says of the tables and indexes of a bank of this version."""
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        for migration in MIGRATIONS[:version]:
            for statement in migration.statements:
                made.execute(statement.format(**_TYPES))
        return frozenset(made.execute(_EVERYTHING).fetchall())


def migrate(connection: sqlite3.Connection, path: Path, create: bool, target: int = len(MIGRATIONS)) -> None:
    """Apply the migrations that ``connection``'s bank lacks, up to number ``target``, as one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _marked_version(connection, path, create)  # again, under the lock: another process may have been faster
        for migration in MIGRATIONS[done:target]:
            for statement in migration.statements:
                connection.execute(statement.format(**_TYPES))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(done, target)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _retry_locked(action: Any, busy_timeout: float) -> None:
    # Changing the journal mode does not wait for locks as other statements do.
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def explain(error: sqlite3.Error, path: Path, busy_timeout: float) -> BankError:
    """An SQLite error as one sentence: what is wrong, where, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BankUnavailable(
            f"bank {path} has been locked by another process for more than {busy_timeout:g} s; "
            "wait for that process, end it, or raise the busy timeout"
        )
    known = {
        sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space, nothing of this write was stored",
        sqlite3.SQLITE_IOERR: "cannot be read or written (disk full, over a limit, or failing); check the disk",
        sqlite3.SQLITE_READONLY: "cannot be written; check the permissions of the file and its folder",
        sqlite3.SQLITE_PERM: "cannot be opened; check the permissions of the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that its folder exists and can be written",
        sqlite3.SQLITE_CORRUPT: "is damaged; restore a snapshot",
        sqlite3.SQLITE_NOTADB: "is not a memory bank or its first page is damaged; restore a snapshot",
    }
    lasting = code not in known or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    kind = BankError if lasting else BankUnavailable
    return kind(f"bank {path} {known.get(code, 'cannot be used')} ({error})")


@contextlib.contextmanager
def plainly(path: Path, busy_timeout: float) -> Iterator[None]:
    """Turn SQLite's and the file system's errors inside into BankError."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path, busy_timeout) from error
    except OSError as error:
        raise BankUnavailable(
            f"bank {path} cannot be read or written ({error.strerror or error}); check the path and its permissions"
        ) from error


def backup(source: sqlite3.Connection, target: sqlite3.Connection, busy_timeout: float) -> None:
    """Replace what is in ``target`` with what is in ``source``, in one transaction on either side."""
    deadline = time.monotonic() + busy_timeout

    def give_up(status: int, remaining: int, total: int) -> None:
        # Left alone, the module tries a locked database again for ever.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > deadline:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = status
            raise error

    source.backup(target, progress=give_up, sleep=0.02)


def copy(source: sqlite3.Connection, target: Path, busy_timeout: float, *, new_epoch: bool = False) -> None:
    """Copy the bank behind ``source`` into the new file ``target``, whole or not at all; BankError if it exists."""
    if os.path.lexists(target):
        raise BankError(f"{target} exists already; give a path where there is nothing yet")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with plainly(target, busy_timeout), contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as made:
            backup(source, made, busy_timeout)
            # Out of WAL mode, so that the copy is this one file and nothing beside it.
            made.execute("PRAGMA journal_mode = DELETE")
            if new_epoch:
                made.execute("UPDATE bank SET epoch = lower(hex(randomblob(16)))")
            found = made.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                said = " ".join(found.split())[:200]
                raise BankError(f"the copy for {target} came out damaged ({said}); the bank itself may be, so check it")
        _flush(partial)
        try:
            os.link(partial, target)  # unlike a rename, this fails where another process has put something meanwhile
        except FileExistsError:
            raise BankError(f"{target} exists already; give a path where there is nothing yet") from None
        _flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
