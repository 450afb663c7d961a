"""The tasks ``list``, ``set`` and ``json``: answers of several parts, however they are written."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tacit import registry
from tacit.errors import DataError
from tacit.tasks.lists import elements, shown

LIST = registry.get("task", "list")()
SET = registry.get("task", "set")()
JSON = registry.get("task", "json")()


@pytest.mark.parametrize(
    "written",
    [
        "a, b and c",
        "a, b, and c.",
        "[a, b, c]",
        "['a', 'b', 'c']",
        '["a", "b", "c"]',
        "{a, b, c}",
        "\\{a, b, c\\}",
        "(a, b, c)",
        "a; b; c",
        "a -> b -> c",
        "a b c",
        "1. a\n2. b\n3. c",
        "- a\n- b\n- c",
        "**a**, **b**, **c**",
        "The A, b, C",
    ],
)
def test_one_list_however_written(written: str) -> None:
    assert LIST.same(written, "[a, b, c]")
    assert LIST.extract(f"First I sorted them.\nAnswer: {written}") is not None
    assert LIST.same(str(LIST.extract(f"First I sorted them.\nThe answer is:\n{written}")), "a, b, c")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("[3, 1, 2]", ["3", "1", "2"]),
        ("3 1 2", ["3", "1", "2"]),
        ("1,234, 5", ["1,234", "5"]),
        ("[[1,2],[3,4]]", [["1", "2"], ["3", "4"]]),
        ("(1, 2), (3, 4)", [["1", "2"], ["3", "4"]]),
        ("New York", ["New York"]),
        ("['x', \"y, z\"]", ["x", "y, z"]),
        ("[f(x), g(y, z)]", ["f(x)", "g(y, z)"]),
        ("[]", []),
        ("∅", []),
        ("", None),
        ("[" * 50 + "1, 2" + "]" * 50, None),
    ],
)
def test_elements(written: str, found: list[str] | None) -> None:
    assert elements(written) == found


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("The answer is [2, 5, 9].", "[2, 5, 9]"),
        ("\\boxed{\\{1,2\\}}", "[1, 2]"),
        ("Sorted by size:\n1. ant\n2. cat\n3. cow", "[ant, cat, cow]"),
        ("So in order they are: ant, cat, cow", "[ant, cat, cow]"),
        ("That gives the list [ant, cat] as wanted.", "[ant, cat]"),
        ("<think>[1]</think>[2, 3]", "[2, 3]"),
        ("Answer: apple", "[apple]"),
        ("I thought about this for a long while, but in the end I could not say, which is sad", None),
        ("", None),
    ],
)
def test_what_is_found(response: str, found: str | None) -> None:
    assert LIST.extract(response) == found


@pytest.mark.parametrize(
    ("one", "other", "as_list", "as_set"),
    [
        ("a, b", "b, a", False, True),
        ("a, a, b", "a, b", False, True),
        ("1.0, 1/2", "[1, 0.5]", True, True),
        ("The Nile, Café", "[nile, cafe]", True, True),
        ("[[1, 2], [3]]", "[[1, 2], [3, 4]]", False, False),
        ("[1, [2, 3]]", "[[1, 2], 3]", False, False),
        ("a, b", "a, c", False, False),
        ("[]", "{}", True, True),
    ],
)
def test_what_is_the_same(one: str, other: str, as_list: bool, as_set: bool) -> None:
    assert LIST.same(one, other) is LIST.same(other, one) is as_list
    assert SET.same(one, other) is SET.same(other, one) is as_set


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ('{"a": 1, "b": [2, 3]}', '{"a": 1, "b": [2, 3]}'),
        ('Here it is:\n```json\n{\n  "a": 1\n}\n```\nDone.', '{ "a": 1 }'),
        ("The answer is [1, 2].", "[1, 2]"),
        ("First [1] then [[2], {}] at last", "[[2], {}]"),
        ("The answer is 42", "42"),
        ("{'a': 1}", None),
        ('{"a": NaN}', None),
        ("no", None),
    ],
)
def test_json_is_found(response: str, found: str | None) -> None:
    assert JSON.extract(response) == found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": 2}', '{"b":2.0,"a":1e0}', True),
        ("[1, 2]", "[2, 1]", False),
        ('["1"]', "[1]", False),
        ("[true]", "[1]", False),
        ("[null]", "[false]", False),
        ("0.1", "0.10", True),
        ("1e999999", "1e999998", False),
        ("9" * 5000, "9" * 5000 + "0", False),
    ],
)
def test_json_is_compared_by_value(one: str, other: str, same: bool) -> None:
    assert JSON.same(one, other) is JSON.same(other, one) is same


def test_reference_answers() -> None:
    assert LIST.right(["[a, b]", "[b, a]", None], LIST.gold('["a", "b"]')) == [True, False, False]
    assert SET.right(["[a, b]", "[b, a]", None], SET.gold("a and b")) == [True, True, False]
    assert JSON.right(['{"a": 1}', "[1]"], JSON.gold('{"a":1.0}')) == [True, False]
    for task, written in ((LIST, " "), (JSON, "{a}")):
        with pytest.raises(DataError):
            task.gold(written)


@given(
    st.recursive(st.text(min_size=1, max_size=6), lambda inner: st.lists(inner, min_size=2, max_size=4), max_leaves=8)
)
def test_what_is_shown_is_read_again(found: list[object] | str) -> None:
    listed = elements(json.dumps([found]))
    assert listed is None or elements(shown(listed)) == listed


TEXTS = st.one_of(st.text(max_size=60), st.text(st.sampled_from("[](){}\"',; \n-12ab>and"), max_size=40))


@given(TEXTS, TEXTS)
def test_any_two_texts_are_compared(one: str, other: str) -> None:
    for task in (LIST, SET, JSON):
        assert task.same(one, one)
        assert task.same(one, other) is task.same(other, one)


@settings(deadline=None)  # a statement in so long a text is looked for
@given(TEXTS)
@example("[" * 20_000)
@example("[" * 900 + "]" * 900)
@example('{"a":' * 3000)
@example(" " * 20_000 + "and")
@example("\n" * 20_000)
@example("'" * 20_000)
@example("(" * 20_000)
def test_no_response_breaks_them(text: str) -> None:
    for task in (LIST, SET, JSON):
        found = task.extract(text)
        assert found is None or task.same(found, found)
