"""What every engine does alike: the in-process one, a crew, vLLM servers with and without Tacit's random numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from conftest import stream
from tacit.bank import open_bank
from tacit.cluster.actors import EngineActor
from tacit.cluster.remote import RayEngine
from tacit.config import RunConfig, Settings
from tacit.engines.base import Engine, Progress, Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.engines.shared import SharedEngine
from tacit.engines.vllm.engine import VLLMEngine
from tacit.engines.vllm.wire import rescored
from tacit.errors import ConfigError, EngineError, EngineLost
from tacit.experiments import run as runner
from tacit.methods.lag import PastEngine
from tacit.model.backbone import Backbone
from tacit.seeds import derive
from tacit.server.app import create_app
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig
from vllm_server import DRAWS, VLLMServer, vllm_server

FLAGS = {"vllm-draws": DRAWS, "vllm": ("--logprobs-mode", "processed_logprobs", "--no-enable-chunked-prefill")}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, VLLMServer]]:
    """A server of each kind, started when first asked for."""
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_server(folder, *FLAGS["vllm-draws"]) as draws, vllm_server(folder, *FLAGS["vllm"]) as own:
        yield {"vllm-draws": draws, "vllm": own}


class OneActor:
    """A crew of one, in this process and without Ray."""

    def __init__(self, backbone: Backbone) -> None:
        self.actor = EngineActor(Settings())
        self.actor.engine = LocalEngine(backbone)

    def run(self, method: str, items: Sequence[Request], *_: object, **__: object) -> list[list[Rollout]]:
        return getattr(self.actor, method)(items)


@pytest.fixture(
    params=["local", "ray", "past", *(pytest.param(name, marks=pytest.mark.scale) for name in FLAGS)],
)
def served(request: pytest.FixtureRequest, testbed: Backbone) -> Iterator[Engine]:
    """Every kind of engine."""
    engine: Engine
    if request.param in FLAGS:
        servers: dict[str, VLLMServer] = request.getfixturevalue("servers")
        engine = VLLMEngine(testbed, [servers[request.param].url])
    elif request.param == "ray":
        engine = RayEngine(OneActor(testbed), testbed)  # type: ignore[arg-type]
    else:
        engine = LocalEngine(testbed)
        engine = PastEngine(engine, testbed) if request.param == "past" else engine
    yield engine
    engine.close()


def asked(backbone: Backbone, count: int = 12, n: int = 4, **changed: object) -> list[Request]:
    """Requests with a soft prompt of another length each, and some without."""
    noise = torch.Generator().manual_seed(3)
    made = []
    for index, problem in enumerate(stream(count)):
        soft = torch.randn(1 + index % 24, backbone.hidden_size, generator=noise) * backbone.embedding_std
        seeds = tuple(derive("contract", problem.id, k) for k in range(n))
        request = Request(backbone.encode(problem.text), soft if index % 3 else None, n=n, max_tokens=40, seeds=seeds)
        made.append(replace(request, **changed))  # type: ignore[arg-type]
    return made


def test_greedy_is_what_the_model_says(testbed: Backbone, served: Engine) -> None:
    """A different soft prompt for each request of a batch, and none for some."""
    requests = asked(testbed, 24, n=1, temperature=0.0, top=3)
    for found, [expected] in zip(served.generate(requests), LocalEngine(testbed).generate(requests), strict=True):
        assert [rollout.token_ids for rollout in found] == [expected.token_ids]
        assert (found[0].text, found[0].finish) == (expected.text, expected.finish)
        assert found[0].logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        for here, there in zip(found[0].alternatives, expected.alternatives, strict=True):
            assert [token for token, _ in here] == [token for token, _ in there]
            assert [p for _, p in here] == pytest.approx([p for _, p in there], abs=1e-4)
    [group] = served.generate([replace(requests[1], n=3)])
    assert len(group) == 3 and group[0] == group[1] == group[2]


def test_a_seed_decides_a_rollout(testbed: Backbone, served: Engine) -> None:
    requests = asked(testbed)
    first, again = served.generate(requests), served.generate(list(reversed(requests)))[::-1]
    assert [[rollout.token_ids for rollout in group] for group in first] == [
        [rollout.token_ids for rollout in group] for group in again
    ]
    [alone] = served.generate([replace(requests[4], n=1, seeds=requests[4].seeds[2:3])])
    assert alone[0].token_ids == first[4][2].token_ids
    others = served.generate([replace(one, seeds=tuple(seed + 1 for seed in one.seeds)) for one in requests])
    pairs = [(a.token_ids, b.token_ids) for x, y in zip(first, others, strict=True) for a, b in zip(x, y, strict=True)]
    assert sum(a != b for a, b in pairs) > len(pairs) / 2


NARROW: list[dict[str, Any]] = [{}, {"temperature": 0.7}, {"temperature": 0.8, "top_p": 0.9}]
NARROW += [{"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.9, "top_k": 20, "min_p": 0.02, "top_p": 0.9}]


@pytest.mark.parametrize("how", NARROW, ids=str)
def test_log_probs_are_of_what_is_drawn_from(testbed: Backbone, served: Engine, how: dict[str, Any]) -> None:
    requests = asked(testbed, 8, top=4, **how)
    for request, group in zip(requests, served.generate(requests), strict=True):
        for rollout, here in zip(group, rescored(testbed, request, group), strict=True):
            assert min(rollout.logprobs) > -50
            assert rollout.logprobs == pytest.approx(here.logprobs, abs=1e-4)
            listed = [dict(best) for best in rollout.alternatives]
            for best, expected in zip(listed, here.alternatives, strict=True):
                assert best == pytest.approx(dict(expected), abs=1e-4)


@pytest.mark.scale
@pytest.mark.parametrize("kind", FLAGS)
def test_tacits_random_numbers_give_the_same_rollouts(
    testbed: Backbone, servers: dict[str, VLLMServer], kind: str
) -> None:
    """320 sampled rollouts, token for token; a server without them draws others, and says so."""
    requests = asked(testbed, 40, n=8, max_tokens=64)
    engine = VLLMEngine(testbed, [servers[kind].url])
    expected, found = LocalEngine(testbed).generate(requests), engine.generate(requests)
    pairs = [(a, b) for x, y in zip(expected, found, strict=True) for a, b in zip(x, y, strict=True)]
    same = sum(a.token_ids == b.token_ids for a, b in pairs)
    # A random number within float rounding of a boundary may fall on either side: about one token in a million.
    assert engine.draws == ("tacit" if kind == "vllm-draws" else "vllm")
    assert same >= len(pairs) - 1 if engine.draws == "tacit" else same < len(pairs) / 2
    engine.close()


def test_a_stop_string_ends_a_rollout(testbed: Backbone, served: Engine) -> None:
    plain = asked(testbed, 6, n=2, temperature=0.0)
    text = served.generate(plain)[1][0].text
    word = text.split()[3]
    requests = [replace(request, stop=(word,)) for request in plain]
    found, expected = served.generate(requests), LocalEngine(testbed).generate(requests)
    assert [[(r.token_ids, r.text, r.finish) for r in group] for group in found] == [
        [(r.token_ids, r.text, r.finish) for r in group] for group in expected
    ]
    assert found[1][0].finish == "stop" and word not in found[1][0].text and found[1][0].text in text


def test_the_length_ends_a_rollout(testbed: Backbone, served: Engine) -> None:
    [group] = served.generate([replace(asked(testbed, 1)[0], max_tokens=3)])
    assert [(len(rollout.token_ids), rollout.finish) for rollout in group] == [(3, "length")] * 4


def test_an_engine_says_what_has_room_and_how_it_draws(testbed: Backbone, served: Engine) -> None:
    ids = testbed.encode("compute 3 + 4")
    fits = Request(ids, temperature=0.0, max_tokens=served.context - len(ids))
    [[rollout]] = served.generate([fits])
    assert rollout.finish == "stop"
    with pytest.raises(EngineError, match=f"has room for {served.context}"):
        served.generate([replace(fits, max_tokens=fits.max_tokens + 1)])
    assert served.draws in ("tacit", "vllm")


def test_a_session_streams_what_generate_gives(testbed: Backbone, served: Engine) -> None:
    requests = asked(testbed, 6)
    expected = served.generate(requests)
    session = served.session()
    tickets = {session.submit(request): number for number, request in enumerate(requests)}
    doomed = session.submit(replace(requests[0], max_tokens=400))
    told: dict[tuple[int, int], list[Progress]] = {}
    while session.waiting or session.running:
        for news in session.step():
            if news.ticket == doomed:
                session.cancel(doomed)
            else:
                told.setdefault((tickets[news.ticket], news.index), []).append(news)
    assert session.step() == []
    for number, group in enumerate(expected):
        for index, rollout in enumerate(group):
            heard = told[number, index]
            assert tuple(news.token_id for news in heard) == rollout.token_ids
            assert [news.logprob for news in heard] == pytest.approx(rollout.logprobs, abs=1e-4)
            assert heard[-1].rollout is not None and heard[-1].rollout.text == rollout.text
            assert all(news.rollout is None for news in heard[:-1])


def test_many_threads_share_a_session(testbed: Backbone, served: Engine) -> None:
    requests = asked(testbed, 4)
    engine = SharedEngine(served.session(), threads=1)
    try:
        found = engine.generate(requests)
    finally:
        engine.close()
    assert [[rollout.token_ids for rollout in group] for group in found] == [
        [rollout.token_ids for rollout in group] for group in served.generate(requests)
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0, "seeds": ()}, "request 1 asks for n = 0"),
        ({"seeds": (1,)}, "request 1 brings 1 seeds for 4 rollouts"),
        ({"top_p": 0.0}, "request 1 has top_p 0.0"),
        ({"temperature": -1.0}, "request 1 has temperature -1.0"),
        ({"max_tokens": 2000}, "has room for 1024"),
        ({"soft_prompt": torch.zeros(2, 3)}, r"request 1 has a soft prompt that is not \[K, 128\]"),
        ({"ids": torch.zeros(0, dtype=torch.int64)}, "request 1 needs prompt token ids"),
    ],
)
def test_a_malformed_request_is_refused(
    testbed: Backbone, served: Engine, changed: dict[str, object], message: str
) -> None:
    good = asked(testbed, 1)[0]
    with pytest.raises(EngineError, match=message):
        served.generate([good, replace(good, **changed)])  # type: ignore[arg-type]


def tokens(groups: list[list[Rollout]]) -> list[list[tuple[int, ...]]]:
    """Their token ids."""
    return [[rollout.token_ids for rollout in group] for group in groups]


def test_an_address_where_nobody_is_is_named(testbed: Backbone) -> None:
    with pytest.raises(EngineLost, match=r"no vLLM server answers at http://127.0.0.1:9/v1 .* --enable-prompt-embeds"):
        VLLMEngine(testbed, ["127.0.0.1:9"])


@pytest.mark.scale
def test_another_model_is_refused(servers: dict[str, VLLMServer], tiny: Backbone, testbed: Backbone) -> None:
    with pytest.raises(EngineError, match="serves testbed, which is not"):
        VLLMEngine(tiny, [servers["vllm"].url])
    changed = Backbone.load("testbed", device="cpu")
    with torch.no_grad():
        next(p for name, p in changed.model.named_parameters() if "mlp" in name).mul_(1.5)
    with pytest.raises(EngineError, match=r"serves testbed, which is not testbed \(log-probs differ by"):
        VLLMEngine(changed, [servers["vllm"].url])


@pytest.mark.scale
def test_a_run_makes_the_same_memories_and_goes_on_elsewhere(servers: dict[str, VLLMServer], tmp_path: Path) -> None:
    """24 problems here; at a server; and begun at a server and ended here: every row and memory is the same, to the
    bit. A server that draws otherwise cannot go on with it."""

    def ran(name: str, limit: int, *engine: str) -> tuple[list[dict[str, object]], dict[str, tuple[bytes, str]]]:
        config = RunConfig(
            out=str(tmp_path / name), limit=limit, window=6, seed=3, baselines=(), engine=engine, threads=1
        )
        runner.run(config)
        rows = [json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()]
        bank = open_bank(str(tmp_path / name / "bank.sqlite"))
        memories = {info.id: bank.get(info.id, "default") for info in bank.find("default")}
        bank.close()
        told = {memory.id: (memory.prompt.tobytes(), str(memory.state)) for memory in memories.values()}
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows], told

    here = ran("here", 24)
    recalled = sum(row["memory"] is not None for row in here[0])
    assert len(here[0]) == 24 and len(here[1]) > 6 and recalled > 6, "there is something to compare"
    assert ran("there", 24, servers["vllm-draws"].url) == here
    ran("both", 12, servers["vllm-draws"].url)
    with pytest.raises(ConfigError, match=r"holds a run with draws 'tacit', and this engine has 'vllm'"):
        ran("both", 24, servers["vllm"].url)
    assert ran("both", 24) == here


@pytest.mark.scale
def test_a_server_serves_what_vllm_samples(servers: dict[str, VLLMServer], tmp_path: Path) -> None:
    """Streamed and whole, plain and with log-probs, as a server on its own engine answers, token for token."""
    answers, scores = [], []
    for engine in ((), (servers["vllm-draws"].url,)):
        config = ServeConfig(bank=str(tmp_path / f"{len(engine)}.sqlite"), learner=False, threads=1, engine=engine)
        service = Service(config)
        with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
            body = {
                "model": "testbed",
                "prompt": "Problem: compute 3 + 4 Solution:",
                "max_tokens": 30,
                "seed": 5,
                "n": 2,
            }
            whole = client.post("/v1/completions", json=body | {"temperature": 0.8, "logprobs": 2}).json()
            lines = client.post("/v1/completions", json=body | {"stream": True}).text.splitlines()
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            texts = ["".join(c["text"] for e in events for c in e["choices"] if c["index"] == i) for i in range(2)]
            answers.append(([choice["text"] for choice in whole["choices"]], texts, len(events) > 6))
            scores.append([p for choice in whole["choices"] for p in choice["logprobs"]["token_logprobs"]])
        service.close()
    assert answers[0] == answers[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert answers[1][2] and all(answers[1][1])


@pytest.mark.scale
def test_servers_share_the_work_and_one_may_die(
    servers: dict[str, VLLMServer], testbed: Backbone, tmp_path: Path
) -> None:
    """Two servers, one killed while both are at work: every rollout is there, and the same. Alone, and dead, it is an
    error in time."""
    requests = asked(testbed, 60, n=8, max_tokens=200)
    expected = tokens(LocalEngine(testbed).generate(requests))
    with vllm_server(tmp_path, *DRAWS) as mortal:
        engine = VLLMEngine(testbed, [servers["vllm-draws"].url, mortal.url])
        alone = VLLMEngine(testbed, [mortal.url], patience=3.0)
        session = engine.session()
        tickets = {session.submit(request): number for number, request in enumerate(requests)}
        found: list[list[tuple[int, ...]]] = [[()] * 8 for _ in requests]
        heard = 0
        while session.waiting or session.running:
            for news in session.step():
                assert news.error is None, news.error
                heard += 1
                if heard == 1000:
                    assert all(server.in_flight > 0 for server in engine.pool.servers)
                    mortal.kill()
                if news.rollout is not None:
                    found[tickets[news.ticket]][news.index] = news.rollout.token_ids
        wrong = sum(a != b for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True))
        assert wrong <= 1
        assert tokens(engine.generate(requests[:8])) == expected[:8]
        engine.close()
        with pytest.raises(EngineLost, match="no vLLM server has answered for 3 s"):
            alone.generate(requests[:2])
        alone.close()


@pytest.mark.scale
def test_a_server_without_embeddings_is_refused(testbed: Backbone, tmp_path: Path) -> None:
    with (
        vllm_server(tmp_path, embeds=False) as server,
        pytest.raises(EngineError, match="started without --enable-prompt-embeds; add it"),
    ):
        VLLMEngine(testbed, [server.url])
