"""Recall and routing of served requests, on a bank with an active memory, under each verifier and by each route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conftest import stream
from tacit.agent import Agent
from tacit.assembly import load_backbone
from tacit.bank import open_bank
from tacit.config import LearnConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.memory import State
from tacit.server.app import create_app
from tacit.server.keys import OPEN_NAMESPACE
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

[PROBLEM] = stream(1, seed=31)
NEW = 48
VOTES = 3


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bank with one memory, active whatever it is worth; its id."""
    path = tmp_path_factory.mktemp("answering") / "bank.db"
    backbone = load_backbone(ServeConfig(), unsaid="")
    learning = LearnConfig(steps=2, min_votes=1, min_lead=0, admit=0.0)
    with open_bank(str(path)) as bank:  # type: ignore[attr-defined]
        agent = Agent(
            backbone, LocalEngine(backbone), bank, OPEN_NAMESPACE, sampling=Sampling(max_tokens=NEW), learning=learning
        )
        answered = agent.answer([PROBLEM])
        agent.remember(answered, agent.learn(answered))
        [memory] = bank.find(OPEN_NAMESPACE)
        bank.set_state(memory.id, OPEN_NAMESPACE, State.ACTIVE, "by the test")
    return path, memory.id


@pytest.fixture(params=["reward-model", "vote", "logprob", "none"])
def service(request: pytest.FixtureRequest, learned: tuple[Path, str]) -> Iterator[Service]:
    own = Sampling(max_tokens=NEW)
    made = Service(ServeConfig(bank=str(learned[0]), learner=False, verifier=request.param, votes=VOTES, sampling=own))
    yield made
    made.close()


def ask(service: Service, model: str = "testbed:tacit", tacit: dict[str, Any] | None = None, **body: Any) -> Any:
    client = TestClient(create_app(service), "http://localhost")  # type: ignore[arg-type]
    asked = {
        "model": model, "messages": [{"role": "user", "content": PROBLEM.text}], "max_tokens": NEW, "temperature": 0,
        "tacit": {"learn": False, **(tacit or {})}, **body,
    }  # fmt: skip
    response = client.post("/v1/chat/completions", json=asked)
    assert response.status_code == 200, response.text
    return response.json()


def contents(answer: Any) -> list[str]:
    return [choice["message"]["content"] for choice in answer["choices"]]


def test_the_answer_is_one_of_the_two_and_all_rollouts_are_counted(service: Service, learned: tuple[Path, str]) -> None:
    service.bank.mark(OPEN_NAMESPACE, f"evidence:{learned[1]}", "{}")  # of another verifier's turn
    before = service.bank.info(learned[1], OPEN_NAMESPACE)
    routed = ask(service)
    after = service.bank.info(learned[1], OPEN_NAMESPACE)
    plain = ask(service, "testbed")
    alone = ask(service, tacit={"route": "memory"})
    report = routed["tacit"]
    assert report["memory"] == learned[1] and report["similarity"] == pytest.approx(1.0)
    assert alone["tacit"]["route"] == "memory"
    assert contents(routed) == contents(plain if report["route"] == "zero_shot" else alone)
    assert contents(ask(service, tacit={"memory": "off"})) == contents(plain)
    both = plain["usage"]["completion_tokens"] + alone["usage"]["completion_tokens"]
    made = routed["usage"]["completion_tokens"]
    votes = service.config.verifier == "vote"
    assert made == both if not votes else both < made <= both + 2 * VOTES * NEW
    counted = {name: getattr(after, name) - getattr(before, name) for name in ("uses", "agreed", "helped", "hurt")}
    said = {"agree": "agreed", "memory": "helped", "zero_shot": "hurt"}[report["route"]]
    assert counted == {"uses": 1, "agreed": 0, "helped": 0, "hurt": 0} | {said: 1}
    assert service.bank.info(learned[1], OPEN_NAMESPACE).uses == after.uses  # alone, nothing was compared


def test_several_samples_are_routed_one_by_one_and_streamed_alike(service: Service) -> None:
    asked: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 4}
    whole = ask(service, **asked)
    assert len(whole["tacit"]["routes"]) == 3 == len(contents(whole))
    client = TestClient(create_app(service), "http://localhost")  # type: ignore[arg-type]
    body = {
        "model": "testbed:tacit", "messages": [{"role": "user", "content": PROBLEM.text}], "max_tokens": NEW,
        "stream": True, "tacit": {"learn": False}, **asked,
    }  # fmt: skip
    pieces = ["", "", ""]
    for line in client.post("/v1/chat/completions", json=body).text.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                pieces[choice["index"]] += choice["delta"].get("content") or ""
    assert pieces == contents(whole)


def test_an_answer_is_looked_for_in_all_of_the_turn_also_in_what_the_client_began(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    kind = type(service.task.on(PROBLEM.text))
    extract = kind.extract

    def watched(self: Any, response: str) -> str | None:
        seen.append(response)
        return extract(self, response)

    monkeypatch.setattr(kind, "extract", watched)
    user = {"role": "user", "content": PROBLEM.text}
    answer = ask(service, messages=[user, {"role": "assistant", "content": "Answer: 4"}])
    assert answer["tacit"]["memory"] and seen and all(text.startswith("Answer: 4") for text in seen)
    assert not contents(answer)[0].startswith("Answer")


def test_one_sample_that_votes_are_drawn_for_has_their_answer(service: Service, learned: tuple[Path, str]) -> None:
    """To compare one of each side, three more of each are drawn; the answer that most of those give is returned."""
    elected = 0
    for problem in stream(6, seed=32):
        for seed in range(3):
            words: dict[str, Any] = {
                "messages": [{"role": "user", "content": problem.text}], "temperature": 1.0, "seed": seed,
                "logprobs": True,
            }  # fmt: skip
            answer = ask(service, tacit={"memory": learned[1]}, **words)
            assert answer["choices"][0]["logprobs"]["content"]
            report, [text] = answer["tacit"], contents(answer)
            if "samples without memory and with it" in report["why"]:
                elected += 1
                said = service.task.on(problem.text).extract(text)
                assert f"say {said}" in report["why"].replace("says", "say")
                assert ask(service, tacit={"memory": learned[1]}, **words)["choices"] == answer["choices"]
    assert (elected > 0) == (service.config.verifier == "vote")


def test_a_surer_request_than_the_voters_has_one_of_its_own_two(service: Service, learned: tuple[Path, str]) -> None:
    """Near greedy, or of the likeliest token alone: what is returned is drawn so, and counts as at temperature 0."""
    greedy: dict[str, Any] = {"temperature": 0}
    for problem in stream(3, seed=32):
        words: dict[str, Any] = {"messages": [{"role": "user", "content": problem.text}]}
        surest = ask(service, tacit={"memory": learned[1]}, **words, **greedy)
        for near in ({"temperature": 0.01}, {"temperature": 1.0, "top_k": 1}):
            answer = ask(service, tacit={"memory": learned[1]}, **words, seed=1, **near)
            if service.config.verifier == "vote":
                assert contents(answer) == contents(surest)
                assert [answer["tacit"][name] for name in ("route", "why")] == [
                    surest["tacit"][name] for name in ("route", "why")
                ]
