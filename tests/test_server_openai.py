"""The server through the ``openai`` package: what its users' programs get, unchanged."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import stream
from server import Served, serving
from tacit.bank import open_bank
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.model.backbone import Backbone
from tacit.server.api.text import Detokeniser
from tacit.server.keys import KeyStore

PROBLEMS = [problem.text for problem in stream(4, seed=5)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served") / "bank.sqlite", "--no-learn", cold=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return served.client()


def greedy(testbed: Backbone, problem: str, tokens: int = 64) -> Rollout:
    request = Request(testbed.encode(problem), temperature=0.0, max_tokens=tokens)
    return LocalEngine(testbed).generate([request])[0][0]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["testbed", "testbed:tacit"]
    assert client.models.retrieve("testbed:tacit").model_dump()["parent"] == "testbed"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("model", ["testbed", "testbed:tacit"])
def test_greedy_output_is_the_engines_streamed_or_not(
    client: openai.OpenAI, testbed: Backbone, problem: str, model: str
) -> None:
    expected = greedy(testbed, problem)
    off = {"tacit": {"memory": "off"}}
    answer = client.chat.completions.create(
        model=model, messages=user(problem), temperature=0, logprobs=True, top_logprobs=2, extra_body=off
    )
    [choice] = answer.choices
    assert choice.message.content == Detokeniser(testbed.tokenizer).whole(expected.token_ids)
    assert choice.finish_reason == expected.finish
    assert choice.logprobs is not None and choice.logprobs.content is not None
    shown = [i for i in expected.token_ids if i not in testbed.end_ids]
    assert [token.token for token in choice.logprobs.content] == [testbed.tokenizer.decode([i]) for i in shown]
    assert [token.logprob for token in choice.logprobs.content] == list(expected.logprobs[: len(shown)])
    assert all(token.logprob == token.top_logprobs[0].logprob for token in choice.logprobs.content)
    assert answer.usage is not None and answer.usage.completion_tokens == len(expected.token_ids)
    pieces, finish, usage = [], None, None
    for chunk in client.chat.completions.create(
        model=model, messages=user(problem), temperature=0, stream=True, stream_options={"include_usage": True},
        extra_body=off,
    ):  # fmt: skip
        usage = chunk.usage or usage
        for one in chunk.choices:
            pieces.append(one.delta.content or "")
            finish = one.finish_reason or finish
    assert "".join(pieces) == choice.message.content and finish == choice.finish_reason
    assert len(pieces) > 3 and usage == answer.usage


def test_samples_follow_the_seed(client: openai.OpenAI) -> None:
    def sample(**settings: Any) -> list[str | None]:
        answer = client.chat.completions.create(model="testbed", messages=user(PROBLEMS[0]), n=4, **settings)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in answer.choices]

    assert sample(seed=7) == sample(seed=7)
    assert len({*sample(seed=7), *sample(seed=8)}) > 1
    assert sample(seed=7, extra_body={"tacit": {"memory": "off"}}) == sample(seed=7)


def test_stop_strings_end_the_text(client: openai.OpenAI, testbed: Backbone) -> None:
    full = Detokeniser(testbed.tokenizer).whole(greedy(testbed, PROBLEMS[0]).token_ids)
    stop = full.split()[3]
    asked: dict[str, Any] = {"model": "testbed", "messages": user(PROBLEMS[0]), "temperature": 0, "stop": [stop]}
    [choice] = client.chat.completions.create(**asked).choices
    assert choice.message.content == full[: full.index(stop)] and choice.finish_reason == "stop"
    streamed = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True)]
    assert "".join(streamed) == choice.message.content


def test_completions_take_text_and_ids_one_or_many(client: openai.OpenAI, testbed: Backbone) -> None:
    prompts = [f"Problem: {problem} Solution:" for problem in PROBLEMS[:2]]
    ids = [testbed.tokenizer(prompt)["input_ids"] for prompt in prompts]
    texts = []
    for prompt in (prompts, ids):
        answer = client.completions.create(model="testbed", prompt=prompt, temperature=0, max_tokens=8)
        assert [choice.index for choice in answer.choices] == [0, 1]
        texts.append([choice.text for choice in answer.choices])
    assert texts[0] == texts[1]
    for prompt, text in zip([prompts[0], ids[0]], (texts[0][0],) * 2, strict=True):
        assert client.completions.create(model="testbed", prompt=prompt, temperature=0, max_tokens=8).choices[
            0
        ].text == text  # fmt: skip
    pieces: dict[int, str] = {0: "", 1: ""}
    for chunk in client.completions.create(model="testbed", prompt=prompts, temperature=0, max_tokens=8, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert [pieces[0], pieces[1]] == texts[0]


def test_echo_scores_the_prompt(client: openai.OpenAI, testbed: Backbone) -> None:
    ids = testbed.encode(PROBLEMS[1])
    expected = LocalEngine(testbed).score(ids, top=1)
    answer = client.completions.create(
        model="testbed", prompt=ids.tolist(), temperature=0, max_tokens=1, echo=True, logprobs=1
    )
    found = answer.choices[0].logprobs
    assert found is not None and found.token_logprobs is not None and found.top_logprobs is not None
    assert len(found.token_logprobs) == len(ids) + 1
    assert found.token_logprobs[:-1] == [None if one is None else one[0] for one in expected]
    assert [max(top.values()) for top in found.top_logprobs[1:-1]] == [one[1][0][1] for one in expected if one]
    silent = client.completions.create(model="testbed", prompt="1 + 1 =", max_tokens=0, echo=True)
    assert silent.choices[0].text == "1 + 1 =" and silent.usage is not None and silent.usage.completion_tokens == 0


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=user("1 + 1"))
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="testbed", messages=user("1 + 1"), max_tokens=100_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="testbed", messages=user("1 + 1"), temperature=3)
    with pytest.raises(openai.BadRequestError, match="wurst"):
        client.chat.completions.create(model="testbed", messages=user("1 + 1"), extra_body={"wurst": 1})
    with pytest.raises(openai.NotFoundError) as memory:
        client.chat.completions.create(
            model="testbed:tacit", messages=user("1 + 1"), extra_body={"tacit": {"memory": "none-such"}}
        )
    assert memory.value.code == "memory_not_found"


def test_many_clients_get_what_each_gets_alone(client: openai.OpenAI) -> None:
    def ask(number: int) -> str | None:
        answer = client.chat.completions.create(
            model="testbed:tacit", messages=user(PROBLEMS[number % 4]), seed=number, max_tokens=24
        )
        return answer.choices[0].message.content

    alone = [ask(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone


def test_learning_from_traffic_and_answering_with_what_was_learned(tmp_path: Path) -> None:
    """The whole circle: asked, queued, learned by the other process, made active by the operator, recalled, routed."""
    bank_path = tmp_path / "bank.sqlite"
    with open_bank(str(bank_path)) as bank:  # type: ignore[attr-defined]
        _, secret = KeyStore(bank).create("app", "apps", ("ask", "learn", "admin"))
        _, mute = KeyStore(bank).create("mute", "apps", ("ask",))
        _, other = KeyStore(bank).create("other", "others", ("ask", "learn", "admin"))
    with serving(bank_path, "--steps", "3") as running, open_bank(str(bank_path)) as bank:  # type: ignore[attr-defined]
        with pytest.raises(openai.AuthenticationError):
            running.client("wrong").models.list()
        client = running.client(secret)

        def ask(client: openai.OpenAI, text: str = PROBLEMS[2], **options: Any) -> dict[str, Any]:
            answer = client.chat.completions.create(
                model="testbed:tacit", messages=user(text), temperature=0, extra_body={"tacit": options}
            )
            found: dict[str, Any] = answer.model_dump()["tacit"]
            return found

        assert "no right to learn" in ask(running.client(mute))["learning"]
        assert ask(client, learn=False)["job"] is None
        job = ask(client)["job"]
        assert job["state"] == "queued" and ask(client)["job"]["id"] == job["id"]
        deadline = time.monotonic() + 120
        while not (learned := bank.find("apps")) and time.monotonic() < deadline:
            time.sleep(0.2)
        [memory] = learned
        assert memory.problem == PROBLEMS[2] and memory.state.value == "candidate"
        assert ask(client, learn=False)["memory"] is None  # a candidate has to prove itself first
        assert ask(client, memory=memory.id, learn=False)["memory"] == memory.id  # but can be asked for by its owner
        with pytest.raises(openai.NotFoundError):
            ask(running.client(other), memory=memory.id)
        from tacit.memory import State

        bank.set_state(memory.id, "apps", State.ACTIVE, "by the test")
        uses = bank.find("apps")[0].uses
        report = ask(client, learn=False)
        assert report["memory"] == memory.id and report["route"] in ("agree", "memory", "zero_shot")
        assert report["similarity"] == pytest.approx(1.0) and bank.find("apps")[0].uses == uses + 1
        assert ask(running.client(other), learn=False)["memory"] is None
        routed = client.chat.completions.create(
            model="testbed:tacit", messages=user(PROBLEMS[2]), n=2, stream=True, seed=3,
            extra_body={"tacit": {"learn": False}},
        )  # fmt: skip
        chunks = [chunk.model_dump() for chunk in routed]
        assert len(chunks[-1]["tacit"]["routes"]) == 2


def test_a_terminated_server_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with serving(tmp_path / "bank.sqlite", "--no-learn", "--max-tokens", "900") as running:
        client = running.client()
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.chat.completions.create(
                model="testbed", messages=user(PROBLEMS[0]), n=32, temperature=2, max_tokens=900
            )))
            for _ in range(3)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        while running_requests(running) < 3 and any(thread.is_alive() for thread in threads):
            time.sleep(0.02)
        running.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert len(answers) == 3 and all(len(answer.choices) == 32 for answer in answers)
        assert running.process.wait(30) == 0


def test_a_full_server_is_retried(tmp_path: Path) -> None:
    with serving(tmp_path / "bank.sqlite", "--no-learn", "--max-in-flight", "1") as running:
        long: dict[str, Any] = {"model": "testbed", "messages": user(PROBLEMS[0]), "n": 64, "temperature": 2, "seed": 1}

        def ask(client: openai.OpenAI) -> int:
            return len(client.chat.completions.create(**long, max_tokens=900).choices)

        with ThreadPoolExecutor(4) as pool:
            impatient = [pool.submit(ask, running.client(max_retries=0)) for _ in range(4)]
            refused = [error for one in impatient if (error := one.exception()) is not None]
            assert 1 <= len(refused) < 4 and all(isinstance(error, openai.RateLimitError) for error in refused)
            assert isinstance(refused[0], openai.RateLimitError) and refused[0].response.headers["retry-after"] == "1"
            assert list(pool.map(ask, [running.client(max_retries=60)] * 3)) == [64] * 3


def running_requests(running: Served) -> float:
    for line in running.get("/metrics").text.splitlines():
        if line.startswith("tacit:requests_running{"):
            return float(line.split()[-1])
    return 0.0
