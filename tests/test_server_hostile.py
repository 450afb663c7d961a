"""A real ``tacit serve`` against clients that mean no good: clear refusals, bounded memory, nothing left running."""

from __future__ import annotations

import http.client
import json
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

from server import serving
from tacit.server.live.service import Service
from tacit.server.run import web
from tacit.server.settings import Limits, ServeConfig

MEGABYTE = 10**6
GROWTH = 150 * MEGABYTE
"""Most that the server's memory may grow by over everything below; one of the bodies alone has 100 MB."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED: dict[str, Any] = {"model": "testbed", "messages": [{"role": "user", "content": "2 3 +"}], "max_tokens": 4}
RAW: dict[str, Any] = {"model": "testbed", "prompt": "2 3 +", "max_tokens": 4}


@dataclass
class Server:
    """A running process."""

    process: psutil.Process
    port: int

    def connect(self, seconds: float = 60) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), seconds)

    def ask(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """Status and body of the answer to a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def running(self) -> float:
        """Requests being answered, from the server's own figures."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(r"^tacit:requests_running\{.*\} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``tacit serve`` on a bank without keys; still there, answering, idle and not much larger at the end."""
    with serving(tmp_path_factory.mktemp("hostile") / "bank.db", "--no-learn") as served:
        running = Server(psutil.Process(served.process.pid), int(served.url.rpartition(":")[2]))
        for path, body in ((CHAT, ASKED), (COMPLETIONS, RAW), (CHAT, {**ASKED, "model": "testbed:tacit", "n": 128})):
            assert running.ask(path, json.dumps(body).encode())[0] == 200  # warm, so that growth is not first use
        before = running.process.memory_info().rss
        yield running
        assert still_well(running)
        grown = running.process.memory_info().rss - before
        assert grown < GROWTH, f"{grown / MEGABYTE:.0f} MB"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        assert "Traceback" not in served.log.read_text()


def still_well(server: Server) -> bool:
    """Whether it answers, and soon has nothing else to do."""
    assert server.ask(CHAT, json.dumps(ASKED).encode())[0] == 200
    end = time.monotonic() + 30
    while server.running() and time.monotonic() < end:
        time.sleep(0.05)
    return server.running() == 0


def refused(status: int, body: bytes) -> dict[str, Any]:
    """The error, which has OpenAI's shape."""
    told = json.loads(body)
    assert 400 <= status < 500, (status, body[:300])
    assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "param", "code"}
    assert told["error"]["message"] and len(body) < 2000
    return dict(told["error"])


def chat(**changes: Any) -> tuple[str, bytes]:
    return CHAT, json.dumps({**ASKED, **changes}).encode()


def raw(**changes: Any) -> tuple[str, bytes]:
    return COMPLETIONS, json.dumps({**RAW, **changes}).encode()


def chat_text(field: str, value: str) -> tuple[str, bytes]:
    """A body that no well-behaved JSON library writes."""
    return CHAT, (json.dumps(ASKED)[:-1] + f', "{field}": {value}' + "}").encode()


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


BAD: dict[str, tuple[tuple[str, bytes], str | None]] = {
    # what is sent, and the field that has to be named (None: the body as a whole, or nothing in particular)
    "a prompt of a million tokens": (raw(prompt="2 3 " * 500_000), "prompt"),
    "a prompt of a million token ids": (raw(prompt=[5] * 10**6), "prompt"),
    "a message of a million tokens": (chat(messages=user("2 3 " * 500_000)), "messages"),
    "400,000 parts without text": (chat(messages=[user([{}] * 250)[0]] * 1024), "messages"),
    "as many as are read, without text": (chat(messages=[user([{}] * 250)[0]] * 16), "messages.0.content"),
    "parts of few letters": (chat(messages=[user([{"type": "text", "text": "a"}] * 250)[0]] * 20), "messages"),
    "400,000 prompts of the wrong type": (raw(prompt=[[None]] * 400_000), "prompt"),
    "200,000 unknown fields": (chat(**{f"unknown{i}": 1 for i in range(200_000)}), "unknown0"),
    "200,000 pairs of metadata": (chat(metadata={str(i): "" for i in range(200_000)}), "metadata"),
    "a problem of 100,000 characters": (
        chat(model="testbed:tacit", tacit={"problem": "1 " * 50_000}), "tacit.problem"
    ),
    "1,025 messages": (chat(messages=user("a") * 1025), "messages"),
    "n of a billion": (chat(n=10**9), "n"),
    "n of 129": (raw(n=129), "n"),
    "100 prompts with n = 2": (raw(prompt=["a"] * 100, n=2), "n"),
    "n of zero": (chat(n=0), "n"),
    "n as text": (chat(n="1"), "n"),
    "n as a fraction": (chat(n=1.5), "n"),
    "n as a truth value": (chat(n=True), "n"),
    "no tokens": (chat(max_tokens=0), "max_tokens"),
    "a billion tokens": (chat(max_tokens=10**9), "messages"),
    "2^80 tokens": (chat(max_tokens=2**80), "max_tokens"),
    "a negative temperature": (chat(temperature=-1), "temperature"),
    "a temperature of a thousand": (chat(temperature=1000), "temperature"),
    "NaN": (chat_text("temperature", "NaN"), "temperature"),
    "infinity": (chat_text("top_p", "Infinity"), "top_p"),
    "1e400": (chat_text("temperature", "1e400"), "temperature"),
    "10^400": (chat_text("temperature", "1" + "0" * 400), "temperature"),
    "a seed of 10^400": (chat_text("seed", "1" + "0" * 400), "seed"),
    "5,000 digits": (chat_text("seed", "1" * 5000), None),
    "a million digits": (chat_text("seed", "1" * 10**6), None),
    "top_p of zero": (chat(top_p=0), "top_p"),
    "21 alternatives": (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
    "alternatives without logprobs": (chat(top_logprobs=2), "top_logprobs"),
    "17 stop strings": (chat(stop=["a"] * 17), "stop"),
    "an empty stop string": (chat(stop=""), "stop"),
    "an unknown field": (chat(tool=[]), "tool"),
    "a tool": (chat(tools=[{"type": "function"}]), "tools"),
    "a tool's call by the user": (
        chat(messages=[{**user("a")[0], "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
        "messages.0.tool_calls",
    ),
    "1,000,000 calls of tools": (
        chat(messages=[{"role": "assistant", "tool_calls": [{}] * 1_000_000}]), "messages"
    ),
    "an unknown option": (chat(tacit={"memori": "off"}), "tacit.memori"),
    "an unknown model": (chat(model="gpt-7"), "model"),
    "an unknown memory": (chat(model="testbed:tacit", tacit={"memory": "nope"}), None),
    "no messages": (chat(messages=[]), "messages"),
    "messages of the wrong type": (chat(messages="hi"), "messages"),
    "an image": (chat(messages=user([{"type": "image_url", "image_url": {}}])), "messages.0.content"),
    "no content": (chat(messages=user(None)), "messages.0.content"),
    "an unknown role": (chat(messages=[{"role": "robot", "content": "a"}]), "messages.0.role"),
    "a tool's turn alone": (chat(messages=[{"role": "tool", "content": "a"}]), "messages"),
    "the assistant's turn alone": (chat(messages=[{"role": "assistant", "content": "a"}]), "messages"),
    "an empty prompt": (raw(prompt=""), "prompt"),
    "no prompts": (raw(prompt=[]), "prompt"),
    "a blank prompt": (raw(prompt=" "), "prompt"),
    "a token that there is not": (raw(prompt=[10**6]), "prompt"),
    "a negative token": (raw(prompt=[-1]), "prompt"),
    "a truth value for a token": (raw(prompt=[True]), "prompt"),
    "a streamed echo": (raw(echo=True, stream=True), "echo"),
    "half a surrogate pair in a message": (
        (CHAT, json.dumps(ASKED).replace("2 3 +", "\\ud800").encode()), "messages.0.content"
    ),
    "half a surrogate pair in a prompt": ((COMPLETIONS, json.dumps({**RAW, "prompt": "\udfff"}).encode()), "prompt"),
    "half a surrogate pair in a model": (chat(model="\ud800"), "model"),
    "half a surrogate pair in a field's name": (chat(**{"\ud800": 1}), None),
    "half a surrogate pair in a memory": (chat(model="testbed:tacit", tacit={"memory": "\ud800"}), "tacit.memory"),
    "100,000 open brackets": ((CHAT, b"[" * 100_000), None),
    "lists 100,000 deep": ((CHAT, b"[" * 100_000 + b"]" * 100_000), None),
    "objects 100,000 deep": ((CHAT, b'{"a":' * 100_000 + b"1" + b"}" * 100_000), None),
    "messages 100,000 deep": (chat_text("messages", "[" * 100_000 + "]" * 100_000), None),
    "invalid UTF-8": ((CHAT, b'{"model": "\xff\xfe"}'), None),
    "no JSON": ((CHAT, b"model=testbed"), None),
    "half of a body": ((CHAT, json.dumps(ASKED).encode()[:-5]), None),
    "NUL bytes": ((CHAT, bytes(10_000)), None),
    "an empty body": ((CHAT, b""), None),
    "null": ((CHAT, b"null"), None),
    "a list": ((CHAT, b"[]"), None),
    "a number": ((CHAT, b"1"), None),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_bodies_are_refused_and_the_field_is_named(server: Server, what: str) -> None:
    (path, body), param = BAD[what]
    error = refused(*server.ask(path, body))
    assert error["param"] == param or param is None, error


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "a/b/c"])
def test_another_content_type_is_refused(server: Server, kind: str) -> None:
    refused(*server.ask(CHAT, json.dumps(ASKED).encode(), kind))


@pytest.mark.parametrize("stated", [True, False], ids=["content-length", "chunked"])
def test_a_body_of_100_megabytes_is_answered_although_it_is_not_read(server: Server, stated: bool) -> None:
    piece = b'"' + b"x" * (MEGABYTE - 2) + b'"'
    length = f"Content-Length: {100 * MEGABYTE}" if stated else "Transfer-Encoding: chunked"
    with server.connect() as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        for _ in range(100):  # a client that sends everything before it looks for an answer
            connection.sendall(piece if stated else b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"" if stated else b"0\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        error = refused(response.status, response.read())
    assert (response.status, error["code"]) == (413, "body_too_large")


def test_a_body_that_asks_first_is_told_no(server: Server) -> None:
    with server.connect() as connection:
        head = f"Content-Length: {100 * MEGABYTE}\r\nExpect: 100-continue"
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert refused(response.status, response.read())["code"] == "body_too_large"
        assert connection.recv(1) == b""  # and is hung up on


@pytest.mark.parametrize("path", ["/health/live", "/v1/models", "/metrics"])
def test_a_body_that_nobody_asked_for_is_not_kept(server: Server, path: str) -> None:
    before = server.process.memory_info().rss
    held = [server.connect() for _ in range(20)]
    for connection in held:  # 60 MB in all, none of them ended
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {4 * MEGABYTE}\r\n\r\n".encode())
        connection.settimeout(5)
        try:
            connection.sendall(b"x" * 3 * MEGABYTE)
        except OSError:
            continue  # hung up on: as good
    assert server.process.memory_info().rss - before < 30 * MEGABYTE
    for connection in held:
        connection.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_who_hangs_up_leaves_nothing_running(server: Server, path: str, stream: bool) -> None:
    asked = (ASKED if path == CHAT else RAW) | {"n": 64, "max_tokens": 1000, "stream": stream, "temperature": 2.0}
    body = json.dumps(asked).encode()
    for _ in range(4):
        with server.connect() as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            if stream:
                assert connection.recv(20).startswith(b"HTTP/1.1 200")  # in the middle of the answer
            else:
                end = time.monotonic() + 30
                while not server.running() and time.monotonic() < end:
                    time.sleep(0.01)
    assert still_well(server)


def test_who_hangs_up_before_the_body_is_there_leaves_nothing_running(server: Server) -> None:
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc".encode())
    assert still_well(server)


@contextmanager
def impatient(bank: Path, **limits: float) -> Iterator[tuple[Service, Any]]:
    """A service with these limits, and where it listens."""
    service = Service(ServeConfig(bank=str(bank), learner=False, limits=Limits(**limits)))  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(web(service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield service, listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        service.close()


def test_a_body_that_trickles_in_is_not_waited_for(tmp_path: Path) -> None:
    with impatient(tmp_path / "bank.db", body_seconds=0.5) as (service, address):
        with socket.create_connection(address, 60) as connection:
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode())
            sent = 0
            while not select.select([connection], [], [], 0.05)[0]:
                connection.sendall(b"{")
                sent += 1
            response = http.client.HTTPResponse(connection)
            response.begin()
            error = refused(response.status, response.read())
            assert (response.status, error["code"]) == (408, "timeout") and 0 < sent < 1000
            assert response.getheader("connection") == "close"
        end = time.monotonic() + 30  # the answer is on its way a moment before the request has ended
        while service.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        assert service.in_flight == 0


def trickles(connection: socket.socket) -> int:
    """Lines of a head that are sent until the other side closes."""
    sent = 0
    with suppress(ConnectionError):
        while True:
            connection.sendall(f"X-{sent}: 1\r\n".encode())
            sent += 1
            if select.select([connection], [], [], 0.05)[0] and not connection.recv(1000):
                break
    return sent


def test_a_head_that_trickles_in_is_not_waited_for(tmp_path: Path) -> None:
    with impatient(tmp_path / "bank.db", head_seconds=0.5) as (service, address):
        with socket.create_connection(address, 60) as silent:
            assert silent.recv(1) == b""
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
        with socket.create_connection(address, 60) as connection:
            connection.sendall(head)
            assert 0 < trickles(connection) < 1000
        # Nor is a later one on the same connection; a body may take longer.
        kept = http.client.HTTPConnection(*address, timeout=60)
        body = json.dumps(ASKED).encode()
        for _ in range(2):
            kept.putrequest("POST", CHAT)
            kept.putheader("Content-Type", "application/json")
            kept.putheader("Content-Length", str(len(body)))
            kept.endheaders()
            time.sleep(2 * service.config.limits.head_seconds)
            kept.send(body)
            response = kept.getresponse()
            assert response.status == 200 and response.read()
        kept.sock.sendall(head)
        assert 0 < trickles(kept.sock) < 1000
        kept.close()
