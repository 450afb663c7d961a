"""Whatever is sent to the operations that the server describes, it never fails, and it refuses in OpenAI's shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode, openapi
from schemathesis.schemas import BaseSchema
from starlette.testclient import TestClient

from tacit.config import Sampling
from tacit.server.app import create_app
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

NEW_TOKENS = 8
"""Most that a generated request may draw for each rollout: their number changes nothing here but the time."""
ROLLOUTS = 4
OPERATIONS = 7
ASKING = {"POST /v1/chat/completions", "POST /v1/completions"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An open server of the testbed without a learner; what goes wrong in it is a 500, as over the network."""
    bank = tmp_path_factory.mktemp("schemathesis") / "bank.db"
    service = Service(ServeConfig(bank=str(bank), learner=False, sampling=Sampling(max_tokens=NEW_TOKENS)))
    with TestClient(create_app(service), "http://localhost", raise_server_exceptions=False) as made:  # type: ignore[arg-type]
        yield made
    service.close()


@pytest.fixture(scope="module")
def schema(client: TestClient) -> BaseSchema:
    """What the server says of itself. Only its models' names are put in, so that requests get past that check."""
    described = client.get("/openapi.json").json()
    names = [card["id"] for card in client.get("/v1/models").json()["data"]]
    for body in ("ChatRequest", "CompletionRequest"):
        described["components"]["schemas"][body]["properties"]["model"]["enum"] = names
    return openapi.from_dict(described)


def check(client: TestClient, case: Case, seen: Counter[tuple[str, int]]) -> None:
    """Send a case, cut to what is quick, and hold the answer to the rules."""
    body: Any = case.body
    if isinstance(body, dict):
        for name, most in (("max_tokens", NEW_TOKENS), ("max_completion_tokens", NEW_TOKENS), ("n", ROLLOUTS)):
            value = body.get(name)
            if type(value) is int and most < value < 2**31:
                body[name] = most
    case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "host"}
    sent = case.as_transport_kwargs(base_url="http://localhost")
    sent.pop("cookies", None)
    response = client.request(**sent)
    seen[case.operation.label, response.status_code] += 1
    assert response.status_code < 500, (case.as_curl_command(), response.text)
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == "application/json", (case.as_curl_command(), response.text)
    told = response.json()
    assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "param", "code"}, told
    assert told["error"]["message"] and len(told["error"]["message"]) < 1000, told


def takes_json(operation: Any) -> bool:
    """Whether an operation has a body that can break its own description."""
    return any(body.media_type == "application/json" for body in operation.body)


def fuzz(client: TestClient, schema: BaseSchema, asking: int, others: int) -> Counter[tuple[str, int]]:
    """So many cases of either kind for every operation; counts by operation and status."""
    seen: Counter[tuple[str, int]] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= OPERATIONS
    for operation in operations:
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not takes_json(operation):
                continue  # any text is a name and any bytes are a file, so that nothing can be wrong by description

            @seed(20)
            @settings(
                max_examples=asking if operation.label in ASKING else others,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def run(case: Case) -> None:
                check(client, case, seen)

            run()
    return seen


def test_some_hundred_generated_requests(client: TestClient, schema: BaseSchema) -> None:
    seen = fuzz(client, schema, 100, 10)
    assert sum(seen.values()) >= 400
    for label in ASKING:  # right requests were answered, wrong ones refused
        assert seen[label, 200] >= 5 and seen[label, 400] >= 50, seen


@pytest.mark.slow
def test_thousands_of_generated_requests(client: TestClient, schema: BaseSchema) -> None:
    seen = fuzz(client, schema, 1500, 100)
    print(sorted(seen.items()))
    assert sum(seen.values()) >= 5000
    for label in ASKING:
        assert seen[label, 200] >= 100 and seen[label, 400] >= 1000, seen
