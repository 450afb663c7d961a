"""Without a judge: responses weighed by their probability, divided models, and decisions of all responses together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import stream
from tacit import registry
from tacit.agent import Agent, Answered, Remembered
from tacit.bank import open_bank
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Rollout
from tacit.engines.local import LocalEngine
from tacit.experiments.report.comparison import as_text, rewrite
from tacit.experiments.report.run_figures import labels_of, summarise
from tacit.judges.likelihood import divided, held, masses, ranked
from tacit.judges.verifiers import Candidate, Likelihood, candidates
from tacit.labels import Evidence, choose
from tacit.learning import Learned
from tacit.methods.base import World
from tacit.methods.best_of import Likeliest
from tacit.methods.controls import Beside
from tacit.model.backbone import Backbone
from tacit.responses import Responses
from tacit.routing import route, together
from tacit.tasks.maths import MATHS
from test_comparison_report import arm, cell, row, write


def said(answer: str | None, probability: float, number: int = 0) -> Candidate:
    """A response of one token; the number tells responses with one answer apart."""
    token = crc32(f"{answer} {number}".encode())
    return Candidate(Rollout((token,), (math.log(probability),), f"Answer: {answer}", "stop"), answer, 0.5)


def test_a_response_counts_its_probability_once() -> None:
    drawn = [said("5", 0.2), said("5", 0.2), said("5", 0.1, 1), said("7", 0.25)]
    assert masses(drawn) == pytest.approx([0.2, 0.0, 0.1, 0.25])
    assert [(round(weight, 6), members) for weight, members in ranked(drawn, masses(drawn) or [], MATHS)] == [
        (0.3, [0, 1, 2]),
        (0.25, [3]),
    ]


def test_long_responses_are_not_weighed() -> None:
    assert masses([said("5", 1e-9), said("7", 1e-3)]) is None
    assert masses([]) is None


def test_divided_is_who_is_sure_of_two_answers() -> None:
    assert divided([said("5", 0.4), said("7", 0.2)], MATHS) == "divided: probability 0.40 for '5', 0.20 for '7'"
    assert divided([said("5", 0.4), *(said(str(n), 0.01, n) for n in range(6, 12))], MATHS) is None
    assert divided([said("5", 0.4)] * 2, MATHS) is None
    assert divided([said(None, 0.4), said("7", 0.3)], MATHS) is None
    assert divided([said("5", 1e-9), said("7", 1e-9)], MATHS) is None, "what says nothing divides nobody"


def test_all_responses_decide_and_one_that_gives_the_answer_is_returned() -> None:
    own = [said("5", 0.3), said("8", 0.001), said("9", 0.001), said("9", 0.001)]
    memory = [said("8", 0.02), said("5", 0.8), said("6", 0.02), said("5", 0.8)]
    decided = together(own, memory, MATHS)
    assert [(one.name, one.number) for one in decided] == [
        ("zero_shot", None),
        ("memory", None),
        ("zero_shot", 0),  # neither of this pair gives it
        ("memory", None),
    ]
    assert decided[0].why == "all responses together: weight 1.10 of 1.14"
    alone = together(own, [], MATHS)
    assert [(one.name, one.number) for one in alone] == [("no_memory", n) for n in (None, 0, 0, 0)]
    nobody = together([said(None, 0.5)] * 3, [said(None, 0.5)] * 3, MATHS)
    assert {one.name for one in nobody} == {"zero_shot"}


def test_a_memory_does_not_decide_where_the_model_is_divided() -> None:
    own = [said("5", 0.3), said("5", 0.3), said("7", 0.2), said("7", 0.2)]
    memory = [said("7", 0.9)] * 4
    *sampled, greedy = together(own, memory, MATHS)
    assert [(one.name, one.number) for one in (*sampled, greedy)] == [
        ("zero_shot", None),
        ("zero_shot", None),
        ("zero_shot", 0),
        ("zero_shot", 0),
    ]
    assert greedy.why.startswith("divided: probability 0.30 for '5', 0.20 for '7'; the vote without memory decides: ")


def test_a_tie_of_a_divided_model_is_settled_as_votes_settle_it() -> None:
    own = [said("495", 0.3), said("131", 0.2), said("495", 0.3), said("131", 0.2), said("8", 0.1)]
    decided = together(own, [], MATHS)
    assert {own[n if one.number is None else one.number].answer for n, one in enumerate(decided)} == {"131"}


@given(st.lists(st.tuples(st.sampled_from(["5", "7", "9", None]), st.floats(1e-6, 0.9)), min_size=2, max_size=9))
def test_whatever_is_drawn_everybody_is_told_the_same(drawn: list[tuple[str | None, float]]) -> None:
    own = [said(answer, probability, number) for number, (answer, probability) in enumerate(drawn)]
    memory = own[::-1]
    told = set()
    for number, one in enumerate(together(own, memory, MATHS)):
        taken = memory if one.takes_memory else own
        told.add(taken[number if one.number is None else one.number].answer)
    voters = {one.answer for one in (*own[:-1], *memory[:-1])}
    assert len(told) == 1 or voters == {None}
    assert told <= voters or voters == {None}


def evidence(own: list[Candidate]) -> Evidence:
    return Evidence("p", own, (), (), None, MATHS, together=True)


def test_labels_without_a_judge() -> None:
    sure = [said("5", 0.4), said("7", 0.01), said("7", 0.01, 1), said("8", 0.001)]
    for how in ("likeliest", "verified"):
        label = choose(how, evidence(sure))
        assert (label.answer, label.trusted, label.trace) == ("5", True, "Answer: 5"), "the vote would say 7"
        torn = choose(how, evidence([said("5", 0.4), said("7", 0.3)]))
        assert torn.answer is None and torn.why.startswith("divided")
        plain = choose(how, evidence([said("5", 1e-6), said("7", 1e-6), said("7", 1e-6, 1)]))
        assert (plain.answer, plain.trusted) == ("7", False)
    assert choose("zero-shot", evidence(sure)).answer == "7", "the paper's label stays the plain vote"
    assert choose("verified", replace(evidence(sure), together=False)).answer == "7", "only where likelihood routes"


def test_a_server_that_streams_still_compares_pairs() -> None:
    zero, memory = said("5", 0.1), said("7", 0.9)
    arms = [
        candidates([one.rollout], [one.answer], voters, MATHS) for one, voters in ((zero, ["5", "6"]), (memory, ["7"]))
    ]
    assert (
        route("p", list(zip(*arms, strict=True)), Likelihood())[0].why == "vote share: 1.000 with memory, 0.500 without"
    )


def test_an_agent_without_a_judge(testbed: Backbone, engine: LocalEngine, tmp_path: Path) -> None:
    """Everybody is told one answer per problem; what it is divided over is not learned, and the record says so."""
    bank = open_bank(str(tmp_path / "bank.sqlite"))
    made = Agent(
        testbed,
        engine,
        bank,
        verifier=Likelihood(),
        sampling=Sampling(samples=8, max_tokens=48),
        learning=LearnConfig(steps=2, admit=0.0),
    )
    problems = [one for one in stream(60, seed=3) if one.family in ("prec", "add", "max")][:16]
    answered = made.answer(problems)
    torn = {one.problem.id for one in answered if divided(one.zero_shot.candidates()[:-1], MATHS)}
    assert 0 < len(torn) < len(problems)
    results = made.learn(answered)
    made.remember(answered, results)
    for one, result in zip(answered, results, strict=True):
        assert (result.memory is None) >= (one.problem.id in torn)
        assert result.learned.reason.startswith("divided") == (one.problem.id in torn)
    again: list[Answered] = made.answer(problems)
    assert any(one.memory is not None for one in again)
    for one in again:
        assert one.answers == (one.greedy_answer,), "an answer that all responses chose is told once, not as a sample"
        assert one.greedy in (*one.zero_shot.samples, one.zero_shot.greedy, *(one.memory or one.zero_shot).samples,
                              (one.memory or one.zero_shot).greedy)  # fmt: skip
        if one.problem.id in torn:
            assert one.greedy_answer == one.zero_shot.vote.answer, "its memory does not decide"


def test_responses_that_say_nothing() -> None:
    nothing = Responses.none(4).candidates()
    assert [one.name for one in together(nothing, nothing, MATHS)] == ["zero_shot"] * 5


# -- methods and tables ---------------------------------------------------------------------------------------------


def world(testbed: Backbone, engine: LocalEngine, folder: Path, **more: Any) -> World:
    sampling, learning = Sampling(samples=8, max_tokens=48), LearnConfig(steps=2, admit=0.0)
    return World(testbed, engine, 3, folder, sampling=sampling, learning=learning, **more)


def test_the_control_chooses_from_as_many_samples_without_a_memory(
    testbed: Backbone, engine: LocalEngine, tmp_path: Path
) -> None:
    problems = [one.blind() for one in stream(12, seed=3)]
    for n in (1, 8):
        given = world(testbed, engine, tmp_path, options={"n": n})
        drawn = given.rollouts(problems, [n] * len(problems))
        for samples, reply in zip(drawn, Likeliest(given).answer(problems), strict=True):
            own = Responses.of(samples, samples[0], MATHS)
            assert reply.answers == (reply.greedy_answer,)
            assert reply.greedy_answer == held(own.candidates()[:-1], [], MATHS)[0]


def test_memories_by_likelihood_give_one_answer_and_other_methods_their_samples(
    testbed: Backbone, engine: LocalEngine, tmp_path: Path
) -> None:
    """Also under the verifier likelihood: the paper's method routes pair by pair, what is not routed is a sample."""
    problems = [one.blind() for one in stream(8, seed=3)]
    counts = {}
    for name in ("elm", "elm-vote", "elm-likeliest", "elm-paper", "elm-unrouted"):
        (tmp_path / name).mkdir()
        method = registry.get("method", name)(world(testbed, engine, tmp_path / name, verifier=Likelihood()))
        replies = method.answer(problems)
        method.learn(problems, replies)
        counts[name] = {len(reply.answers) for reply in (*replies, *method.answer(problems))}
        method.close()
    assert counts == {"elm": {1}, "elm-vote": {8}, "elm-likeliest": {1}, "elm-paper": {8}, "elm-unrouted": {8}}


def test_a_run_has_the_same_selection_beside_it(testbed: Backbone, engine: LocalEngine, tmp_path: Path) -> None:
    """The control ``verified`` sees as many samples as routing, and no memory."""
    bank = open_bank(str(tmp_path / "bank.sqlite"))
    made = Agent(testbed, engine, bank, verifier=Likelihood(), sampling=Sampling(samples=8, max_tokens=48))
    answered = made.answer(stream(6, seed=3))
    nothing = [Remembered(Learned(one.problem, None, False, "", None), None) for one in answered]
    for one, arms in zip(answered, Beside(made, ["verified"]).answer(answered, nothing), strict=True):
        assert arms["verified"].answers == one.answers, "no memory yet: the same eight samples"


def test_tables_say_where_an_answer_was_chosen_from_many(tmp_path: Path) -> None:
    asked = {"settings": {"sampling": {"samples": 3}}}
    write(tmp_path, [cell("zero-shot", [row("a", "rwr")], **asked), cell("likeliest", [row("a", "r")], **asked)])
    table = rewrite(tmp_path)
    assert {one["method"]: one["single"] for one in table["rows"]} == {"zero-shot": False, "likeliest": True}
    assert "| likeliest (one answer) |" in as_text(table) and "| zero-shot | " in as_text(table)
    page = (tmp_path / "report.html").read_text()
    assert "§ give one answer, chosen from many (likeliest)" in page


def test_a_run_says_where_an_answer_was_chosen_from_many() -> None:
    rows = [{"zero_shot": arm("rwr"), "memory": None, "routed": arm("r")}]
    assert labels_of({"single": summarise(rows, resamples=10)["single"]})["routed"] == "routed (Tacit), one answer"
    rows = [{"zero_shot": arm("rwr"), "memory": None, "routed": arm("rrr")}]
    assert labels_of({"single": summarise(rows, resamples=10)["single"]})["routed"] == "routed (Tacit)"
