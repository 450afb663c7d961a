"""Two namespaces and keys of the four rights in random order, with keys that change while their requests are under way.

Nothing crosses, and nothing is gained by a race: what is stored is what the key may at that moment. ``TACIT_STEPS``
sets how many steps are made in all.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from starlette.testclient import TestClient

from server import InProcess
from tacit.bank.portable import to_safetensors
from tacit.config import Sampling
from tacit.memory import State
from tacit.server.keys import RIGHTS, ApiKey
from test_server_memories_api import FILE, made

STEPS = int(os.environ.get("TACIT_STEPS", "90"))
EACH = 30
PROBLEMS = {"alpha": "31 + 17", "beta": "29 + 18"}
"""Of each namespace's memory: what the other one must never read."""
COMMON = ["3 + 4", "3 + 4 + 0", "9 - 2", "5 + 1"]
RIGHTS_OF_A_KEY = some.sets(some.sampled_from(RIGHTS), min_size=1)
IDS = ["m-alpha", "m-beta", "none"]
CHANGES = ("quarantine", "activate", "restore", "delete", "import", "show", "list", "export", "jobs", "snapshot")


@dataclass
class Held:
    """A key as the model has it: with the rights of now."""

    key: ApiKey
    client: TestClient
    rights: set[str]

    def may(self, right: str) -> bool:
        return right in self.rights


class Races(RuleBasedStateMachine):
    """A server, and what each key may."""

    made = 0  # steps, by all of them

    @initialize()
    def begin(self) -> None:
        Races.made -= 1  # the look at its beginning is no step
        self.folder = tempfile.TemporaryDirectory()
        self.server = InProcess(Path(self.folder.name) / "bank.db", sampling=Sampling(max_tokens=3), verifier="vote")
        self.service, self.bank = self.server.service, self.server.service.bank
        self.keys: list[Held] = []
        self.race: Any = None
        for namespace, problem in PROBLEMS.items():
            self.bank.add(made(self.service, f"m-{namespace}", problem, namespace))
            self._create(namespace, {"ask", "learn"})
            self._create(namespace, {"ask", "admin"})
        lookup = self.service.keys.lookup

        def raced(secret: str) -> ApiKey | None:
            found = lookup(secret)
            if self.race is not None:
                race, self.race = self.race, None
                race()
            return found

        self.service.keys.lookup = raced  # type: ignore[method-assign]

    def teardown(self) -> None:
        self.server.service.close()
        self.folder.cleanup()

    def _create(self, namespace: str, rights: set[str]) -> None:
        key, secret = self.service.keys.create("k", namespace, rights)
        client = self.server.anyone()
        client.headers["Authorization"] = f"Bearer {secret}"
        self.keys.append(Held(key, client, set(rights)))

    def _state(self, namespace: str, *, counts: bool = True) -> list[Any]:
        infos = self.bank.find(namespace)
        memories = [(i.id, i.state, i.reason, (i.uses, i.agreed, i.helped, i.hurt) if counts else 0) for i in infos]
        return [memories, [(job.id, job.state, job.key_id) for job in self.service.jobs.list(namespace, limit=1000)]]

    def _change(self, held: Held, rights: set[str] | None) -> None:
        if not held.rights:
            return
        if rights is None:
            self.service.keys.revoke(held.key.id)
        else:
            self.service.keys.allow(held.key.id, rights)
        held.rights = set() if rights is None else set(rights)

    @precondition(lambda self: len(self.keys) < 12)
    @rule(namespace=some.sampled_from(sorted(PROBLEMS)), rights=RIGHTS_OF_A_KEY)
    def create(self, namespace: str, rights: set[str]) -> None:
        self._create(namespace, rights)

    @rule(number=some.integers(0, 11), rights=some.none() | RIGHTS_OF_A_KEY)
    def change(self, number: int, rights: set[str] | None) -> None:
        self._change(self.keys[number % len(self.keys)], rights)

    def _asked(self, held: Held, send: Any, race: str, rights: set[str]) -> tuple[Any, set[str], list[Any], list[Any]]:
        """The response, the rights that the key began with, and its namespace's state before and after."""
        namespace, began = held.key.namespace, set(held.rights)
        [other] = set(PROBLEMS) - {namespace}
        before, foreign = self._state(namespace), self._state(other)
        if race != "none":
            self.race = lambda: self._change(held, None if race == "revoke" else rights)
        response = send(held.client)
        self.race = None
        assert response.status_code < 500, response.text
        assert self._state(other) == foreign, "another namespace has changed"
        assert PROBLEMS[other] not in response.text, "another namespace can be read"
        if not began:
            assert response.status_code == 401
        return response, began, before, self._state(namespace)

    @rule(
        number=some.integers(0, 11),
        problem=some.sampled_from([*COMMON, ""]),
        memory=some.sampled_from(["auto", "auto", "off", *IDS]),
        stream=some.booleans(),
        race=some.sampled_from(["none", "none", "revoke", "allow"]),
        rights=RIGHTS_OF_A_KEY,
    )
    def ask(self, number: int, problem: str, memory: str, stream: bool, race: str, rights: set[str]) -> None:
        held = self.keys[number % len(self.keys)]
        namespace = held.key.namespace
        body = {
            "model": "testbed:tacit", "messages": [{"role": "user", "content": problem or PROBLEMS[namespace]}],
            "stream": stream, "tacit": {"memory": memory},
        }  # fmt: skip
        send = lambda client: client.post("/v1/chat/completions", json=body)  # noqa: E731
        response, began, before, after = self._asked(held, send, race, rights)
        text, ended = response.text, held.rights
        served = response.status_code == 200 and '"error"' not in text
        if served:
            assert "ask" in began and ended, "answered without the right to ask, or after the key had gone"
            there = [row[0] for row in before[0]]  # of the key's own namespace, imported ones among them
            assert memory not in IDS or ("admin" in began and memory in there)
        else:
            assert after == before, "what is refused is not stored"
        if "admin" not in began:
            assert f"m-{namespace}" not in text, "an id is told to one who may not see it"
        jobs = [row for row in after[1] if row not in before[1]]
        if jobs:
            assert "learn" in ended and len(jobs) == 1 and jobs[0][2] == held.key.id, "learned without the right"
        if [row[:3] for row in after[0]] != [row[:3] for row in before[0]]:
            raise AssertionError("asking has moved a memory")
        if after[0] != before[0]:
            assert ended & {"trust", "admin"}, "judged without trust"
            assert memory == "auto", "a named memory was judged"

    @rule(
        number=some.integers(0, 11),
        what=some.sampled_from(CHANGES),
        id=some.sampled_from(IDS),
        race=some.sampled_from(["none", "none", "revoke", "allow"]),
        rights=RIGHTS_OF_A_KEY,
    )
    def administer(self, number: int, what: str, id: str, race: str, rights: set[str]) -> None:
        held = self.keys[number % len(self.keys)]
        namespace = held.key.namespace
        base, path = "/tacit/v1", f"/tacit/v1/memories/{id}"
        ways: dict[str, Any] = {
            "delete": lambda c: c.delete(path), "show": lambda c: c.get(path),
            "export": lambda c: c.get(f"{path}/export"), "list": lambda c: c.get(f"{base}/memories"),
            "jobs": lambda c: c.get(f"{base}/jobs"),
            "snapshot": lambda c: c.post(f"{base}/snapshot"),
            "import": lambda c: c.post(
                f"{base}/memories/import", headers=FILE,
                content=to_safetensors(made(self.service, id, PROBLEMS[namespace], namespace)),
            ),
        }  # fmt: skip
        send = ways.get(what, lambda c: c.post(f"{path}/{what}", json={}))
        response, began, before, after = self._asked(held, send, race, rights)
        changed = after != before
        if response.status_code in (200, 201):
            assert "admin" in began, "served without the right to administer"
            assert what in ("list", "jobs", "import") or id == f"m-{namespace}" or id in [row[0] for row in before[0]]
        else:
            assert not changed, "what is refused is not stored"
        if changed:
            assert "admin" in held.rights, "changed without the right to administer"
        if what == "snapshot":
            assert response.status_code in (401, 403)  # the bank is shared

    @rule(namespace=some.sampled_from(sorted(PROBLEMS)))
    def learn(self, namespace: str) -> None:
        """What is queued is learned, as far as this goes: each job's memory is of its own namespace."""
        for job in self.service.jobs.claim("worker", 60, 1):
            assert job.problem not in PROBLEMS.values() or job.problem == PROBLEMS[job.namespace]
            id = f"learned-{job.id}"
            origin, state = {"key": job.key_id}, State.CANDIDATE
            new = made(self.service, id, job.problem, job.namespace, provenance=origin, state=state)
            with self.bank.transaction():
                assert self.service.jobs.finish(job, "worker", id, "learned") and self.bank.add(new)

    @invariant()
    def every_key_is_as_the_model_has_it(self) -> None:
        for held in getattr(self, "keys", []):
            now = self.service.keys.current(held.key)
            assert {right for right in RIGHTS if now.may(right)} == held.rights and now.namespace == held.key.namespace
        Races.made += 1


def test_nothing_crosses_and_nothing_is_gained_by_a_race() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    phases = [Phase.explicit, Phase.generate] if STEPS > 100 else [Phase.explicit, Phase.generate, Phase.shrink]
    while Races.made < STEPS:  # examples may be cut short
        run_state_machine_as_test(
            Races,
            settings=settings(
                max_examples=math.ceil((STEPS - Races.made) / EACH),
                stateful_step_count=EACH,
                deadline=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"{Races.made} steps")
