"""Room in the context is that of the engine that samples, which may have less than the model has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from conftest import stream
from server import InProcess
from tacit.bank.portable import to_safetensors
from tacit.memory import Memory, State

[PROBLEM] = stream(1, seed=31)
ROOM = 100
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server whose engine has room for 100 tokens; its model has ten times as much."""
    made = InProcess(tmp_path_factory.mktemp("room") / "bank.db", ROOM)
    assert made.service.backbone.context > 10 * ROOM
    yield made
    made.service.close()


@pytest.fixture
def client(server: InProcess) -> TestClient:
    return server.anyone()


def text_of(server: InProcess, tokens: int) -> str:
    """A problem whose prompt has so many tokens."""
    words = tokens - len(server.service.backbone.encode(""))
    text = " ".join(["compute", *["+"] * (words - 1)])
    assert len(server.service.backbone.encode(text)) == tokens
    return text


def chat(client: TestClient, text: str, **body: Any) -> Any:
    asked = {"model": "testbed:tacit", "messages": [{"role": "user", "content": text}], "temperature": 2, "seed": 3}
    return client.post(CHAT, json={**asked, "n": 8, "tacit": {"learn": False}, **body})


def refused(response: Any) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize("model", ["testbed", "testbed:tacit"])
def test_a_chat_without_max_tokens_gets_the_room_that_is_left(
    server: InProcess, client: TestClient, model: str
) -> None:
    kept_free = server.service.config.learn.tokens
    for length in (ROOM - kept_free - 10, ROOM - 5, ROOM - 1):
        answer = chat(client, text_of(server, length), model=model, logprobs=True)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["prompt_tokens"] == length
        choices = answer.json()["choices"]
        longest = [len(c["logprobs"]["content"]) for c in choices if c["finish_reason"] == "length"]
        assert longest and set(longest) == {max(1, ROOM - length - kept_free)}


def test_what_the_engine_has_no_room_for_is_refused_by_the_code_that_clients_know(
    server: InProcess, client: TestClient
) -> None:
    long, short = text_of(server, ROOM), text_of(server, 40)
    raw = {"model": "testbed", "temperature": 0}
    for response in (
        chat(client, long),
        chat(client, short, max_tokens=ROOM - 39),
        client.post(COMPLETIONS, json={**raw, "prompt": long, "max_tokens": 8}),
        client.post(COMPLETIONS, json={**raw, "prompt": [5] * (ROOM + 1)}),
        chat(client, short, tacit={"problem": text_of(server, ROOM + 1)}),
    ):
        status, code, message = refused(response)
        assert (status, code) == (400, "context_length_exceeded") and f"room for {ROOM} tokens" in message
    assert chat(client, short, max_tokens=ROOM - 40).status_code == 200
    assert client.get("/v1/models").json()["data"][0]["max_model_len"] == ROOM


def test_what_is_only_scored_has_the_models_own_room(server: InProcess, client: TestClient) -> None:
    """Prompts are scored in the server's process, whatever samples."""
    ids = server.service.backbone.encode(text_of(server, 3 * ROOM)).tolist()
    body = {"model": "testbed", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1}
    answer = client.post(COMPLETIONS, json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"][0]["logprobs"]["token_logprobs"]) == len(ids)
    context = server.service.backbone.context
    status, code, message = refused(client.post(COMPLETIONS, json={**body, "prompt": [5] * (context + 1)}))
    assert (status, code) == (400, "context_length_exceeded") and f"room for {context} tokens" in message


def made(server: InProcess, id: str, rows: int) -> Memory:
    """An active memory of the problem with a soft prompt of so many rows."""
    service = server.service
    recall = service.recall("default")
    [key] = recall.keys([PROBLEM.text])
    return Memory(
        id=id,
        namespace="default",
        problem_id=id,
        problem=PROBLEM.text,
        prompt=np.zeros((rows, service.backbone.hidden_size), np.float32),
        key=key,
        key_kind=service.config.recall.key,
        fingerprint=service.backbone.fingerprint,
        state=State.ACTIVE,
        reason="by the test",
        provenance={},
        created=1000.5,
    )


def test_a_memory_has_to_fit_beside_prompt_and_answer(server: InProcess, client: TestClient) -> None:
    room = ROOM - len(server.service.backbone.encode(PROBLEM.text)) - 8
    for rows, name in ((room, "fits"), (room + 1, "does-not")):
        server.service.bank.add(made(server, name, rows))
        report = chat(client, PROBLEM.text, max_tokens=8, tacit={"memory": name, "learn": False}).json()["tacit"]
        assert (report["memory"] == name, "does not fit" in (report["why"] or "")) == (rows == room, rows > room)
        server.service.bank.delete(name, "default")


def test_a_soft_prompt_that_can_never_fit_is_not_taken_in(server: InProcess, client: TestClient) -> None:
    def take_in(rows: int) -> Any:
        data = to_safetensors(made(server, f"of-{rows}", rows))
        headers = {"Content-Type": "application/octet-stream"}
        return client.post("/tacit/v1/memories/import", content=data, headers=headers)

    status, code, message = refused(take_in(ROOM))
    assert (status, code) == (400, "wrong_shape") and f"context is {ROOM}" in message
    assert take_in(ROOM - 2).status_code == 201
    server.service.bank.delete(f"of-{ROOM - 2}", "default")
