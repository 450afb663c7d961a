"""Transactions over an SQL database: what a bank's reads and writes run in.

Builds on SQLAlchemy and errors. A thread has at most one transaction open; inside it, further ones join as savepoints.
A subclass says how a lock is taken and how its database's errors read. It says whether an error has ended the
transaction behind our back.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from tacit.errors import BankError, BankUnavailable


class Transactions(ABC):
    """Connections and transactions of one open bank. Thread-safe; refuses to work in a forked child.

    A write transaction's connection carries the execution option ``tacit_write``. So the database's "begin" can take
    the write lock at once.
    """

    def __init__(self, engine: Engine, where: str, lock_timeout: float) -> None:
        """``where`` names the bank in errors; ``lock_timeout`` is in seconds."""
        self._engine = engine
        self._where = where
        self._lock_timeout = lock_timeout
        self._process = os.getpid()
        self._closed = False
        self._local = threading.local()
        # Threads of one process queue here, fairly, rather than poll for the database's lock.
        self._writer = threading.Lock()

    @abstractmethod
    def _explain(self, error: SQLAlchemyError) -> BankError:
        """The database's error as one clear sentence."""

    @abstractmethod
    def _is_open(self, connection: Connection) -> bool:
        """Whether the transaction begun on ``connection`` is still open (an error may have ended it)."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._check_usable()
        with self._joined() if self._connection() is not None else self._outermost():
            yield

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        if not self._writer.acquire(timeout=self._lock_timeout):
            raise BankUnavailable(
                f"another thread has kept {self._where} in a transaction for more than {self._lock_timeout:g} s; "
                "make transactions shorter"
            )
        try:
            with self._explained():
                connection = self._connect(write=True)
            try:
                with self._explained():
                    transaction = connection.begin()
                self._local.connection, self._local.lost = connection, False
                try:
                    yield
                    self._check_not_lost(connection)
                    self._commit(transaction)
                except BaseException:
                    with suppress(SQLAlchemyError):
                        transaction.rollback()
                    raise
                finally:
                    self._local.connection = None
                    self._ended(connection)
            finally:
                with suppress(SQLAlchemyError):
                    connection.close()
        finally:
            self._writer.release()

    @contextmanager
    def _joined(self) -> Iterator[None]:
        connection = self._connection()
        assert connection is not None
        self._check_not_lost(connection)
        with self._explained():
            savepoint = connection.begin_nested()
        try:
            yield
            with self._explained():
                savepoint.commit()
        except BaseException:
            try:
                savepoint.rollback()
            except SQLAlchemyError:
                self._local.lost = True
            raise

    def _check_not_lost(self, connection: Connection) -> None:
        # After a full disk, say, the database may have ended the transaction itself. Whoever caught that error must
        # not go on: further statements would each commit on their own, and a commit would acknowledge nothing.
        if self._local.lost or not self._is_open(connection):
            self._local.lost = True
            raise BankUnavailable(
                f"{self._where} undid this transaction after an earlier error; nothing of it is stored"
            )

    def _connection(self) -> Connection | None:
        found: Connection | None = getattr(self._local, "connection", None)
        return found

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self.transaction():
            connection = self._connection()
            assert connection is not None
            with self._explained():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """The open transaction's connection, so that it sees its own writes, or a fresh one."""
        self._check_usable()
        connection = self._connection()
        if connection is None:
            with self._fresh_reading() as connection:
                yield connection
        else:
            self._check_not_lost(connection)
            with self._explained():
                yield connection

    @contextmanager
    def _fresh_reading(self) -> Iterator[Connection]:
        """A connection that sees one committed revision of the bank."""
        self._check_usable()
        with self._explained(), self._connect(write=False) as connection, connection.begin():
            yield connection

    def _connect(self, *, write: bool) -> Connection:
        connection = self._engine.connect()
        return connection.execution_options(tacit_write=True) if write else connection

    def _commit(self, transaction: RootTransaction) -> None:
        with self._explained():
            transaction.commit()

    def _ended(self, connection: Connection) -> None:  # noqa: B027
        """Called once a write transaction has been committed or undone; raises nothing."""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._explain(error) from error

    def _check_usable(self) -> None:
        if self._closed:
            raise BankError(f"{self._where} has been closed")
        if os.getpid() != self._process:
            raise BankError(f"{self._where} was opened before a fork; open it again in the child process")

    def _dispose(self) -> None:
        self._closed = True
        self._engine.dispose(close=os.getpid() == self._process)
