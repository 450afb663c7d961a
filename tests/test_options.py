"""Options of a multiple-choice problem: written into its text, and found there however people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import DataError
from tacit.tasks.options import letters, options, split, with_options

OPTIONS = ["a red kite", "two boats", "none"]


@pytest.mark.parametrize(
    "written",
    [
        "A) a red kite\nB) two boats\nC) none",
        "A. a red kite\nB. two boats\nC. none",
        "(A) a red kite\n(B) two boats\n(C) none",
        "A: a red kite\nB: two boats\nC: none",
        "a) a red kite\nb) two boats\nc) none",
        "1) a red kite\n2) two boats\n3) none",
        "1. a red kite\n2. two boats\n3. none",
        "  A)a red kite\n  B)two boats\n  C)none",
        "A) a red\n   kite\n\nB) two boats\n\nC) none",
        "(A) a red kite (B) two boats (C) none",
        "A) a red kite  B) two boats  C) none",
    ],
)
def test_options_are_found_however_they_are_written(written: str) -> None:
    assert split(f"What flies?\n{written}") == ("What flies?", OPTIONS)
    assert options(f"What flies?\n\n{written}\n\nAnswer with a letter.") == OPTIONS
    assert split(f"What flies?\n{written}\nAnswer with a letter.")[0] == "What flies?\nAnswer with a letter."


def test_options_in_the_questions_line() -> None:
    assert split("What flies? (A) a red kite (B) two boats (C) none") == ("What flies?", OPTIONS)


@pytest.mark.parametrize(
    "text",
    [
        "compute 3 + 4",
        "Take vitamin A. B. Franklin did. C. Darwin did not.",
        "Points (A) and (C) lie on a line.",
        "Find f(A) and g(B).",
        "A) is the only label",
        "B) no start\nC) no start",
        "$\\textbf{(A)}\\ 3 \\qquad \\textbf{(B)}\\ 4$",
        "1.5 litres of water\n2.5 litres of milk",
    ],
)
def test_what_is_no_list_of_options_stays_as_it_is(text: str) -> None:
    assert split(text) == (text, [])


def test_the_last_list_is_the_options() -> None:
    question = "Which holds?\n1. Cats bark.\n2. Dogs bark.\nA. is a letter"
    assert split(with_options(question, ["only 1", "only 2"])) == (question, ["only 1", "only 2"])


lines = st.text().map(lambda text: " ".join(text.split()))


@settings(deadline=None)
@given(st.text().map(str.rstrip), st.lists(lines, min_size=2, max_size=26))
def test_what_was_written_in_is_found_again(question: str, given_options: list[str]) -> None:
    assert split(with_options(question, given_options)) == (question, given_options)


@settings(deadline=None)
@given(st.text(alphabet="AB12ab().: \nx"))
def test_any_text_is_read_and_keeps_its_words(text: str) -> None:
    question, found = split(text)
    assert len(found) != 1
    assert found or question == text
    assert sum(part.count("x") for part in (question, *found)) == text.count("x")


def test_letters() -> None:
    assert letters(4) == "ABCD"
    for count in (0, 1, 27):
        with pytest.raises(DataError, match=f"2 to 26 options, not {count}"):
            letters(count)
