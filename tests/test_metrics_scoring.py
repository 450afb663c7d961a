"""The grader: marks by equivalence, arms of one shape, nothing where there is no gold answer."""

from __future__ import annotations

from tacit.experiments import scoring
from tacit.experiments.scoring import Grader
from tacit.problem import Problem
from tacit.tasks.maths import Maths


def test_marks_are_by_equivalence_and_no_answer_is_wrong() -> None:
    assert scoring.score(["0.5", r"\frac{1}{2}", None, "2", "0.5"], "1/2") == [True, True, False, False, True]
    assert scoring.score([], "1/2") == []


def test_an_arm_has_votes_marks_and_whatever_else_it_is_given() -> None:
    grader = Grader(Problem("p1", "one half?", gold="1/2", family="halves"))
    arm = grader.arm(["0.5", "1/2", "3", None], "3", tokens=50, memory_id="m", similarity=0.9)
    assert arm["correct"] == 0.5 and arm["rights"] == [True, True, False, False]
    assert arm["answer"] in ("0.5", "1/2") and arm["majority_correct"] is True
    assert (arm["greedy_answer"], arm["greedy_correct"]) == ("3", False)
    assert (arm["tokens"], arm["memory_id"], arm["similarity"]) == (50, "m", 0.9)
    assert arm["answers"] == ["0.5", "1/2", "3", None]


def test_without_gold_there_are_answers_but_no_marks() -> None:
    grader = Grader(Problem("p1", "one half?"))
    arm = grader.arm(["0.5", "0.5"], None, tokens=7)
    assert arm["answer"] == "0.5"
    assert [arm[key] for key in ("correct", "rights", "greedy_correct", "majority_correct")] == [None] * 4
    assert grader.majority(["0.5"], tokens=3) == {"answer": "0.5", "correct": None, "n": 1, "tokens": 3}
    assert grader.right("0.5") is None


def test_nobody_answered() -> None:
    grader = Grader(Problem("p1", "?", gold="4"))
    arm = grader.arm([None, None], None, tokens=9)
    assert (arm["answer"], arm["correct"], arm["greedy_correct"], arm["majority_correct"]) == (None, 0.0, False, False)
    assert grader.majority([], tokens=0) == {"answer": None, "correct": 0, "n": 0, "tokens": 0}


def test_majority_and_head() -> None:
    grader = Grader(Problem("p1", "2 + 2?", gold="4", family="add"))
    assert grader.majority(["4", "5", "4.0"], tokens=90) == {"answer": "4", "correct": 1, "n": 3, "tokens": 90}
    head = {"id": "p1", "position": 3, "family": "add", "problem": "2 + 2?", "gold": "4"}
    assert grader.head(3) == head


def test_equal_answers_are_compared_once() -> None:
    asked: list[str] = []

    class Counting(Maths):
        def same(self, one: str, other: str) -> bool:
            asked.append(one)
            return one == other

    grader = Grader(Problem("p1", "2 + 2?", gold="4"), Counting())
    for _ in range(3):
        grader.arm(["4", "5", "4", "5"], "4", tokens=1)
    assert sorted(asked) == ["4", "5"]
