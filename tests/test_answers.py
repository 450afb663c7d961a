"""Answers: extraction, canonical strings, grouping and votes. Only patterns start a worker here."""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tacit.answers import extraction
from tacit.answers import pool as answer_pool
from tacit.answers.equivalence import equivalent, group
from tacit.answers.extraction import extract
from tacit.answers.marks import is_nothing
from tacit.answers.normalisation import normalise
from tacit.errors import ConfigError
from tacit.tasks.base import Vote
from tacit.tasks.maths import MATHS

EXTRACTED = [
    (r"so \boxed{92}", "92"),
    (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"\fbox{a{b}c}", "a{b}c"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed {7}", "7"),
    (r"\\boxed{5}", "5"),
    (r"line \\ \boxed{5}", "5"),
    (r"\boxed{\text{(C)}} and the answer is 4", r"\text{(C)}"),
    (r"set { open \boxed{5}", "5"),
    (r"stray } then \boxed{5}", "5"),
    (r"\boxed{4} and then \boxed{5", "4"),
    (r"so \boxed{5", None),
    (r"the answer is \boxed{5", None),
    (r"Answer: \boxed{\frac{1}{2", None),
    (r"\boxed{}", None),
    (r"\boxed{ } Answer: 6", "6"),
    ("Answer: 92", "92"),
    ("carefully : 4 + 8 = 12 ; Answer: 92", "92"),
    ("Answer: 1\nno wait\nAnswer: 2", "2"),
    ("Answer: 1\nAnswer:", "1"),
    ("Answer:\n\n42", "42"),
    ("Answer: 9 2", "9 2"),
    ("answer = 12", "12"),
    ("the answer is 92", "92"),
    ("The answer is 3.14, because it is pi.", "3.14"),
    ("The answer is (C) because", "(C)"),
    ("The answer is therefore 7.", "7"),
    ("The answer is **73**.", "73"),
    ("The answers are 1 and 2.", "1 and 2"),
    (r"The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
    (r"the answer is: \(x=5\).", "x=5"),
    ("#### 1,234\n", "1,234"),
    ("**Answer:** (C)", "(C)"),
    ("**Final Answer**: 12", "12"),
    ("The answer is not 5", None),
    ("What is the answer? 5", None),
    ("it makes 12", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


def test_extract_by_pattern() -> None:
    assert extract("x: 3 then x: 4", r"x: (\d+)") == "4"
    assert extract("x3 x4", r"x\d") == "x4"
    assert extract(r"\boxed{9} x: 4", r"x: (\d+)") == "9"
    assert extract("the answer is 5", r"x: (\d+)") == "5"
    assert extract("nothing", r"x: (\d+)") is None
    with pytest.raises(ConfigError, match="not a regular expression"):
        extract("x", "(")


def test_a_pattern_that_backtracks_for_ever_is_cut_off() -> None:
    start = time.monotonic()
    assert extract("a" * 60 + "b", r"((a+)+)$") is None
    assert time.monotonic() - start < 10
    assert extract("x: 4", r"x: (\d+)") == "4"


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\"), max_size=8),
    lambda inner: st.lists(inner.map(lambda text: "{" + text + "}") | inner, max_size=3).map("".join),
    max_leaves=12,
)


@given(st.text(st.characters(exclude_characters="{}\\")), BALANCED, st.text(st.characters(exclude_characters="{}\\")))
def test_extract_finds_what_was_boxed(before: str, inside: str, after: str) -> None:
    text = f"{before}\\boxed{{{inside}}}{after}"
    # Marks that end a turn, a thought or an answer, which are drawn since they stand in the source.
    marks = (extraction._TAG, extraction._THOUGHT, extraction._TURN, extraction._QUESTION)
    assume(not any(mark.search(text) for mark in marks))
    if not is_nothing(inside.strip()):  # nothing, "...", "?"
        assert extract(text) == inside.strip()


@given(st.text())
def test_extract_takes_any_text(text: str) -> None:
    found = extract(text)
    assert found is None or found.strip()


HOSTILE_TEXTS = {
    "braces": "\\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    "boxes": "\\boxed{" * 10_000 + "1" + "}" * 10_000,
    "open boxes": "\\boxed{" * 100_000,
    "backslashes": "\\" * 100_000,
    "half boxes": "\\boxed " * 100_000,
    "digits": "Answer: " + "9" * 1_000_000,
    "cues": "the answer is " * 70_000,
    "empty cues": "answer: .\n" * 100_000,
    "hashes": "#" * 1_000_000,
    "stars": "answer:" + "*" * 1_000_000,
    "dollars": "the answer is " + "$" * 200_000,
    "brackets": "the answer is " + "\\(" * 100_000,
    "spaces": "answer is" + " " * 1_000_000,
    "null": "\0" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_extract_is_fast_on_hostile_text(name: str) -> None:
    start = time.monotonic()
    found = extract(HOSTILE_TEXTS[name])
    normalise(found or "")
    assert time.monotonic() - start < 2


NORMAL = [
    ("  12  ", "12"), ("$12$", "12"), (r"\(12\)", "12"), (r"\[12\]", "12"), ("12.", "12"), ("**73**", "73"),
    ("007", "7"), ("+5", "5"), ("-0", "0"), ("5.0", "5"), (".50", "0.5"), ("-.5", "-0.5"), ("−3", "-3"),
    ("10{,}000", "10000"), ("1,000", "1000"), (r"10,\!080", "10080"), (r"11,\! 111,\! 111", "11111111"),
    (r"1\,000", "1000"), ("1, 000", "1, 000"), ("(1,234)", "(1, 234)"), ("9 2", "9 2"), ("1,2", "1, 2"),
    (r"\$32,\!348", "32348 dollars"), ("$18.90", "18.90 dollars"), (r"90^\circ", r"90^\circ"),
    (r"90^{\circ}", r"90^\circ"), ("90°", r"90^\circ"),
    ("90 degrees", r"90^\circ"), (r"\cos 30^\circ", r"\cos30^\circ"), ("50%", "50%"),
    (r"50\%", "50%"), ("50 percent", "50%"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"), (r"\tfrac12", r"\frac{1}{2}"), (r"\frac 59", r"\frac{5}{9}"),
    (r"\frac{270}7", r"\frac{270}{7}"), (r"\frac{a}\pi", r"\frac{a}{\pi}"), (r"11\sqrt2", r"11\sqrt{2}"),
    (r"\sqrt[3]{2}", r"\sqrt[3]{2}"), (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \frac{\pi}{2})"),
    (r"\text{east}", "east"), ("East", "east"), ("New  York.", "new york"), (r"\mbox{ Evelyn }", "evelyn"),
    (r"\text{(C)}", "C"), ("(C)", "C"), ("C.", "C"), ("C)", "C"), ("(c)", "C"), ("Option C", "C"), ("c", "c"),
    ("(x)", "(x)"), (r"\boxed{\text{12}}", "12"), ("3,5, and 7", "3, 5, 7"), (r"2 \pi r", r"2\pi r"), ("π/2", r"\pi/2"),
    ("2**3", "2^3"), ("5 cm", "5 cm"),
    (r"864 \mbox{ inches}^2", "864 inches^2"), ("x - 1", "x-1"), ("$$", ""), ("...", ""),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "canonical"), NORMAL)
def test_normalise(answer: str, canonical: str) -> None:
    assert normalise(answer) == canonical


PIECES = (
    r"\frac \frac{1}{2} \sqrt \text{ \text{a} \left( \right) \, \! \\ \{ \} { } ( ) [ ] $ % ^\circ , . ; : = + - * **"
    r" 0 00 1 12 000 {,} x y pi e and or degrees percent (C)"
    r" C. a A \boxed{ \pm \cup \infty infinity ' \" ` _ ^ / ! & # é 😀 ½"
)
MATHS_TEXT = st.lists(st.sampled_from([" ", *PIECES.split()]), max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(MATHS_TEXT | st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@pytest.mark.parametrize("unit", ["\\text{", "{", "\\frac{1}{", "9", "\\", "**", "a and ", "\0", "\\pm ", "1,000,"])
@pytest.mark.parametrize("length", [1_900, 100_000])
def test_normalise_is_fast_on_hostile_text(unit: str, length: int) -> None:
    text = (unit * length)[:length]
    start = time.monotonic()
    once = normalise(text)
    assert time.monotonic() - start < 0.5
    assert normalise(once) == once


# ---------------------------------------------------------------- votes


def read(responses: list[str]) -> Vote:
    return MATHS.vote([extract(response) for response in responses])


def test_a_vote_on_integers_starts_no_worker() -> None:
    answer_pool.pool.close()
    responses = [f"1 + {n} ; Answer: {answer}" for n, answer in enumerate([92, 92, 14, 92, 15, 92, 14, 0])]
    result = read(responses)
    assert answer_pool.pool.pids() == []
    assert (result.answer, result.share, result.margin, result.votes, result.lead) == ("92", 0.5, 0.25, 4, 2)
    assert result.agrees == (True, True, False, True, False, True, False, False)
    assert result.answers == ("92", "92", "14", "92", "15", "92", "14", "0")
    assert result.why == "4 of 8 say 92; next: 2 say 14"
    assert not result.tied


def test_no_answer_cannot_win_but_counts() -> None:
    result = MATHS.vote([None, None, None, "", "no answer", "7"])
    assert (result.answer, result.votes, result.lead) == ("7", 1, 1)
    assert result.share == result.margin == pytest.approx(1 / 6)
    assert result.agrees == (False,) * 5 + (True,)
    assert result.why == "1 of 6 says 7; 5 gave no answer"


@pytest.mark.parametrize("responses", [[], ["hm"], ["hm", "", "no idea"]])
def test_a_vote_without_answers(responses: list[str]) -> None:
    result = read(responses)
    assert result.answer is None
    assert (result.share, result.margin, result.votes, result.lead, result.tied) == (0, 0, 0, 0, False)
    assert result.agrees == (False,) * len(responses)
    assert result.answers == (None,) * len(responses)
    assert result.why


def test_a_tie_has_a_winner_but_no_margin() -> None:
    result = MATHS.vote(["14", "7", "14", "7", None])
    assert (result.answer, result.margin, result.lead, result.tied) == ("7", 0, 0, True)
    assert result.agrees == (False, True, False, True, False)
    assert result.why == "a tie: 2 of 5 say 7 and 2 say 14; 1 gave no answer"


def test_equal_values_vote_together() -> None:
    result = MATHS.vote(["1/2", "0.5", r"\frac12", "3", "3"])
    assert (result.answer, result.votes, result.lead) == ("0.5", 3, 1)


def test_groups_do_not_chain_through_a_missing_unit() -> None:
    # 5 cm = 5 = 5 m, but 5 cm and 5 mm are different: "5" goes with the commoner of the two, in any order.
    assert group(["5 mm", "5", "5 cm", "5 cm"]) == [[1, 2, 3], [0]]
    assert group(["5", "5 cm", "5 mm", "5 cm"]) == [[0, 1, 3], [2]]
    assert group(["5", "5", "5 cm", "5 mm"]) == [[0, 1, 2], [3]]


ANSWERS = st.lists(
    st.sampled_from(
        ["1", "2", "1.0", "1/2", "0.5", "50%", "50", "5 cm", "5 mm", "5", "x=5", "y=5", "5, 6", "{6,5}", "(5,6)"]
    )
    | st.sampled_from(["C", "(C)", "c", "east", "East", "", None, "no answer"]),
    max_size=10,
)


@settings(deadline=None)
@given(ANSWERS, st.randoms(use_true_random=False))
def test_a_vote_does_not_depend_on_the_order(answers: list[str | None], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(answers)))
    random.shuffle(order)
    one, other = MATHS.vote(answers), MATHS.vote([answers[i] for i in order])
    for name in ("answer", "share", "margin", "votes", "lead", "why", "tied"):
        assert getattr(one, name) == getattr(other, name)
    assert other.agrees == tuple(one.agrees[i] for i in order)
    assert one.votes == sum(one.agrees)
    for mine, agrees in zip(answers, one.agrees, strict=True):
        if agrees:
            assert equivalent(mine, one.answer)


@given(ANSWERS)
def test_groups_are_disjoint_sorted_and_mutually_equivalent(answers: list[str | None]) -> None:
    groups = group(answers)
    sizes = [len(indices) for indices in groups]
    assert sizes == sorted(sizes, reverse=True)
    indices = [index for members in groups for index in members]
    assert len(indices) == len(set(indices))
    assert set(indices) == {i for i, answer in enumerate(answers) if answer not in (None, "", "no answer")}
    for members in groups:
        assert all(equivalent(answers[i], answers[j]) for i in members for j in members)


def test_right() -> None:
    assert MATHS.right(["1/2", None, "0.5", "2", "", "1/2"], r"\frac{1}{2}") == [True, False, True, False, False, True]
    assert MATHS.right([], "1") == []


BLIND = "import signal; from tacit.answers import worker; signal.setitimer = lambda *_: None; worker.main()"


def test_what_ends_past_its_limit_before_the_timer_sees_it_is_refused_and_costs_the_limit() -> None:
    pool = answer_pool.Pool([sys.executable, "-c", BLIND], lambda: dict(os.environ))
    try:
        reply = pool.run({"do": "search", "pattern": "a*b|c", "text": "a" * 3000 + "c"}, 0.001)
        assert (reply.status, reply.value, reply.seconds) == ("timeout", None, 0.001)
    finally:
        pool.close()
