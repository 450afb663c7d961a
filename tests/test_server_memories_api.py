"""The memory API on a real service and bank: two namespaces, rights, pages, files from elsewhere, states, snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from server import InProcess
from tacit.bank.base import Hit
from tacit.bank.portable import from_safetensors, to_safetensors
from tacit.memory import Memory, State
from tacit.routing import Route
from tacit.server.live.service import Service

FILE = {"Content-Type": "application/octet-stream"}
PROBLEM = "3 + 4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service with a client per key: two administrators of two namespaces, and one who may only ask."""
    made = InProcess(tmp_path_factory.mktemp("bank") / "bank.db")
    yield SimpleNamespace(
        service=made.service,
        home=made.client("home", "admin", "ask", "learn"),
        work=made.client("work", "admin", "ask", "learn"),
        asker=made.client("home", "ask", "learn"),
        learner=made.client("home", "learn"),
        nobody=made.anyone(),
    )
    made.service.close()


def made(service: Service, id: str, problem: str = PROBLEM, namespace: str = "home", **changes: Any) -> Memory:
    """A memory that fits the service's model."""
    [key] = service.recall(namespace).keys([problem])
    rng = np.random.default_rng(sum(id.encode()))
    prompt = rng.standard_normal((3, service.backbone.hidden_size)).astype(np.float32)
    prompt *= service.backbone.embedding_norm / np.linalg.norm(prompt, axis=1, keepdims=True)
    values: dict[str, Any] = {
        "id": id,
        "namespace": namespace,
        "problem_id": f"p-{id}",
        "problem": problem,
        "prompt": prompt,
        "key": key,
        "key_kind": service.config.recall.key,
        "fingerprint": service.backbone.fingerprint,
        "state": State.ACTIVE,
        "reason": "admitted",
        "provenance": {"label": "7", "share": 0.75, "why": "the vote", "steps": [{"reward": 0.5}, {"reward": 0.75}]},
        "created": 1000.5,
    }
    return Memory(**{**values, **changes})


@pytest.fixture
def bank(server: SimpleNamespace) -> Iterator[Any]:
    """The bank, whose memories are gone after the test."""
    yield server.service.bank
    for namespace in ("home", "work"):
        for info in server.service.bank.find(namespace):
            server.service.bank.delete(info.id, namespace)


def code(response: Any, status: int) -> str:
    """The error's code, after a look at the status and the shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return str(error["code"])


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [memory["id"] for memory in response.json()["memories"]]


def recalled(server: SimpleNamespace, problem: str = PROBLEM) -> list[str]:
    """What would be answered with."""
    recall = server.service.recall("home")
    [found] = recall.recalled(recall.keys([problem]))
    return [] if found is None else [found[1].id]


ROUTES = [
    ("GET", "/tacit/v1/memories"),
    ("GET", "/tacit/v1/memories/m1"),
    ("POST", "/tacit/v1/memories/m1/quarantine"),
    ("POST", "/tacit/v1/memories/m1/restore"),
    ("POST", "/tacit/v1/memories/m1/activate"),
    ("DELETE", "/tacit/v1/memories/m1"),
    ("GET", "/tacit/v1/memories/m1/export"),
    ("POST", "/tacit/v1/memories/import"),
    ("GET", "/tacit/v1/jobs"),
    ("POST", "/tacit/v1/jobs/j1/retry"),
    ("GET", "/tacit/v1/status"),
    ("GET", "/tacit/v1/feed"),
    ("GET", "/tacit/v1/map"),
    ("POST", "/tacit/v1/snapshot"),
    ("GET", "/tacit/v1/snapshots"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_right_to_administer(server, bank, method, path):
    bank.add(made(server.service, "m1"))
    assert code(server.asker.request(method, path), 403) == "forbidden"
    assert [info.state for info in bank.find("home")] == [State.ACTIVE]


def test_nobody_gets_in_without_a_key_and_every_route_is_listed_above(server):
    assert code(server.nobody.get("/tacit/v1/memories"), 401) == "invalid_api_key"
    described = server.home.get("/openapi.json").json()["paths"]
    routes = {(m.upper(), path) for path, ways in described.items() for m in ways if path.startswith("/tacit/")}
    listed = {(method, path.replace("/m1", "/{id}").replace("/j1", "/{id}")) for method, path in ROUTES}
    assert routes == listed | {("GET", "/tacit/v1/jobs/{id}"), ("POST", "/tacit/v1/restore")}


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "m1" in route[1]])
def test_a_foreign_memory_is_answered_as_one_that_does_not_exist(server, bank, method, path):
    bank.add(made(server.service, "m1"))
    foreign = server.work.request(method, path)
    bank.delete("m1", "home")
    missing = server.work.request(method, path)
    assert code(foreign, 404) == "memory_not_found"
    assert (foreign.status_code, foreign.content) == (missing.status_code, missing.content)


def test_a_foreign_memory_cannot_be_changed_and_is_in_no_list(server, bank):
    bank.add(made(server.service, "m1"))
    bank.add(made(server.service, "m2", namespace="work"))
    for way in ("quarantine", "restore"):
        server.work.post(f"/tacit/v1/memories/m1/{way}")
    server.work.delete("/tacit/v1/memories/m1")
    assert len(bank.history("m1", "home")) == 1
    assert ids(server.work.get("/tacit/v1/memories")) == ["m2"]
    assert ids(server.home.get("/tacit/v1/memories")) == ["m1"]
    bank.add(made(server.service, "m3", namespace="work"))
    near = server.work.get("/tacit/v1/memories/m2").json()["neighbours"]
    assert [one["id"] for one in near] == ["m3"]  # the same problem is in both namespaces


def test_lists_are_sorted_filtered_and_paged(server, bank):
    facts = [("a", 3.0, 5, 0.5), ("b", 1.0, 7, None), ("c", 2.0, 5, 0.9)]
    for id, created, uses, share in facts:
        bank.add(
            made(server.service, id, f"{id.upper()}pple {id}", created=created, uses=uses, provenance={"share": share})
        )
    bank.set_state("b", "home", State.QUARANTINED, "test")

    def get(query: str = "") -> list[str]:
        return ids(server.home.get(f"/tacit/v1/memories?{query}"))

    assert get() == ["a", "c", "b"]  # newest first
    assert get("order=asc") == ["b", "c", "a"]
    assert get("sort=uses") == ["b", "c", "a"]  # of equal ones, that stored later
    assert get("sort=share") == ["c", "a", "b"] and get("sort=share&order=asc") == ["a", "c", "b"]
    assert get("state=quarantined") == ["b"] and get("state=retired") == []
    assert get("q=cPPLE+C") == ["c"]
    page = server.home.get("/tacit/v1/memories?limit=1&offset=1").json()
    assert page["total"] == 3 and [one["id"] for one in page["memories"]] == ["c"]
    assert set(page["memories"][0]).isdisjoint({"prompt", "key", "provenance"})
    assert get("offset=3") == []
    for bad in ("limit=0", "limit=1001", "offset=-1", "state=odd", "sort=problem", "order=up", "limit=x"):
        code(server.home.get(f"/tacit/v1/memories?{bad}"), 400)


def test_one_memory_is_shown_with_where_it_came_from(server, bank):
    first = made(server.service, "m1")
    bank.add(first)
    for index in range(7):
        bank.add(made(server.service, f"near-{index}", f"3 + {index}", state=State.CANDIDATE))
    shown = server.home.get("/tacit/v1/memories/m1").json()
    assert shown["provenance"] == first.provenance and shown["steps"] == first.provenance["steps"]
    assert (shown["label"], shown["share"], shown["why"]) == ("7", 0.75, "the vote")
    assert shown["history"] == [{"time": 1000.5, "old": None, "new": "active", "reason": "admitted"}]
    near = shown["neighbours"]
    assert len(near) == 5 and near[0]["id"] == "near-4" and near[0]["similarity"] == pytest.approx(1)
    assert near == sorted(near, key=lambda one: -one["similarity"]) and near[0]["state"] == "candidate"
    norm = server.service.backbone.embedding_norm
    assert shown["prompt"]["tokens"] == 3 and shown["prompt"]["norm_high"] == pytest.approx(norm)
    bank.add(made(server.service, "odd", provenance={"steps": "none", "why": 3}))  # provenance may hold anything
    odd = server.home.get("/tacit/v1/memories/odd").json()
    assert (odd["steps"], odd["why"]) == ([], None)


def test_ids_that_cannot_be_are_refused(server):
    for id in ("x" * 401, "a%00b", "a%0Ab"):
        for method, path in [route for route in ROUTES if "m1" in route[1]]:
            code(server.home.request(method, path.replace("m1", id)), 400)
    code(server.home.get("/tacit/v1/jobs/a%00b"), 400)
    code(server.home.get("/tacit/v1/memories/a%2Fb"), 404)


def test_quarantine_takes_a_memory_out_of_recall_and_restore_brings_it_back(server, bank):
    bank.add(made(server.service, "m1"))
    assert recalled(server) == ["m1"]
    moved = server.home.post("/tacit/v1/memories/m1/quarantine", json={"reason": "it lies"})
    assert (moved.json()["state"], moved.json()["reason"]) == ("quarantined", "it lies")
    assert recalled(server) == []
    again = server.home.post("/tacit/v1/memories/m1/quarantine")
    assert again.json()["reason"] == "it lies"  # it is there already
    back = server.home.post("/tacit/v1/memories/m1/restore")
    assert (back.json()["state"], back.json()["reason"]) == ("active", "restored by hand")
    assert recalled(server) == ["m1"]
    assert [step.new for step in bank.history("m1", "home")] == ["active", "quarantined", "active"]


def test_restore_does_not_promote_what_was_never_in_use(server, bank):
    bank.add(made(server.service, "m1", state=State.CANDIDATE))
    server.home.post("/tacit/v1/memories/m1/quarantine")
    assert server.home.post("/tacit/v1/memories/m1/restore", json={}).json()["state"] == "candidate"
    assert recalled(server) == []


@pytest.mark.parametrize("state", list(State))
def test_whoever_administers_may_take_any_memory_into_use(server, bank, state):
    bank.add(made(server.service, "m1", state=state))
    moved = server.home.post("/tacit/v1/memories/m1/activate", json={"reason": "looked at"}).json()
    assert moved["state"] == "active" and recalled(server) == ["m1"]
    assert (moved["reason"] == "looked at") == (state is not State.ACTIVE)


@pytest.mark.parametrize("body", ['{"reason": ""}', '{"why": "x"}', '{"reason": 3}', "[", '{"reason": "\\ud800"}'])
def test_bad_reasons_are_refused(server, bank, body):
    bank.add(made(server.service, "m1"))
    headers = {"Content-Type": "application/json"}
    code(server.home.post("/tacit/v1/memories/m1/quarantine", content=body, headers=headers), 400)
    assert bank.get("m1", "home").state is State.ACTIVE


def test_export_delete_import_is_a_round_trip_but_for_trust(server, bank):
    first = made(server.service, "m1", uses=3, helped=2)
    bank.add(first)
    exported = server.home.get("/tacit/v1/memories/m1/export")
    assert (
        exported.headers["content-type"] == FILE["Content-Type"]
        and "m1.safetensors" in exported.headers["content-disposition"]
    )
    assert (
        code(server.home.post("/tacit/v1/memories/import", content=exported.content, headers=FILE), 409)
        == "memory_exists"
    )
    assert server.home.delete("/tacit/v1/memories/m1").json() == {"id": "m1", "deleted": True}
    assert code(server.home.get("/tacit/v1/memories/m1"), 404) == "memory_not_found" and recalled(server) == []
    taken = server.home.post("/tacit/v1/memories/import", content=exported.content, headers=FILE)
    assert taken.status_code == 201, taken.text
    assert (
        taken.json()["state"] == "candidate"
        and taken.json()["reason"].startswith("imported")
        and taken.json()["uses"] == 0
    )
    back = bank.get("m1", "home")
    assert (
        back.sha256 == first.sha256
        and back.key.tobytes() == first.key.tobytes()
        and back.provenance == first.provenance
    )
    assert recalled(server) == []  # it has to prove itself first


def test_an_import_enters_the_callers_namespace_whatever_the_file_says(server, bank):
    data = to_safetensors(made(server.service, "m1", namespace="home"))
    assert server.work.post("/tacit/v1/memories/import", content=data, headers=FILE).json()["namespace"] == "work"
    assert bank.find("home") == [] and from_safetensors(data).namespace == "home"


def raw(memory: Memory, prompt: np.ndarray | None = None, **changes: object) -> bytes:
    """A file that says what no ``Memory`` could."""
    data = to_safetensors(memory)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    whole = json.loads(header["__metadata__"]["tacit"])
    whole["record"].update(changes)
    tensors = {"prompt": memory.prompt if prompt is None else prompt, "key": memory.key}
    return safetensors.numpy.save(tensors, metadata={"tacit": json.dumps(whole)})


def test_files_that_do_not_fit_are_refused_and_nothing_is_stored(server, bank):
    service = server.service
    good = made(service, "m1")
    norm, cap = service.backbone.embedding_norm, service.config.learn.norm_cap
    nan, huge = good.prompt.copy(), good.prompt.copy()
    nan[1, 2], huge[2] = np.nan, huge[2] * np.float32(cap * 1.01)
    data = to_safetensors(good)
    short = np.zeros(5, np.float32)
    short[0] = 1
    refused = {
        "nothing": (b"", None),
        "a cut file": (data[:-7], None),
        "a pickle": (b"\x80\x04N.", None),
        "a flipped header": (data[:20] + b"\xff" + data[21:], None),
        "other tensors": (safetensors.numpy.save({"x": good.prompt}), None),
        "nan": (raw(good, nan), None),
        "float64": (raw(good, good.prompt.astype(np.float64)), None),
        "too large a norm": (raw(good, huge), "wrong_norm"),
        "another width": (raw(good, np.ascontiguousarray(good.prompt[:, :-1])), "wrong_shape"),
        "too long": (
            raw(good, np.zeros((service.backbone.context, service.backbone.hidden_size), np.float32)),
            "wrong_shape",
        ),
        "another model": (raw(good, fingerprint="another"), "wrong_fingerprint"),
        "another kind of key": (raw(good, key_kind="input"), "wrong_key"),
        "another dimension": (to_safetensors(replace(good, key=short)), "wrong_key"),
        "an id with a slash": (raw(good, id="a/b"), "wrong_id"),
        "an id that means no memory": (raw(good, id="off"), "wrong_id"),
        "an enormous time": (raw(good, created=10**400), None),
        "an unknown field": (raw(good, more=1), None),
    }
    for name, (content, expected) in refused.items():
        found = code(server.home.post("/tacit/v1/memories/import", content=content, headers=FILE), 400)
        assert found == (expected or "None"), name
    assert code(server.home.post("/tacit/v1/memories/import", content=data), 415) == "unsupported_media_type"
    assert (
        code(server.home.post("/tacit/v1/memories/import", content=b"0" * (4 * 2**20 + 1), headers=FILE), 413)
        == "body_too_large"
    )
    assert bank.find("home") == []
    at_cap = good.prompt * np.float32(cap * norm / np.linalg.norm(good.prompt, axis=1).max())
    assert server.home.post("/tacit/v1/memories/import", content=raw(good, at_cap), headers=FILE).status_code == 201


def test_what_provenance_says_is_kept_but_not_believed(server, bank):
    """Whole numbers beyond any float, texts of markup: shown as they are, and in no other field."""
    odd = {"share": 10**400, "margin": "<b>", "steps": [None, {"reward": []}], "label": {"x": "\u0000"}}
    data = raw(made(server.service, "m1"), provenance=odd)
    taken = server.home.post("/tacit/v1/memories/import", content=data, headers=FILE)
    assert taken.status_code == 201 and (taken.json()["share"], taken.json()["margin"]) == (None, None)
    assert server.home.get("/tacit/v1/memories/m1").json()["provenance"] == odd
    assert ids(server.home.get("/tacit/v1/memories?sort=share")) == ["m1"]


def test_a_memory_deleted_while_it_is_looked_for_is_none(server, bank, monkeypatch):
    """Neither the caller nor whoever counts its use afterwards meets an error."""
    bank.add(made(server.service, "m1"))
    bank.add(made(server.service, "m2", "9 + 9"))
    search = bank.search_many

    def late(*args: Any, **settings: Any) -> Any:
        found = search(*args, **settings)
        bank.delete("m1", "home")
        return found

    monkeypatch.setattr(bank, "search_many", late)
    asked = {"model": "testbed:tacit", "messages": [{"role": "user", "content": PROBLEM}], "max_tokens": 4}
    answer = server.asker.post("/v1/chat/completions", json={**asked, "tacit": {"learn": False}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["tacit"]["memory"] is None and answer.json()["tacit"]["route"] == "no_memory"
    for hit in (Hit("m1", "p-m1", 1.0), Hit("m2", "p-m2", 0.5)):
        server.service.recall("home").count(hit, Route("memory", "preferred"))
    assert (bank.info("m2", "home").uses, bank.info("m2", "home").helped) == (1, 1)


def test_jobs_are_seen_in_their_namespace_alone(server):
    service = server.service
    key = next(key for key in service.keys.all() if key.namespace == "home" and key.may("learn"))
    submitted = [service.jobs.submit("home", f"what is {index} + 1", key).job for index in range(3)]
    listed = server.home.get("/tacit/v1/jobs?limit=2&state=queued").json()["jobs"]
    assert [job["id"] for job in listed] == [submitted[2].id, submitted[1].id]
    assert set(listed[0]).isdisjoint({"worker", "lease_until", "number"})
    assert server.home.get("/tacit/v1/jobs?state=done").json()["jobs"] == []
    assert server.work.get("/tacit/v1/jobs").json()["jobs"] == []
    path = f"/tacit/v1/jobs/{submitted[0].id}"
    assert server.asker.get(path).json()["problem"] == "what is 0 + 1"
    assert code(server.learner.get(path), 403) == "forbidden"
    assert code(server.work.get(path), 404) == "job_not_found"
    assert server.work.get(path).text.replace(submitted[0].id, "x") == server.work.get("/tacit/v1/jobs/x").text
    assert code(server.work.post(f"{path}/retry"), 404) == "job_not_found"
    assert server.home.post(f"{path}/retry").json()["state"] == "queued"
    assert server.home.get("/tacit/v1/status").json()["jobs"]["queued"] == 3
    assert server.work.get("/tacit/v1/status").json()["jobs"]["queued"] == 0


def test_status_counts_what_is_the_namespaces_own(server, bank):
    bank.add(made(server.service, "m1"))
    bank.add(made(server.service, "m2", namespace="work", state=State.CANDIDATE))
    status = server.home.get("/tacit/v1/status").json()
    assert status["memories"] == {"candidate": 0, "active": 1, "quarantined": 0, "retired": 0}
    none = {"runs": False, "alive": False, "restarts": 0, "failing": False, "reason": None}
    assert status["learner"] == none and status["draining"] is False
    assert (status["model"], status["namespace"]) == (server.service.config.served_name, "home")


def test_a_shared_bank_is_neither_copied_nor_restored(server):
    folder = Path(server.service.config.bank).parent
    before = sorted(path.name for path in folder.iterdir())
    for client in (server.home, server.work):
        assert code(client.post("/tacit/v1/snapshot"), 403) == "bank_is_shared"
        assert code(client.get("/tacit/v1/snapshots"), 403) == "bank_is_shared"
        assert code(client.post("/tacit/v1/restore", json={"name": "bank.db"}), 403) == "bank_is_shared"
    assert sorted(path.name for path in folder.iterdir()) == before
