"""Baselines without training: what they keep, what they show, and that answering changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from conftest import stream
from said import responses
from tacit import registry
from tacit.answers.equivalence import equivalent
from tacit.answers.extraction import extract
from tacit.config import Sampling
from tacit.engines.base import METER, Request
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, ModelError
from tacit.methods import lag
from tacit.methods.base import Method, Reply, World
from tacit.methods.experience import FromExperience, Store, can_read
from tacit.methods.lag import Behind, KeyValues
from tacit.methods.reasoning_bank import ReasoningBank
from tacit.methods.reflection import Reflected
from tacit.model.backbone import Backbone
from tacit.tasks.maths import MATHS

METHODS = ("icl", "icl-routed", "icl-reflect", "reasoning-bank", "reasoning-bank-obeyed", "lag", "best-first-line")
ASKED = [problem for problem in stream(100) if problem.family in ("last", "max", "loose", "boxes")][:24]
PROBLEMS = [problem.blind() for problem in ASKED]
WINDOW = 8


def make(name: str, backbone: Backbone, sampling: Sampling | None = None, **options: Any) -> Method:
    world = World(
        backbone, LocalEngine(backbone), 5, Path(), tuple(PROBLEMS), sampling=sampling or Sampling(), options=options
    )
    return registry.get("method", name)(world)


def play(method: Method, count: int = len(PROBLEMS)) -> list[Reply]:
    replies: list[Reply] = []
    for start in range(0, count, WINDOW):
        window = PROBLEMS[start : min(start + WINDOW, count)]
        answered = method.answer(window)
        lessons = method.learn(window, answered)
        assert lessons is not None
        replies += answered
    return replies


@pytest.fixture(scope="module")
def zero_shot(testbed: Backbone) -> list[Reply]:
    return make("zero-shot", testbed).answer(PROBLEMS)


@pytest.fixture(scope="module")
def played(testbed: Backbone) -> dict[str, tuple[FromExperience[Any], list[Reply]]]:
    found: dict[str, tuple[FromExperience[Any], list[Reply]]] = {}
    for name in METHODS:
        method = make(name, testbed)
        assert isinstance(method, FromExperience)
        found[name] = method, play(method)
    return found


def test_the_nearest_come_first_and_of_equal_ones_the_first_kept() -> None:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(9, 4)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    store: Store[str] = Store()
    assert store.nearest(keys[:2], 3) == [[], []]
    for place in (0, 1, 2, 3, 1):
        store.add(f"p{place}", keys[place], f"item {len(store)}")
    for key, near in zip(keys, store.nearest(keys, 3), strict=True):
        expected = sorted(range(5), key=lambda place: (-float(key @ store.keys[place]), place))[:3]
        assert [one.item for one in near] == [f"item {place}" for place in expected]
        assert [one.similarity for one in near] == pytest.approx(
            [float(key @ store.keys[p]) for p in expected], abs=1e-6
        )
    assert [one.item for one in store.nearest(keys[1:2], 9)[0]][:2] == ["item 1", "item 4"]
    assert [len(near) for near in store.nearest(keys, 9)] == [5] * 9


@pytest.mark.parametrize("name", METHODS)
def test_before_any_experience_it_is_zero_shot_and_then_what_was_nearest(
    name: str, testbed: Backbone, played: dict[str, tuple[FromExperience[Any], list[Reply]]], zero_shot: list[Reply]
) -> None:
    method, replies = played[name]
    assert method.gradient_steps == method.trainable == 0
    for number, (reply, plain) in enumerate(zip(replies, zero_shot, strict=True)):
        assert reply.arms["zero_shot"] == (plain.answers, plain.greedy_answer)
        if number < WINDOW:
            assert (reply.answers, reply.greedy_answer, reply.notes) == (plain.answers, plain.greedy_answer, {})
            continue
        seen = {problem.id for problem in PROBLEMS[: number - number % WINDOW]}
        kept = [place for place, source in enumerate(method.store.sources) if source in seen]
        similar = [float(method.store.keys[place] @ reply.state.key) for place in kept]
        assert reply.notes["similarity"] == pytest.approx(max(similar), abs=1e-6)
        assert reply.notes["source"] == method.store.sources[kept[int(np.argmax(similar))]]
    assert sum(a.answers != b.answers for a, b in zip(replies[WINDOW:], zero_shot[WINDOW:], strict=True)) > 8
    size = len(method.store)
    assert size > 20
    again = method.answer(PROBLEMS[:6])
    assert [(r.answers, r.notes) for r in method.answer(PROBLEMS[:6])] == [(r.answers, r.notes) for r in again]
    assert [r.notes["source"] for r in again] == [problem.id for problem in PROBLEMS[:6]]
    assert len(method.store) == size


def test_each_of_them_helps(played: dict[str, tuple[FromExperience[Any], list[Reply]]], zero_shot: list[Reply]) -> None:
    """No baseline of straw: all beat zero-shot once a few problems of each kind are known."""

    def right(replies: Sequence[Reply]) -> int:
        pairs = list(zip(replies, ASKED, strict=True))[WINDOW:]
        return sum(answer == asked.gold for reply, asked in pairs for answer in (*reply.answers, reply.greedy_answer))

    counts = {name: right(replies) for name, (_, replies) in played.items()}
    assert min(counts.values()) >= 1.2 * right(zero_shot), (counts, right(zero_shot))


def test_icl_shows_its_traces_nearest_last(testbed: Backbone, engine: LocalEngine) -> None:
    method = make("icl", testbed, k=2)
    assert isinstance(method, FromExperience)
    play(method, WINDOW)
    for problem, reply in zip(PROBLEMS[WINDOW : 2 * WINDOW], method.answer(PROBLEMS[WINDOW : 2 * WINDOW]), strict=True):
        examples = [method.store.items[method.store.sources.index(source)] for source in reply.notes["sources"]]
        asked = Request(testbed.encode(problem.text, examples[::-1]), temperature=0.0, max_tokens=64)
        assert extract(engine.generate([asked])[0][0].text) == reply.greedy_answer


@pytest.mark.parametrize("name", ["icl", "icl-reflect"])
def test_traces_give_the_majority_answer(name: str, played: dict[str, tuple[FromExperience[Any], list[Reply]]]) -> None:
    method, replies = played[name]
    states = {problem.id: reply.state for problem, reply in zip(PROBLEMS, replies, strict=True)}
    raw = 0
    for source, (_, text) in zip(method.store.sources, method.store.items, strict=True):
        zero_shot = states[source].zero_shot
        assert equivalent(str(extract(text)), str(zero_shot.vote.answer))
        pairs = zip(zero_shot.samples, zero_shot.vote.agrees, strict=True)
        raw += text == next(rollout.text for rollout, agrees in pairs if agrees)
    assert raw == len(method.store) if name == "icl" else raw < len(method.store)


def test_routed_icl_takes_what_is_commoner_among_its_own_answers(
    played: dict[str, tuple[FromExperience[Any], list[Reply]]],
) -> None:
    taken = []
    for plain, routed in zip(played["icl"][1], played["icl-routed"][1], strict=True):
        own, shown = routed.arms["zero_shot"][0], plain.answers
        assert routed.arms == plain.arms and routed.notes == plain.notes
        for given, zero, other in zip(routed.answers, own, shown, strict=True):
            votes = [
                sum(MATHS.same(answer, one) for one in arm if one)
                for answer, arm in ((zero, own), (other, shown))
                if answer
            ]
            better = other if zero is None or (other and votes[1] > votes[0]) else zero
            assert given == better or MATHS.same(str(given), str(better))
            taken.append(given != zero)
    assert any(taken) and not all(taken)


def test_a_model_that_has_the_words_is_asked_to_review_its_attempts(testbed: Backbone, tiny: Backbone) -> None:
    assert not can_read(testbed, "Review these attempts.") and can_read(testbed, "largest of 53, 85: carefully")
    method = make("icl-reflect", tiny, attempts=3)
    assert isinstance(method, Reflected) and method.reads
    given = responses("so \\boxed{4}", "it is \\boxed{4}", "perhaps \\boxed{5}", "no idea")
    asked = method._review(PROBLEMS[0], given)
    assert asked is not None
    text = tiny.decode(asked.ids.tolist())
    assert all(part in text for part in (PROBLEMS[0].text, "answer 4", "Attempt 1: so", "Attempt 2: it is", "Lesson:"))
    assert "Attempt 3: perhaps" in text and "no idea" not in text
    assert method._review(PROBLEMS[0], responses("no", "idea")) is None
    long = responses("so \\boxed{4}", "well " * 1000 + "\\boxed{4}", "perhaps \\boxed{5}")
    less = method._review(PROBLEMS[0], long)
    assert less is not None and "well" not in tiny.decode(less.ids.tolist())
    [(example, why)] = method.keep(PROBLEMS[:1], [given])  # a random model's review is noise, so the raw trace stays
    assert example == (PROBLEMS[0].text, "so \\boxed{4}") and "raw trace" in why


def test_a_forced_first_line_belongs_to_the_response(
    testbed: Backbone, played: dict[str, tuple[FromExperience[Any], list[Reply]]]
) -> None:
    method, replies = played["best-first-line"]
    opened = [reply for reply in replies if "opening" in reply.notes]
    assert len(opened) > 12 and not any(character.isdigit() for reply in opened for character in reply.notes["opening"])
    keys = method.keys.of([PROBLEMS[12].text])
    _, [(given, notes)] = method.ask(PROBLEMS[12:13], keys)
    assert given is not None and all(one.text.startswith(notes["opening"]) for one in (*given.samples, given.greedy))
    [sampled, _] = method.requests(PROBLEMS[12], method.store.nearest(keys, method.k)[0])
    asked = f"Problem: {PROBLEMS[12].text} Solution: {notes['opening']}"
    assert testbed.tokenizer.decode(sampled.ids).replace(" ", "") == "".join(asked.split())


def test_strategies_go_into_the_prompt_or_open_the_response(testbed: Backbone, tiny: Backbone) -> None:
    read = make("reasoning-bank", tiny)
    assert isinstance(read, ReasoningBank) and read.reads
    asked = read._review(PROBLEMS[0], responses("so \\boxed{4}", "or \\boxed{5}", "yes \\boxed{4}"))
    assert asked is not None
    text = tiny.decode(asked.ids.tolist())
    assert (
        text.index("Successes:") < text.index("so \\boxed{4}") < text.index("Failures:") < text.index("or \\boxed{5}")
    )
    for name in ("reasoning-bank", "reasoning-bank-obeyed"):
        method = make(name, testbed, k=1)
        assert isinstance(method, ReasoningBank) and not method.reads
        play(method, WINDOW)
        near = method.store.nearest(method.keys.of([PROBLEMS[12].text]))[0]
        strategy = near[0].item.items[0].content
        assert strategy and not any(character.isdigit() for character in strategy)
        sampled, greedy = method.requests(PROBLEMS[12], near)
        assert torch.equal(sampled.ids, greedy.ids)
        prompt = testbed.tokenizer.decode(greedy.ids)
        example = f"Problem: {near[0].item.problem} Solution: {strategy}<eos>"
        asked_last = f"Problem: {PROBLEMS[12].text} Solution:"
        expected = f"{example}{asked_last}" if name == "reasoning-bank" else f"{asked_last} {strategy}"
        assert prompt.replace(" ", "") == expected.replace(" ", "")


def test_all_activations_of_one_example_are_icl(
    testbed: Backbone, played: dict[str, tuple[FromExperience[Any], list[Reply]]]
) -> None:
    icl = played["icl"][1]
    whole, alone = play(make("lag", testbed, stored="all")), play(make("lag", testbed, stored="bare"))
    assert [reply.greedy_answer for reply in whole] == [reply.greedy_answer for reply in icl]
    solutions = played["lag"][1]
    for other in (alone, solutions):
        assert [reply.answers for reply in other] != [reply.answers for reply in whole]
    assert [reply.answers for reply in alone] != [reply.answers for reply in solutions]


@pytest.mark.parametrize("name", ["testbed", "tiny"])
def test_activations_are_those_of_the_first_positions(name: str, request: pytest.FixtureRequest) -> None:
    backbone: Backbone = request.getfixturevalue(name)
    ids = torch.cat([backbone.encode(problem.text) for problem in PROBLEMS[:3]])
    kept = lag.activations(backbone, ids, 17)
    keys, values = backbone.key_values(ids)
    near = {"atol": 1e-4, "rtol": 1e-4}
    for layer, part in enumerate(kept.values):  # values know no positions, but they know what stood before
        torch.testing.assert_close(part, values[layer][:, 17:], **near)
        assert not torch.allclose(kept.keys[layer], keys[layer][:, 17:], **near)
    alone, _ = backbone.key_values(ids[17:])
    torch.testing.assert_close(kept.keys[0], alone[0], **near)  # the first layer's keys know nothing but positions
    assert not torch.allclose(kept.keys[1], alone[1], **near)
    whole = lag.activations(backbone, ids)
    for layer, part in enumerate(whole.keys):
        torch.testing.assert_close(part, keys[layer], **near)


def test_learned_positions_cannot_be_shifted(tiny: Backbone) -> None:
    config = GPT2Config(vocab_size=tiny.vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    learned = Backbone(GPT2LMHeadModel(config), tiny.tokenizer, name="gpt2-like")
    assert len(lag.activations(learned, torch.arange(9))) == 9
    with pytest.raises(ModelError, match="gpt2-like has learned positions"):
        lag.activations(learned, torch.arange(9), 4)


def behind(backbone: Backbone, request: Request, ids: torch.Tensor) -> Behind:
    """The request with the activations of ``ids`` before it."""
    keys, values = backbone.key_values(ids)
    return Behind(**vars(request), past=KeyValues(tuple(keys), tuple(values)))


@pytest.mark.parametrize("name", ["testbed", "tiny"])
def test_behind_activations_is_behind_their_tokens(name: str, request: pytest.FixtureRequest) -> None:
    """Tokens and log-probs are those of the engine where the prompt holds the tokens, greedy and sampled; and soft
    prompts stand between."""
    backbone: Backbone = request.getfixturevalue(name)
    engine = lag.PastEngine(LocalEngine(backbone), backbone)
    soft = torch.randn(5, backbone.hidden_size, generator=torch.Generator().manual_seed(0)) * backbone.embedding_std
    for example, problem in zip(PROBLEMS[:4], PROBLEMS[4:8], strict=True):
        (solved,) = engine.generate([Request(backbone.encode(example.text), temperature=0.0)])[0]
        whole = backbone.encode(problem.text, examples=[(example.text, backbone.decode(solved.token_ids))])
        plain = [
            Request(backbone.encode(problem.text), n=4, seeds=(1, 2, 3, 4), max_tokens=30),
            Request(backbone.encode(problem.text), temperature=0.0, max_tokens=30),
        ]
        before = whole[: -len(plain[0].ids)]
        for between in (None, soft):
            told = [
                replace(one, ids=whole)
                if between is None
                else replace(one, soft_prompt=torch.cat([backbone.embed(before), between]))
                for one in plain
            ]
            here = [behind(backbone, replace(one, soft_prompt=between), before) for one in plain]
            counted = METER.tokens
            found = engine.generate([*here, *plain, *told])
            assert METER.tokens - counted == sum(len(one.token_ids) for group in found for one in group)
            for ours, alone, theirs in zip(found[:2], found[2:4], found[4:], strict=True):
                for our, one, their in zip(ours, alone, theirs, strict=True):
                    assert (our.token_ids, our.text, our.finish) == (their.token_ids, their.text, their.finish)
                    assert our.logprobs == pytest.approx(their.logprobs, abs=2e-4)
                    assert our.logprobs != pytest.approx(one.logprobs, abs=2e-4)


def test_behind_activations_alone_and_together_are_equal_to_the_bit(testbed: Backbone) -> None:
    engine = lag.PastEngine(LocalEngine(testbed), testbed)
    ids = torch.cat([testbed.encode(problem.text) for problem in PROBLEMS])
    asked: list[Behind] = []
    for at, length in enumerate((1, 7, 31, 32, 33, 64, 100, 130)):
        plain = Request(testbed.encode(PROBLEMS[at].text), n=1 + at, max_tokens=12 + 4 * at, seeds=tuple(range(1 + at)))
        asked.append(behind(testbed, replace(plain, temperature=0.0) if at % 3 == 2 else plain, ids[:length]))
    asked.append(behind(testbed, Request(ids[:1], n=2, max_tokens=9, seeds=(1, 2)), ids[:5]))
    longest = max(len(one.ids) for one in asked)
    together, whole = engine.generate(asked), lag.generated
    assert [[len(group) for group in together], len(together)] == [[1, 2, 3, 4, 5, 6, 7, 8, 2], 9]
    parts: list[int] = []
    for bound, value, expected in (("ROWS", 20, 2), ("PREFILLED", 3 * longest, 3), ("ROWS", 1, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lag, bound, value)
            patch.setattr(lag, "generated", lambda backbone, part: parts.append(len(part)) or whole(backbone, part))
            assert engine.generate(asked) == together
        assert max(parts) == expected and sum(parts) == len(asked)
        parts.clear()
    assert [engine.generate([request])[0] for request in asked] == together


@pytest.mark.parametrize("name", [name for name in METHODS if name != "best-first-line"])  # it needs two problems
def test_what_does_not_fit_the_context_is_left_out(name: str, testbed: Backbone) -> None:
    method = make(name, testbed, **({} if name == "lag" else {"k": 3}))
    assert isinstance(method, FromExperience)
    play(method, WINDOW)
    problem = PROBLEMS[12]
    near = method.store.nearest(method.keys.of([problem.text]), method.k)[0]
    lengths = [_length(method.requests(problem, near[:count])[0]) for count in range(1, method.k + 1)]
    for count, room in ((len(lengths), lengths[-1]), (1, lengths[0]), (0, lengths[0] - 1)):
        tight = make(name, testbed, Sampling(samples=1, max_tokens=testbed.context - room), **method.world.options)
        assert isinstance(tight, FromExperience)
        tight.store = method.store
        shown, requests = tight._shown(problem, near)
        # An opening is as long whatever it was chosen from.
        assert len(shown) == (len(lengths) if count and name.endswith("obeyed") else count)
        assert len(requests) == (2 if count else 0)


def _length(request: Request) -> int:
    return len(request.ids) + (len(request.past) if isinstance(request, Behind) else 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("icl", {"k": 0}, "k is 0; it must be a whole number of at least 1"),
        ("icl", {"k": True}, "k is True"),
        ("icl-reflect", {"attempts": 1.5}, "attempts is 1.5"),
        ("lag", {"stored": "some"}, "stored is 'some'; use one of solution, all, bare"),
        ("lag", {"k": 2}, "no option k"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str, testbed: Backbone) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, testbed, **options)
