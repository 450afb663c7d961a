"""The PostgreSQL server that the other tests run on: there, with pgvector, and able to die and come back."""

from __future__ import annotations

import pytest

from postgres import OwnServer, shared

pytestmark = pytest.mark.scale


def test_the_server_has_pgvector() -> None:
    database = shared().database().rsplit("/", 1)[1].split("?")[0]
    shared().execute("CREATE EXTENSION vector", database)
    version = shared().execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'", database)[0][0]
    assert tuple(map(int, version.split(".")[:2])) >= (0, 8)  # iterative scans


def test_a_killed_server_comes_back_with_what_was_committed() -> None:
    server = OwnServer()
    try:
        server.execute("CREATE TABLE kept (n INTEGER)")
        server.execute("INSERT INTO kept VALUES (7)")
        server.kill()
        server.start()
        assert server.execute("SELECT n FROM kept") == [(7,)]
    finally:
        server.stop()
