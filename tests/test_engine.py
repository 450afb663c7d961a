"""The in-process engine: right, ragged, and the same to the bit whatever shares the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import stream
from tacit.engines.base import Request, draw
from tacit.engines.local import LocalEngine
from tacit.errors import EngineError
from tacit.model.backbone import Backbone
from tacit.seeds import derive


def requests(backbone: Backbone, count: int = 12, n: int = 4, temperature: float = 1.0) -> list[Request]:
    """Prompts of mixed length, a different soft prompt (or none) each."""
    noise = torch.Generator().manual_seed(3)
    made = []
    for index, problem in enumerate(stream(count)):
        soft = torch.randn(1 + index, backbone.hidden_size, generator=noise) * backbone.embedding_std
        made.append(
            Request(
                backbone.encode(problem.text),
                soft if index % 3 else None,
                n=n,
                temperature=temperature,
                max_tokens=12 + 4 * index,
                seeds=tuple(derive("test", problem.id, k) for k in range(n)),
            )
        )
    return made


def test_greedy_equals_transformers_generate(testbed: Backbone, engine: LocalEngine) -> None:
    for problem in stream(8):
        ids = testbed.encode(problem.text)
        expected = testbed.model.generate(ids[None], max_new_tokens=40, do_sample=False)[0, len(ids) :].tolist()
        (rollout,) = engine.generate([Request(ids, temperature=0.0, max_tokens=40)])[0]
        assert list(rollout.token_ids) == expected


def test_greedy_with_a_soft_prompt_equals_generate_on_embeddings(tiny: Backbone) -> None:
    soft = torch.randn(5, tiny.hidden_size, generator=torch.Generator().manual_seed(0))
    ids = tiny.encode("what is 2 + 2?")
    embeds = torch.cat([soft, tiny.embed(ids)])[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    expected = tiny.model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=20, do_sample=False)
    (rollout,) = LocalEngine(tiny).generate([Request(ids, soft, temperature=0.0, max_tokens=20)])[0]
    assert list(rollout.token_ids) == expected[0].tolist()


@pytest.mark.parametrize("max_rows", [8, 40])
def test_alone_and_together_are_equal_to_the_bit(testbed: Backbone, max_rows: int) -> None:
    asked = requests(testbed)
    together = LocalEngine(testbed).generate(asked)
    assert LocalEngine(testbed, max_rows=max_rows, prefill_tokens=64).generate(asked) == together
    alone = [LocalEngine(testbed).generate([request])[0] for request in asked]
    assert alone == together  # token ids and log-probs, without tolerance


def test_a_rollout_depends_on_its_own_seed_alone(testbed: Backbone, engine: LocalEngine) -> None:
    request = requests(testbed, 1, n=4)[0]
    group = engine.generate([request])[0]
    for rollout, seed in zip(group, request.seeds, strict=True):
        assert engine.generate([replace(request, n=1, seeds=(seed,))])[0] == [rollout]
    assert len({rollout.token_ids for rollout in group}) > 1


def test_log_probs_are_those_of_the_model(tiny: Backbone) -> None:
    soft = torch.randn(3, tiny.hidden_size, generator=torch.Generator().manual_seed(1))
    ids = tiny.encode("compute 3 + 4")
    for temperature in (0.7, 1.0):
        request = Request(ids, soft, n=2, temperature=temperature, max_tokens=10, seeds=(1, 2))
        for rollout in LocalEngine(tiny).generate([request])[0]:
            tokens = torch.tensor(rollout.token_ids)
            embeds = torch.cat([soft, tiny.embed(torch.cat([ids, tokens]))])[None]
            with torch.no_grad():
                logits = tiny.model(inputs_embeds=embeds).logits[0, len(soft) + len(ids) - 1 : -1].float()
            expected = torch.log_softmax(logits / temperature, -1).gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_stop_strings_and_length(tiny: Backbone) -> None:
    ids = tiny.encode("hello")
    whole = LocalEngine(tiny).generate([Request(ids, temperature=0.0, max_tokens=30)])[0][0]
    assert whole.finish == "length"
    assert len(whole.token_ids) == 30
    stop = whole.text[4:6]
    cut = LocalEngine(tiny).generate([Request(ids, temperature=0.0, max_tokens=30, stop=(stop,))])[0][0]
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0, "seeds": ()}, "n must be at least 1"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"seeds": (1, 2)}, "one seed per rollout"),
        ({"ids": torch.zeros(0, dtype=torch.int64)}, "prompt token ids"),
        ({"soft_prompt": torch.zeros(2, 7)}, "soft prompt"),
    ],
)
def test_bad_requests_are_refused(tiny: Backbone, changes: dict, message: str) -> None:
    good = Request(tiny.encode("x"), n=1, seeds=(1,))
    with pytest.raises(EngineError, match=message):
        LocalEngine(tiny).generate([good, replace(good, **changes)])


@settings(max_examples=40, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda tenths: tenths / 5), min_size=4, max_size=12),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.3, 0.7, 1.0]),
)
def test_drawing_follows_the_distribution(logits: list[float], temperature: float, top_p: float) -> None:
    """Drawn at a fine grid of uniform numbers, every token comes up in proportion to its probability."""
    grid = 2000
    spec = Request(torch.tensor([0]), temperature=temperature, top_p=top_p, seeds=(0,))
    rows = torch.tensor([logits]).repeat(grid, 1)
    tokens, logprobs, _ = draw(rows, [spec] * grid, [(k + 0.5) / grid for k in range(grid)])
    expected = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, -1)
    order = expected.argsort(descending=True, stable=True)
    before = expected[order].cumsum(0) - expected[order]
    kept = order[before < top_p - 1e-6]
    allowed = torch.zeros_like(expected)
    allowed[kept] = expected[kept]
    allowed /= allowed.sum()
    drawn = torch.bincount(torch.tensor(tokens), minlength=len(logits)) / grid
    if top_p == 1.0:  # at a boundary of the nucleus rounding may keep one token more
        torch.testing.assert_close(drawn.double(), allowed, atol=2e-3, rtol=0)
    chosen = torch.tensor(logprobs).exp()
    assert bool((chosen > 0).all())
    assert float(drawn[[i for i in range(len(logits)) if i not in order[before < top_p + 1e-6]]].sum()) == 0


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-20, 20).map(lambda tenths: tenths / 5), min_size=4, max_size=12),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, 14),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_unlikely_tokens_are_left_out(logits: list[float], temperature: float, top_k: int, min_p: float) -> None:
    """top_k and min_p by their definitions; what is left is drawn in proportion."""
    grid = 2000
    spec = Request(torch.tensor([0]), temperature=temperature, top_k=top_k, min_p=min_p, seeds=(0,))
    rows = torch.tensor([logits]).repeat(grid, 1)
    tokens, logprobs, _ = draw(rows, [spec] * grid, [(k + 0.5) / grid for k in range(grid)])
    likely = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, -1)
    order = likely.argsort(descending=True, stable=True)
    kept = [int(i) for i in order[: top_k or None] if likely[i] >= min_p * likely[order[0]] * (1 - 1e-6)]
    allowed = torch.zeros_like(likely)
    allowed[kept] = likely[kept] / likely[kept].sum()
    drawn = torch.bincount(torch.tensor(tokens), minlength=len(logits)) / grid
    torch.testing.assert_close(drawn.double(), allowed, atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.tensor(logprobs).double().exp(), allowed[tokens], atol=1e-5, rtol=1e-5)


def test_a_row_is_drawn_alike_whatever_is_left_out_of_others(tiny: Backbone) -> None:
    ids = tiny.encode("2 3 +")
    whole = Request(ids, n=2, seeds=(1, 2), max_tokens=12)
    asked = [whole, replace(whole, top_k=3), replace(whole, min_p=0.4), replace(whole, top_k=5, top_p=0.5, min_p=0.1)]
    together = LocalEngine(tiny).generate(asked)
    assert together == [LocalEngine(tiny).generate([one])[0] for one in asked]
    assert len({one.token_ids for group in together for one in group}) > 4
    greedy = LocalEngine(tiny).generate([replace(whole, temperature=0.0)])
    assert LocalEngine(tiny).generate([replace(whole, temperature=0.0, top_k=2, min_p=0.5)]) == greedy
    assert LocalEngine(tiny).generate([replace(whole, top_k=1)])[0][0].token_ids == greedy[0][0].token_ids
