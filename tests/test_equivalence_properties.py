"""Any way of writing a number is that number and no other; any two texts are compared both ways alike."""

from __future__ import annotations

import unicodedata
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tacit.answers import pool as answer_pool
from tacit.answers.equivalence import decide, equivalent
from tacit.answers.normalisation import normalise
from tacit.answers.number_words import in_figures, ordinal
from tacit.answers.numbers import joined, number
from tacit.answers.units import quantity

ZEROS = [char for char in map(chr, range(0x80, 0x1E960)) if unicodedata.decimal(char, -1) == 0]
"""Every script's zero but ours; its other digits follow."""
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(value: int, joint: str) -> str:
    """A whole number below a million million in words; ``joint`` is between tens and ones."""
    if value < 20:
        return SMALL[value]
    if value < 100:
        return TENS[value // 10] + (joint + SMALL[value % 10] if value % 10 else "")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            rest = value % size
            return f"{in_words(value // size, joint)} {name}" + (f" {in_words(rest, joint)}" if rest else "")
    raise AssertionError(value)


def written(value: int) -> st.SearchStrategy[str]:
    """Ways of writing a whole number."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    grouped = f"{size:,}"
    ways = [str(value), f"{value}.0", f"{value}.", f"{value}.", f"${value}$", f"\\boxed{{{value}}}", f"x = {value}"]
    ways += [sign + grouped.replace(",", mark) for mark in (",", "{,}", " ", "\u202f", "\u00a0", "\\,", "'", "_")]
    ways += [f"{value}e0", f"{value}*10^0", f"{value} x 10^{{0}}", f"{3 * value}/3", f"\\frac{{{2 * value}}}{{2}}"]
    ways += ["−" + str(size) if sign else f"+{size}", ("minus " if sign else "") + in_words(size, "-")]
    ways += [("negative " if sign else "") + in_words(size, " ").title()]
    ways += [f"{value} apples", f"{sign}${size}", f"{value}%", f"{value} euros", f"{value}个"]
    scripts = st.sampled_from(ZEROS).map(lambda zero: sign + "".join(chr(ord(zero) + int(char)) for char in str(size)))
    return st.sampled_from(ways) | scripts


WHOLE = st.integers(-2000, 2000) | st.integers(-(10**11), 10**11)


@settings(max_examples=300, deadline=None)
@given(st.data(), WHOLE, WHOLE)
def test_whole_numbers_however_written(data: st.DataObject, x: int, y: int) -> None:
    answer_pool.pool.close()
    plain = str(x)
    assert equivalent(data.draw(written(x)), plain)
    assert equivalent(plain, data.draw(written(y))) == (x == y)
    assert answer_pool.pool.pids() == []


@settings(deadline=None)
@given(st.integers(0, 10**12 - 1), st.sampled_from(["-", " "]))
def test_numbers_in_words_are_read_back(value: int, joint: str) -> None:
    assert in_figures(in_words(value, joint)) == str(value)


@settings(deadline=None)
@given(st.integers(1, 99))
def test_ordinals(value: int) -> None:
    words = in_words(value, "-")
    odd = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
        "twelve": "twelfth"}  # fmt: skip
    before, dash, last = words.rpartition("-")
    last = odd.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    assert in_figures(before + dash + last) == ordinal(value)
    assert not equivalent(before + dash + last, str(value))


@settings(deadline=None)
@given(st.integers(0, 99), st.text("0123456789", max_size=4), st.text("0123456789", min_size=1, max_size=6))
@example(0, "", "0111")
def test_repeating_decimals_are_fractions(whole: int, fixed: str, period: str) -> None:
    value = Fraction(f"{whole}.{fixed}0") + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    for way in (
        f"{whole}.{fixed}\\overline{{{period}}}",
        f"{whole}.{fixed}({period})",
        f"{whole}.{fixed}{period * 3}...",
    ):
        assert number(normalise(way)) == value
    assert (number(f"{whole}.{fixed}{period * 3}") == value) == (int(period) == 0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=2, max_size=4), st.sampled_from("-+*"), st.integers(-9000, 9000))
def test_joined_figures_are_nothing_but_themselves(figures: list[int], sign: str, other: int) -> None:
    text = sign.join(map(str, figures))
    assert joined(text)
    assert equivalent(text, f" {sign} ".join(map(str, figures)))
    for value in (other, sum(figures), figures[0] - sum(figures[1:])):
        assert not equivalent(text, str(value))


@settings(deadline=None)
@given(st.fractions(0, 500, max_denominator=8), st.fractions(0, 500, max_denominator=8))
def test_units_are_converted_exactly(x: Fraction, y: Fraction) -> None:
    for small, large, factor in (("cm", "km", 100_000), ("minutes", "days", 1440), ("cents", "dollars", 100)):
        assert equivalent(f"{x * factor} {small}", f"{y} {large}") == (x == y)
        assert not equivalent(f"{x * factor} {small}", f"{x + 1}")


PIECES = (
    "1 2 3 12 000 234 0.5 -3 10^ x y R I i ( ) [ ] { } , . ; : / - + * = % $ € £ ¥ ' \" ½ ² ₁ ٤ ４ 元 个 万 ∞ √ π ° …"
    " sqrt( sin ln log2( inf U to and or half two twenty third first million dozen p.m. 3:30 noon May 1st 2024 cm km/h"
    " per day hours h 30 min dollars cents percent increase remainder base yes no true dne"
    " \\frac{1}{2} \\overline{3} 0.(3) ... \\text{ \\{ \\} \\cup \\pm \\infty \\mathbb{R} \\times \\boxed{"
    " (B) C. [[1,2],[3,4]] Rs."
).split()
ANY = st.lists(st.sampled_from([" ", *PIECES]), max_size=7).map("".join) | st.text(max_size=20)


@settings(max_examples=600, deadline=None)
@given(ANY)
def test_any_text_is_read_without_an_error(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    quantity(once)
    joined(once)
    assert equivalent(text, text) == (once not in ("", "no answer"))


@settings(max_examples=60, deadline=None)
@given(ANY, ANY)
def test_any_two_texts_are_compared_both_ways_alike(a: str, b: str) -> None:
    assert equivalent(a, b, 1.0) == equivalent(b, a, 1.0)


UNITS = (
    "1 |1,|1'|1.|$1 |a |1 hour |one |one hundred and |0.(|sqrt(|x=1, |[[|(-|I|1-|1:|1/|\\frac{1 a}{|2 h 3 min |5%, "
    "|(A) |B: |1 and 1/2 |½|²|₂|²/₂|٤|√|1 million |minus |x10^|10^|10^{|9!|(1,2) U |5 p.m. |May |]1,2[|0.3…|6'|5° "
    "|\\overline{3}|5 a/|5 cm |1st |a third of |1_000_|12,34,|R 1 |\u0305|¤|€5 |1--1|((|abs(|log2(|;"
).split("|")
PATIENCE = 0.5


@pytest.mark.parametrize("unit", UNITS)
def test_a_hostile_text_costs_at_most_the_limit(unit: str) -> None:
    """However long."""
    for length in (300, 1999, 8000, 1_000_000):
        text = (unit * length)[:length]
        same, seconds = decide(text, "x+7", PATIENCE)
        assert not same
        assert seconds <= PATIENCE
