"""Going back to a snapshot: verified whole before anything is replaced, and into the living file, as one transaction.

Builds on sqlite. A snapshot may come from anywhere: it is only ever read, its tables have to be exactly a bank's, and
its API keys open nothing. With ``left_out`` damaged memories are left out rather than all of it refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from pathlib import Path

from sqlalchemy import Table, delete, select, update

from tacit.bank import schema
from tacit.bank.rows import odd
from tacit.bank.search.kept import sweep
from tacit.bank.sqlite import SQLiteBank, backup, connect, copy, foreign, look, migrate, plainly, version_of
from tacit.errors import BankError

_WHOLE = ("bank", "namespaces", "api_keys")  # nothing is left out of them: without its keys a bank would be open


def restore_file(
    snapshot: Path, target: Path, *, force: bool, busy_timeout: float, left_out: list[str] | None = None
) -> Path | None:
    """See ``tacit.bank.restore``."""
    with plainly(snapshot, busy_timeout):
        if not look(snapshot):
            raise BankError(f"there is no snapshot at {snapshot}")
    if os.path.lexists(target) and not force:
        raise BankError(f"there is a bank at {target} already; restore elsewhere, or force it (the old one is kept)")
    if target.exists() and target.samefile(snapshot):
        raise BankError(f"{target} is the snapshot itself; restore to another path")
    sweep(target)
    # The snapshot is only ever read: what gets migrated and verified is a private copy, which then takes its place.
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.restoring")
    try:
        with plainly(snapshot, busy_timeout), contextlib.closing(connect(snapshot, busy_timeout)) as source:
            if not version_of(source, snapshot, create=False):
                raise foreign(snapshot)
            copy(source, fresh, busy_timeout, new_epoch=True)
        with SQLiteBank(fresh, create=False) as verified:
            if left_out is not None:
                left_out += _salvage(verified)
            _shut(verified)
            verified.check()
        with plainly(target, busy_timeout):
            return _put(fresh, target, busy_timeout)
    finally:
        for suffix in ("", "-wal", "-shm"):
            fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)


def _salvage(bank: SQLiteBank) -> list[str]:
    """Take what is damaged out of a copy; returns one sentence for each memory, and each other row, left out."""
    others = []
    with bank.connection(write=True) as connection:
        while strange := [(name, row) for name, row in odd(connection) if name not in _WHOLE]:
            for name, row in strange:
                connection.exec_driver_sql(f"DELETE FROM {name} WHERE rowid = {row}")
            others += [f"row {row} of table {name!r}: it is not as Tacit writes it" for name, row in strange]
    found = bank.damages()
    with bank.connection(write=True) as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if "position" in table.c and table is not schema.deletions:
                for position in found:
                    connection.execute(delete(table).where(table.c.position == position))
                if table is not schema.memories:
                    gone = table.c.position.not_in(select(schema.memories.c.position))
                    connection.execute(delete(table).where(gone))
    return others + [f"memory {id!r}: {why}" for id, why in found.values()]


def _put(fresh: Path, target: Path, busy_timeout: float) -> Path | None:
    """Make ``target`` hold what ``fresh`` holds; what was there is kept under the path returned."""
    if not os.path.lexists(target):
        with contextlib.closing(connect(fresh, busy_timeout)) as source:
            copy(source, target, busy_timeout)
        return None
    aside = target.with_name(f"{target.name}.before-restore-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}")
    try:
        # Into the living file, as one transaction: whoever has the bank open goes on with the restored content.
        with contextlib.closing(connect(target, busy_timeout)) as old:
            if not version_of(old, target, create=False):
                raise foreign(target)
            copy(old, aside, busy_timeout)
            migrate(old, target, create=False)
            with contextlib.closing(connect(fresh, busy_timeout)) as source:
                _keep_api_keys(old, source)
                backup(source, old, busy_timeout)
    except (sqlite3.DatabaseError, BankError) as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, sqlite3.OperationalError):
            raise  # locked or full: the old bank is well, so leave it where it is
        # What is there cannot be read as a bank: put it out of the way as it is, with the files that belong to it.
        for suffix in ("-wal", "-shm", ""):
            beside = target.with_name(target.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        with contextlib.closing(connect(fresh, busy_timeout)) as source:
            copy(source, target, busy_timeout)
    return aside


def _keep_api_keys(old: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
    """Give ``fresh`` the API keys of ``old`` in place of its own: who has been shut out since a snapshot stays out.

    Where the old bank has none, ``fresh`` keeps what ``_shut`` has left of its own.
    """
    # The learning done today belongs to the keys: a restore must not hand the day's budget out again.
    tables = (schema.api_keys, schema.learned_days)
    rows = {table.name: old.execute(f"SELECT {_columns(table)} FROM {table.name}").fetchall() for table in tables}
    if not rows["api_keys"]:
        return
    with fresh:
        fresh.execute("BEGIN IMMEDIATE")
        for table in tables:
            places = ", ".join("?" * len(table.columns))
            fresh.execute(f"DELETE FROM {table.name}")
            fresh.executemany(f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({places})", rows[table.name])


def _shut(bank: SQLiteBank) -> None:
    """Revoke every API key in a copy: whoever made the snapshot must not have let somebody in with it."""
    keys = schema.api_keys
    with bank.connection(write=True) as connection:
        connection.execute(update(keys).where(keys.c.revoked.is_(None)).values(revoked=time.time()))


def _columns(table: Table) -> str:
    return ", ".join(table.columns.keys())
