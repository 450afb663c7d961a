"""Tasks without Python: ``regex:PATTERN`` and a TOML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tacit import registry
from tacit.errors import ConfigError
from tacit.tasks.base import Task, called
from tacit.tasks.options import with_options
from tacit.tasks.regex import Regex

CAPITALS = """
instruction = "Name the capital, after the word Capital and a colon."
system = "You know the world."
pattern = "Capital: (.+)"
comparison = "text"
stop = ["\\n\\n"]

[[examples]]
problem = "France?"
solution = "Capital: Paris"
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text)
    return file


def test_a_pattern_finds_the_answer() -> None:
    task = registry.get("task", "regex")(r"Result: (\w+)")
    assert task.extract("<think>Result: red</think>Result: blue, I mean Result: Green.") == "Green"
    assert Regex("[0-9]+ apples").extract("3 apples or 4 apples?") == "4 apples"
    assert task.extract("green") is None
    assert task.group(["Green", None, "green", "the Green", "blue"]) == [[0, 2, 3], [4]]
    assert task.right(["green", "blue", None], task.gold("Green")) == [True, False, False]


def test_a_pattern_that_never_ends_finds_nothing() -> None:
    assert Regex("(a+)+b").extract("a" * 5000) is None


@pytest.mark.parametrize(
    ("pattern", "message"), [("", "needs a pattern"), ("(", "is no regular expression: .*position 0")]
)
def test_what_is_no_pattern(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Regex(pattern)


def load(file: Path) -> Task:
    """The task of a file, through its name as settings have it."""
    name, _, rest = registry.get("task", "toml").inline(str(file)).partition(":")
    task: Task = registry.get("task", name)(rest)
    return task


def test_a_file_is_a_task(tmp_path: Path) -> None:
    task = load(written(tmp_path, CAPITALS))
    assert (task.instruction, task.system) == (
        "Name the capital, after the word Capital and a colon.",
        "You know the world.",
    )
    assert (task.stop, task.examples) == (("\n\n",), (("France?", "Capital: Paris"),))
    assert task.extract("Well. Capital: the Hague!") == "the Hague!"
    assert task.same("The Hague", "the hague!")


def test_what_a_file_does_not_say_is_as_in_the_comparison(tmp_path: Path) -> None:
    number = registry.get("task", "number")()
    task = load(written(tmp_path, 'comparison = "number"\nsystem = "Be quick."'))
    assert (task.instruction, task.stop, task.system) == (number.instruction, number.stop, "Be quick.")
    assert task.extract("3 and then 4 apples") == "4"
    assert number.system == ""  # the built-in one is as it was
    assert load(written(tmp_path, "")).extract("The answer is the Nile.") == "the Nile"


@pytest.mark.parametrize(
    ("comparison", "response", "answer", "gold", "right"),
    [
        ("exact", "Found: The Nile ", "The Nile", "the nile", False),
        ("exact", "Found: The Nile ", "The Nile", "The Nile", True),
        ("text", "Found: The Nile!", "The Nile!", "nile", True),
        ("number", "Found: $1,200 a day", "1200", "1200.0", True),
        ("maths", "Found: \\frac{1}{2}", "\\frac{1}{2}", "0.5", True),
        ("set", "Found: b and a", "[b, a]", "[a, b]", True),
        ("list", "Found: b and a", "[b, a]", "[a, b]", False),
        ("json", 'Found: {"a": [1]}', '{"a": [1]}', '{"a":[1.0]}', True),
        ("choice", "Found: (B)", "blue", "B", True),
    ],
)
def test_every_comparison(tmp_path: Path, comparison: str, response: str, answer: str, gold: str, right: bool) -> None:
    file = written(tmp_path, f'pattern = "Found: (.+)"\ncomparison = "{comparison}"')
    task = load(file).on(with_options("Which?", ["red", "blue"]))
    assert task.extract(response) == answer
    assert task.right([task.extract(response), None], task.gold(gold)) == [right, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'patern = "x"',
            r"there is no key 'patern' \(did you mean pattern\?\); there are: instruction, system, pattern",
        ),
        (
            'comparison = "numbers"',
            r"there is no comparison 'numbers' \(did you mean number\?\); there are: exact, text",
        ),
        ('pattern = "("', "is no regular expression"),
        ("pattern = 3", "pattern is a text, not 3"),
        ("stop = 2020-01-01", "neither text nor list"),
        ('stop = "x"', "stop is a list of texts"),
        ('stop = [""]', "stop is a list of texts"),
        ('examples = "x"', "under .*examples"),
        ('[[examples]]\nproblem = "x"', "two texts, problem and solution"),
        ("instruction", "is no TOML: Expected '='"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(written(tmp_path, text))
    assert "mine.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_messages_call_it_a_file_with_its_instruction(tmp_path: Path) -> None:
    inline = registry.get("task", "toml").inline
    long = inline(str(written(tmp_path, f'instruction = "Name the {"capital " * 20}."')))
    assert called(long) == "FILE.toml ('Name the capital capital capital capital...')"
    assert called(inline(str(written(tmp_path, 'pattern = "(x)"')))) == "FILE.toml"
    assert [called(name) for name in ("maths", "regex:a:b", "toml:x")] == ["maths", "regex:a:b", "toml:x"]


def test_it_is_made_from_a_file_alone() -> None:
    for contents in ("", "comparison", "[1]"):
        with pytest.raises(ConfigError, match="made from a file, as in --task"):
            registry.get("task", "toml")(contents)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        load(tmp_path / "no.toml")
