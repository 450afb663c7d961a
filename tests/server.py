"""A server for tests: ``tacit serve`` as a process with its clients, or its application in this process."""

from __future__ import annotations

import http.client
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from starlette.testclient import TestClient

from commands import Command, words
from tacit.engines.base import Request, check
from tacit.engines.local import LocalEngine
from tacit.engines.shared import SharedEngine
from tacit.model.backbone import Backbone
from tacit.server.app import create_app
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

START_SECONDS = 90


@dataclass
class Served:
    """A running server."""

    process: Command | subprocess.Popen[str]
    url: str
    log: Path

    def client(self, key: str = "none", **settings: object) -> openai.OpenAI:
        """The openai package's client, as its users make it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, **settings})  # type: ignore[arg-type]

    def get(self, path: str, key: str | None = None, **settings: object) -> httpx.Response:
        """A plain GET."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.get(self.url + path, headers=headers, timeout=30, **settings)  # type: ignore[arg-type]


@contextmanager
def serving(bank: Path, *options: str, cold: bool = False, log: Path | None = None) -> Iterator[Served]:
    """``tacit serve`` on ``bank`` until the end of the block; ``cold``: by a Python that starts from nothing.

    What it says is in ``log``, by default beside the bank.
    """
    log = log or bank.with_suffix(".log")
    log.write_text("")
    command = ["serve", "--bank", str(bank), "--port", "0", *options]
    process: Command | subprocess.Popen[str]
    if cold:
        with log.open("w") as written:
            process = subprocess.Popen(words(*command), stdout=written, stderr=subprocess.STDOUT, text=True)
    else:
        process = Command(*command, log=log)
    try:
        yield Served(process, _address(process, log), log)
    finally:
        process.kill()
        process.wait()


def _address(process: Command | subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"http://\S+:\d+", log.read_text())
        if found:
            return found[0]  # it listens before it says so
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"the server did not start in {START_SECONDS} s: {log.read_text()}")


def looks(served: Served, going: Callable[[], bool]) -> list[float]:
    """Seconds that each of many looks at /health/live took, one at least, as long as something is ``going`` on."""
    seconds: list[float] = []
    while going() or not seconds:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=120)
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() == b'{"status":"live"}'
        connection.close()
        seconds.append(time.perf_counter() - began)
        time.sleep(0.02)
    return seconds


class Tight(LocalEngine):
    """An engine with less room than its model, as a vLLM server that was started with a small --max-model-len."""

    def __init__(self, backbone: Backbone, room: int) -> None:
        super().__init__(backbone)
        self.room = room

    @property
    def context(self) -> int:
        """See ``Engine.context``."""
        return self.room

    def _check(self, what: str, request: Request, least: int = 1) -> None:
        super()._check(what, request, least)
        check(self.backbone, self.room, what, request, least=least)


class InProcess:
    """A testbed service without a learner, whose application is called without a network.

    Args:
        bank: its file.
        room: the context of the engine that samples, where it is smaller than the model's.
        settings: see ``ServeConfig``.
    """

    def __init__(self, bank: Path, room: int | None = None, **settings: Any) -> None:
        self.service = service = Service(ServeConfig(bank=str(bank), learner=False, **settings))
        if room is not None:
            service.engine.close()
            service._sampling = Tight(service.backbone, room)
            service.engine = SharedEngine(service._sampling.session())
        self.app = create_app(service)

    def anyone(self) -> TestClient:
        """A caller on this machine without a key; what fails inside is a 500, as over the network."""
        return TestClient(self.app, "http://localhost", raise_server_exceptions=False)  # type: ignore[arg-type]

    def client(self, namespace: str, *rights: str) -> TestClient:
        """A caller with a key of its own."""
        _, secret = self.service.keys.create("test", namespace, rights)
        client = self.anyone()
        client.headers["Authorization"] = f"Bearer {secret}"
        return client
