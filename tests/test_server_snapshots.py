"""Snapshots through the API: a bank of one namespace goes back to one; what was another's stays out of reach."""

from __future__ import annotations

from types import SimpleNamespace

from starlette.testclient import TestClient

from tacit.server.app import create_app
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig
from test_server_memories_api import code, ids, made, recalled


def test_a_bank_of_one_namespace_goes_back_to_its_snapshot(tmp_path):
    service = Service(ServeConfig(bank=str(tmp_path / "bank.db"), learner=False))
    _, secret = service.keys.create("test", "home", ("ask", "admin"))
    client = TestClient(create_app(service), headers={"Authorization": f"Bearer {secret}"})
    server = SimpleNamespace(service=service)
    service.bank.add(made(service, "m1"))
    name = client.post("/tacit/v1/snapshot").json()["name"]
    assert (tmp_path / name).is_file() and client.get("/tacit/v1/snapshots").json() == {"snapshots": [name]}
    client.delete("/tacit/v1/memories/m1")
    assert recalled(server) == []
    for bad in ("bank.db", f"../{tmp_path.name}/{name}", str(tmp_path / name), name + "x", "..", "\x00"):
        assert code(client.post("/tacit/v1/restore", json={"name": bad}), 404) == "snapshot_not_found"
    restored = client.post("/tacit/v1/restore", json={"name": name}).json()
    assert restored["name"] == name and (tmp_path / restored["kept"]).is_file()
    assert recalled(server) == ["m1"] and ids(client.get("/tacit/v1/memories")) == ["m1"]
    # Whoever has the bank to themselves later cannot go back to what was another's.
    service.keys.create("other", "work", ("admin",))
    assert code(client.post("/tacit/v1/restore", json={"name": name}), 403) == "bank_is_shared"
    service.close()
