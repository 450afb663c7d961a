"""The task python: programs in responses, inputs of problems, majority by behaviour, tests as the reference."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.answers import sandbox
from tacit.assembly import task_of
from tacit.config import Settings
from tacit.errors import ConfigError, DataError
from tacit.tasks import code_inputs, code_text
from tacit.tasks.code import Python, from_row
from tacit.tasks.sources import load

runs = pytest.mark.skipif(sys.platform != "linux", reason="candidates run on Linux alone")

COUNT = '''from typing import List


def double(x: int) -> int:
    """ Helper """
    return 2 * x


def evens(numbers: List[int]) -> int:
    """ How many of the numbers are even?
    >>> evens([1, 2, 4])
    2
    >>> evens([])
    0
    """
'''
LOOP = "```python\ndef evens(numbers):\n    '''Counts.'''\n    n = 0\n    for x in numbers:  # each\n"
LOOP += "        n += x % 2 == 0\n    return n\n```"
SUM = "Sure! Here it is:\n\n```python\ndef evens(a):\n    return sum(1 for x in a if x % 2 == 0)\n\n"
SUM += "print(evens([6, 7]))\n```\nDone."
ODD = "```python\ndef evens(numbers):\n    return sum(x % 2 for x in numbers)\n```"
BROKEN = "```python\ndef evens(numbers):\n    return count(numbers)\n```"


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```python\ndef f(x):\n    return x\n```", "def f(x):\n    return x"),
        ("```\ndef f(x): return 1\n```\nBetter:\n```py\ndef f(x): return 2\n```", "def f(x):\n    return 2"),
        ("~~~python\ndef f(x): return 1\n~~~\nUsage:\n```\nf(3)\n```", "def f(x):\n    return 1\n# f(3)"),
        ("1. Like so:\n   ```python\n   def f(x):\n       return x\n   ```", "def f(x):\n    return x"),
        ("def f(x):\n    return x\n\nThis returns x.", "def f(x):\n    return x"),
        ("import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x)", None),
        ("    return x + 1\n\ndef other():\n    pass", "def f(x):\n    return x + 1"),
        ("return x + 1", "def f(x):\n    return x + 1"),
        ("```python\n    y = x\n    return y\n```", "def f(x):\n    y = x\n    return y"),
        ("```python\ndef f(x):\n    return x", "def f(x):\n    return x"),
        ("```python\ndef f(x):\n    y = [x,", None),
        ("```python\ndef f(x):\n    pass\n```", None),
        ("```python\ndef f(x):\n    ...\n```", None),
        ("```python\ndef other(x):\n    return x\n```", None),
        (
            "<think>\n```python\ndef f(x): return 1\n```\n</think>\n```python\ndef f(x): return 2\n```",
            "def f(x):\n    return 2",
        ),
        ("<think>\n```python\ndef f(x): return 1\n```", None),
        ("I cannot do that.", None),
        ("", None),
        ("The answer is 5.", None),
        ("unknown", None),
        ("Use it so:\n```python\nprint(f(3))\n```", None),
    ],
)
def test_the_program_of_a_response(text: str, answer: str | None) -> None:
    found = Python().on("def f(x):\n    '''What is wanted.'''\n").extract(text)
    if text.startswith("import"):
        assert found == "import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x)"
    else:
        assert found == answer


def test_equal_code_is_one_answer() -> None:
    task = Python().on(COUNT)
    first, again = task.extract(LOOP), task.extract(LOOP.replace("  # each", "").replace("'''Counts.'''", '"""So."""'))
    assert first == again and "Counts" not in str(first)
    program = "x = 3\ndef test_f():\n    assert f(1)\ndef f(a):\n    return a\nassert f(2) == 2\ny = f(4)\n"
    program += "if __name__ == '__main__':\n    print(f(3))"
    assert (
        Python().on("def f(a):").extract(program) == "x = 3\n\ndef f(a):\n    return a\n# f(1)\n# f(2)\n# f(3)\n# f(4)"
    )


WANTED: list[tuple[str, str | None, dict[str, str | None]]] = [
    (COUNT, "evens", {"evens([1, 2, 4])": "2", "evens([])": "0"}),
    (
        "Write `add` so that\nassert add(1, b=2) == 3, 'three, no'\nassert add(1, b=1) == 2",
        "add",
        {"add(1, b=2)": "3", "add(1, b=1)": "2"},
    ),
    ("f([1]) -> 1, f([2, 3]) -> 5.", "f", {"f([1])": "1", "f([2, 3])": "5"}),
    ("assert set(g((1, 2))) == {1}\nassert not g(3)", "g", {"g((1, 2))": None, "g(3)": None}),
    (
        "Write a function `last(xs)`; `last([1, 2])` returns 2 and last(')') should return ')'.",
        "last",
        {"last([1, 2])": "2", "last(')')": '")"'},
    ),
    ("Write a function named area that takes a radius.", "area", {}),
    ("Implement `def f(a: list[int], b: int = 3) -> int` for me.", "f", {}),
    (
        "Complete this:\n```python\ndef h(x):\n```\nReturn code only. h(2) is 2 * x, h(3) -> 2 * x",
        "h",
        {"h(2)": None, "h(3)": None},
    ),
    (">>> sort(['b', 'a'])\n['a', 'b']", "sort", {"sort(['b', 'a'])": 'list("a","b")'}),
    ("f(1)  # => True\nf(2)  # False", None, {}),
    ("What is 2 + 2?", None, {}),
]


@pytest.mark.parametrize(("problem", "name", "shown"), WANTED)
def test_what_a_problem_wants(problem: str, name: str | None, shown: dict[str, str | None]) -> None:
    wanted = code_text.wanted(problem)
    assert wanted.name == name
    assert {example.source: example.result for example in wanted.examples} == shown


def test_hostile_texts_are_read_quickly_or_not_at_all() -> None:
    task = Python().on(COUNT)
    many = 10**5
    for text in (
        "(" * 10**6,
        "```python\ndef evens(x):\n    return " + "[" * 10**6,
        *(part * many for part in ("def evens(x): return 1\n", "evens(", "```", "```\n", "def\n", "```\ndef f\n```\n")),
        "evens(" + "1," * many + ")",
        "\x00def evens(x): return 1",
        *("def evens(x): return " + part for part in ("-" * many + "1", "1" * many)),
        "\ud800def evens",
    ):
        answer = task.extract(text)
        assert answer is None or len(answer) <= code_text.LONGEST
        assert code_text.wanted(text) == code_text.wanted(text)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for task in (Python(), Python().on(text)):
        answer = task.extract(text)
        assert answer is None or task.extract(answer) is not None


# -- inputs -----------------------------------------------------------------------------------------------------------


def test_inputs_are_like_the_known_ones() -> None:
    known = [sandbox.call([[3, 5], "abc", 2], {"k": True}), sandbox.call([[4], "a", 9], {"k": False})]
    made = code_inputs.like(known)
    assert made == code_inputs.like(known[::-1]) and len(made) == code_inputs.COUNT and not set(made) & set(known)
    for text in made:
        _, (numbers, letters, number), named = sandbox.values.decode(text)
        assert 1 <= len(numbers) <= 3 and all(3 <= one <= 8 for one in numbers)
        assert 1 <= len(letters) <= 3 and set(letters) <= set("abc") and 2 <= number <= 9 and type(named["k"]) is bool
    assert code_inputs.like([]) == []
    lines = [sandbox.call([line], {}) for line in ("3 apples and 4 pears", "0 apples and 12 pears")]
    assert set(code_inputs.like(lines)) == {
        sandbox.call([f"{one} apples and {other} pears"], {}) for one, other in ((3, 12), (0, 4))
    }
    for text in code_inputs.like([sandbox.call(["2024-Ab"], {}), sandbox.call(["13/C"], {})]):
        assert re.fullmatch(r"[01234]{4}-[AC]b|[01234]{2}/[AC]", sandbox.values.decode(text)[1][0])


def test_inputs_have_the_types_of_a_signature() -> None:
    head = (
        "def f(a: List[int], b: 'str', c: dict[str, float], d: int | None, e: tuple[int, ...], g: Optional[bool], h=3):"
    )
    for text in code_inputs.annotated(head):
        _, arguments, _ = sandbox.values.decode(text)
        assert [type(one) for one in arguments] == [list, str, dict, int, tuple, bool]
        assert all(type(one) is int for one in arguments[0]) and all(
            type(one) is float for one in arguments[2].values()
        )
    assert len(code_inputs.annotated("def f(x: int):")) == code_inputs.COUNT
    assert code_inputs.annotated("def f(x):") == code_inputs.annotated("def f(x: Tree):") == []
    assert code_inputs.annotated("def f():") == code_inputs.annotated("") == []


# -- votes ------------------------------------------------------------------------------------------------------------


@runs
def test_the_vote_goes_by_behaviour() -> None:
    task = Python().on(COUNT)
    answers = [task.extract(text) for text in (ODD, LOOP, SUM, BROKEN, "nothing")]
    assert task.group(answers) == [[1, 2]]
    assert task.vote(answers).why.startswith("2 of 5 say def evens")
    assert task.same(str(answers[1]), str(answers[2])) and not task.same(str(answers[0]), str(answers[1]))
    assert not task.same(str(answers[3]), str(answers[0])) and task.same(str(answers[3]), str(answers[3]))


@runs
def test_results_that_the_problem_shows_tell_right_from_wrong() -> None:
    odd, even = [f"def evens(a):\n    return sum(x % 2 == {rest} for x in a)" for rest in (1, 0)]
    task = Python().on(COUNT)
    assert task.group([odd, odd, odd, even]) == [[3]]
    assert Python().on("Write a function `evens`; it is called like evens([1, 2, 4]).").group(
        [odd, odd, odd, even]
    ) == [
        [0, 1, 2],
        [3],
    ]
    wrong = Python().on("evens([1, 2, 4]) -> 7, evens([1, 1]) -> 0")  # a result that nobody gives says nothing
    assert wrong.group([odd, even]) == [[1]]


@runs
def test_responses_bring_inputs_of_their_own() -> None:
    task = Python().on("Write a function named f.")
    same_but_one = ["```\ndef f(x):\n    return x\n```", "```\ndef f(x):\n    return 0 if x == 77 else x\n```"]
    answers = [str(task.extract(text)) for text in same_but_one]
    assert task.group(answers) == [[0, 1]]  # nobody shows the input on which they differ
    with_test = str(task.extract("```\ndef f(x):\n    return x + 0\nassert f(77) == 77\nprint(f(1))\n```"))
    assert with_test.endswith("# f(1)\n# f(77)")
    assert task.group([*answers, with_test]) == [[0, 2], [1]]
    assert task.same(answers[0], with_test) and not task.same(answers[1], with_test)


@runs
def test_inputs_come_from_annotations_where_nobody_shows_any() -> None:
    bodies = ("return n * n", "return n ** 2", "return 2 * n")
    answers = [f"def f(n: int) -> int:\n    {body}" for body in bodies]
    assert Python().group(answers) == [[0, 1], [2]]


@runs
def test_inputs_are_of_the_kind_that_fits_where_nothing_says_it() -> None:
    bodies = ("return sum(a) + b", "return b + sum(a)", "return b - sum(a)", "raise ValueError")
    task = Python().on("def f(a, b):\n    'Sums a list and a number.'")
    assert task.group([f"def f(a, b):\n    {body}" for body in bodies]) == [[0, 1], [2]]
    assert task.group([f"def f(a, b):\n    {body}" for body in bodies[3:]]) == [[0]]


@runs
def test_only_equal_code_is_the_same_where_no_input_is_known() -> None:
    answers = [f"def f(x):\n    return {result}" for result in ("x['a']", "x.get('a')", "x['a']")]
    assert Python().on("def f(x):").group(answers) == [[0, 2], [1]]
    assert Python().on("def f(x):").same(answers[0], answers[2])
    assert not Python().on("def f(x):").same(answers[0], answers[1])


@runs
def test_a_function_of_another_name_counts_where_none_is_named() -> None:
    answers = ["def f(n: int):\n    return n + 1", "def g(m: int):\n    return 1 + m"]
    assert Python().on("Add one to a number.").group(answers) == [[0, 1]]
    assert Python().on("def f(n):").extract("def g(m):\n    return m") is None


@runs
def test_what_works_on_nothing_wins_nothing() -> None:
    task = Python().on(COUNT)
    loop = "def evens(numbers):\n    while True:\n        pass"
    assert task.group([BROKEN, BROKEN]) == [] == task.group([None])
    broken = str(task.extract(BROKEN))
    assert task.group([broken, broken, loop, str(task.extract(LOOP))]) == [[3]]


@runs
@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 6), max_size=8), st.randoms())
def test_the_order_changes_nothing(which: list[int], shuffled: random.Random) -> None:
    bodies = ["return sum(x % 2 == 0 for x in a)", "return len([x for x in a if not x % 2])",
              "return sum(x % 2 for x in a)", "return len(a)",
              "return 2 if a else 0", "return a.count", "raise ValueError"]  # fmt: skip
    task = Python().on(COUNT.partition(">>>")[0] + '"""')
    answers = [f"def evens(a):\n    {bodies[n]}\n# evens([{n}, 2])" for n in which]
    order = shuffled.sample(range(len(answers)), len(answers))

    def texts(groups: list[list[int]], held: list[str]) -> set[tuple[str, ...]]:
        return {tuple(sorted(held[index] for index in group)) for group in groups}

    groups, others = task.group(answers), task.group([answers[index] for index in order])
    assert texts(groups, answers) == texts(others, [answers[index] for index in order])
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True) == [len(one) for one in others]
    for group in groups:
        assert all(task.same(answers[group[0]], answers[other]) for other in group)


# -- the reference ----------------------------------------------------------------------------------------------------

HUMANEVAL = {
    "task_id": "HumanEval/900", "prompt": COUNT, "entry_point": "evens", "canonical_solution": "    return 0\n",
    "test": "\n\nMETADATA = {'author': 'x'}\n\n\ndef check(candidate):\n    assert candidate([2, 4]) == double(1)\n"
    "    assert candidate([]) == 0\n    assert abs(candidate([1, 3, 8]) - 1) < 1e-6\n",
}  # fmt: skip
MBPP = {
    "task_id": 900, "text": "Write a function to count the even numbers of a list.", "code": "def evens(a): return 0",
    "test_list": ["assert set([evens([2, 4])]) == {2}", "assert evens([]) == ZERO"], "test_setup_code": "ZERO = 0",
    "challenge_test_list": [],
}  # fmt: skip


@runs
@pytest.mark.parametrize(
    "row", [HUMANEVAL, MBPP, {**MBPP, "text": None, "prompt": MBPP["text"], "test_imports": ["import math"]}]
)
def test_rows_of_humaneval_and_mbpp(row: dict[str, Any]) -> None:
    found = from_row(row)
    assert found is not None
    text, gold = found
    task = Python().on(text)
    assert task.gold(gold) == gold
    answers = [
        task.extract(response)
        for response in (LOOP, ODD, SUM, BROKEN, "none", "    return len([x for x in numbers if x % 2 == 0])")
    ]
    assert task.right(answers, gold) == [True, False, True, False, False, row is HUMANEVAL]
    assert "== {2}" not in text and row.get("canonical_solution", row.get("code")) not in text


def test_files_of_such_rows_speak_for_the_task(tmp_path: Path) -> None:
    file = tmp_path / "functions.jsonl"
    file.write_text("\n".join(map(json.dumps, (HUMANEVAL, MBPP))))
    problems = load(str(file))
    assert problems.task == "python" and [one.text for one in problems] == [
        (from_row(row) or ("",))[0] for row in (HUMANEVAL, MBPP)
    ]
    assert Python().on(problems[0].text).gold(str(problems[0].gold)) == problems[0].gold
    file.write_text(json.dumps({**MBPP, "test_list": ["pass"]}))
    with pytest.raises(DataError, match=r"functions\.jsonl line 1: test_list has no call"):
        load(str(file))


def test_what_mbpp_shows_is_a_call_without_its_result() -> None:
    text, _ = from_row(MBPP) or ("", "")
    assert text.endswith("\n\nThe function is called like this: `evens([2, 4])`")
    assert code_text.wanted(text).examples[0].result is None
    assert from_row({"question": "2 + 2?", "answer": "4"}) is None
    with pytest.raises(DataError, match="test_list has no call"):
        from_row({**MBPP, "test_list": ["assert 1 == 1"]})


@runs
def test_a_program_or_asserts_are_references_too() -> None:
    task = Python().on(COUNT)
    answers = [task.extract(LOOP), task.extract(ODD), None]
    assert task.right(
        answers, task.gold("def evens(a):\n    '''Right.'''\n    return len([x for x in a if x % 2 == 0])")
    ) == [True, False, False]
    assert task.right(answers, task.gold("assert evens([2, 2]) == 2")) == [True, False, False]
    for written in ("42", "", '{"a": 1}', "it counts"):
        with pytest.raises(DataError, match="neither tests nor a program"):
            task.gold(written)


@runs
def test_running_code_is_off_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--allow-code"):
        task_of(Settings(task="python"))
    assert isinstance(task_of(Settings(task="python", allow_code=True)), Python)
    monkeypatch.setattr(sys, "platform", "darwin")
    sandbox.check.cache_clear()
    with pytest.raises(ConfigError, match="Linux alone"):
        Python().permit(True)


@runs
def test_sixteen_candidates_are_one_process_each_and_run_once() -> None:
    task = Python().on(COUNT)
    answers = [f"def evens(a):\n    return sum(x % 2 == 0 for x in a) + {n} * 0" for n in range(16)]
    assert task.group(answers * 2) == [list(range(32))]
    (pid,) = sandbox.pool.pids()
    assert task.group(answers[::-1]) and sandbox.pool.pids() == [pid]


def test_the_reference_is_text() -> None:
    """Problems hold references as text: what ``from_row`` gives is read back by ``gold`` and holds what a run needs."""
    _, gold = from_row(HUMANEVAL) or ("", "")
    assert set(json.loads(gold)) == {"name", "prelude", "tests"} and "double" in json.loads(gold)["prelude"]
