"""The task ``text``: short free answers, with case, articles, accents and punctuation folded."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tacit import registry
from tacit.errors import DataError
from tacit.tasks.text import fold

TEXT = registry.get("task", "text")()


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("The capital is an old city.\nThe answer is Paris.", "Paris"),
        ("Answer: the Nile", "the Nile"),
        ("\\boxed{blue}", "blue"),
        ("Final Answer: **Marie Curie**", "Marie Curie"),
        ("Paris", "Paris"),
        ('"Paris."', "Paris"),
        ("First we sort them.\n\nabcde", "abcde"),
        ("Let us see. It was Marie Curie.\nI hope this is helpful!", "It was Marie Curie"),
        ("Yes, because 5 is larger than 3.", "Yes"),
        ("The answer is no, since it rained", "no"),
        ("No one", "No one"),
        ("<think>Rome? no.</think>Paris", "Paris"),
        ("<think>Rome?", None),
        ("I don't know.", None),
        ("no answer", None),
        (
            "Well, this is a difficult matter that many people have thought about for years without any result at all",
            None,
        ),
        ("I hope this helps!", None),
        ("so we write \\boxed{42", None),
        ("put your final answer within \\boxed{answer}.", None),
        ("The answer is Mr. Smith. I hope this answer is helpful!", "Mr. Smith"),
        ("Answer: the Nile\nQuestion: Which is the longest?\nAnswer: the Amazon", "the Nile"),
        ("", None),
    ],
)
def test_what_is_found(response: str, found: str | None) -> None:
    assert TEXT.extract(response) == found


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("The capital of France is London.", "London"),
        ("The capital city is **Paris**.", "Paris"),
        ("France's capital: Paris", "Paris"),
        ("It's Paris.", "Paris"),
        ("It is Paris.", "Paris"),
        ("Paris is the answer.", "Paris"),
        ("The capital of France is Paris, where I live.", "Paris"),
        ("The answer is: the capital of France is Paris.", "Paris"),
        ("The capital of France is a city.\nIt is called so since 987.", "called so since 987"),
        ("The capital of Spain is Madrid.", "The capital of Spain is Madrid"),
        ("France is in Europe.", "France is in Europe"),
        ("The capital of France is the capital of France.", None),
        ("France is the capital of France.", None),
    ],
)
def test_a_sentence_that_says_the_question_again_says_the_rest(response: str, found: str | None) -> None:
    assert TEXT.on("Think well. What is the capital city of France?").extract(response) == found


@pytest.mark.parametrize(
    ("question", "response", "found"),
    [
        ("Who is a knight, Zoey or Riley?", "Zoey is a knight.", "Zoey is a knight"),
        ("Which is the number 4, even or odd?", "The number 4 is even.", "The number 4 is even"),
        ("Which of these is a fruit: pear, stone?", "Pear is a fruit.", "Pear is a fruit"),
    ],
)
def test_a_question_may_name_its_answer(question: str, response: str, found: str) -> None:
    assert TEXT.on(question).extract(response) == found


@pytest.mark.parametrize("question", ["The capital of France.", "Is Paris the capital of France?", ""])
def test_without_a_question_for_a_thing_a_sentence_stays_whole(question: str) -> None:
    said = "The capital of France is an old city"
    assert TEXT.on(question).extract(said) == said


def test_names_of_a_question_are_no_repetition_of_it() -> None:
    puzzle = TEXT.on("Zoey says that Riley is a knave. Who is a knight and who is a knave?")
    for said in ("Zoey is a knight, and Riley is a knave", "Zoey and Riley are liars", "Zoey: knight, Riley: knave"):
        assert puzzle.extract(said) == said


@pytest.mark.parametrize(
    "mark", ['""', "''", "“”", "‘’", "„“", "«»", "‹›", "``", ("**", "**"), ('**"', '"**'), ("``", "''")]
)
@pytest.mark.parametrize("lead", ["The past tense of {} is ", "The correct word is ", "simply ", "It is called "])
@pytest.mark.parametrize("end", ["", ".", "{}", "{}.", ".{}"])
def test_what_is_quoted_at_the_end_is_the_answer_wherever_it_was_cut(mark: str, lead: str, end: str) -> None:
    opening, closing = mark
    response = lead.format(f"{opening}ask{closing}") + opening + "asked" + end.format(closing)
    assert TEXT.extract(response) == "asked"
    assert TEXT.on('What is the past tense of "ask"?').extract(response) == "asked"


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ('You write "asked', "asked"),
        ('Answer: the correct word is "asked', "asked"),
        ("The correct word is 'don't", "don't"),
        ('It is "New York', "New York"),
        ('It is not "asked', 'It is not "asked'),
        ('"Hamlet" and "Othello', 'Hamlet" and "Othello'),
        ('There are three in "strawberry"', 'There are three in "strawberry'),
        ('There are three in "straw', 'There are three in "straw'),
        ("the students' book", "the students' book"),
        ("rock 'n' roll", "rock 'n' roll"),
        ("the music of the '90s", "the music of the '90s"),
        ("He is 6' 2\" tall", "He is 6' 2\" tall"),
        ("a 5 * 4 grid", "a 5 * 4 grid"),
    ],
)
def test_only_what_is_named_is_taken_out_of_quotation_marks(response: str, found: str) -> None:
    assert TEXT.extract(response) == found


@pytest.mark.parametrize(
    "response",
    [
        "We find it step by step.\nFirst, let us look at the map of",
        "It has been so for long.\n\nNow",
        "The capital is,",
        "As an AI language model, I cannot answer.",
        "I'm sorry, but I can't help with that.",
    ],
)
def test_what_was_cut_or_refused_is_no_answer(response: str) -> None:
    assert TEXT.extract(response) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The Nile", "nile.", True),
        ("U.S.", "US", True),
        ("Café", "cafe", True),
        ("Straße", "STRASSE", True),
        ("ＰＡＲＩＳ", "Paris", True),
        ("twenty-one", "Twenty One", True),
        ("rock & roll", "Rock and Roll", True),
        ("“Hamlet”", "Hamlet", True),
        ("don’t", "don't", True),
        ("(Paris)", "Paris", True),
        ("5.0", "5", True),
        ("1,000", "1000", True),
        ("C++", "C", False),
        ("C#", "C", False),
        ("3.5", "35", False),
        ("-5", "5", False),
        ("vitamin A", "vitamin", False),
        ("(()", "())", False),
        ("[]", "()", False),
        ("Paris", "Lyon", False),
        ("がく", "かく", False),
        ("A", "B", False),
    ],
)
def test_what_is_the_same(one: str, other: str, same: bool) -> None:
    assert TEXT.same(one, other) is TEXT.same(other, one) is same


def test_a_vote_counts_words() -> None:
    answers = [
        TEXT.extract(one) for one in ("The answer is the Nile.", "NILE", "The answer is the Rhine", "I don't know")
    ]
    assert TEXT.vote(answers).why == "2 of 4 say NILE; next: 1 says the Rhine; 1 gave no answer"


def test_a_reference_answer_as_data_write_it() -> None:
    assert TEXT.right(["nile", "Rhine", None], TEXT.gold("The Nile")) == [True, False, False]
    with pytest.raises(DataError, match="not read as an answer in words"):
        TEXT.gold(" ")


@given(st.text(max_size=60))
@example("!?")
@example("ẛ̣")
def test_folding_is_settled(text: str) -> None:
    assert TEXT.same(text, text)
    assert TEXT.same(text, text.upper()) or not text.isascii()


@given(st.one_of(st.text(max_size=300), st.text(st.sampled_from("aA. \n\"'*$()-"), max_size=40)))
def test_no_response_breaks_it(text: str) -> None:
    found = TEXT.extract(text)
    assert found is None or fold(found)


@given(st.lists(st.one_of(st.none(), st.text(st.sampled_from("aA .the"), max_size=8)), max_size=6), st.randoms())
def test_groups_do_not_depend_on_the_order(answers: list[str | None], random: object) -> None:
    groups = {frozenset(answers[i] for i in group) for group in TEXT.group(answers)}
    random.shuffle(answers)  # type: ignore[attr-defined]
    assert {frozenset(answers[i] for i in group) for group in TEXT.group(answers)} == groups
