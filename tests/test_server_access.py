"""Who may talk to a server: nobody without a key once there is one, and each key within its rights and namespace."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from tacit.bank import open_bank, schema
from tacit.server.app import create_app
from tacit.server.keys import KeyStore
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED: dict[str, Any] = {"model": "testbed", "messages": [{"role": "user", "content": "2 3 +"}], "max_tokens": 2}
RAW: dict[str, Any] = {"model": "testbed", "prompt": "2 3 +", "max_tokens": 2}
OPEN = {"/health/live", "/health/ready"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server without keys; every test makes its own, and takes them back."""
    bank = str(tmp_path_factory.mktemp("access") / "bank.db")
    made = Service(ServeConfig(bank=bank, learner=False))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_keys_are_left(service: Service) -> Iterator[None]:
    """The next test begins with an open server, as a bank is that never had a key."""
    yield
    with service.bank.connection(write=True) as connection:
        connection.execute(delete(schema.api_keys))


@pytest.fixture
def client(service: Service) -> TestClient:
    """A caller on this machine, without a key."""
    return TestClient(create_app(service), "http://localhost", raise_server_exceptions=False)  # type: ignore[arg-type]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def code(response: Any) -> tuple[int, str]:
    """Status and code of a refusal in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_with_a_key_in_the_bank_only_health_is_told_without_one(service: Service, client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    assert {CHAT, COMPLETIONS, "/v1/models", "/metrics", *OPEN} <= set(described)
    assert client.get("/v1/models").status_code == 200  # open so far
    _, secret = service.keys.create("owner", "home", ["ask", "learn", "admin"])
    more = ["/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc", "/nowhere", "/v1", "/v1/", "/v1/nowhere"]
    more += [
        "//health/live",
        "/health/live/",
        "/health/live/..",
        "/health/../v1/models",
        "/HEALTH/LIVE",
        "/health/live%00",
    ]
    more += ["/v1/models/testbed", "/static/x.js", "/favicon.ico"]
    for path in [*described, *more]:
        for method in METHODS:
            wrong = ({}, bearer("tacit-wrong"), bearer(""), {"Authorization": secret}, {"Authorization": "Basic !"})
            for headers in wrong:
                response = client.request(method, path, headers=headers, follow_redirects=False)
                if path in OPEN:
                    assert response.status_code in (200, 405), (method, path)
                else:
                    told = code(response) if method != "HEAD" else (response.status_code, "invalid_api_key")
                    assert told == (401, "invalid_api_key"), (method, path, headers)
                    assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models", headers=bearer(secret)).status_code == 200
    basic = base64.b64encode(f"anyone:{secret}".encode()).decode()
    assert client.get("/", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    assert client.get("/docs", headers={"Authorization": f"Basic {basic}"}).status_code == 404  # it is not ours alone


def test_a_revoked_key_is_denied_at_once(service: Service, client: TestClient) -> None:
    service.keys.create("owner", "home")
    key, secret = service.keys.create("guest", "home")
    assert client.post(CHAT, json=ASKED, headers=bearer(secret)).status_code == 200
    with open_bank(service.config.bank) as elsewhere:  # as `tacit keys revoke` does
        KeyStore(elsewhere).revoke(key.id)
    assert code(client.post(CHAT, json=ASKED, headers=bearer(secret))) == (401, "invalid_api_key")
    assert code(client.get("/v1/models", headers=bearer(secret))) == (401, "invalid_api_key")


def test_revoking_the_last_key_lets_nobody_in(service: Service, client: TestClient) -> None:
    key, _ = service.keys.create("owner", "home")
    service.keys.revoke(key.id)
    assert code(client.get("/v1/models")) == (401, "invalid_api_key")
    assert code(client.post(CHAT, json=ASKED)) == (401, "invalid_api_key")


@pytest.mark.parametrize("rights", [["admin"], ["learn"], ["learn", "admin"]], ids=" ".join)
def test_who_may_not_ask_gets_no_answer(service: Service, client: TestClient, rights: list[str]) -> None:
    _, secret = service.keys.create("keeper", "keepers", rights)
    for path, body in ((CHAT, ASKED), (COMPLETIONS, RAW), (CHAT, {**ASKED, "stream": True})):
        assert code(client.post(path, json=body, headers=bearer(secret))) == (403, "forbidden")
    scored = {**RAW, "max_tokens": 0, "echo": True, "logprobs": 1}
    assert code(client.post(COMPLETIONS, json=scored, headers=bearer(secret))) == (403, "forbidden")
    assert service.metrics.of("keepers").tokens.labels("testbed")._value.get() == 0


def test_who_may_not_learn_has_nothing_learned(service: Service, client: TestClient) -> None:
    _, secret = service.keys.create("guest", "guests", ["ask"])
    response = client.post(CHAT, json={**ASKED, "model": "testbed:tacit"}, headers=bearer(secret))
    told = response.json()["tacit"]
    assert (response.status_code, told["job"], told["learning"]) == (200, None, "the key has no right to learn")
    assert service.jobs.list("guests") == []


def test_no_namespace_sees_anothers_figures(service: Service, client: TestClient) -> None:
    _, here = service.keys.create("a", "here")
    _, there = service.keys.create("b", "there")
    before = client.get("/metrics", headers=bearer(there)).text
    for _ in range(3):
        told = client.post(CHAT, json={**ASKED, "model": "testbed:tacit"}, headers=bearer(here))
        assert told.status_code == 200
    assert client.post(CHAT, json={}, headers=bearer(here)).status_code == 400
    assert client.get("/metrics", headers=bearer(there)).text == before
    mine = client.get("/metrics", headers=bearer(here)).text
    assert 'tacit:requests_total{model_name="testbed",status="200"} 3.0' in mine
    assert 'tacit:learning_jobs{state="queued"} 1.0' in mine
    assert "here" not in before and "there" not in mine


def test_an_open_server_is_for_this_machines_own_programs(client: TestClient) -> None:
    for host in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "",
        "[",
        "[::2]",
    ):
        assert code(client.get("/v1/models", headers={"Host": host})) == (403, "host_not_allowed"), host
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]", "[::1]:8000"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host
    for site in ("cross-site", "same-site"):
        assert code(client.post(CHAT, json=ASKED, headers={"Sec-Fetch-Site": site})) == (403, "cross_site")
    assert code(client.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"})) == (403, "cross_site")


def test_a_key_does_not_let_another_sites_page_change_anything(service: Service, client: TestClient) -> None:
    _, secret = service.keys.create("owner", "home")
    headers = {**bearer(secret), "Sec-Fetch-Site": "cross-site"}
    assert code(client.post(CHAT, json=ASKED, headers=headers)) == (403, "cross_site")


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "\xff", "x" * 5000, "localhost:99999999"])
def test_a_strange_host_is_no_failure(service: Service, client: TestClient, host: str) -> None:
    _, secret = service.keys.create("owner", "home")
    headers = [(b"host", host.encode("latin-1")), (b"authorization", b"Bearer " + secret.encode())]
    for path in ("/v1/models", "/nowhere", "/docs", "/v1/models/"):
        assert client.get(path, headers=headers, follow_redirects=False).status_code < 500, path  # type: ignore[arg-type]
    assert client.post("/v1/models", headers=headers).status_code == 405  # type: ignore[arg-type]
