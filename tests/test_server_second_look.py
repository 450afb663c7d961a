"""What a second hostile look at the server found: refusals that quote anything, shares of all that is asked, faults."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from commands import words
from server import InProcess, _address
from tacit.bank.portable import FORMAT
from tacit.memory import record
from tacit.server.learner.jobs import MAX_ATTEMPTS
from tacit.server.live.service import BESIDE
from tacit.tasks.maths import Maths
from test_server_memories_api import FILE, made

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "testbed", "messages": [{"role": "user", "content": "3 + 4"}], "max_tokens": 4}


@pytest.fixture
def server(tmp_path: Path) -> Any:
    running = InProcess(tmp_path / "bank.db")
    yield running
    running.service.close()


@pytest.mark.parametrize("field", ["id", "namespace", "problem", "key_kind", "state", "reason", "created", "uses"])
def test_a_refusal_may_quote_half_a_character(server: InProcess, field: str) -> None:
    memory = made(server.service, "m")
    whole = {"format": FORMAT, "record": {**record(memory), field: "\ud800"}}
    tensors = {"prompt": np.ascontiguousarray(memory.prompt), "key": np.ascontiguousarray(memory.key)}
    data = safetensors.numpy.save(tensors, metadata={"tacit": json.dumps(whole)})
    response = server.client("home", "admin").post("/tacit/v1/memories/import", content=data, headers=FILE)
    if field != "namespace":  # which is the key's, whatever the file says
        assert response.status_code == 400 and response.json()["error"]["message"]
    assert response.status_code < 500


def test_no_key_has_all_the_places_beside_the_model(server: InProcess) -> None:
    """Each such request may hold a body of megabytes and one of the few threads that keys are looked up by."""
    service = server.service
    greedy, modest = server.client("home", "ask"), server.client("home", "admin")
    [key] = [key for key in service.keys.all() if key.rights == {"ask"}]
    held = service.beside.held(key.id, BESIDE // 2)
    with held:
        for response in (
            greedy.post("/tacit/v1/memories/import", content=b"x", headers=FILE),
            greedy.get("/v1/models"),
        ):
            assert response.status_code == 429 and response.headers["retry-after"], response.text
        assert modest.get("/tacit/v1/memories").status_code == 200
        assert greedy.post(CHAT, json=ASKED).status_code == 200  # those have places of their own
        assert greedy.get("/health/live").status_code == 200
    assert greedy.get("/v1/models").status_code == 200 and service.beside.taken == 0


def test_answers_that_take_long_to_read_keep_nobody_waiting(server: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests whose answers are looked for with both threads; a third one is answered before they are."""
    server.service.bank.add(made(server.service, "m", "3 + 4"))
    extract, slow, begun = Maths.extract, 0, threading.Semaphore(0)

    def slowly(self: Maths, text: str) -> str | None:
        nonlocal slow
        slow += 1
        begun.release()
        threading.Event().wait(0.1)
        return extract(self, text)

    monkeypatch.setattr(Maths, "extract", slowly)
    n, ended = 40, []
    body = {**ASKED, "model": "testbed:tacit", "n": n, "tacit": {"learn": False}}

    def ask(client: Any) -> None:
        ended.append(client.post(CHAT, json=body).status_code)

    threads = [threading.Thread(target=ask, args=(server.client("home", "ask"),)) for _ in range(2)]
    plain = server.client("home", "ask")
    for thread in threads:
        thread.start()
    for _ in range(4):
        assert begun.acquire(timeout=120)
    assert plain.post(CHAT, json=ASKED).status_code == 200
    assert ended == [] and slow < 3 * n
    for thread in threads:
        thread.join()
    assert ended == [200, 200]


def test_a_fault_of_the_servers_is_for_its_log(server: InProcess) -> None:
    service, said = server.service, "OSError: no room at /srv/secret/bank.db"
    asker, admin = server.client("home", "ask", "learn"), server.client("home", "admin")
    [key] = [key for key in service.keys.all() if "learn" in key.rights]
    job = service.jobs.submit("home", "3 + 4", key).job
    assert job is not None
    for day in range(1, MAX_ATTEMPTS + 1):
        service.jobs.clock = lambda day=day: time.time() + 86_400 * day  # type: ignore[misc]
        [claimed] = service.jobs.claim("w", 60, 1)
        assert service.jobs.setback(claimed, "w", said)
        path = f"/tacit/v1/jobs/{job.id}"
        assert "/srv" in admin.get(path).json()["error"]
        assert asker.get(path).json()["error"] == "the server failed at it; its log says why"
    asked = {**ASKED, "model": "testbed:tacit", "max_tokens": 64}
    told = asker.post(CHAT, json=asked).json()["tacit"]["learning"]
    assert "/srv" not in told and "the server failed at it" in told
    with service.bank.connection(write=True) as connection:
        connection.exec_driver_sql("UPDATE jobs SET error = 'the problem is too long'")
    assert asker.get(f"/tacit/v1/jobs/{job.id}").json()["error"] == "the problem is too long"


def test_connections_that_ask_nothing_leave_room_for_who_does(tmp_path: Path) -> None:
    """Nobody needs a key to connect; a server whose descriptors are all taken can neither answer nor write."""
    bank = tmp_path / "bank.db"
    command = " ".join(map(shlex.quote, words("serve", "--bank", str(bank), "--port", "0", "--no-learn")))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["bash", "-c", f"ulimit -n 96; exec {command}"], stdout=log, stderr=log)
    try:
        url = _address(process, tmp_path / "log")
        place = (url.split("/")[2].split(":")[0], int(url.rpartition(":")[2]))
        held = [socket.create_connection(place, 30) for _ in range(120)]
        # Sooner than those that ask nothing are hung up on anyway (``Limits.head_seconds``).
        with httpx.Client(base_url=url, timeout=25) as client:
            for _ in range(3):
                assert client.get("/health/live").status_code == 200
                asked = {**ASKED, "model": "testbed:tacit", "n": 4}
                assert client.post(CHAT, json=asked).status_code == 200
            assert client.post("/tacit/v1/snapshot").status_code == 201
        for one in held:
            one.close()
        assert "a request to" not in (tmp_path / "log").read_text()  # failed
    finally:
        process.kill()
        process.wait()
