"""What baselines read out of responses: reviews, strategies and openings."""

from __future__ import annotations

from collections.abc import Sequence

from said import responses
from tacit.methods import first_line
from tacit.methods.reasoning_bank import ITEMS, Item, opening, parse
from tacit.methods.reflection import reworked


def test_a_review_is_read() -> None:
    review = (
        "What went right: all.\nWhat went wrong: signs.\n**Lesson:** Mind the sign.\n\n## Solution: 2 + 2\n= \\boxed{4}"
    )
    assert reworked(review) == "Lesson: Mind the sign.\n\n2 + 2\n= \\boxed{4}"
    assert reworked("Solution:\n\\boxed{4}") == "\\boxed{4}"
    assert reworked("Lesson: none of the solutions is right") is None


def test_a_strategy_is_the_opening_that_tells_successes_from_failures() -> None:
    slowly, quickly = "slowly, from left to right: 3 + 4 = 7; Answer: 7", "quickly, from left to right: 3; Answer: {}"
    given = responses(
        slowly, quickly.format(7), slowly, *(quickly.format(n) for n in (1, 2, 3)), "slowly, by halves: 9"
    )
    assert opening(given) == (Item("", "", "slowly, from left to right:"),)
    assert opening(responses(slowly, slowly)) == (Item("", "", "slowly, from left to right:"),)
    assert opening(responses("7; Answer: 7", "8")) == ()
    assert opening(responses("so Answer: 7", "so Answer: 7", "so Answer: 8", "so Answer: 9")) == ()
    assert opening(responses("so 7 Answer: 7", "so 7 Answer: 7", "so 8 Answer: 8")) == ()
    assert opening(responses("no", "idea")) == ()


def test_the_best_first_line_is_common_to_two_problems_and_tells_the_majority_from_the_rest() -> None:
    slowly, quickly = ("slowly, from left", " to right:\n"), ("quickly, from", " left to right:\n")
    assert first_line.head("slowly, by halves:\n 3 + 4") == ("slowly,", " by", " halves:\n")
    assert first_line.head("The capital of France is Paris.") == ("The", " capital", " of", " France", " is")
    assert first_line.head("Paris") == first_line.head("7") == first_line.head("") == ()
    assert len(first_line.head("well " * 99)) == first_line.WORDS

    def kept(agreeing: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]] = ()) -> first_line.Openings:
        return first_line.Openings(tuple(agreeing), tuple(others))

    one, two = kept([slowly] * 3, [quickly]), kept([slowly, quickly], [quickly] * 2)
    assert first_line.best([one, two]) == "slowly, from left to right:\n"
    assert first_line.best([one]) == first_line.best([]) == ""  # one problem's own words may be its answer
    assert first_line.best([kept([slowly], [slowly])] * 2) == ""  # it tells nothing
    assert first_line.best(
        [kept([("The", " capital", " of", " France")]), kept([("The", " capital", " of", " Peru")])]
    ) == ("The capital of")


def test_items_are_read_from_a_review() -> None:
    item = "Title: Carry\nDescription: When digits\nadd up.\nContent: Write the carry down."
    expected = Item("Carry", "When digits add up.", "Write the carry down.")
    assert parse(item) == (expected,) and str(expected) == "Carry. When digits add up. Write the carry down."
    fancy = (
        "# Memory Item 1\n## **Title:** Carry\n**Description:** When digits add up.\n**Content:** Write the carry down."
    )
    assert parse("Some thoughts.\n\n" + "\n\n".join([fancy, "2. " + item] * 3)) == (expected,) * ITEMS
    assert parse("Title: only that") == ()
