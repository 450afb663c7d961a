"""The online loop on the shipped model and a real bank: what is recalled, routed, learned and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import save_tiny_qwen2, stream
from tacit.agent import Agent, Remembered
from tacit.bank import export_peft, open_bank
from tacit.bank.base import Bank
from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, FingerprintError, ModelError
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import Candidate, LogProb, VoteShare, candidates, restrained
from tacit.learning import Learned
from tacit.memory import State
from tacit.methods import controls
from tacit.methods.controls import Beside
from tacit.model.backbone import Backbone
from tacit.recall import Recall
from tacit.responses import Responses
from tacit.routing import Route, by_votes, route
from tacit.tasks.maths import MATHS
from tacit.testbed import reward_model_path

QUICK = {"sampling": Sampling(samples=8, max_tokens=48), "learning": LearnConfig(steps=4)}


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return open_bank(str(tmp_path / "bank.sqlite"))


def agent(backbone: Backbone, bank: Bank, **changes: object) -> Agent:
    return Agent(backbone, LocalEngine(backbone), bank, **{**QUICK, **changes})  # type: ignore[arg-type]


def learned(made: Agent, count: int = 12) -> list[str]:
    """Let an agent answer and learn; ids of the stored memories."""
    answered = made.answer(stream(count))
    made.remember(answered, made.learn(answered))
    return [info.id for info in made.bank.find(made.namespace)]


def test_a_stream_fills_the_bank_and_is_recalled(testbed: Backbone, bank: Bank) -> None:
    made = agent(testbed, bank, recalling=RecallConfig(floor=0.3))
    first = made.answer(stream(16))
    assert all(one.memory is None and one.greedy_route.name == "no_memory" for one in first)
    made.remember(first, made.learn(first))
    infos = bank.find("default")
    assert infos and {info.state for info in infos} <= {State.ACTIVE, State.CANDIDATE}
    later = made.answer(stream(16, seed=6))
    active = {info.id for info in infos if info.state is State.ACTIVE}
    recalled = [one for one in later if one.hit is not None]
    assert recalled and {one.hit.memory_id for one in recalled if one.hit} <= active
    for one in recalled:
        assert one.memory is not None and len(one.routes) == len(one.answers) == 8
        for decided, zero, memory, final in zip(
            one.routes, one.zero_shot.answers, one.memory.answers, one.answers, strict=True
        ):
            assert final == (memory if decided.takes_memory else zero)
    made.remember(later, [])
    assert sum(info.uses for info in bank.find("default")) == len(recalled)
    assert sum(info.agreed + info.helped + info.hurt for info in bank.find("default")) == len(recalled)


def test_with_memory_off_output_is_the_plain_engines(testbed: Backbone, bank: Bank) -> None:
    """Invariant 5, and the zero-shot arm is not touched by the memory arm beside it."""
    made = agent(testbed, bank, recalling=RecallConfig(floor=-1.0))
    learned(made)
    problems = stream(8, seed=7)
    plain = LocalEngine(testbed).generate(
        [Request(testbed.encode(p.text), temperature=0.0, max_tokens=48) for p in problems]
    )
    off = made.answer(problems, use_memory=False)
    on = made.answer(problems)
    assert any(one.memory is not None for one in on)
    for rollouts, without, beside in zip(plain, off, on, strict=True):
        assert without.greedy == rollouts[0] == beside.zero_shot.greedy
        assert without.zero_shot.samples == beside.zero_shot.samples
        assert without.memory is None


def test_learning_one_memory_changes_no_other(testbed: Backbone, bank: Bank) -> None:
    """Invariant 6."""
    made = agent(testbed, bank)
    learned(made, 8)
    before = {info.id: info.sha256 for info in bank.find("default")}
    answered = made.answer(stream(16, seed=9))
    made.remember(answered, made.learn(answered))
    after = {info.id: info.sha256 for info in bank.find("default")}
    assert len(after) > len(before)
    assert {name: after[name] for name in before} == before


def test_a_problem_is_learned_exactly_once(testbed: Backbone, bank: Bank) -> None:
    made = agent(testbed, bank)
    ids = learned(made, 6)
    answered = made.answer(stream(6))
    again = made.learn(answered)
    stored = [result for result in again if result.memory is not None]
    # What a memory makes answerable may be learned on the second visit; what was learned is not learned again.
    assert {result.memory.id for result in stored if result.known} == set(ids)
    made.remember(answered, again)
    assert [info.id for info in bank.find("default")] == ids


def test_wrong_gold_gives_identical_memories(testbed: Backbone, tmp_path: Path) -> None:
    """Invariant 2: nothing that answers or learns can see the gold answer."""
    problems = stream(8)
    lying = [replace(problem, gold="13", family="nonsense") for problem in problems]
    seen = []
    for name, told in (("true", problems), ("lying", lying)):
        made = agent(testbed, open_bank(str(tmp_path / f"{name}.sqlite")))
        answered = made.answer(told)
        made.remember(answered, made.learn(answered))
        assert all(one.problem.gold is None and one.problem.family is None for one in answered)
        seen.append([(info.id, info.sha256, info.state) for info in made.bank.find("default")])
    assert seen[0] == seen[1] and seen[0]


def test_nothing_crosses_a_namespace(testbed: Backbone, bank: Bank) -> None:
    """Invariant 7."""
    learned(agent(testbed, bank, namespace="ann", recalling=RecallConfig(floor=-1.0)))
    other = agent(testbed, bank, namespace="bob", recalling=RecallConfig(floor=-1.0))
    assert all(one.hit is None for one in other.answer(stream(6, seed=8)))
    assert controls.random_memory(other, other.answer(stream(2))) == [None, None]


def test_a_bank_of_another_backbone_is_refused(testbed: Backbone, tiny: Backbone, bank: Bank) -> None:
    agent(testbed, bank)
    with pytest.raises(FingerprintError):
        agent(tiny, bank)


def test_the_fingerprint_is_of_weights_tokenizer_and_template(tmp_path: Path, tiny: Backbone) -> None:
    same = Backbone.load(str(save_tiny_qwen2(tmp_path / "same")), device="cpu")
    half = Backbone.load(str(tmp_path / "same"), device="cpu", dtype="bfloat16")
    other = Backbone.load(str(save_tiny_qwen2(tmp_path / "other", seed=1)), device="cpu")
    plain = Backbone.load(str(save_tiny_qwen2(tmp_path / "plain", chat=False)), device="cpu")
    assert same.fingerprint == tiny.fingerprint == half.fingerprint
    assert len({same.fingerprint, other.fingerprint, plain.fingerprint}) == 3


@pytest.mark.parametrize("kind", ["last", "last:1", "input", "hidden", "hidden:1", "kv"])
def test_keys_are_unit_and_tell_like_from_unlike(testbed: Backbone, bank: Bank, kind: str) -> None:
    keys = Recall(testbed, bank, RecallConfig(key=kind), "default").keys(
        ["compute 74 + 98", "compute 73 + 57", "largest of 53, 85, 61"]
    )
    assert keys.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-5)
    assert keys[0] @ keys[1] > keys[0] @ keys[2]


def test_a_layer_that_is_not_there(testbed: Backbone, bank: Bank) -> None:
    with pytest.raises(ModelError, match="has layers 0 to"):
        Recall(testbed, bank, RecallConfig(key="hidden:99"), "default").keys(["compute 1 + 1"])
    with pytest.raises(ModelError, match="has layers 0 to"):
        Recall(testbed, bank, RecallConfig(key="last:99"), "default").keys(["compute 1 + 1"])
    with pytest.raises(ConfigError, match="only relative, hidden and last take a layer"):
        RecallConfig(key="input:3")


def test_the_last_state_tells_kinds_apart_that_look_alike(testbed: Backbone, bank: Bank) -> None:
    """Stories that differ only in their question need different skills; the default key sees it, words do not."""
    problems = stream(96, seed=31, which="B")
    right = {}
    for kind in ("last", "input"):
        keys = Recall(testbed, bank, RecallConfig(key=kind), "default").keys([problem.text for problem in problems])
        similarity = keys @ keys.T - 2 * np.eye(len(keys))
        nearest = similarity.argmax(axis=1)
        right[kind] = np.mean([problems[a].family == problems[b].family for a, b in enumerate(nearest)])
    assert right["last"] > 0.97 and right["last"] > right["input"]


def candidate(answer: str | None, share: float = 0.5, logprob: float = -1.0, text: str = "") -> Candidate:
    return Candidate(Rollout((1,), (logprob,), text or f"Answer: {answer}", "stop"), answer, share)


def test_routes_say_who_decided() -> None:
    zero, memory = candidate("5", share=0.4), candidate("7", share=0.6)
    pairs = [
        (zero, candidate("5.0")),
        (zero, memory),
        (memory, zero),
        (zero, candidate("7", share=0.4)),
        (candidate(None), memory),
        (zero, candidate(None)),
    ]
    decided = route("p", pairs, VoteShare())
    assert [one.name for one in decided] == ["agree", "memory", "zero_shot", "zero_shot", "memory", "zero_shot"]
    assert decided[1].why == "vote share: 0.600 with memory, 0.400 without"
    assert [one.name for one in route("p", pairs[1:3], None)] == ["memory", "memory"]
    likelier = [(candidate("5", logprob=-2.0), candidate("7", logprob=-1.0))]
    assert route("p", likelier, LogProb())[0].name == "memory"


def said(text: str) -> tuple[Rollout, str | None]:
    return Rollout((1,), (0.0,), text, "stop"), text.rpartition("is ")[2] or None


def test_the_votes_of_both_sides_decide_what_is_returned() -> None:
    """Of the pair the one that gives their answer, routed first; else a sample that does; a tie changes nothing."""
    zero, memory = said("plain, is 1"), said("helped, is 2")
    to_memory, to_zero = Route("memory", "shares"), Route("zero_shot", "shares")

    def told(plain: str, helped: str, routed: Route = to_memory) -> tuple[str, str]:
        samples = [[said(f"{side} {number}, is {answer}") for number, answer in enumerate(arm)]
                   for side, arm in (("plain", plain), ("helped", helped))]  # fmt: skip
        decided, chosen = by_votes([[zero], [memory], *samples], routed, MATHS)
        return decided.name, chosen.text

    assert told("122", "222") == ("memory", "helped, is 2")
    assert told("111", "122") == ("zero_shot", "plain, is 1")  # against the shares of each side
    assert told("133", "233") == ("zero_shot", "plain 1, is 3")  # of the side where it is as common, or more so
    assert told("113", "333") == ("memory", "helped 0, is 3")
    assert told("333", "112") == ("zero_shot", "plain 0, is 3")
    for tied in (("11", "22"), ("", "")):
        assert told(*tied) == ("memory", "helped, is 2") and told(*tied, to_zero) == ("zero_shot", "plain, is 1")
    why = by_votes([[zero], [memory], [zero, zero], [memory]], to_memory, MATHS)[0].why
    assert why.startswith("samples without memory and with it: 2 of 3 say 1")


def sample(answer: str, logprob: float = 0.0) -> Candidate:
    return Candidate(Rollout((1,), (logprob,), answer, "stop"), answer or None, 0.0)


def test_a_memory_may_not_overrule_the_vote_of_a_divided_model() -> None:
    """Between two answers it is as sure of: what the vote says may be said with the memory too, and nothing else. To be
    held back is no evidence against it."""

    def doubts(plain: str, helped: str, sure: Sequence[float] = ()) -> list[bool]:
        logprobs = [*sure, *[0.0] * len(plain)]
        own = [sample(one, value) for one, value in zip(plain, logprobs, strict=False)]
        return [bool(one.doubt) for one in restrained([sample(one) for one in helped], own, MATHS)]

    assert doubts("11122", "1234") == [False, True, True, True]
    assert doubts("1122", "1234") == [True] * 4  # a tie has no answer
    assert doubts("111111122", "23") == [False] * 2  # the second has two sevenths of the first's weight
    assert doubts("112", "23") == doubts("1234", "23") == [False] * 2  # scattered answers are none to be kept
    assert doubts("1122", "12", [0, 0, -1, -1]) == [False] * 2  # so sure of one that the other has no weight
    assert doubts("1112", "23", [-1, -1, -1, 0]) == [False] * 2  # surest of what is not the vote's
    assert doubts("1111", "2") == doubts("", "2") == [False]
    [zero], [memory] = [sample("1")], restrained([sample("3")], [sample(one) for one in "11122"], MATHS)
    [decided] = route("", [(zero, memory)], VoteShare())
    assert (decided.name, decided.why) == ("zero_shot", "without memory the model is divided between '1' and '2'")
    assert not any(decided.counts.values())
    [spoken] = route("", [(sample(""), memory)], VoteShare())
    assert spoken.name == "memory"  # where the other side says nothing, an answer is better than none


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("123")), min_size=2, max_size=8))
def test_where_a_model_is_divided_the_vote_stays_what_it_was(pairs: list[tuple[str, str]]) -> None:
    """Whatever is said with a memory, routed answers keep the answer of an untied vote of a divided model."""
    arms = [[sample(answer) for answer in arm] for arm in zip(*pairs, strict=True)]
    answers = [[one.answer for one in arm] for arm in arms]
    plain, other = (
        candidates([c.rollout for c in arm], said, said, MATHS) for arm, said in zip(arms, answers, strict=True)
    )
    helped = restrained(other, plain, MATHS)
    before = MATHS.vote([one.answer for one in plain])
    routes = route("", list(zip(plain, helped, strict=True)), VoteShare())
    chosen = [(b if r.takes_memory else a).answer for r, a, b in zip(routes, plain, helped, strict=True)]
    if any(one.doubt for one in helped) and not before.tied:
        assert MATHS.vote(chosen).answer == before.answer


def test_the_reward_model_prefers_right_responses(testbed: Backbone, engine: LocalEngine) -> None:
    verifier = RewardModel(reward_model_path(), device="cpu")
    right, wrong = [], []
    for problem in stream(40, seed=11):
        request = Request(testbed.encode(problem.text), n=8, max_tokens=48, seeds=tuple(range(8)))
        texts = [rollout.text for rollout in engine.generate([request])[0]]
        scores = verifier.score(problem.text, [candidate("?", text=text) for text in texts])
        assert scores == pytest.approx(
            [verifier.score(problem.text, [candidate("?", text=text)])[0] for text in texts], abs=1e-5
        )
        for text, score in zip(texts, scores, strict=True):
            (right if text.endswith(f"Answer: {problem.gold}") else wrong).append(score)
    above = np.mean([[r > w for w in wrong] for r in right])
    assert above > 0.85


def test_a_causal_model_is_no_reward_model(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        RewardModel(tmp_path / "nothing")


def test_icl_beside_an_agent_shows_the_nearest_trace(testbed: Backbone, bank: Bank) -> None:
    made = agent(testbed, bank)
    beside = Beside(made, ["icl"])
    first, later = made.answer(stream(6)), made.answer(stream(4, seed=6))
    unlearned = [Remembered(Learned(one.problem, None, False, "", None), None) for one in later]
    assert beside.answer(later, unlearned) == [{}] * 4
    beside.learn(first)
    said = beside.answer(later, unlearned)
    for one, arms in zip(later, said, strict=True):
        similarity = [float(other.key @ one.key) for other in first if other.zero_shot.trace is not None]
        assert arms["icl"].notes["similarity"] == pytest.approx(max(similarity), abs=1e-6)
        assert len(arms["icl"].answers) == 8
    again = Beside(made, ["icl"])  # a run that continues has its rows alone
    again.resume(
        {"id": one.problem.id, "problem": one.problem.text, "trace": one.zero_shot.trace and one.zero_shot.trace.text}
        for one in first
    )
    assert again.answer(later, unlearned) == said


def test_an_exported_memory_answers_the_same_through_peft(testbed: Backbone, bank: Bank, tmp_path: Path) -> None:
    """The PEFT adapter of a learned memory, loaded by PEFT, generates what the engine generates under the memory."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tacit.testbed import model_path

    made = agent(testbed, bank)
    memory = bank.get(learned(made, 8)[0], "default")
    export_peft(memory, tmp_path / "adapter", base_model=str(model_path()))
    base = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    for problem in stream(4, seed=10):
        ids = testbed.encode(problem.text)
        request = Request(ids, torch.tensor(memory.prompt), temperature=0.0, max_tokens=40)
        ours = LocalEngine(testbed).generate([request])[0][0].token_ids
        theirs = adapted.generate(
            input_ids=ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=40,
            do_sample=False,
        )[0].tolist()  # fmt: skip
        assert tuple(theirs[-len(ours) :]) == ours


def test_problems_of_one_id_but_another_text_are_different_problems(testbed: Backbone, bank: Bank) -> None:
    """Two files that share a bank may number their problems alike."""
    made = agent(testbed, bank)
    for seed in (5, 6):
        numbered = [replace(problem, id=str(n)) for n, problem in enumerate(stream(8, seed=seed))]
        answered = made.answer(numbered)
        results = made.learn(answered)
        assert not any(result.known for result in results)
        made.remember(answered, results)
    texts = {problem.text for seed in (5, 6) for problem in stream(8, seed=seed)}
    infos = bank.find("default")
    assert len({info.problem for info in infos}) == len(infos) and {info.problem for info in infos} <= texts


def test_equivalent_answers_share_their_votes() -> None:
    answers = ("1/2", "0.5", "0.5", "3", None)
    rollouts = tuple(Rollout((1,), (-1.0,), str(answer), "stop") for answer in answers)
    responses = Responses(rollouts, rollouts[0], answers, r"\frac12", MATHS.vote(answers))
    assert [one.share for one in responses.candidates()] == [0.6, 0.6, 0.6, 0.2, 0.0, 0.6]
