"""The task ``choice``: the option that a response states, by letter or text; votes go by option."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit import Agent, Backbone, open_bank, registry
from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, DataError
from tacit.tasks import sources
from tacit.tasks.choice import Choice
from tacit.tasks.options import split, with_options

CAPITALS = ["London", "Paris", "New York", "York"]
PROBLEM = with_options("What is the capital of France?", CAPITALS)
LETTERS = Choice()
CAPITAL = LETTERS.on(PROBLEM)


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("B", "Paris"),
        ("Answer: B", "Paris"),
        ("Answer: (B)", "Paris"),
        ("**Answer:** B) Paris", "Paris"),
        ("Answer: B. 42", "Paris"),
        ("The best answer is\n\nC", "New York"),
        ("\\boxed{B}", "Paris"),
        ("\\boxed{\\textbf{(B)}\\ 12}", "Paris"),
        ("\\boxed{A. 42}", "London"),
        ("We need \\boxed{\\langle H\\rangle}.\n\n**Answer: D**", "York"),
        ("The answer is Paris.", "Paris"),
        ("the answer is: the city of paris, of course", "Paris"),
        ("The answer is New York", "New York"),
        ("The answer is York", "York"),
        ("The correct answer is option C.", "New York"),
        ("Looking at London first, option A is wrong, since ...\nSo it has to be\n(b)", "Paris"),
        ("B\n\nExplanation: Paris has been the capital since long ago.", "Paris"),
        ("I think that option B fits best, because it is in France.", "Paris"),
        ("<think>Answer: A</think>The answer is B", "Paris"),
        ("Answer: E", None),
        ("The answer is Paris or London", None),
        ("It cannot be Paris", None),
        ("So it has to be Paris", "Paris"),
        ("Both option A and option B are cities.", None),
        ("A city is a large place where people live.", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_what_is_found(response: str, found: str | None) -> None:
    assert CAPITAL.extract(response) == found


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("A) London\nB) Paris\nC) New York\nD) York", None),
        ("A) London\nB) Paris\nC) New York\nD) York\nB) Paris", "Paris"),
        ("What is the capital?\nA) London\nB) Paris\nC) New York\nD) York\n\nB", "Paris"),
        ("A) London\nB) Paris", None),  # cut
        ("A) London B) Paris C) New York D) York", None),
        ("London\nParis\nNew York\nYork", None),
        ("1. London\n2. Paris", None),
        ("A: London is large (she)\nB: Pears (he)\nC: Coins are lies", None),
        ("A) London - no\nB) Paris - yes\nC) New York - no\nD) York - no\n\nSo B.", "Paris"),
        ("A) London is incorrect, of course.\nB) Paris is correct.", "Paris"),
        ("We go on in steps.\n\n1. How to impress.\n\n2. Altering", None),
        ("1. The answer discusses shapes.\n2. It is an example of a", None),
        ("Step 1: Find the range\nStep 3: Determine what the", None),
        ("2", "Paris"),
        ("2. Paris", "Paris"),
        ("Option C is wrong. It is a hard question.", None),
        ("A) London is not the capital.", None),
        ("The answer is A and B", None),
        ("The answer is A, B", None),
        ("B) London", None),
        ("B) Paris, since it is in France", "Paris"),
        ("I would choose B.", "Paris"),
        ("Therefore, (B)", "Paris"),
    ],
)
def test_going_through_the_options_and_counting_steps_chooses_none(response: str, found: str | None) -> None:
    assert CAPITAL.extract(response) == found


def test_where_the_options_have_numbers_a_number_is_one() -> None:
    numbered = LETTERS.on("Which?\n1) red\n2) blue\n3) green")
    assert numbered.extract("2) It has the colour of the sky.") == "blue"
    assert numbered.extract("1) red\n2) blue\n3) green") is None


@pytest.mark.parametrize(
    ("response", "found"), [("Answer: (b)", "B"), ("**Answer:** B) Paris", "B"), ("It is so", None)]
)
def test_where_no_options_are_known_the_letter_is_the_answer(response: str, found: str | None) -> None:
    assert LETTERS.extract(response) == LETTERS.on("What is the capital?").extract(response) == found


def test_options_that_look_like_labels() -> None:
    numbers = LETTERS.on(with_options("How many?", ["3", "2", "1,000", "1/2"]))
    responses = ["2", "The answer is 2.", "Answer: B", "The answer is 1000", "The answer is 0.5"]
    assert [numbers.extract(one) for one in responses] == ["2", "2", "2", "1,000", "1/2"]
    germs = LETTERS.on(with_options("Which?", ["S. aureus", "E. coli", "A. baumannii"]))
    assert germs.extract("The answer is E. coli") == germs.extract("E. coli") == "E. coli"
    assert germs.extract("Answer: A") == "S. aureus"
    both = LETTERS.on(with_options("Which?", ["red", "blue", "A and B"]))
    assert both.extract("C) A and B") == both.extract("Answer: C") == "A and B"
    assert LETTERS.on("Which?\n1) red\n2) blue").extract("Answer: 2") == "blue"


def test_votes_go_by_option() -> None:
    answers = [CAPITAL.extract(one) for one in ("B", "The answer is Paris", "(B) Paris", "A", "who knows")]
    assert CAPITAL.vote(answers).why == "3 of 5 say Paris; next: 1 says London; 1 gave no answer"


def test_a_reference_answer_is_a_letter_or_an_option() -> None:
    assert [CAPITAL.gold(one) for one in ("B", "(B)", "paris", "B) Paris")] == ["Paris"] * 4
    assert CAPITAL.right(["Paris", "London", None], CAPITAL.gold("B")) == [True, False, False]
    assert LETTERS.gold("C") == "C"
    with pytest.raises(DataError, match="'Rome' is none of the options, which are: London, Paris"):
        CAPITAL.gold("Rome")


def test_a_stated_number_that_is_no_option_chooses_none() -> None:
    counts = LETTERS.on(with_options("How many?", ["5", "6"]))
    assert counts.extract("5 + 3 = 8; Answer: 10") is None
    assert [counts.extract(one) for one in ("5 + 1 = 6; Answer: 6", "Answer: B", "10 - 5\nAnswer: 5")] == [
        "6",
        "6",
        "5",
    ]


def test_each_response_may_see_another_order() -> None:
    task = registry.get("task", "choice")("shuffled")
    assert task.shown(PROBLEM, 0) == LETTERS.shown(PROBLEM, 5) == PROBLEM
    shown = [task.shown(PROBLEM, number) for number in range(1, 401)]
    assert shown == [Choice("shuffled").shown(PROBLEM, number) for number in range(1, 401)]
    assert all(sorted(split(text)[1]) == sorted(CAPITALS) for text in shown)
    firsts = Counter(split(text)[1][0] for text in shown)
    assert min(firsts.values()) > 60  # 100 each, were it exact
    # A model that always says A gives every option alike; one that knows gives one option whatever its letter.
    blind = [task.on(text).extract("Answer: A") for text in shown]
    assert Counter(blind) == firsts
    knowing = {task.on(text).extract(f"Answer: {'ABCD'[split(text)[1].index('Paris')]}") for text in shown}
    assert knowing == {"Paris"}
    assert task.shown("What is the capital of France?", 3) == "What is the capital of France?"


def test_an_agent_reads_each_response_by_the_order_that_it_saw(tmp_path: Path) -> None:
    words = Backbone.load("testbed:C", device="cpu")
    task = Choice("shuffled")
    made = Agent(
        words,
        LocalEngine(words),
        open_bank(str(tmp_path / "bank.sqlite")),
        sampling=Sampling(samples=4),
        learning=LearnConfig(steps=2, rollouts=4, min_votes=0, min_lead=0, admit=0.0, enough=2.0),
        recalling=RecallConfig(floor=-1.0),
        task=task,
    )
    problems = sources.load("testbed:C:choice", seed=1, limit=6, model="testbed:C")
    answered = made.answer(problems)
    for one in answered:
        texts = [task.shown(one.problem.text, number) for number in range(4)]
        plain = made.engine.generate(
            [made.responder.sampled(one.problem, words.encode(text), "zero-shot", range(4)) for text in texts]
        )
        seen = [group[number].text for number, group in enumerate(plain)]
        assert [sample.text for sample in one.zero_shot.samples] == seen
        assert list(one.zero_shot.answers) == [task.on(text).extract(s) for text, s in zip(texts, seen, strict=True)]
        assert set(filter(None, one.zero_shot.answers)) <= set(split(one.problem.text)[1])
    learned = made.learn(answered)
    assert any(step["reward"] > 0 for one in learned for step in one.learned.steps)
    made.remember(answered, learned)
    again = made.answer(problems)
    assert any(one.memory is not None for one in again)


def test_another_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="use choice, or choice:shuffled"):
        Choice("mixed")


WORDS = st.text(st.sampled_from("AaBbCc().:, 12\n\\{}"), max_size=20)


@given(st.lists(WORDS, min_size=2, max_size=5), st.one_of(WORDS, st.text(max_size=60)))
def test_no_response_breaks_it(found: list[str], text: str) -> None:
    bound = LETTERS.on(with_options("Which?", found))
    answer = bound.extract(text)
    assert answer is None or answer in bound.options


@given(WORDS, WORDS)
def test_any_two_texts_are_compared(one: str, other: str) -> None:
    assert CAPITAL.same(one, one)
    assert CAPITAL.same(one, other) is CAPITAL.same(other, one)
