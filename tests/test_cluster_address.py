"""How a cluster at an address is entered, where the way in is not ready at once."""

from __future__ import annotations

import pytest

from tacit.cluster import connection
from tacit.cluster.connection import Cluster
from tacit.errors import ConfigError


def test_a_ray_client_knocks_again_where_its_server_process_did_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    knocks: list[str] = []

    def init(address: str, **_: object) -> None:
        knocks.append(address)
        if len(knocks) < full:
            raise ConnectionAbortedError("Initialization failure from server:\nTraceback:\nRuntimeError: not in time.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connection, "reachable", lambda address: None)
    full = 2
    opened = Cluster.__new__(Cluster)
    opened.address, opened._ray = "ray://127.0.0.1:1", ray
    opened._connect()
    assert len(knocks) == full
    full += 1
    knocks.clear()
    with pytest.raises(ConfigError, match="Initialization failure from server: RuntimeError: not in time"):
        opened._connect()
    assert len(knocks) == 2
