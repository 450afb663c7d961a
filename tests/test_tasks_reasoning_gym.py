"""The task and the source ``reasoning-gym``: questions of the library, scored by it alone."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import Tacit
from tacit import registry
from tacit.answers import pool
from tacit.errors import ConfigError, DataError
from tacit.problem import Problem
from tacit.tasks import reasoning_gym
from tacit.tasks.reasoning_gym import ReasoningGym
from tacit.tasks.sources import load

here = pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")

NAMES = [
    *("knights_knaves", "syllogism", "zebra_puzzles"),
    *("number_sorting", "spiral_matrix", "base_conversion"),
    *("spell_backward", "word_sorting", "letter_counting"),
    *("mini_sudoku", "tower_of_hanoi", "countdown"),
    *("basic_arithmetic", "fraction_simplification", "chain_sum", "family_relationships"),
]
"""Logic, algorithms, words, games, arithmetic."""


def told(problem: Problem) -> str:
    """The answer in a problem's reference."""
    assert problem.gold is not None
    return str(json.loads(problem.gold)["answer"])


@here
@pytest.mark.parametrize("name", NAMES)
def test_questions_are_asked_read_and_scored(name: str) -> None:
    task = registry.get("task", "reasoning-gym")(name)
    for problem in load(f"reasoning-gym:{name}", seed=4, limit=2):
        assert problem.family == name and problem.gold is not None
        bound, answer = task.on(problem.text), told(problem)
        responses = [
            f"<think>Hm.</think>So it is\n<answer>\n{answer}\n</answer>",
            "<answer>no such thing</answer>",
            "I do",
        ]
        answers = [bound.extract(response) for response in responses]
        assert answers[:2] == [answer, "no such thing"]
        assert bound.right(answers, bound.gold(problem.gold)) == [True, False, False]
        assert bound.same(str(answers[0]), bound.gold(problem.gold)) and not bound.same("no such thing", problem.gold)
        if "\n" not in answer and len(answer.split()) < 20:
            assert bound.same(str(bound.extract(f"First this, then that.\nThe answer is {answer}")), answer)


@here
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_with_learning_on(name: str, cli: Tacit) -> None:
    small = ["--samples", "4", "--rollouts", "4", "--steps", "1", "--tokens", "4", "--max-tokens", "24"]
    code, _, err = cli(
        *("run", "--data", f"reasoning-gym:{name}", "--limit", "3", *small),
        *("--min-votes", "1", "--min-lead", "0", "--baselines", "none", "--out", "out"),
    )
    assert code == 0, err
    rows = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"{name}/0/{number}" for number in range(3)]
    assert all(row["zero_shot"]["correct"] is not None for row in rows)
    assert json.loads(Path("out/run.json").read_text())["task"] == f"reasoning-gym:{name}"


@here
def test_a_question_is_known_by_name_seed_and_number() -> None:
    first = load("reasoning-gym:word_sorting", seed=1, limit=4)
    assert first.task == "reasoning-gym:word_sorting"
    pool.pool.close()  # another process makes them again
    again = load("reasoning-gym:word_sorting", seed=1, limit=2)
    assert again == first[:2] and [one.gold for one in again] == [one.gold for one in first[:2]]
    other = load("reasoning-gym:word_sorting", seed=2, limit=4)
    assert not {one.text for one in first} & {one.text for one in other}
    assert [one.id for one in other[:2]] == ["word_sorting/2/0", "word_sorting/2/1"]


@here
def test_settings_of_the_library_follow_the_name() -> None:
    [problem] = load("reasoning-gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1", limit=1)
    assert len(told(problem)) <= 2 and problem.text.count(" + ") + problem.text.count(" - ") == 1
    assert ReasoningGym("chain_sum:max_terms=2").right([told(problem)], str(problem.gold)) == [True]


@here
def test_the_scorer_takes_what_is_right_however_it_is_written() -> None:
    [problem] = load("reasoning-gym:countdown", seed=1, limit=1)
    task, answer = ReasoningGym("countdown"), told(problem)
    assert task.right([f"({answer})", f"{answer} + 1"], str(problem.gold)) == [True, False]


@here
def test_votes_take_no_account_of_the_reference() -> None:
    task = ReasoningGym("word_sorting")
    responses = [
        "<answer>apple, Pear</answer>",
        "The answer is Apple, pear.",
        "<answer>pear, apple</answer>",
        "<think>",
    ]
    answers = [task.extract(response) for response in responses]
    assert task.vote(answers).why.startswith("2 of 4 say Apple, pear; next: 1 says pear, apple")
    boards = ["1 2\n3 4", "1  2 \n3 4", "1 2\n4 3", "1 2 3 4"]
    assert task.group(boards) == [[0, 1], [2], [3]]


@here
def test_a_hostile_answer_computes_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym, "SCORE_LIMIT", 1.0)
    made = tmp_path / "made"
    [problem] = load("reasoning-gym:countdown", seed=1, limit=1)
    [matrix] = load("reasoning-gym:spiral_matrix", seed=1, limit=1)
    attacks = [
        f"__import__('os').system('touch {made}')",
        f"open('{made}', 'w')",
        f"[open][0]('{made}', 'w')",
        f"(lambda: open)()('{made}', 'w')",
        f"ｏｐｅｎ('{made}', 'w')",
        f"[open\\\n('{made}', 'w')]",
        f"[f\"{{open('{made}', 'w')}}\"]",
        "10**10**10",
        "9" * 1_000_000,
        "[" * 10_000,
    ]
    task = ReasoningGym("countdown")
    assert task.right(attacks, str(problem.gold)) == [False] * len(attacks)
    assert task.right(attacks[:7], str(matrix.gold)) == [False] * 7
    assert task.right([told(matrix)], str(matrix.gold)) == [True]  # and it goes on
    assert not made.exists()


@here
def test_what_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"no questions 'word_sortin'; did you mean word_sorting"):
        ReasoningGym("word_sortin")
    with pytest.raises(ConfigError, match=r"no questions 'word_sortin'; did you mean word_sorting"):
        load("reasoning-gym:word_sortin", limit=1)
    with pytest.raises(ConfigError, match=r"gives no question 0: TypeError: .*'terms'"):
        load("reasoning-gym:chain_sum:terms=2", limit=1)
    with pytest.raises(ConfigError, match="'terms' is no setting"):
        load("reasoning-gym:chain_sum:terms", limit=1)
    with pytest.raises(ConfigError, match="endless stream"):
        load("reasoning-gym:chain_sum")
    for written in ("42", '{"answer": 1}', '{"answer": '):
        with pytest.raises(DataError, match="this task is for --data reasoning-gym:NAME"):
            ReasoningGym("chain_sum").gold(written)


@here
def test_another_version_of_the_library_is_noticed() -> None:
    [problem] = load("reasoning-gym:chain_sum", seed=1, limit=1)
    spec = json.loads(str(problem.gold))
    with pytest.raises(DataError, match="another version"):
        ReasoningGym("chain_sum").right(["1"], json.dumps({**spec, "answer": "something else"}))


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    reasoning_gym.names.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"'tacit-memory\[gym\]'"):
            ReasoningGym("chain_sum")
    finally:
        reasoning_gym.names.cache_clear()
