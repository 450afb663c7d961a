"""Families of made problems: their answers are right, their levels a dial, their streams interleaved and repeatable."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Tacit
from tacit.errors import ConfigError
from tacit.tasks.base import task_named
from tacit.tasks.families.kind import LEVELS, Kind
from tacit.tasks.families.source import KINDS, cells, item, stream
from tacit.tasks.families.words import PAIRS, in_words
from tacit.tasks.sources import load

every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"\d+", text)]


RIGHT: dict[str, Callable[[list[int]], int]] = {
    "multiply": lambda said: said[0] * said[1],
    "boxes": lambda said: said[0] * said[1],
    "prices": lambda said: said[0] * said[1],
    "divide": lambda said: max(said) // min(said),
    "share": lambda said: max(said) // min(said),
    "sums": sum,
    "altogether": sum,
    "ages": sum,
    "differences": lambda said: max(said) - min(said),
    "left": lambda said: max(said) - min(said),
    "missing": lambda said: max(said) - min(said),
    "doubles": lambda said: 2 * said[0],
    "halves": lambda said: said[0] // 2,
    "percent": lambda said: said[0] * said[1] // 100,
    "squares": lambda said: said[0] ** 2,
    "remainders": lambda said: said[0] % said[1],
    "after": lambda said: said[0] + 1,
    "before": lambda said: said[0] - 1,
    "more": sum,
    "round": lambda said: said[1] * int(said[0] / said[1] + 0.5),
    "largest": max,
    "smallest": min,
    "next": lambda said: 2 * said[3] - said[2],
    "countdown": lambda said: 2 * said[3] - said[2],
    "doubling": lambda said: 2 * said[2],
    "clock": lambda said: (sum(said) - 1) % 12 + 1,
}
"""What the numbers of a text are worth, worked out another way than the text was made."""


@every
@settings(deadline=None)
@given(level=st.sampled_from(LEVELS), seed=st.integers(0, 10**6), index=st.integers(0, 500))
def test_a_problem_hangs_on_its_name_alone_and_its_answer_is_one(kind: Kind, level: int, seed: int, index: int) -> None:
    problem, about = item(kind, level, seed, index)
    assert (problem, about) == item(kind, level, seed, index)
    assert problem.id == f"{kind.name}@{level}/{seed}/{index}" and problem.family == kind.name
    task = task_named(kind.task).on(problem.text)
    assert problem.gold is not None
    said = task.gold(problem.gold)
    assert task.right([said, "no such answer"], said) == [True, False]
    if kind.name in RIGHT:
        assert int(problem.gold) == RIGHT[kind.name](numbers(problem.text)), problem.text


@every
def test_a_family_is_asked_in_all_its_ways_and_levels_differ(kind: Kind) -> None:
    texts = [{item(kind, level, 0, index)[0].text for index in range(60)} for level in LEVELS]
    assert all(len(found) >= 5 for found in texts)
    assert texts[0] != texts[-1]
    openings = {next(way for way in kind.phrasings if _fits(way, text)) for found in texts for text in found}
    assert openings == {*kind.phrasings}


def _fits(phrasing: str, text: str) -> bool:
    parts = re.split(r"\{\w+\}", phrasing)
    return re.fullmatch(r"[\s\S]*".join(map(re.escape, parts)), text) is not None


def test_words_are_what_they_are_asked_for() -> None:
    asked = {problem.family: [] for problem in load("families:text", limit=40)}
    for problem in load("families:text", seed=3, limit=110):
        asked[problem.family].append((re.findall(r'"(\w+)"', problem.text), problem.gold))
    assert all(gold == word[0] for [word], gold in asked["first-letter"])
    assert all(gold == word[-1] for [word], gold in asked["last-letter"])
    assert all(gold == "".join(reversed(word)) for [word], gold in asked["reverse"])
    assert [in_words(number) for number in (0, 13, 40, 67, 100, 219)] == [
        *("zero", "thirteen", "forty", "sixty-seven", "one hundred", "two hundred and nineteen"),
    ]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_have_one_right_answer_each_that_an_answer_in_a_sentence_is_read_as(name: str) -> None:
    rows = [[pair.replace("_", " ").split(":") for pair in row.split()] for row in PAIRS[name]["pairs"]]
    assert len(rows) == len(LEVELS)
    for row in rows:
        assert len(row) >= 14 and len({word for word, _ in row}) == len(row)
    for word, answer in (pair for row in rows for pair in row):
        for ask in PAIRS[name]["ask"]:
            asked = ask.format(word=word)
            task = task_named("text").on(asked)
            told = re.sub(r"(What|Which \w+) is (.*)\?", r"\2 is ", asked)
            for said in (f"{answer}.", f"{told}{answer}.", f'{told}"{answer}".'):
                assert task.right([task.extract(said)], task.gold(answer)) == [True], (asked, said)


def test_the_right_option_is_among_those_shown() -> None:
    for problem in load("families:choice", seed=1, limit=60):
        options = dict(re.findall(r"^([A-E])\) (.+)$", problem.text, re.MULTILINE))
        assert problem.gold in options
        if problem.family == "which-largest":
            assert int(options[problem.gold]) == max(map(int, options.values()))


def test_streams_come_in_rounds_of_all_families_and_ask_nothing_twice() -> None:
    address = "families:multiply@3,halves@4,largest,percent@5"
    found = load(address, seed=7, limit=80)
    assert found.task == "number"
    assert list(found) == list(load(address, seed=7, limit=80)) != list(load(address, seed=8, limit=80))
    assert list(load(address, seed=7, limit=30)) == list(found)[:30]
    for start in range(0, 80, 4):
        assert {problem.family for problem in found[start : start + 4]} == {"multiply", "halves", "largest", "percent"}
    assert all(one.family != other.family for one, other in pairwise(found))
    products = [tuple(numbers(problem.text)) for problem in found if problem.family == "multiply"]
    assert len({*products}) == len(products)
    assert {problem.id.partition("/")[0] for problem in found} == {"multiply@3", "halves@4", "largest@2", "percent@5"}


def test_a_family_that_is_used_up_begins_again_under_other_names() -> None:
    found = load("families:months@1", limit=12)
    assert len({problem.id for problem in found}) == 12
    assert len({problem.gold for problem in found[:3]}) == 3
    assert {problem.gold for problem in found[3:]} <= {"1", "2", "3"}


def test_addresses_name_families_levels_and_tasks() -> None:
    assert {kind.task for kind, _ in cells("")} == {"number"} and len(cells("")) >= 25
    assert [(kind.name, level) for kind, level in cells("halves, multiply@5,halves")] == [
        *(("halves", None), ("multiply", 5)),
    ]
    assert {(kind.task, level) for kind, level in cells("text@4")} == {("text", 4)}
    assert load("families", limit=1).task == "number"
    assert load("families:halves,reverse", limit=4).task == "text"
    assert load("families:which-sort,which-largest", limit=4).task == "choice"


@pytest.mark.parametrize(
    "address, words",
    [
        ("multiplie", "there is no family 'multiplie'; did you mean multiply"),
        ("zzz", "there is no family 'zzz'; there are: number, text, choice, multiply,"),
        ("halves@9", "families:halves@9: '9' is no level; there are 1 to 5, as in halves@2"),
        ("halves@", "families:halves@: '' is no level"),
        ("halves,which-sort", "families:halves,which-sort has families with options and without"),
    ],
)
def test_addresses_that_name_nothing(cli: Tacit, address: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        list(islice(stream(address, 0, 1), 1))
    code, out, err = cli("run", "--data", f"families:{address}", "--limit", "2")
    assert (code, out) == (2, "") and words in err


def test_a_stream_has_no_end() -> None:
    with pytest.raises(ConfigError, match="say how many problems with --limit"):
        load("families")
