"""Without a judge: responses weighed by their probability, and models that are divided between two answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import stream
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import Rollout
from tacit.engines.local import LocalEngine
from tacit.experiments.report.comparison import as_text, rewrite
from tacit.judges.likelihood import divided, held, masses
from tacit.judges.verifiers import Candidate
from tacit.labels import Evidence, choose
from tacit.methods.base import World
from tacit.methods.best_of import Likeliest
from tacit.model.backbone import Backbone
from tacit.responses import Responses
from tacit.tasks.maths import MATHS
from test_comparison_report import cell, row, write


def said(answer: str | None, probability: float, number: int = 0) -> Candidate:
    """A response of one token; the number tells responses with one answer apart."""
    token = crc32(f"{answer} {number}".encode())
    return Candidate(Rollout((token,), (math.log(probability),), f"Answer: {answer}", "stop"), answer, 0.5)


def test_a_response_counts_its_probability_once() -> None:
    drawn = [said("5", 0.2), said("5", 0.2), said("5", 0.1, 1), said("7", 0.25)]
    assert masses(drawn) == pytest.approx([0.2, 0.0, 0.1, 0.25])
    assert [
        (round(weight, 6), members)
        for weight, members in MATHS.ranked([one.answer for one in drawn], masses(drawn) or [])
    ] == [
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


@given(st.lists(st.tuples(st.sampled_from(["5", "7", "9", None]), st.floats(1e-6, 0.9)), min_size=1, max_size=9))
def test_the_answer_held_likeliest_is_one_that_was_given(drawn: list[tuple[str | None, float]]) -> None:
    own = [said(answer, probability, number) for number, (answer, probability) in enumerate(drawn)]
    answer, vote = held(own, MATHS), MATHS.vote([one.answer for one in own]).answer
    assert answer in {one.answer for one in own}
    if divided(own, MATHS) or masses(own) is None:
        assert answer == vote
    elif answer != vote:  # what outvotes the vote is likelier
        weights = dict.fromkeys(["5", "7", "9"], 0.0)
        for one, weight in zip(own, masses(own) or [], strict=True):
            weights |= {one.answer: weights[one.answer] + weight} if one.answer else {}
        assert answer is None or vote is None or weights[answer] >= weights[vote]


def evidence(own: list[Candidate]) -> Evidence:
    return Evidence("p", own, (), (), None, MATHS)


def test_labels_without_a_judge() -> None:
    """Where no model says how far each response is to be believed, its own likelihood does."""
    sure = [said("5", 0.4), said("7", 0.01), said("7", 0.01, 1), said("8", 0.001)]
    for how in ("verified", "confident"):
        label = choose(how, evidence(sure))
        assert (label.answer, label.trusted) == ("5", True), "the vote would say 7"
        assert label.trace is sure[0].rollout
        alike = choose(how, evidence([said(str(n), 0.1, n) for n in (5, 5, 7, 8, 9, 6)]))
        assert (alike.answer, alike.trusted) == ("5", False), "none has half of the weight: the vote and its gate"
    assert choose("zero-shot", evidence(sure)).answer == "7", "the paper's label stays the plain vote"


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
            assert reply.greedy_answer == held(own.candidates()[:-1], MATHS)


def test_tables_say_where_an_answer_was_chosen_from_many(tmp_path: Path) -> None:
    asked = {"settings": {"sampling": {"samples": 3}}}
    write(tmp_path, [cell("zero-shot", [row("a", "rwr")], **asked), cell("likeliest", [row("a", "r")], **asked)])
    table = rewrite(tmp_path)
    assert {one["method"]: one["single"] for one in table["rows"]} == {"zero-shot": False, "likeliest": True}
    assert "| likeliest (one answer) |" in as_text(table) and "| zero-shot | " in as_text(table)
    page = (tmp_path / "report.html").read_text()
    assert "§ give one answer, chosen from many (likeliest)" in page
