"""Continuous batching: requests that come, go and are cancelled change nothing for one another."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Queue

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import stream
from tacit.engines.base import Progress, Request
from tacit.engines.batches import RaggedBatch
from tacit.engines.local import LocalEngine
from tacit.engines.shared import SharedEngine
from tacit.errors import EngineBusy, EngineError
from tacit.model.backbone import Backbone
from tacit.seeds import derive


def requests(backbone: Backbone, count: int = 10) -> list[Request]:
    """Mixed lengths, counts and temperatures, some with soft prompts, stop strings or alternatives."""
    noise = torch.Generator().manual_seed(5)
    made = []
    for index, problem in enumerate(stream(count)):
        n = 1 + index % 3
        soft = torch.randn(3 + index, backbone.hidden_size, generator=noise) * backbone.embedding_std
        made.append(
            Request(
                backbone.encode(problem.text),
                soft if index % 2 else None,
                n=n,
                temperature=1.0 if index % 4 else 0.0,
                max_tokens=6 + 5 * index,
                seeds=tuple(derive("session", problem.id, k) for k in range(n)),
                stop=("7",) if index % 5 == 4 else (),
                top=index % 3,
            )
        )
    return made


@pytest.mark.parametrize("max_rows", [5, 64])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_requests_that_come_and_go_get_what_they_get_alone(
    testbed: Backbone, max_rows: int, data: st.DataObject
) -> None:
    engine = LocalEngine(testbed, max_rows=max_rows)
    asked = requests(testbed)
    expected = engine.generate(asked)
    arrivals = data.draw(st.lists(st.integers(0, 20), min_size=len(asked), max_size=len(asked)))
    doomed = data.draw(st.sets(st.integers(0, len(asked) - 1), max_size=4))
    session = engine.session()
    tickets: dict[int, int] = {}
    told: dict[tuple[int, int], list[Progress]] = defaultdict(list)
    step = 0
    while len(tickets) < len(asked) or session.waiting or session.running:
        for number, arrival in enumerate(arrivals):
            if arrival == step:
                tickets[session.submit(asked[number])] = number
        for ticket, number in tickets.items():
            if number in doomed and arrivals[number] + 4 == step:
                session.cancel(ticket)
        for news in session.step():
            told[tickets[news.ticket], news.index].append(news)
        assert session.running <= max_rows
        step += 1
    for number, rollouts in enumerate(expected):
        for index, rollout in enumerate(rollouts):
            heard = told[number, index]
            assert tuple(news.token_id for news in heard) == rollout.token_ids[: len(heard)]
            assert tuple(news.logprob for news in heard) == rollout.logprobs[: len(heard)]
            if number not in doomed:
                assert heard[-1].rollout == rollout
                assert all(news.rollout is None for news in heard[:-1])
                assert len(rollout.alternatives) == (len(rollout.token_ids) if asked[number].top else 0)


def test_a_cancelled_request_ends_at_once(testbed: Backbone) -> None:
    session = LocalEngine(testbed).session()
    ids = testbed.encode(stream(1)[0].text)
    kept, dropped = session.submit(Request(ids, temperature=0.0)), session.submit(Request(ids, temperature=0.0))
    session.step()
    assert session.running == 2
    session.cancel(dropped)
    assert session.running == 1
    assert {news.ticket for news in session.step()} == {kept}
    session.cancel(kept)
    assert session.step() == []


def test_what_a_batch_held_is_freed_with_it(tiny: Backbone) -> None:
    session = LocalEngine(tiny).session()
    ticket = session.submit(Request(tiny.encode(stream(1)[0].text), n=4, temperature=0.0))
    session.step()
    assert isinstance(session._batch, RaggedBatch)
    held = weakref.ref(session._batch._cache)
    gc.disable()  # which would find it some time: gigabytes may be waiting for that
    try:
        assert held() is not None
        session.cancel(ticket)
        assert session.step() == []
        assert held() is None
    finally:
        gc.enable()


def test_alternatives_are_the_most_likely_tokens(testbed: Backbone) -> None:
    ids = testbed.encode(stream(1)[0].text)
    (rollout,) = LocalEngine(testbed).generate([Request(ids, temperature=0.0, max_tokens=8, top=4)])[0]
    logits = testbed.model(torch.cat([ids, torch.tensor(rollout.token_ids)])[None]).logits[0, len(ids) - 1 : -1]
    for position, found in zip(torch.log_softmax(logits, -1), rollout.alternatives, strict=True):
        best, tokens = position.topk(4)
        assert [token for token, _ in found] == tokens.tolist()
        assert [logprob for _, logprob in found] == pytest.approx(best.tolist(), abs=1e-4)


def test_a_text_is_scored_as_the_model_scores_it(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.engines.batches.SCORED_AT_ONCE", 7)  # several passes, the last one short
    engine, ids = LocalEngine(tiny), tiny.encode("how many apples are left?")
    soft = torch.randn(9, tiny.hidden_size, generator=torch.Generator().manual_seed(0))
    for prompt in (None, soft):
        embeds = tiny.embed(ids) if prompt is None else torch.cat([prompt, tiny.embed(ids)])
        logprobs = torch.log_softmax(tiny.model(inputs_embeds=embeds[None]).logits[0], -1)
        before = 0 if prompt is None else len(prompt)
        scores = engine.score(ids, prompt, top=2)
        assert len(scores) == len(ids)
        for place, scored in enumerate(scores):
            if before + place == 0:
                assert scored is None
                continue
            assert scored is not None
            row = logprobs[before + place - 1]
            assert scored[0] == pytest.approx(float(row[ids[place]]), abs=1e-4)
            assert [token for token, _ in scored[1]] == row.topk(2)[1].tolist()
    with pytest.raises(EngineError, match="the text needs"):
        engine.score(ids.repeat(1000))


def test_many_threads_share_one_engine(testbed: Backbone) -> None:
    asked = requests(testbed, 12)
    expected = LocalEngine(testbed).generate(asked)
    engine = SharedEngine(LocalEngine(testbed, max_rows=16).session(), threads=1)
    with ThreadPoolExecutor(12) as pool:
        assert [group for [group] in pool.map(lambda request: engine.generate([request]), asked)] == expected
    assert engine.generate(asked) == expected
    news: Queue[Progress | EngineError] = Queue()
    engine.start(asked[3], news.put)
    heard = [news.get(timeout=30)]
    while isinstance(heard[-1], Progress) and heard[-1].rollout is None:
        heard.append(news.get(timeout=30))
    assert isinstance(heard[-1], Progress) and heard[-1].rollout == expected[3][0]
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(asked)


def test_a_shared_engine_says_what_is_wrong_and_goes_on(testbed: Backbone) -> None:
    engine = SharedEngine(LocalEngine(testbed).session(), threads=1)
    good = Request(testbed.encode(stream(1)[0].text), temperature=0.0, max_tokens=4)
    with pytest.raises(EngineError, match="n = 0"):
        engine.generate([good, replace(good, n=0)])
    assert len(engine.generate([good])[0]) == 1
    engine.close()


def test_a_full_queue_turns_requests_away(testbed: Backbone) -> None:
    engine = SharedEngine(LocalEngine(testbed, max_rows=1).session(), max_waiting=2, threads=1)
    request = Request(testbed.encode(stream(1)[0].text), temperature=0.0, max_tokens=64)
    first = threading.Event()
    handles = [engine.start(request, lambda news: first.set())]
    assert first.wait(30)
    handles += [engine.start(request, lambda news: None) for _ in range(2)]
    with pytest.raises(EngineBusy, match="2 requests are waiting"):
        engine.generate([request])
    for handle in handles:
        engine.cancel(handle)
    while engine.waiting:  # the engine's thread drops them with its next token
        time.sleep(0.01)
    assert len(engine.generate([request])[0]) == 1
    engine.close()


def test_closing_ends_who_waits(testbed: Backbone) -> None:
    engine = SharedEngine(LocalEngine(testbed).session(), threads=1)
    request = Request(testbed.encode(stream(1)[0].text), temperature=1.0, n=64, max_tokens=400, seeds=tuple(range(64)))
    ended: Queue[object] = Queue()
    engine.start(request, lambda news: ended.put(news) if isinstance(news, EngineError) else None)
    engine.close()
    assert "closed" in str(ended.get(timeout=30))
