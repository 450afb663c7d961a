"""Two namespaces under concurrent traffic: what one sees is, to the letter, what it would see on a server of its own.

Not only is nothing of the other in it: no id, count, order, text or status depends on what the other does meanwhile.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some
from starlette.testclient import TestClient

from server import InProcess
from tacit.memory import State
from tacit.server.live.feed import Feed
from test_server_memories_api import made

FRESH = itertools.count()
PROBLEMS = ["3 + 4", "7 - 2 + 1", "5 * 6"]
IDS = ["mine-0", "mine-1", "theirs-0", "theirs-1", "no-such"]
"""Memories of the one, memories of the other, and none's."""

PATHS = ["memories", "memories?sort=uses&q=3", "jobs", "status", "feed", "snapshots"]

actions = some.one_of(
    some.tuples(some.just("ask"), some.sampled_from(PROBLEMS), some.integers(1, 2), some.sampled_from(["auto", "off"])),
    some.tuples(some.just("ask"), some.sampled_from(PROBLEMS), some.just(1), some.sampled_from(IDS)),
    some.tuples(some.just("get"), some.sampled_from(PATHS)),
    some.tuples(some.just("metrics")),
    some.tuples(some.sampled_from(["show", "export", "quarantine", "restore", "delete"]), some.sampled_from(IDS)),
    some.tuples(some.just("job"), some.integers(0, 3)),
)
schedules = some.lists(actions, min_size=3, max_size=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    running = InProcess(tmp_path_factory.mktemp("namespaces") / "bank.db")
    # A clock that stands: answers are counted by the minute, and a minute may end in one run and not in the other.
    running.service.feed = Feed(lambda: 1e9)
    yield running
    running.service.close()


class Tenant:
    """One namespace with a key and two memories, and all that its requests were answered."""

    def __init__(self, server: InProcess, side: str) -> None:
        self.namespace = f"space-{next(FRESH):06}-end"  # of one length: an export's header tells its own
        self.client = server.client(self.namespace, "ask", "learn", "admin")
        self.seen: list[str] = []
        self.jobs: list[str] = []
        for number in (0, 1):
            memory = made(server.service, f"{side}-{number}", PROBLEMS[number], self.namespace, uses=number)
            assert memory.state is State.ACTIVE and server.service.bank.add(memory)

    def act(self, schedule: list[tuple[Any, ...]]) -> Tenant:
        for action in schedule:
            response = self._answer(self.client, *action)
            self.seen.append(f"{action} {response.status_code} {self._plain(response)}")
        return self

    def _answer(self, client: TestClient, what: str, *more: Any) -> httpx2.Response:
        if what == "ask":
            problem, n, memory = more
            body = {
                "model": "testbed:tacit", "messages": [{"role": "user", "content": problem}], "n": n, "seed": 1,
                "max_tokens": 12, "tacit": {"memory": memory},
            }  # fmt: skip
            response = client.post("/v1/chat/completions", json=body)
            job = response.json().get("tacit", {}).get("job")
            self.jobs += [job["id"]] if job else []
            return response
        if what == "get":
            return client.get(f"/tacit/v1/{more[0]}")
        if what == "metrics":
            return client.get("/metrics")
        if what == "job":
            return client.get(f"/tacit/v1/jobs/{self.jobs[more[0]] if more[0] < len(self.jobs) else 'no-such'}")
        path = f"/tacit/v1/memories/{more[0]}"
        if what == "delete":
            return client.delete(path)
        return client.get(path if what == "show" else f"{path}/export") if what in ("show", "export") else (
            client.post(f"{path}/{what}", json={})
        )  # fmt: skip

    def _plain(self, response: httpx2.Response) -> str:
        """An answer without what differs between any two runs: times, random ids, the namespace's and key's own."""
        text = response.content.decode("latin-1").replace(self.namespace, "SPACE")
        for number, id in enumerate(dict.fromkeys(self.jobs)):
            text = text.replace(id, f"JOB{number}")
        text = re.sub(r"chatcmpl-\w+|served-\w+|job-\w+", "ID", text)
        text = re.sub(r'"key_id":"\w+"|"position":\d+', "", text)
        text = re.sub(r'"(created|time|seconds|started|finished)":[\d.e+-]+', "", text)
        # Prometheus: when a meter began, and how long requests took.
        return "\n".join(
            one for one in text.splitlines() if not re.match(r"tacit:\w+_created|tacit:request_seconds", one)
        )


# No shrinking: an example takes seconds, and a schedule is short enough to be read.
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mine=schedules, theirs=schedules)
def test_what_one_namespace_sees_does_not_depend_on_another(
    server: InProcess, mine: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]
) -> None:
    together = Tenant(server, "mine"), Tenant(server, "theirs")
    start = threading.Barrier(2)

    def run(tenant: Tenant, schedule: list[tuple[Any, ...]]) -> Tenant:
        start.wait()
        return tenant.act(schedule)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, together, (mine, theirs)))
    assert together[0].seen == Tenant(server, "mine").act(mine).seen
    assert together[1].seen == Tenant(server, "theirs").act(theirs).seen
