"""Headers that mean no good, keys that are revoked under way, names that look alike, and what refusals do not say."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from starlette.testclient import TestClient

from server import InProcess
from tacit.bank.portable import to_safetensors
from tacit.errors import BankError, ConfigError, EngineLost, MemoryFormatError, TacitError
from tacit.memory import State
from tacit.server.api.errors import refusal_of
from tacit.server.keys import ApiKey, KeyStore
from tacit.server.learner.jobs import JobState
from test_server_memories_api import FILE, made

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "testbed:tacit", "messages": [{"role": "user", "content": "3 + 4"}], "max_tokens": 4}
HEADS = some.binary(max_size=30).filter(lambda value: not set(value) & set(b"\r\n\0"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    running = InProcess(tmp_path_factory.mktemp("rights") / "bank.db")
    running.service.keys.create("owner", "home", ["ask"])
    yield running
    running.service.close()


@pytest.fixture
def unlocked(tmp_path: Path) -> Iterator[TestClient]:
    """A caller of a server without keys."""
    running = InProcess(tmp_path / "bank.db")
    yield running.anyone()
    running.service.close()


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def keyed(server: InProcess, *rights: str, namespace: str = "home") -> tuple[ApiKey, TestClient]:
    key, secret = server.service.keys.create("test", namespace, rights)
    client = server.anyone()
    client.headers["Authorization"] = f"Bearer {secret}"
    return key, client


# -- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [b"Basic ", b"Bearer ", b"basic", b""])
@pytest.mark.parametrize(
    "value", [b"\xe9", b"\xff\xfe", b"=", b"====", b"YQ", b"4pyT4pyT", base64.b64encode(b"\xff:\xff")]
)
def test_an_authorization_that_nobody_can_read_is_an_unknown_key(
    server: InProcess, scheme: bytes, value: bytes
) -> None:
    told = server.anyone().get("/v1/models", headers=[(b"authorization", scheme + value)])  # type: ignore[arg-type]
    assert code(told) == (401, "invalid_api_key")


@settings(max_examples=150, deadline=None)
@given(value=HEADS, name=some.sampled_from(["authorization", "host", "origin", "sec-fetch-site", "accept", "expect"]))
def test_no_header_is_a_failure(server: InProcess, name: str, value: bytes) -> None:
    headers = [(name.encode(), value)]
    for path, method in (("/v1/models", "GET"), (CHAT, "POST")):
        assert server.anyone().request(method, path, headers=headers).status_code < 500  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Authorization", "Host", "Origin", "Sec-Fetch-Site", "Content-Type"])
@pytest.mark.parametrize("same", [True, False])
def test_a_header_that_decides_may_be_there_once(server: InProcess, name: str, same: bool) -> None:
    _, client = keyed(server, "ask")
    own = {
        "authorization": client.headers["authorization"], "host": "localhost", "origin": "http://localhost",
        "sec-fetch-site": "same-origin", "content-type": "application/json",
    }  # fmt: skip
    headers = [(key.encode(), value.encode()) for key, value in own.items()]
    second = own[name.lower()] if same else "x"
    bare = server.anyone()
    asked = {"content": json.dumps(ASKED)}
    assert bare.post(CHAT, headers=headers, **asked).status_code == 200  # type: ignore[arg-type]
    doubled = [*headers, (name.encode(), second.encode())]
    assert code(bare.post(CHAT, headers=doubled, **asked)) == (400, "repeated_header")  # type: ignore[arg-type]
    assert code(bare.post(CHAT, headers=doubled[::-1], **asked)) == (400, "repeated_header")  # type: ignore[arg-type]


FOREIGN = [
    "http://evil.example", "https://evil.example", "null", "", "http://localhost.evil.example", "http://localhost@evil",
    "http://[", "file://", "http://localhost:9", "localhost", "ftp://localhost",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_another_sites_page_changes_nothing_even_where_the_browser_says_less(server: InProcess, origin: str) -> None:
    _, client = keyed(server, "ask", "admin")
    assert code(client.post(CHAT, json=ASKED, headers={"Origin": origin})) == (403, "cross_site")
    assert code(client.post("/tacit/v1/snapshot", headers={"Origin": origin})) == (403, "cross_site")
    assert client.get("/v1/models", headers={"Origin": origin}).status_code == 200  # which the page may not read
    none = {"Origin": origin, "Sec-Fetch-Site": "none"}
    assert code(client.post(CHAT, json=ASKED, headers=none)) == (403, "cross_site")


def test_ones_own_page_is_served(server: InProcess) -> None:
    _, client = keyed(server, "ask")
    for headers in (
        {"Origin": "http://localhost"},
        {"Origin": "http://LOCALHOST"},
        {"Origin": "https://tacit.example", "Host": "tacit.example"},
        {"Origin": "http://10.0.0.1:8000", "Host": "10.0.0.1:8000"},
        {
            "Origin": "https://tacit.example",
            "Host": "127.0.0.1:8000",
            "Sec-Fetch-Site": "same-origin",
        },  # behind a proxy
    ):
        assert client.post(CHAT, json=ASKED, headers=headers).status_code == 200, headers


@pytest.mark.parametrize("origin", FOREIGN)
def test_without_keys_another_sites_page_is_not_even_answered(unlocked: TestClient, origin: str) -> None:
    assert code(unlocked.get("/v1/models", headers={"Origin": origin})) == (403, "cross_site")


def test_a_host_is_read_whole(unlocked: TestClient) -> None:
    for host in (
        "localhost:evil.example", "localhost:", "localhost:1:2", "[::1]evil.example", "[::1]:evil", "::1",
        "[localhost]", "[::1", "127.0.0.1.evil", "localhost:8000@evil", "localhost/", "localhost#", "a@localhost",
        "127.1", "0x7f.1", "localhost:1234567", "localh\xf6st", "[::ffff:10.0.0.1]", "10.0.0.1", " localhost",
    ):  # fmt: skip
        headers = [(b"host", host.encode("latin-1"))]
        assert code(unlocked.get("/v1/models", headers=headers)) == (403, "host_not_allowed"), host  # type: ignore[arg-type]
    for host in ("LOCALHOST", "localhost:65535", "127.0.0.1", "127.0.0.2:80", "[::1]", "[0:0:0:0:0:0:0:1]:8000"):
        assert unlocked.get("/v1/models", headers={"Host": host}).status_code == 200, host


# -- revoked under way -----------------------------------------------------------------------------------------------


def revoked_while(server: InProcess, monkeypatch: pytest.MonkeyPatch, key: ApiKey, rights: list[str] | None) -> None:
    """Take a key's rights away right after it was let in."""
    lookup = server.service.keys.lookup

    def late(secret: str) -> ApiKey | None:
        found = lookup(secret)
        if found is not None and found.id == key.id:
            if rights is None:
                server.service.keys.revoke(key.id)
            else:
                server.service.keys.allow(key.id, rights)
        return found

    monkeypatch.setattr(server.service.keys, "lookup", late)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["testbed", "testbed:tacit"])
def test_an_answer_to_a_revoked_key_is_not_stored(
    server: InProcess, monkeypatch: pytest.MonkeyPatch, stream: bool, model: str
) -> None:
    key, client = keyed(server, "ask", "learn", "trust")
    jobs = len(server.service.jobs.list("home"))
    revoked_while(server, monkeypatch, key, None)
    body = {**ASKED, "model": model, "stream": stream}
    body["messages"] = [{"role": "user", "content": f"{len(model)} + {int(stream)} + 55"}]
    response = client.post(CHAT, json=body)
    assert len(server.service.jobs.list("home")) == jobs
    if stream:
        assert "unknown or revoked" in response.text and "[DONE]" not in response.text
    else:
        assert code(response) == (401, "invalid_api_key")


def test_a_right_that_was_taken_away_counts_no_more(server: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    key, client = keyed(server, "ask", "learn")
    revoked_while(server, monkeypatch, key, ["ask"])
    response = client.post(CHAT, json={**ASKED, "messages": [{"role": "user", "content": "9 + 9 + 9"}]})
    told = response.json()["tacit"]
    assert (response.status_code, told["job"]) == (200, None) and "may not have problems learned" in told["learning"]


CHANGES: dict[str, Callable[[TestClient, bytes, str], Any]] = {
    "quarantine": lambda client, _, job: client.post("/tacit/v1/memories/m/quarantine", json={}),
    "activate": lambda client, _, job: client.post("/tacit/v1/memories/m/activate", json={}),
    "restore": lambda client, _, job: client.post("/tacit/v1/memories/m/restore", json={}),
    "delete": lambda client, _, job: client.delete("/tacit/v1/memories/m"),
    "import": lambda client, data, job: client.post("/tacit/v1/memories/import", content=data, headers=FILE),
    "retry": lambda client, _, job: client.post(f"/tacit/v1/jobs/{job}/retry"),
    "snapshot": lambda client, _, job: client.post("/tacit/v1/snapshot"),
    "back": lambda client, _, job: client.post("/tacit/v1/restore", json={"name": "x"}),
}


@pytest.mark.parametrize("rights", [None, ["ask"]], ids=["revoked", "fewer rights"])
@pytest.mark.parametrize("what", CHANGES)
def test_an_administrator_that_is_none_any_more_changes_nothing(
    server: InProcess, monkeypatch: pytest.MonkeyPatch, what: str, rights: list[str] | None
) -> None:
    service, namespace = server.service, f"admin-{what}-{rights is None}"
    key, client = keyed(server, "admin", "learn", namespace=namespace)
    state = State.QUARANTINED if what in ("activate", "restore") else State.ACTIVE
    service.bank.add(made(service, "m", namespace=namespace, state=state))
    data = to_safetensors(made(service, "new", namespace=namespace))
    job = service.jobs.submit(namespace, "1 + 1", key).job
    assert job is not None
    [claimed] = [one for one in service.jobs.claim("w", 60, 999) if one.id == job.id]
    service.jobs.fail(claimed, "w", "odd")
    revoked_while(server, monkeypatch, key, rights)
    response = CHANGES[what](client, data, job.id)
    assert code(response) == ((401, "invalid_api_key") if rights is None else (403, "forbidden")), response.text
    assert [(info.id, info.state) for info in service.bank.find(namespace)] == [("m", state)]
    found = service.jobs.get(job.id, namespace)
    assert found is not None and found.state is JobState.FAILED


def test_a_key_that_is_revoked_during_an_upload_brings_nothing_in(server: InProcess) -> None:
    """The head comes, the key goes, the body follows."""
    service = server.service
    key, client = keyed(server, "admin", namespace="upload")
    data, begun, gone = to_safetensors(made(service, "m", namespace="upload")), threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield data[:100]
        begun.set()
        service.keys.revoke(key.id)
        gone.set()
        yield data[100:]

    response = client.post("/tacit/v1/memories/import", content=body(), headers=FILE)
    assert gone.is_set() and code(response) == (401, "invalid_api_key")
    assert service.bank.find("upload") == []


# -- what is not said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [BankError, EngineLost, TacitError])
def test_a_failure_inside_names_no_path_and_no_address(
    error: type[TacitError], caplog: pytest.LogCaptureFixture
) -> None:
    said = "the bank /srv/secret/bank.db at http://10.0.0.7:8000 is locked"
    refused = refusal_of(error(said))
    assert refused.status >= 500 and "/srv" not in str(refused) and "10.0.0.7" not in str(refused)
    assert said in caplog.text  # the operator reads it


@pytest.mark.parametrize("path", ["/tacit/v1/memories", "/metrics", "/v1/models", "/tacit/v1/snapshots"])
def test_a_bank_that_cannot_be_read_is_not_described(tmp_path: Path, path: str) -> None:
    running = InProcess(tmp_path / "hidden-name.db")
    client = running.client("home", "admin")
    running.service.bank.close()
    response = client.get(path)
    assert code(response) == (503, "bank_unavailable") and "hidden-name" not in response.text
    running.service.close()


# -- names and jobs --------------------------------------------------------------------------------------------------


def test_namespaces_that_look_alike_are_one(server: InProcess) -> None:
    store = server.service.keys
    apart, together = "cafe\u0301", "caf\u00e9"
    assert store.create("a", apart)[0].namespace == store.create("b", together)[0].namespace == together
    for name in ("tacit:copy", "Tacit:x", "TACIT:", "tacit:"):
        with pytest.raises(ConfigError, match="Tacit's own"):
            store.create("a", name)
    for name in (" home", "home ", "ho\u200bme", "ho\x00me", "ho\u202eme", "home\n", "", "x" * 401, "\ud800"):
        with pytest.raises(MemoryFormatError):
            store.create("a", name)
    assert store.create("a", "tacit")[0].namespace == "tacit"


@settings(max_examples=200, deadline=None)
@given(name=some.text(max_size=30))
def test_a_namespace_that_is_taken_is_taken_as_it_is_kept(server: InProcess, name: str) -> None:
    from tacit.server.keys import checked_namespace

    try:
        kept = checked_namespace(name)
    except TacitError:
        return
    assert checked_namespace(kept) == kept and kept.isprintable() and kept == kept.strip()


def test_a_deleted_memory_can_be_learned_again(server: InProcess) -> None:
    service = server.service
    (first, _), (second, _) = (
        keyed(server, "ask", "learn", namespace="again"),
        keyed(server, "learn", namespace="again"),
    )
    queue = service.jobs
    submitted = queue.submit("again", "3 + 4", first).job
    assert submitted is not None
    for memory in ("m", None):
        [job] = [one for one in queue.claim("w", 60, 999) if one.namespace == "again"]
        if memory is not None:
            service.bank.add(made(service, memory, namespace="again"))
        assert queue.finish(job, "w", memory, "learned")
        assert queue.submit("again", "3 + 4", second).why == "already learned"  # nothing worth keeping stays so
        if memory is not None:
            service.bank.delete(memory, "again")
            retried = queue.submit("again", " 3 + 4", second)
            assert retried.why == "queued" and retried.job is not None and retried.job.id == submitted.id
            assert (retried.job.key_id, retried.job.memory_id, retried.job.attempts) == (second.id, None, 0)
            assert queue.submit("again", "3 + 4", first).why == "already queued"


def test_learning_again_costs_the_budget(server: InProcess) -> None:
    service = server.service
    key, _ = service.keys.create("a", "budget", ["learn"], learn_per_day=1)
    service.jobs.submit("budget", "3 + 4", key)
    [job] = [one for one in service.jobs.claim("w", 60, 999) if one.namespace == "budget"]
    service.jobs.finish(job, "w", "m", "learned")
    again = service.jobs.submit("budget", "3 + 4", key)
    assert again.job is None and "budget" in again.why


def test_every_key_store_looks_a_key_up_as_it_is(server: InProcess) -> None:
    store = KeyStore(server.service.bank)
    key, _ = store.create("a", "home", ["ask", "admin"])
    store.allow(key.id, ["ask"])
    assert store.current(key).rights == {"ask"} and not store.current(key).may("admin")
    store.revoke(key.id)
    assert not store.current(key).may("ask")
