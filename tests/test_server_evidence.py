"""What counts as evidence of a memory, and what a key is told of memories: on a served testbed with real answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from server import InProcess
from tacit.bank.harm import HURT_LEAD
from tacit.config import Sampling
from tacit.engines.base import Request
from tacit.memory import State
from tacit.server.learner.promotion import quarantine_hurtful
from tacit.server.live.evidence import asked_own_way
from test_server_memories_api import made

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROBLEM = "3 + 4"
DIGITS = [str(digit) for digit in range(10)]
FRESH = itertools.count()


@pytest.fixture(scope="module", params=["vote", "reward-model"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    running = InProcess(tmp_path_factory.mktemp("evidence") / "bank.db", verifier=request.param)
    yield running
    running.service.close()


class Home:
    """A namespace of its own with one active memory, which came from the key of ``owner``."""

    def __init__(self, server: InProcess, **changes: Any) -> None:
        self.server, self.bank, self.namespace = server, server.service.bank, f"home-{next(FRESH)}"
        self.owner = self.client("ask", "learn", "trust")
        [key] = [key for key in server.service.keys.all() if key.namespace == self.namespace]
        memory = made(server.service, "m", PROBLEM, self.namespace, **changes)
        memory.provenance["key"] = key.id
        assert self.bank.add(memory)

    def client(self, *rights: str) -> TestClient:
        return self.server.client(self.namespace, *rights)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        info = self.bank.info("m", self.namespace)
        return info.uses, info.agreed, info.helped, info.hurt


def ask(client: TestClient, problem: str = PROBLEM, path: str = CHAT, status: int = 200, **body: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": problem}]} if path == CHAT else {"prompt": problem}
    body["tacit"] = {"learn": False, **body.get("tacit", {})}
    response = client.post(path, json={"model": "testbed:tacit", **said, **body})
    assert response.status_code == status, response.text
    return dict(response.json())


def problems(count: int) -> list[str]:
    """Texts that the memory is found by."""
    return [f"{PROBLEM}{' + 0' * number}" for number in range(count)]


MADE_TO_ORDER: dict[str, dict[str, Any]] = {
    "stops that silence an answer": {"stop": DIGITS},
    "a stop": {"stop": "="},
    "no room for an answer": {"max_tokens": 1},
    "a temperature at which nothing comes": {"temperature": 2},
    "a chosen seed": {"seed": 1},
    "the likeliest tokens alone": {"top_k": 1},
    "tokens as likely as the likeliest": {"min_p": 1},
    "the likeliest share of tokens": {"top_p": 0.5},
    "a turn begun": {"messages": [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": "= 0\n"}]},
    "a turn begun with nothing to be seen": {
        "messages": [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": " "}]
    },
    "another problem than what is asked": {
        "messages": [{"role": "user", "content": "say nothing"}], "tacit": {"problem": PROBLEM}
    },
    "earlier turns": {
        "messages": [
            {"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": ""},
            {"role": "user", "content": PROBLEM},
        ]
    },
    "the memory alone": {"tacit": {"route": "memory"}},
    "a raw prompt": {"path": COMPLETIONS, "max_tokens": 64, "tacit": {"problem": PROBLEM}},
    "a named memory": {"tacit": {"memory": "m"}},
}  # fmt: skip


@pytest.mark.parametrize("how", MADE_TO_ORDER)
def test_what_is_made_to_order_is_no_evidence(server: InProcess, how: str) -> None:
    home = Home(server)
    trusted = home.client("ask", "trust", "admin")
    for stream in (False, True):
        body = {**MADE_TO_ORDER[how], "stream": stream}
        if stream:
            said = {} if "path" in body else {"messages": [{"role": "user", "content": PROBLEM}]}
            path = body.pop("path", CHAT)
            said = {"prompt": PROBLEM} if path == COMPLETIONS else said
            assert trusted.post(path, json={"model": "testbed:tacit", **said, **body}).status_code == 200
        else:
            assert ask(trusted, **body)["tacit"]["route"] not in ("no_memory", "off")
    assert home.counts == (0, 0, 0, 0)


OWN = Request(torch.tensor([1, 2]), max_tokens=8, stop=("=",))


@pytest.mark.parametrize("change, counts", [
    ({}, True),
    ({"max_tokens": 9, "n": 4, "top": 5}, True),
    ({"top_p": 0.9}, True),  # the server's own
    ({"temperature": 0.0, "top_k": 1, "min_p": 1.0, "top_p": 0.5}, True),  # which change nothing then
    ({"top_k": 50}, False),
    ({"min_p": 0.1}, False),
    ({"top_p": 0.99}, False),
    ({"temperature": 1.1}, False),
    ({"max_tokens": 7}, False),
    ({"stop": ()}, False),
    ({"stop": ("=", ".")}, False),
    ({"ids": torch.tensor([1, 2, 3])}, False),
    ({"grammar": "start: /[0-9]+/"}, False),
    ({"grammar": "start: /[0-9]+/", "temperature": 0.0}, False),
], ids=str)  # fmt: skip
def test_only_what_the_server_itself_would_ask_counts(change: dict[str, Any], counts: bool) -> None:
    sampling = Sampling(temperature=0.8, top_p=0.9)
    assert asked_own_way(replace(OWN, **change), OWN.ids, ("=",), 8, sampling, seeded=False) is counts
    greedy = change.get("temperature") == 0
    assert asked_own_way(replace(OWN, **change), OWN.ids, ("=",), 8, sampling, seeded=True) is (counts and greedy)


def test_a_problem_counts_once_for_a_memory(server: InProcess) -> None:
    home = Home(server)
    first = ask(home.owner, temperature=0)["tacit"]["route"]  # a drawn one may give no answer, and then says nothing
    name = {"agree": "agreed", "memory": "helped", "zero_shot": "hurt"}[first]
    assert getattr(home.bank.info("m", home.namespace), name) == home.counts[0] == 1
    for again in (home.owner, home.client("ask", "trust")):
        ask(again, temperature=0)
        ask(again, f" {PROBLEM}\n")
    assert home.counts[0] == 1
    ask(home.owner, problems(2)[1], temperature=0)
    assert home.counts[0] == 2


def test_who_may_not_judge_is_not_heard_or_once(server: InProcess) -> None:
    home = Home(server)
    stranger = home.client("ask", "learn")
    for problem in problems(6):
        assert ask(stranger, problem)["tacit"]["route"] in ("agree", "memory", "zero_shot")
    calibrated = server.service.verifier is not None and server.service.verifier.calibrated
    assert home.counts[0] == (1 if calibrated else 0)
    assert quarantine_hurtful(home.bank) == [] and HURT_LEAD > 1
    # Whose memory it is, who is trusted, who may take it out of use by hand anyway: as often as there are problems.
    for number, judge in enumerate((home.owner, home.client("ask", "trust"), home.client("ask", "admin"))):
        before = home.counts[0]
        for problem in problems(12)[6 + 2 * number : 8 + 2 * number]:
            ask(judge, problem, temperature=0)  # drawn ones may give no answer, and then nothing is said
        assert home.counts[0] == before + 2


def test_the_only_key_of_a_namespace_judges_what_came_from_none(server: InProcess) -> None:
    home = Home(server)
    with home.bank.connection(write=True) as connection:
        connection.exec_driver_sql("UPDATE api_keys SET rights = 'ask' WHERE namespace = ?", (home.namespace,))
    home.bank.delete("m", home.namespace)
    assert home.bank.add(made(server.service, "m", PROBLEM, home.namespace))
    ask(home.owner, temperature=0)
    assert home.counts[0] == 1
    home.client("ask")
    ask(home.owner, problems(2)[1], temperature=0)
    assert home.counts[0] == 1  # it has been heard once, and there is somebody now to be guarded from it


def test_real_harm_still_ends_in_quarantine(server: InProcess) -> None:
    """A memory that garbles every answer, asked by those whose it is."""
    home = Home(server)
    for problem in problems(12):
        ask(home.owner, problem, temperature=0)
    uses, _, helped, hurt = home.counts
    assert uses >= 6
    if hurt - helped >= HURT_LEAD:
        assert quarantine_hurtful(home.bank) == ["m"]
        assert home.bank.info("m", home.namespace).state is State.QUARANTINED


def test_two_silences_say_nothing(tmp_path: Path) -> None:
    short = InProcess(tmp_path / "bank.db", sampling=Sampling(max_tokens=1))
    home = Home(short)
    told = ask(home.owner)["tacit"]
    assert told["route"] == "zero_shot" and "gives no answer" in told["why"] and home.counts == (0, 0, 0, 0)
    short.service.close()


def test_what_was_said_of_a_deleted_memory_is_forgotten_with_it(server: InProcess) -> None:
    home = Home(server)
    ask(home.owner)
    home.bank.mark(home.namespace, "quarantine:m", '{"uses": 9, "helped": 0, "hurt": 9}')
    home.bank.mark(home.namespace, "promotion:M", "{}")
    home.bank.delete("m", home.namespace)
    assert [home.bank.marked(home.namespace, f"{kind}:m") for kind in ("evidence", "quarantine")] == [None, None]
    assert home.bank.marked(home.namespace, "promotion:M") == "{}"  # of another memory


def test_memories_are_told_of_to_those_alone_who_look_after_them(server: InProcess) -> None:
    home = Home(server)
    asker, admin = home.client("ask", "learn", "trust"), home.client("ask", "admin")
    told = ask(asker)["tacit"]
    assert (told["memory"], told["memories"], told["similarity"]) == (None, [], None) and told["route"]
    told = ask(admin)["tacit"]
    assert (told["memory"], told["memories"][0]["id"]) == ("m", "m") and told["similarity"] == pytest.approx(1)
    several = asker.post(COMPLETIONS, json={"model": "testbed:tacit", "prompt": [PROBLEM, PROBLEM], "max_tokens": 4})
    assert '"m"' not in several.text and several.json()["tacit"]["prompts"][1]["similarity"] is None
    streamed = asker.post(
        CHAT,
        json={"model": "testbed:tacit", "messages": [{"role": "user", "content": PROBLEM}], "stream": True},
    )
    assert '"memory": "m"' not in streamed.text and '"similarity": null' in streamed.text


def test_naming_a_memory_is_refused_whether_there_is_one_or_not(server: InProcess) -> None:
    home = Home(server)
    asker = home.client("ask", "learn", "trust")
    for path in (CHAT, COMPLETIONS):
        for model in ("testbed", "testbed:tacit"):
            refused = [ask(asker, path=path, status=403, model=model, tacit={"memory": id}) for id in ("m", "no-such")]
            assert refused[0] == refused[1] and "admin" in refused[0]["error"]["message"]


def test_a_job_says_nothing_of_memories_and_other_keys(server: InProcess, tmp_path: Path) -> None:
    home = Home(server)
    queue, [key, *_] = server.service.jobs, [k for k in server.service.keys.all() if k.namespace == home.namespace]
    job = queue.submit(home.namespace, "7 - 2", key).job
    assert job is not None
    [claimed] = [one for one in queue.claim("w", 60, 99) if one.id == job.id]
    queue.finish(claimed, "w", "m", "learned")
    path = f"/tacit/v1/jobs/{job.id}"
    own, other, admin = [c.get(path).json() for c in (home.owner, home.client("ask"), home.client("admin"))]
    assert (own["memory_id"], own["key_id"]) == (None, key.id)
    assert (other["memory_id"], other["key_id"]) == (None, "")
    assert (admin["memory_id"], admin["key_id"]) == ("m", key.id)
