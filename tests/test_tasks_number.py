"""The task ``number``: a stated number, else the last of a response; units aside, compared by exact value."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tacit import registry
from tacit.errors import DataError
from tacit.tasks.number import spelled, value
from tacit.tasks.stated import TAIL

NUMBER = registry.get("task", "number")()


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("Left: 1+2\n\n✅ Final Answer: **73**", "73"),
        ("Altogether that makes $36.00.\n#### 36", "36"),
        ("<think>maybe \\boxed{3}? no</think>\nThe answer is 5.", "5"),
        ("<think>maybe \\boxed{3}? no, 5", None),
        ("The answer is $\\frac{1}{2}$, since 1+1=2.", "0.5"),
        ("The answer is \\(\\dfrac{22}{7}\\)", "22/7"),
        ("所以最终答案为$42$。", "42"),
        ("答えは 42 です。", "42"),
        ("উত্তর: ৪২", "42"),
        ("## Final Answer\n**42**", "42"),
        ("The answer is\n```\n42\n```", "42"),
        ("#### $18", "18"),
        ("\\boxed 5", "5"),
        ("The answer is 1 000.", "1000"),
        ("The answer is 12, 000.", "12000"),
        ("The answer is −5.", "-5"),
        ("The answer is €5.", "5"),
        ("Answer: 5 (five)", "5"),
        ("Answer: 5 apples. Let me know if you have questions!", "5"),
        ("The answer is correct. Answer: 7. Is the answer correct?", "7"),
        ("The final answer should be 8.", "8"),
        ("Solution: x = 8", "8"),
        ('{"answer": "8"}', "8"),
        ("the answer is 42<|im_end|>", "42"),
        ("Answer: 42 %", "42"),
        ("The answer is 3/4 cup, not 1/2.", "0.75"),
        ("So the answer is 15.\n\n**Note:** the answer is in dollars.", "15"),
        ("The answer is $x$ = 42", "42"),
        ("The answer is **42** apples", "42"),
        ("That is 60 - 15 = 45 dollars", "45"),
        ("It cost 1.2 million dollars", "1200000"),
        ("about 1.2×10³ of them", "1200"),
        ("4½ cups", "4.5"),
        ("1. We have 12.\n2. We add 30, which makes 42.\n3. Done", "42"),
        ("In step 3 we find twelve", None),
        ("So he has a total of 3 ×", None),
        ("The cups sold are 12 -", None),
        ("Mia pays $1,200 x", None),
        ("so $12 + 5 =", None),
        ("We get 3 \\times", None),
        ("1. Begin with 3.\n2. 4 apples and more are 10 apples.\n3.", "10"),
        ("It takes 24 steps:\n\n1.", "24"),
        ("So the total is\n\n3.", "3"),
        ("Total = 24 (6 rows of 4)", "24"),
        ("It is 24 eggs (6 boxes of 4).", "24"),
        ("f(24)", "24"),
        ("We ordered a GPT-4 and an H2O", None),
        ("The answer is between 3 and 5.", None),
        ("Answer: 2024-05-01", None),
        ("The answer is 5 - 3", None),
        ("\\boxed{x=5 \\text{ or } x = 6}", None),
        ("so we write \\boxed{42", None),
        ("put your final answer within \\boxed{answer}.", None),
        ("It is 10^10^10", None),
        ("The answer: eight", "8"),
        ("The answer is twenty-one apples.", "21"),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_what_is_found(response: str, found: str | None) -> None:
    assert NUMBER.extract(response) == found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.5", "1/2", True),
        (".50", "1/2", True),
        ("1,234", "1234", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("$1,234.50", "1234.5", True),
        ("0.333", "1/3", False),
        ("-2 1/3", "-7/3", True),
        ("１２", "12", True),
        ("3,5", "3.5", False),
        ("10-20", "30-40", False),
        ("12/25/2024", "12/50/1012", False),
    ],
)
def test_what_is_the_same(one: str, other: str, same: bool) -> None:
    assert NUMBER.same(one, other) is NUMBER.same(other, one) is same


def test_a_vote_counts_values() -> None:
    responses = ["It is 0.50.", "The answer is 1/2", "so 50 of them", "no idea"]
    answers = [NUMBER.extract(response) for response in responses]
    assert NUMBER.vote(answers).why == "2 of 4 say 0.5; next: 1 says 50; 1 gave no answer"


def test_a_reference_answer_as_data_write_it() -> None:
    assert NUMBER.gold("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 1,072") == "1072"
    assert [NUMBER.gold(one) for one in ("72", "$18", "3/4", "36 apples")] == ["72", "18", "0.75", "36"]
    for written in ("blue", "", "5 or 6"):
        with pytest.raises(DataError, match="not read as a number"):
            NUMBER.gold(written)
    assert NUMBER.right(["1/2", "2", None], NUMBER.gold("0.5")) == [True, False, False]


@given(st.fractions())
@example(Fraction(-1, 8))
@example(Fraction(1, 3 * 10**9))
def test_spelling_keeps_the_value(number: Fraction) -> None:
    assert value(spelled(number)) == number
    assert NUMBER.extract(f"It is {spelled(number)} cm.") == spelled(number)


WRITTEN = st.text(st.sampled_from("0123456789.,-/ $%eE^{}\\x=()½⁵٣ ab\n"), max_size=40)


@given(WRITTEN, WRITTEN)
def test_any_two_texts_are_compared(one: str, other: str) -> None:
    assert NUMBER.same(one, one)
    assert NUMBER.same(one, other) is NUMBER.same(other, one)


@given(st.one_of(WRITTEN, st.text(max_size=200)))
@example("9" * 5000)
@example("1e999 " * 50)
@example("1," * 5000)
@example("the answer is 1/0")
def test_no_response_breaks_it(text: str) -> None:
    found = NUMBER.extract(text)
    assert found is None or NUMBER.extract(f"The answer is {found}") == found


@given(st.lists(st.one_of(st.none(), WRITTEN), max_size=6), st.randoms())
def test_groups_do_not_depend_on_the_order(answers: list[str | None], random: object) -> None:
    groups = {frozenset(answers[i] for i in group) for group in NUMBER.group(answers)}
    random.shuffle(answers)  # type: ignore[attr-defined]
    assert {frozenset(answers[i] for i in group) for group in NUMBER.group(answers)} == groups


LONG = [
    "7" * 10**6,
    "{" * 10**6,
    "1, " * 333_333,
    "answer is " * 100_000,
    "-" * 10**6,
    f"<answer>{'1,' * 500_000}</answer>",
]


@pytest.mark.parametrize("name", ["number", "choice", "text", "list", "set", "json"])
def test_a_megabyte_is_read_by_its_end_alone(name: str) -> None:
    task = registry.get("task", name)()
    for text in LONG:
        found = task.extract(text)
        assert found is None or len(found) <= 2 * TAIL
