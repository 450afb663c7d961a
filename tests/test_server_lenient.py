"""Requests that are a little off: HEAD, slashes, pages of other origins, bodies of another kind; told what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from server import InProcess
from tacit.errors import ConfigError
from tacit.server.settings import ServeConfig

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "testbed", "messages": [{"role": "user", "content": "2 3 +"}], "max_tokens": 2}
PAGE, OTHER = "https://chat.example:8443", "https://evil.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    made = InProcess(tmp_path_factory.mktemp("lenient") / "bank.db", allow_origin=(PAGE,))
    yield made
    made.service.close()


@pytest.fixture
def client(server: InProcess) -> TestClient:
    return server.anyone()


FILES = ["/", "/static/app.js"]
GETS = ["/v1/models", "/v1/models/testbed", "/health/live", "/health/ready", "/metrics", "/openapi.json",
        "/tacit/v1/memories", "/tacit/v1/status"]  # fmt: skip


@pytest.mark.parametrize("path", [*FILES, *GETS])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert head.status_code == whole.status_code == 200 and head.content == b"" and whole.content
    assert {*head.headers} == {*whole.headers} and head.headers["content-type"] == whole.headers["content-type"]


def test_head_of_what_is_posted_is_refused(client: TestClient) -> None:
    assert client.head(CHAT).status_code == 405 and client.head("/nowhere").status_code == 404


@pytest.mark.parametrize("path", GETS)
def test_a_slash_too_many_changes_nothing(client: TestClient, path: str) -> None:
    for more in ("/", "//"):
        found = client.get(path + more, follow_redirects=False)
        assert found.status_code == 200 and found.headers["content-type"] == client.get(path).headers["content-type"]


def test_a_slash_too_many_after_what_is_posted(client: TestClient) -> None:
    for path in (CHAT, "/v1/completions"):
        body = ASKED if path == CHAT else {"model": "testbed", "prompt": "2 3 +"}
        assert client.post(path + "/", json=body, follow_redirects=False).status_code == 200
    for path in ("/nowhere/", "/static/app.js/"):
        assert client.get(path, follow_redirects=False).status_code == 404


# -- pages of other origins -------------------------------------------------------------------------------------------


def from_page(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


def before(client: TestClient, origin: str, path: str = CHAT) -> Any:
    """What a browser asks before it sends."""
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return client.options(path, headers={**from_page(origin), **asks})


def test_an_allowed_page_may_ask_and_read(server: InProcess, client: TestClient) -> None:
    asked = before(client, PAGE)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in asked.headers["access-control-allow-headers"]
    for body in (ASKED, {**ASKED, "stream": True}):
        answer = client.post(CHAT, json=body, headers=from_page(PAGE))
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"] and "access-control-allow-credentials" not in answer.headers
    wrong = client.post(CHAT, json={}, headers=from_page(PAGE))  # it can read what is wrong, too
    assert wrong.status_code == 400 and wrong.headers["access-control-allow-origin"] == PAGE


def test_an_allowed_page_does_not_look_after_memories(client: TestClient) -> None:
    for method, path in (("GET", "/tacit/v1/memories"), ("POST", "/tacit/v1/snapshot"), ("GET", "/openapi.json")):
        refused = client.request(method, path, headers=from_page(PAGE))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site"), path


def test_another_page_is_refused(client: TestClient) -> None:
    assert before(client, OTHER).status_code == 400
    for origin in (OTHER, PAGE + ".evil.example", PAGE.upper(), "null"):
        answer = client.post(CHAT, json=ASKED, headers=from_page(origin))
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    twice = [*from_page(PAGE).items(), ("Origin", OTHER)]
    assert client.post(CHAT, json=ASKED, headers=twice).status_code in (400, 403)  # type: ignore[arg-type]


def test_a_page_needs_a_key_where_there_are_any(tmp_path: Path) -> None:
    server = InProcess(tmp_path / "bank.db", allow_origin=(PAGE,))
    try:
        client = server.client("home", "ask")
        assert client.post(CHAT, json=ASKED, headers=from_page(PAGE)).status_code == 200
        keyless = server.anyone().post(CHAT, json=ASKED, headers=from_page(PAGE))
        assert keyless.status_code == 401 and keyless.headers["access-control-allow-origin"] == PAGE
    finally:
        server.service.close()


def test_without_the_setting_nobodys_page_may_ask(tmp_path: Path) -> None:
    server = InProcess(tmp_path / "bank.db")
    try:
        client = server.anyone()
        answer = client.post(CHAT, json=ASKED, headers=from_page(PAGE))
        assert answer.status_code == 403 and before(client, PAGE).status_code == 403
        assert not any(name.startswith("access-control") for name in answer.headers)
    finally:
        server.service.close()


@pytest.mark.parametrize("origin", ["*", "chat.example", "https://chat.example/", "https://Chat.example", "null", ""])
def test_an_origin_is_named_as_browsers_do(origin: str) -> None:
    with pytest.raises(ConfigError, match="allow_origin"):
        ServeConfig(allow_origin=(origin,))


# -- bodies of another kind -------------------------------------------------------------------------------------------

GOOD = json.dumps(ASKED).encode()
WRONG: list[tuple[bytes, str, list[str]]] = [
    (GOOD, "text/plain", ["text/plain", "Content-Type: application/json"]),
    (GOOD, "application/x-www-form-urlencoded", ["x-www-form-urlencoded", "Content-Type: application/json"]),
    (GOOD, "", ["Content-Type: application/json"]),
    (b"", "application/json", ["no body", "JSON object"]),
    (GOOD[:-1], "application/json", ["no JSON", "at character"]),
    (GOOD.replace(b"2}", b"2,}"), "application/json", ["no JSON", "at character"]),
    (b"[]", "application/json", ["a list", "JSON object"]),
    (b"1", "application/json", ["a number", "JSON object"]),
    (b"null", "application/json", ["JSON object"]),
    (b'"hi"', "application/json", ["a text", "JSON object"]),
    (b"\xff", "application/json", ["no JSON"]),
]


@pytest.mark.parametrize(
    "body, kind, said", WRONG, ids=[f"{kind or 'nothing'} {body[-4:]!r}" for body, kind, _ in WRONG]
)
def test_what_is_wrong_with_a_body_is_said_with_what_to_send(
    client: TestClient, body: bytes, kind: str, said: list[str]
) -> None:
    response = client.post(CHAT, content=body, headers={"Content-Type": kind} if kind else {})
    assert response.status_code == 400
    error = response.json()["error"]
    assert all(word in error["message"] for word in said), error["message"]


PARTS: list[tuple[Any, list[str]]] = [
    ([{"type": "image_url", "image_url": {"url": "data:"}}], ["part 0", "image_url", "text"]),
    ([{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {}}], ["part 1", "input_audio", "text"]),
    ([{"type": "file", "file": {}}], ["part 0", "file", "text"]),
    (5, ["a text, or a list of parts"]),
    ({"type": "text", "text": "a"}, ["a text, or a list of parts"]),
    (None, ["no content"]),
]


@pytest.mark.parametrize("content, said", PARTS, ids=str)
def test_what_is_wrong_with_a_content_is_said_once(client: TestClient, content: Any, said: list[str]) -> None:
    response = client.post(CHAT, json={**ASKED, "messages": [{"role": "user", "content": content}]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages.0.content")
    assert all(word in error["message"] for word in said) and "more)" not in error["message"], error["message"]
