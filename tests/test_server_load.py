"""What one request may cost, and that the loop which answers never computes: health beside the largest requests."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from server import InProcess, Served, looks, serving
from tacit.memory import State
from tacit.server.api.memories import EXCERPT
from tacit.server.api.text import LOOK_BACK, Detokeniser, _begun
from tacit.server.keys import OPEN_NAMESPACE
from tacit.server.live.places import Places
from tacit.server.settings import Limits
from test_server_memories_api import made

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GENEROUS = float(os.environ.get("TACIT_HEALTH_SECONDS", "5"))
"""Most that health may take beside them; on a machine of its own 0.25 s hold (docs/log)."""
PROBLEM = "3 + 4"
ROOM, TOP = 1000, 20
STOPS = [f"{'a' * 254}{number:02}" for number in range(16)]
LIMITS = Limits()


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def rollouts(per_token: int) -> int:
    """As many rollouts of ``ROOM`` tokens as may be listed."""
    return min(128, LIMITS.tokens // ROOM, LIMITS.listed // (ROOM * per_token))


LARGEST: dict[str, tuple[str, dict[str, Any]]] = {
    "rollouts": (CHAT, {"n": 128, "max_tokens": ROOM, "temperature": 2}),
    "a stream of them": (CHAT, {"n": 128, "max_tokens": ROOM, "temperature": 2, "stream": True}),
    "long stop strings": (CHAT, {"n": 128, "max_tokens": ROOM, "temperature": 2, "stop": STOPS, "stream": True}),
    "alternatives": (
        CHAT, {"n": rollouts(1 + TOP), "max_tokens": ROOM, "temperature": 2, "logprobs": True, "top_logprobs": TOP}
    ),
    "a stream of alternatives": (
        CHAT,
        {
            "n": rollouts(1 + TOP), "max_tokens": ROOM, "temperature": 2, "logprobs": True, "top_logprobs": TOP,
            "stream": True,
        },
    ),
    "an echo": (COMPLETIONS, {"n": 9, "prompt": "2 3 + " * 320, "max_tokens": 32, "echo": True, "logprobs": TOP}),
    "prompts": (COMPLETIONS, {"prompt": ["2 3 +"] * 128, "max_tokens": 900, "temperature": 2}),
    "two sides": (CHAT, {"model": "testbed:tacit", "n": 128, "max_tokens": 400, "tacit": {"learn": False}}),
    "a body of numbers": (COMPLETIONS, {"prompt": [2] * 600_000}),
    "a body of messages": (CHAT, {"messages": user("a" * 3000) * 1024}),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an active memory and a thousand others whose problems are as long as any."""
    path = tmp_path_factory.mktemp("load") / "bank.db"
    with_model = InProcess(path)
    with_model.service.bank.add(made(with_model.service, "m", PROBLEM, OPEN_NAMESPACE))
    with with_model.service.bank.transaction():
        for number in range(60):
            long = made(with_model.service, f"long-{number}", PROBLEM, OPEN_NAMESPACE, state=State.CANDIDATE)
            object.__setattr__(long, "problem", "2 + 3 " * 3000)
            with_model.service.bank.add(long)
    with_model.service.close()
    with serving(path, "--no-learn") as running:
        yield running


def post(served: Served, path: str, body: dict[str, Any]) -> tuple[int, int]:
    """Status and length of the answer."""
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=300)
    asked = {"model": "testbed", **({"messages": user(PROBLEM)} if path == CHAT else {}), **body}
    connection.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
    response = connection.getresponse()
    length = len(response.read())
    connection.close()
    return response.status, length


def beside(served: Served, work: Callable[[], Any]) -> tuple[Any, list[float]]:
    """What ``work`` gave, and how long each look at health took meanwhile."""
    found: list[Any] = []

    def run() -> None:
        found.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    seconds = looks(served, thread.is_alive)
    thread.join()
    assert found
    return found[0], seconds


@pytest.mark.parametrize("what", LARGEST)
def test_health_is_answered_beside_the_largest_request(loaded: Served, what: str) -> None:
    path, body = LARGEST[what]
    (status, length), seconds = beside(loaded, lambda: post(loaded, path, body))
    assert status == (400 if what.startswith("a body") else 200) and length < 32 * 2**20
    assert max(seconds) < GENEROUS, f"{what}: {max(seconds):.2f} s of {len(seconds)}"


def test_health_is_answered_beside_a_list_of_long_problems(loaded: Served) -> None:
    def lists() -> list[int]:
        paths = ("/tacit/v1/memories?limit=1000", "/tacit/v1/memories/m", "/tacit/v1/jobs?limit=1000")
        return [len(loaded.get(path).content) for path in paths]

    lengths, seconds = beside(loaded, lists)
    assert max(lengths) < 61 * (EXCERPT + 2000) and max(seconds) < GENEROUS


def test_a_problem_in_a_list_is_cut_and_alone_it_is_whole(loaded: Served) -> None:
    listed = loaded.get("/tacit/v1/memories?q=2 %2B 3&limit=2").json()["memories"]
    assert [len(memory["problem"]) for memory in listed] == [EXCERPT, EXCERPT]
    assert len(loaded.get("/tacit/v1/memories/long-0").json()["problem"]) == 18_000


TOO_MUCH: dict[str, tuple[str, dict[str, Any], str]] = {
    "listed": (CHAT, {"n": 128, "max_tokens": ROOM, "logprobs": True, "top_logprobs": TOP}, "top_logprobs"),
    "listed alone": (CHAT, {"n": 128, "max_tokens": 20, "logprobs": True, "top_logprobs": TOP}, ""),
    "an echo": (COMPLETIONS, {"prompt": "2 3 + " * 320, "n": 128, "echo": True, "logprobs": 20}, "logprobs"),
    "an echo without figures": (COMPLETIONS, {"prompt": ["2 3 + " * 320] * 128, "max_tokens": 0, "echo": True}, ""),
    "prompts": (COMPLETIONS, {"prompt": ["2 3 +"] * 128, "max_tokens": 900, "logprobs": 1}, "logprobs"),
}  # fmt: skip


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_would_cost_too_much_is_refused_with_what_to_do(loaded: Served, what: str) -> None:
    path, body, param = TOO_MUCH[what]
    asked = {"model": "testbed", **({"messages": user(PROBLEM)} if path == CHAT else {}), **body}
    connection = http.client.HTTPConnection(loaded.url.removeprefix("http://"), timeout=300)
    connection.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
    response = connection.getresponse()
    told = json.loads(response.read())
    if not param:
        assert response.status == 200
        return
    assert response.status == 400 and told["error"]["param"] == param and "lower n" in told["error"]["message"]


def test_tokens_of_all_rollouts_are_bounded(tmp_path: Path) -> None:
    running = InProcess(tmp_path / "bank.db", limits=Limits(tokens=100))
    body = {"model": "testbed", "messages": user(PROBLEM), "n": 10, "max_tokens": 10}
    assert running.anyone().post(CHAT, json=body).status_code == 200
    told = running.anyone().post(CHAT, json={**body, "n": 11})
    assert told.status_code == 400 and "more than 100 in all; lower n or max_tokens" in told.text
    raw = {"model": "testbed", "prompt": ["2"] * 11, "max_tokens": 10}
    assert running.anyone().post(COMPLETIONS, json=raw).status_code == 400
    running.service.close()


@given(text=some.text("ab", max_size=12), stop=some.text("ab", min_size=1, max_size=8))
def test_the_beginning_of_a_stop_string_is_found(text: str, stop: str) -> None:
    assert _begun(text, stop) == max((size for size in range(len(stop)) if text.endswith(stop[:size])), default=0)


@given(
    ids=some.lists(some.integers(3, 100), max_size=200), stop=some.lists(some.text("0123 +=", min_size=1, max_size=4))
)
@example(ids=[3, *[99] * LOOK_BACK, 3], stop=[])  # tokens without a text between two
@example(ids=[7, 8, 9], stop=["123", "2"])  # the second is complete while the first has only begun
def test_a_whole_text_is_what_was_streamed(testbed: Any, ids: list[int], stop: list[str]) -> None:
    text = Detokeniser(testbed.tokenizer, stop)
    assert "".join([*map(text.push, ids), text.end()]) == Detokeniser(testbed.tokenizer, stop).whole(ids)


# -- shares and readers ----------------------------------------------------------------------------------------------


@given(
    asks=some.lists(some.tuples(some.sampled_from("abc"), some.integers(1, 5)), max_size=60), most=some.integers(8, 40)
)
def test_nobody_takes_all_places(asks: list[tuple[str, int]], most: int) -> None:
    places, held = Places(most), []
    for key, wanted in asks:
        if places.free(key, wanted):
            held.append(places.held(key, wanted))
            held[-1].__enter__()
    assert places.taken <= most
    for key in "abc":
        if places._held[key] > 5:  # more than one request's
            assert places._held[key] <= math.ceil(most / 2)
    for one in held:
        one.__exit__(None, None, None)
    assert places.taken == 0 and not places._held
    assert all(places.free("open", most, shared=shared) for shared in (False, True))
    assert not places.free("open", most + 1, shared=False)


def test_one_key_does_not_shut_out_another(tmp_path: Path) -> None:
    running = InProcess(tmp_path / "bank.db", limits=Limits(in_flight=8))
    (greedy, secret), (modest, other) = [running.service.keys.create(name, "home", ["ask"]) for name in "ab"]
    body = {"model": "testbed", "messages": user(PROBLEM), "max_tokens": 4}

    def ask(secret: str) -> Any:
        return running.anyone().post(CHAT, json=body, headers={"Authorization": f"Bearer {secret}"})

    with running.service.places.held(greedy.id, 4):
        refused = ask(secret)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "engine_busy")
        assert "share" in refused.text and refused.headers["retry-after"]
        assert ask(other).status_code == 200
    with running.service.prompts.held(greedy.id, running.service.prompts.most // 2):
        assert ask(secret).status_code == 429 and ask(other).status_code == 200
    assert ask(secret).status_code == 200 and running.service.in_flight == running.service.prompts.taken == 0
    assert modest.id != greedy.id
    running.service.close()


def stalled(address: tuple[str, int], **body: Any) -> socket.socket:
    """A client that asks for much and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    text = json.dumps({"model": "testbed", "messages": user(PROBLEM), "temperature": 2, **body}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + text)
    return connection


MUCH = {"n": 60, "max_tokens": 150, "logprobs": True, "top_logprobs": 20}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_who_does_not_read_is_hung_up_on(tmp_path: Path, stream: bool) -> None:
    from test_server_hostile import impatient

    with impatient(tmp_path / "bank.db", write_seconds=0.5) as (service, address):
        held = [stalled(address, stream=stream, **MUCH) for _ in range(2)]
        end = time.monotonic() + 240
        while not service.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        assert service.in_flight
        while service.in_flight and time.monotonic() < end:
            time.sleep(0.05)
        assert service.in_flight == 0 and service.prompts.taken == 0
        for connection in held:
            connection.close()


def test_draining_does_not_wait_for_who_does_not_read(tmp_path: Path) -> None:
    from test_server_hostile import impatient

    with impatient(tmp_path / "bank.db", drain_seconds=0.5, write_seconds=600) as (service, address):
        connection = stalled(address, stream=True, **MUCH)
        end = time.monotonic() + 240
        while not service.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 25  # 31 and more, while the last requests were waited for as long as the first
    connection.close()


def test_a_stream_that_is_left_before_its_first_event_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tacit.server.live.answering import Answering
    from test_server_hostile import impatient

    begun, ended = threading.Event(), threading.Event()

    async def never(self: Answering, *, whole: bool = False) -> Any:
        begun.set()
        try:
            import asyncio

            await asyncio.sleep(600)  # as two sides that are compared take long
            yield None
        finally:
            ended.set()

    monkeypatch.setattr(Answering, "tokens", never)
    with impatient(tmp_path / "bank.db") as (service, address):
        connection = stalled(address, stream=True)
        assert begun.wait(60)
        connection.close()
        assert ended.wait(60)
        end = time.monotonic() + 60
        while service.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        assert service.in_flight == service.prompts.taken == 0
