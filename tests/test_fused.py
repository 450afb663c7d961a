"""Compiled passes against PyTorch's own: the same rollouts and gradients, alone, together and on two threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from random_models import model_of
from server import serving
from tacit.config import LearnConfig, Sampling
from tacit.engines import local
from tacit.engines.base import Meter, Request, Rollout, _drawn, draw
from tacit.engines.local import LocalEngine
from tacit.gradients import Group, policy_loss, prompt_gradients
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import Candidate
from tacit.learning import Learner, Target
from tacit.model import backbone as backbone_module
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.tasks.maths import MATHS
from tacit.testbed import reward_model_path
from tacit.testbed.tokenizer import build

pytest.importorskip("numba")

from tacit.model.fused import lanes
from tacit.model.fused.gradient import GroupPass
from tacit.model.fused.model import Fused

SMALL = {
    "vocab_size": len(build()), "hidden_size": 96, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512,
    "initializer_range": 0.2,
}  # fmt: skip
STRETCHED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL, attention_bias=True),
    "llama, stretched": LlamaConfig(**SMALL, rope_parameters=STRETCHED),
    "qwen2": Qwen2Config(**{**SMALL, "hidden_size": 128}, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL),
    "qwen3, one layer": Qwen3Config(**{**SMALL, "num_hidden_layers": 1, "num_key_value_heads": 4}),
}


def backbone_of(config: Any, *, lean: bool = True) -> Backbone:
    made = Backbone(model_of(config), build(), weights_digest="x", lean=lean)
    assert (made.fused is not None) == lean
    assert (made.steps is not None) == lean
    return made


@contextmanager
def larger() -> Iterator[None]:
    """Within, models are passed as larger ones are: compiled loops between PyTorch's products."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tacit.model.fused.model.LARGEST", 0)
        yield


def woven_of(config: Any) -> Backbone:
    with larger():
        made = Backbone(model_of(config), build(), weights_digest="x")
    assert made.fused is None and type(made.steps).__name__ == "Woven"
    return made


WAYS = {"whole passes": backbone_of, "woven": woven_of}


def soft_of(backbone: Backbone, rows: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, backbone.hidden_size, generator=torch.Generator().manual_seed(seed)) * 0.3


def asked(backbone: Backbone) -> list[Request]:
    """Ragged: with and without soft prompt, sampled and greedy, one token of prompt and many, past a tile and not."""
    return [
        Request(torch.arange(4, 11), soft_of(backbone, 5), n=3, seeds=(1, 2, 3), max_tokens=20),
        Request(torch.arange(3, 60), None, n=1, temperature=0.0, max_tokens=40),
        Request(torch.tensor([7]), None, n=2, temperature=0.7, seeds=(4, 5), max_tokens=3),
        Request(
            torch.arange(5, 21), soft_of(backbone, 16), n=2, temperature=1.0, top_p=0.8, seeds=(6, 7), max_tokens=17
        ),
    ]


def same(ours: list[list[Rollout]], theirs: list[list[Rollout]]) -> None:
    for mine, other in zip((r for g in ours for r in g), (r for g in theirs for r in g), strict=True):
        assert mine.token_ids == other.token_ids
        assert mine.logprobs == pytest.approx(other.logprobs, abs=2e-4)


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    local.use_threads(None)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
def test_rollouts_are_those_of_transformers(name: str, way: str) -> None:
    fused, plain = WAYS[way](CONFIGS[name]), backbone_of(CONFIGS[name], lean=False)
    same(LocalEngine(fused).generate(asked(fused)), LocalEngine(plain).generate(asked(plain)))


@pytest.mark.parametrize("way", WAYS)
def test_rollouts_are_the_same_alone_and_together_and_as_others_come_and_go(way: str) -> None:
    backbone = WAYS[way](CONFIGS["qwen3"])
    requests = asked(backbone)
    together = LocalEngine(backbone).generate(requests)
    assert together == [LocalEngine(backbone).generate([request])[0] for request in requests]
    assert together == LocalEngine(backbone, max_rows=3).generate(requests)  # slots are taken over
    with thread_count(2):
        assert together == LocalEngine(backbone).generate(requests)


def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that go on from the template's opening, ones that begin otherwise, and ones behind a memory."""

    def chatting(made: Backbone) -> Backbone:
        made.tokenizer.chat_template = (
            "compute 31 + 42 + 53 = 126 ; {% for turn in messages %}{{ turn.content }}{% endfor %}"
        )
        return made

    woven, plain = chatting(woven_of(CONFIGS["qwen3"])), chatting(backbone_of(CONFIGS["qwen3"], lean=False))
    opening = woven.opening()
    assert len(opening) > 8
    texts = ["compute 4 * 5", "7", "compute 12 + 9 - 3"]
    asked_of = [Request(woven.encode(text), n=2, seeds=(8, 9), max_tokens=12) for text in texts]
    asked_of += [Request(woven.encode("7"), soft_of(woven, 5), n=1, seeds=(3,), max_tokens=12), *asked(woven)[1:3]]
    read: list[int] = []
    whole = backbone_module.prefill

    def counted(backbone: Backbone, prompts: Any, *more: Any) -> Any:
        read.extend(len(prompt) for prompt in prompts)
        return whole(backbone, prompts, *more)

    monkeypatch.setattr("tacit.model.backbone.prefill", counted)
    together = LocalEngine(woven).generate(asked_of)
    lengths = [len(request.ids) - 1 for request in asked_of]
    assert sum(read) == sum(lengths) + 5 - (len(texts) - 1) * len(opening)  # 5: the memory's rows
    assert together == [LocalEngine(woven).generate([request])[0] for request in asked_of]
    same(together, LocalEngine(plain).generate(asked_of))


def group_of(backbone: Backbone, lengths: list[int], rows: int, prompt: int) -> Group:
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(3, SMALL["vocab_size"], (prompt,), generator=generator)
    drawn = [torch.randint(3, SMALL["vocab_size"], (n,), generator=generator).tolist() for n in lengths]
    rollouts = [Rollout(tuple(one), (0.0,) * len(one), "", "stop") for one in drawn]
    advantages = torch.randn(len(lengths), generator=generator).tolist()
    return Group(ids, soft_of(backbone, rows).requires_grad_(True), rollouts, advantages)


def expected(backbone: Backbone, group: Group, temperature: float) -> torch.Tensor:
    assert group.prompt is not None
    return torch.autograd.grad(policy_loss(backbone, [group], temperature), [group.prompt])[0]


def gradient(backbone: Backbone, group: Group, temperature: float = 1.0, row_tokens: int = 4096) -> torch.Tensor:
    return prompt_gradients(backbone, [group], temperature, row_tokens=row_tokens)[id(group.prompt)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lengths", [[5, 17, 1], [16], [33, 2, 2, 40]], ids=str)
def test_gradients_are_those_of_autograd(name: str, lengths: list[int], way: str) -> None:
    fused, plain = WAYS[way](CONFIGS[name]), backbone_of(CONFIGS[name], lean=False)
    for rows, prompt, temperature in ((4, 13, 1.0), (20, 1, 0.7)):
        group = group_of(fused, lengths, rows, prompt)
        found, wanted = gradient(fused, group, temperature), expected(plain, group, temperature)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(1, 24),
    st.integers(1, 40),
    st.sampled_from([1, 2]),
)
def test_gradients_of_any_shape(lengths: list[int], rows: int, prompt: int, kv: int) -> None:
    config = Qwen3Config(**{**SMALL, "num_hidden_layers": 2, "num_key_value_heads": kv, "num_attention_heads": 2})
    backbone = backbone_of(config)
    group = group_of(backbone, lengths, rows, prompt)
    wanted = expected(backbone, group, 1.0)
    torch.testing.assert_close(gradient(backbone, group), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("way", WAYS)
def test_groups_too_long_for_a_pass_are_split_or_take_autograds_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = WAYS[way](CONFIGS["qwen3"])
    group = group_of(backbone, [20, 30, 10], 4, 12)
    whole = gradient(backbone, group)
    torch.testing.assert_close(gradient(backbone, group, row_tokens=64), whole, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("tacit.model.fused.gradient.FLOATS_KEPT", 0)
    for name in ("gradient.forward_group", "woven.attend_group"):  # one of them would be called otherwise
        monkeypatch.setattr(f"tacit.model.fused.{name}", None)
    torch.testing.assert_close(gradient(backbone, group), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_memories_are_the_same_alone_together_and_on_two_threads(testbed: Backbone, way: str) -> None:
    if way == "woven":
        with larger():
            testbed = Backbone.load("testbed", device="cpu")
    assert (testbed.fused is None) == (way == "woven")
    texts = ["12 + 7", "What is 4 times 6?", "Tom has 5 apples and buys 9. How many has he?"]
    tasks = [Target(Problem(id=text, text=text), MATHS.vote(["3"] * 8), label="3") for text in texts]
    config = LearnConfig(steps=3, reward="random", lr=0.02)
    learner = Learner(testbed, LocalEngine(testbed), config, Sampling(max_tokens=24), seed=0)
    together = learner.learn(tasks)
    assert all(any(step["updated"] for step in one.steps) for one in together)
    alone = [learner.learn([task])[0] for task in tasks]
    with thread_count(2):
        threaded, one = learner.learn(tasks), learner.learn(tasks[:1])
    for prompts in (alone, threaded):
        for first, second in zip(together, prompts, strict=True):
            assert np.array_equal(first.prompt, second.prompt)  # type: ignore[arg-type]
    assert np.array_equal(one[0].prompt, together[0].prompt)  # type: ignore[arg-type]


def test_what_does_not_fit_goes_pytorchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Qwen3Config(**{**SMALL, "head_dim": 16})
    model = AutoModelForCausalLM.from_config(narrow, attn_implementation="sdpa")
    assert Backbone(model, build(), weights_digest="x").fused is None
    half = AutoModelForCausalLM.from_config(CONFIGS["qwen3"], attn_implementation="sdpa").to(torch.bfloat16)
    assert Backbone(half, build(), weights_digest="x").fused is None
    decoder = backbone_of(CONFIGS["qwen3"])._decoder
    assert decoder is not None and Fused.supports(decoder, 96)
    monkeypatch.setattr("tacit.model.fused.model.LARGEST", 1000)
    assert not Fused.supports(decoder, 96)


def test_without_numba_rollouts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = backbone_of(CONFIGS["qwen3"])
    found = LocalEngine(fused).generate(asked(fused))
    monkeypatch.setattr("tacit.model.fused.available", lambda: False)
    torch.manual_seed(0)
    plain = backbone_without(CONFIGS["qwen3"])
    same(found, LocalEngine(plain).generate(asked(plain)))


def backbone_without(config: Any) -> Backbone:
    made = backbone_of(config, lean=False)
    assert made.fused is None
    again = Backbone(made.model, build(), weights_digest="x")
    assert again.fused is None and again._decoder is not None
    return again


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.sampled_from([0.0, 0.3, 1.0, 3.0]))
def test_tokens_are_drawn_as_pytorch_draws_them(seed: int, vocabulary: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 4, (5, vocabulary)).astype(np.float32))
    uniform = rng.random(5)
    plain = Request(torch.tensor([1]), temperature=temperature, seeds=(1,))
    asks = Request(torch.tensor([1]), temperature=temperature, seeds=(1,), top=3)
    narrow = Request(torch.tensor([1]), temperature=temperature, seeds=(1,), top_p=0.9)  # which takes PyTorch's way
    tokens, logprobs, _ = draw(logits, [plain] * 5, uniform.tolist())
    others, expected, _ = _drawn(logits, [plain] * 5, uniform.tolist())
    assert tokens == others
    assert logprobs == pytest.approx(expected, abs=1e-4)
    # What is asked for beside it changes nothing, and a drawn token's log-prob is told once.
    mixed = draw(logits, [plain, asks, narrow, asks, plain], uniform.tolist())
    alone = [draw(logits[[row]], [spec], [uniform[row]]) for row, spec in enumerate([plain, asks, narrow, asks, plain])]
    assert list(zip(*mixed[:2], strict=True)) == [(drawn[0], logprob[0]) for drawn, logprob, _ in alone]
    assert mixed[0][::4] == tokens[::4] and mixed[1][0] == logprobs[0] and mixed[1][3] == logprobs[3]
    assert all(dict(mixed[2][row]).get(mixed[0][row], mixed[1][row]) == mixed[1][row] for row in (1, 3))


def test_exp_is_exact_to_a_float() -> None:
    def fill(x: Any, y: Any) -> None:
        for i in range(0, x.size, 16):
            store(y, i, exp(load(x, i)))  # noqa: F821 - numba finds them below

    fill.__globals__.update(store=lanes.store, exp=lanes.exp, load=lanes.load)
    values = np.linspace(-87, 87, 1 << 16).astype(np.float32)
    found = np.empty_like(values)
    lanes.numba.njit(fill)(values, found)
    wanted = np.exp(values.astype(np.float64))
    assert (np.abs(found - wanted) / wanted).max() < 3e-7


def test_tokens_are_counted_whoever_counts() -> None:
    meter, begin = Meter(), threading.Barrier(8)

    def count() -> None:
        begin.wait()
        for _ in range(2000):
            meter.add(1)

    counting = [threading.Thread(target=count) for _ in range(8)]
    for thread in counting:
        thread.start()
    for thread in counting:
        thread.join()
    assert meter.tokens == 16000


@pytest.mark.parametrize("name", CONFIGS)
def test_states_of_layers_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of(CONFIGS[name])
    layers = CONFIGS[name].num_hidden_layers
    for ids in (torch.arange(4, 41), torch.tensor([5, 9]), torch.tensor([7])):
        wanted = backbone.hidden_states(ids)
        for layer in range(layers + 1):
            found = backbone.layer_states(ids, layer)
            assert torch.allclose(found, wanted[layer], atol=1e-5 * float(wanted[layer].abs().max()))
    monkeypatch.setattr(backbone, "hidden_states", None)  # not asked: the compiled pass alone
    first, second = (backbone.layer_states(torch.arange(4, 41 + more), layers - 1) for more in (0, 3))
    assert torch.allclose(first, second[:37], atol=1e-5 * float(first.abs().max()))
    assert torch.equal(first, backbone.layer_states(torch.arange(4, 41), layers - 1))  # room is used again


def test_responses_are_read_as_by_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = RewardModel(reward_model_path(), device="cpu")
    passes: list[int] = []
    states = GroupPass.states
    monkeypatch.setattr(GroupPass, "states", lambda one, x: passes.append(one.prompt) or states(one, x))
    plain = RewardModel(reward_model_path(), device="cpu")
    plain._fused = None
    problem = "compute 3 4 + 5 8"
    right = "carefully , step by step : 4 + 8 + 0 = 1 2 ; 3 + 5 + 1 = 9 ; Answer: 9 2"
    texts = [right, "", "4 + 8 + 0 = 1 2 ;", right.replace("9 2", "9 3"), "Answer: 9 2", " ; ".join(["3 + 5 = 8"] * 40)]
    read = [Candidate(Rollout((1,), (-0.5,), text, "stop"), None, 0.0) for text in texts]
    scores = compiled.score(problem, read)
    assert len(passes) == 1 and scores == pytest.approx(plain.score(problem, read), abs=2e-6)
    assert max(scores) - min(scores) > 0.5
    alone = [compiled.score(problem, [one])[0] for one in read]
    assert alone == pytest.approx(scores, abs=2e-6) and compiled.steps(problem, right)[-1] == alone[0]
    many = len(passes)
    monkeypatch.setattr("tacit.model.fused.gradient.FLOATS_KEPT", 1000)  # as long responses are
    assert compiled.score(problem, read) == plain.score(problem, read) and len(passes) == many


def test_work_is_divided_over_threads_and_errors_are_told() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def named(value: int) -> int:
        meeting.wait()  # only passes where two run at once
        return value

    with thread_count(2):
        assert local.side_by_side([lambda: named(1), lambda: named(2)]) == [1, 2]
        assert local.side_by_side([torch.get_num_threads] * 2) == local.side_by_side([local.threads] * 2) == [1, 1]
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="three"):
            local.side_by_side([lambda: 1, lambda: int("three")])
    with thread_count(1):
        assert local.side_by_side([threading.get_ident] * 2) == [threading.get_ident()] * 2
        local.use_threads(2)
        assert local.side_by_side([lambda: named(3), lambda: named(4)]) == [3, 4]
        local.use_threads(None)


@pytest.mark.slow
def test_a_server_compiles_before_it_says_that_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "nothing-compiled-yet"))
    told = []
    for bank in ("first.db", "second.db"):
        with serving(tmp_path / bank, "--no-learn", cold=True) as served:
            before = served.log.read_text()
            assert served.client().completions.create(model="testbed", prompt="3 + 4", max_tokens=4).choices
            assert served.log.read_text().startswith(before)
            told.append((before.count("compiling loops"), served.log.read_text().count("compiling loops")))
    assert told == [(1, 1), (0, 0)]
