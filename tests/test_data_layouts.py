"""Rows as people have them: every known layout, read from a file to problems, with nothing said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import ConfigError, DataError
from tacit.experiments.scoring import Grader
from tacit.tasks import sources
from tacit.tasks.options import split

Rows = list[dict[str, Any]]


def loaded(tmp_path: Path, *rows: Any, **more: Any) -> sources.Problems:
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sources.load(str(file), **more)


def gold(problem: Any) -> Any:
    return Grader(problem).head(0)["gold"]


BIRDS = "Which bird cannot fly?"
KINDS = ["wren", "ostrich", "swift", "gull"]
SHOWN = f"{BIRDS}\nA) wren\nB) ostrich\nC) swift\nD) gull"

OPEN: dict[str, tuple[dict[str, Any], str, str | None, str]] = {
    "GSM8K": (
        {"question": "Two pens and three?", "answer": "2 + 3 = <<2+3=5>>5 pens.\nSo 1,205 in all.\n#### 1,205"},
        "Two pens and three?",
        "1,205",
        "number",
    ),
    "MATH": (
        {"problem": "Half of $x$?", "level": "Level 1", "type": "Algebra", "solution": "So \\boxed{\\frac{x}{2}}."},
        "Half of $x$?",
        "\\frac{x}{2}",
        "maths",
    ),
    "a box without braces": ({"problem": "Four?", "solution": "It is $\\boxed 4$."}, "Four?", "4", "number"),
    "NuminaMath": (
        {
            "source": "made_up",
            "problem": "Twice 4?",
            "solution": "First \\boxed{7}, no: $\\boxed{8}$",
            "messages": [{"role": "user", "content": "Twice 4?"}, {"role": "assistant", "content": "x"}],
        },
        "Twice 4?",
        "8",
        "number",
    ),
    "a proof": ({"problem": "Show it.", "solution": "By induction.", "answer": "proof"}, "Show it.", None, "maths"),
    "a solution that is the answer": ({"prompt": "1 + 1?", "solution": "2"}, "1 + 1?", "2", "number"),
    "a solution without one": ({"problem": "Show it.", "solution": "By induction, so."}, "Show it.", None, "maths"),
    "SVAMP": (
        {"ID": "c-1", "Body": "Ann has 7 figs.", "Question": "How many are 2 less?", "Answer": 5.0, "Type": "Less"},
        "Ann has 7 figs. How many are 2 less?",
        "5",
        "number",
    ),
    "MGSM": (
        {"question": "Zwei und zwei?", "answer": "Schritt für Schritt: es sind 4.", "answer_number": 4},
        "Zwei und zwei?",
        "4",
        "number",
    ),
    "BoolQ": (
        {"question": "is it wet", "passage": "Rain falls.", "answer": True},
        "Rain falls.\n\nis it wet",
        "yes",
        "maths",
    ),
    "chat": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": [{"type": "text", "text": "3 + 4?"}]},
                {"role": "assistant", "content": "It is \\boxed{7}"},
            ]
        },
        "3 + 4?",
        "7",
        "number",
    ),
    "chat as ShareGPT has it": (
        {"conversations": [{"from": "human", "value": "3 + 4?"}, {"from": "gpt", "value": "seven"}]},
        "3 + 4?",
        "seven",
        "maths",
    ),
    "verl": (
        {
            "data_source": "made/up",
            "prompt": [{"role": "user", "content": "3 + 4?"}],
            "reward_model": {"style": "rule", "ground_truth": "7"},
        },
        "3 + 4?",
        "7",
        "number",
    ),
    "OpenAI's batches": (
        {
            "custom_id": "first",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": "3 + 4?"}]},
        },
        "3 + 4?",
        None,
        "maths",
    ),
    "names in any case": ({"Problem": "3 + 4?", "ANSWER": "x"}, "3 + 4?", "x", "maths"),
    "one answer in a list": ({"question": "3 + 4?", "final_answer": ["7"]}, "3 + 4?", "7", "number"),
    "answers in a list": ({"question": "Roots?", "answer": ["2", 3.0]}, "Roots?", "2, 3", "maths"),
    "answers with commas": ({"question": "Points?", "answer": ["1,2", "3"]}, "Points?", '["1,2", "3"]', "maths"),
    "no answer in a list": ({"question": "Roots?", "answer": []}, "Roots?", None, "maths"),
}

CHOICE: dict[str, dict[str, Any]] = {
    "MMLU": {"question": BIRDS, "choices": KINDS, "answer": 1, "subject": "birds"},
    "ARC": {"question": BIRDS, "choices": {"text": KINDS, "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
    "ARC with numbers": {"question": BIRDS, "choices": {"text": KINDS, "label": [*"1234"]}, "answerKey": "2"},
    "ARC as it was published": {
        "question": {"stem": BIRDS, "choices": [{"text": t, "label": x} for t, x in zip(KINDS, "ABCD", strict=True)]},
        "answerKey": "B",
    },
    "ARC's options in the question": {
        "question": f"{BIRDS} (A) wren (B) ostrich (C) swift (D) gull",
        "AnswerKey": "B",
    },
    "numbered options in the question": {
        "question": f"{BIRDS} (1) wren (2) ostrich (3) swift (4) gull",
        "AnswerKey": "2",
    },
    "AQuA": {
        "question": BIRDS,
        "options": [f"{x}){t}" for t, x in zip(KINDS, "ABCDE", strict=False)],
        "rationale": "It runs.",
        "correct": "B",
    },
    "HellaSwag": {"ctx": BIRDS, "endings": KINDS, "label": "1"},
    "MedQA": {"question": BIRDS, "options": dict(zip("ABCD", KINDS, strict=True)), "answer_idx": "B"},
    "MMLU-Pro": {"question": BIRDS, "options": KINDS, "answer": "B", "answer_index": 1},
    "the option's text": {"question": BIRDS, "options": KINDS, "answer": " Ostrich"},
    "a letter and the text": {"question": BIRDS, "options": KINDS, "answer": "B) ostrich"},
    "a letter in brackets": {"question": BIRDS, "options": KINDS, "answer": "(b)"},
    "a list of one answer": {"question": BIRDS, "options": KINDS, "answer": ["B"]},
    "columns": {"Question": BIRDS, **{f"Option {x}": t for t, x in zip(KINDS, "ABCD", strict=True)}, "Answer": "B"},
    "columns of letters": {"question": BIRDS, **dict(zip("ABCD", KINDS, strict=True)), "answer": "B"},
    "numbered columns": {
        "question": BIRDS,
        **{f"option{x}": t for x, t in enumerate(KINDS, start=1)},
        "answer": "2",
    },
    "MedMCQA": {"question": BIRDS, **{f"op{x}": t for t, x in zip(KINDS, "abcd", strict=True)}, "cop": 1},
    "a list in a cell": {"question": BIRDS, "choices": json.dumps(KINDS), "answer": "1"},
    "a Python list in a cell": {"question": BIRDS, "choices": str(KINDS), "answer": "1"},
    "options as a text": {"question": BIRDS, "options": "A. wren\nB. ostrich\nC. swift\nD. gull", "answer": "B"},
    "options twice": {"question": SHOWN, "options": KINDS, "answer": "B"},
}


@pytest.mark.parametrize("name", OPEN)
def test_questions_with_an_answer_of_their_own(name: str, tmp_path: Path) -> None:
    row, text, answer, task = OPEN[name]
    problems = loaded(tmp_path, row)
    assert (problems[0].text, gold(problems[0])) == (text, answer)
    assert problems.task == task


@pytest.mark.parametrize("name", CHOICE)
def test_options_stand_in_the_text_and_the_answer_is_a_letter(name: str, tmp_path: Path) -> None:
    problems = loaded(tmp_path, CHOICE[name])
    assert (problems[0].text, gold(problems[0])) == (SHOWN, "B")
    assert problems.task == "choice"


def test_ids_and_families_of_the_layouts(tmp_path: Path) -> None:
    named = [OPEN["SVAMP"][0], OPEN["OpenAI's batches"][0], OPEN["MATH"][0], CHOICE["MMLU"]]
    assert [(one.id, one.family) for one in loaded(tmp_path, *named)] == [
        ("c-1", "Less"),
        ("first", None),
        ("set/2", "Algebra"),
        ("set/3", "birds"),
    ]


def gpqa(number: int) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    return {"Record ID": f"r{number}", "Question": f"Q{number}?", "Correct Answer": "right", **wrong, "Subdomain": "x"}


def test_the_right_option_of_gpqa_stands_where_seed_and_id_say(tmp_path: Path) -> None:
    rows = [gpqa(number) for number in range(40)]
    first, again, other = (loaded(tmp_path, *rows, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other and first[0].id == "r0" and first[0].family == "x"
    reversed_ = loaded(tmp_path, *rows[::-1])
    assert reversed_[::-1] == first  # neither the place in the file nor the other rows count
    assert {gold(one) for one in first} == {*"ABCD"}
    for one in (*first, *other):
        options = split(one.text)[1]
        assert options["ABCD".index(gold(one))] == "right"
        assert sorted(options) == ["right", "wrong 1", "wrong 2", "wrong 3"]


@pytest.mark.parametrize("hidden", ["", None, -1])
def test_answers_that_a_test_set_hides_are_unknown(hidden: Any, tmp_path: Path) -> None:
    problems = loaded(tmp_path, {"question": BIRDS, "choices": KINDS, "label": hidden})
    assert gold(problems[0]) is None and problems.task == "choice"


def test_numbers_among_options_are_texts_before_they_are_places(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "choices": [10, 20, 30], "answer": 20},
        {"question": "q", "choices": ["3", "2", "0"], "answer": "2"},
        {"question": "q", "choices": ["30", "20", "10"], "answer": 2},
        {"question": "q", "choices": ["30", "20", "10"], "answer": 20.0},
    ]
    assert [gold(one) for one in loaded(tmp_path, *rows[:3])] == ["B", "B", "C"]
    with pytest.raises(DataError, match=r"line 1: the answer '20.0' is none of the 3 options"):
        loaded(tmp_path, rows[3])


@pytest.mark.parametrize(
    "row, words",
    [
        ({"question": BIRDS, "choices": KINDS, "answer": "E"}, "line 2: the answer 'E' is none of the 4 options"),
        ({"question": BIRDS, "choices": KINDS, "answer": 4}, "line 2: the answer '4' is none"),
        ({"question": BIRDS, "choices": KINDS, "answer": "C) wren"}, "line 2: the answer"),
        ({"question": BIRDS, "option1": "x", "option2": "y", "label": 0}, "line 2: the answer '0' is none"),
        ({"question": BIRDS, "choices": ["one"], "answer": 0}, "line 2 has 1 options"),
        ({"question": BIRDS, "choices": ["x"] * 27, "answer": 0}, "line 2 has 27 options"),
        ({"question": BIRDS, "answer": {"a": 1}}, "line 2: the answer must be"),
        ({"question": BIRDS, "answer": [{"a": 1}]}, "line 2: the answer is a list"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "line 2 has no text"),
        ({"Frage": "x", "Antwort": "y"}, "its fields are Frage, Antwort; say which it is with --field problem=NAME"),
        ({}, "line 2 has no text in a field problem (or question, prompt, text); it has no fields"),
        ([1], "line 2 is not a JSON object"),
        (None, "line 2 is not JSON"),
    ],
)
def test_what_is_not_understood_is_one_sentence_with_its_line(row: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, {"problem": "sound"}, row)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "set.jsonl"))


FOREIGN = {
    "Frage": "3 + 4?",
    "meta": {"Antwort": "7"},
    "Nr": 5,
    "Art": "sum",
    "text": "not this",
    "choices": ["a", "b"],
}


def test_fields_are_what_is_said(tmp_path: Path) -> None:
    said = ("problem=frage", "answer=meta.antwort", "id=Nr", "family=Art", "options=")
    [problem] = loaded(tmp_path, FOREIGN, fields=said)
    assert (problem.id, problem.text, gold(problem), problem.family) == ("5", "3 + 4?", "7", "sum")
    [problem] = loaded(
        tmp_path, {"q": BIRDS, "list": KINDS, "nr": 1}, fields=["problem=q", "options=list", "answer=nr"]
    )
    assert (problem.text, gold(problem)) == (SHOWN, "B")


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("problem,answer,problem\n1 + 1,2,3 + 4\n")
    with pytest.raises(DataError, match=r"line 1 names two columns 'problem'; give each a name of its own"):
        list(sources.load(str(tmp_path / "twice.csv")))


def test_a_field_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="has no field 'frago', which --field problem=frago names; its fields are Frage"
    ):
        loaded(tmp_path, FOREIGN, fields=["problem=frago"])
    for wrong in ("problem", "question=Frage", "=x"):
        with pytest.raises(ConfigError, match="problem=NAME, answer=NAME, options=NAME, id=NAME, family=NAME"):
            loaded(tmp_path, FOREIGN, fields=[wrong])


def test_the_fitting_task(tmp_path: Path) -> None:
    number = {"question": "q", "answer": "-1,200.50"}
    choice, maths, unknown = CHOICE["MMLU"], {"question": "q", "answer": "x+1"}, {"question": "q"}
    embedded = {"question": SHOWN, "answer": "B"}
    for rows, task in (
        ([number, unknown], "number"),
        ([number, maths], "maths"),
        ([unknown], "maths"),
        ([choice, embedded, {"question": SHOWN}], "choice"),
        ([choice] * 9 + [number], "choice"),
        ([choice] * 8 + [number] * 2, "maths"),
        ([{"question": "clues:\n1. x\n2. y", "answer": "Ann"}], "maths"),
    ):
        problems = loaded(tmp_path, *rows)
        assert problems.task == task
    assert sources.load("testbed", limit=50).task == "maths"
    assert loaded(tmp_path, unknown, choice).places == {
        "set/0": f"{tmp_path}/set.jsonl line 1",
        "set/1": f"{tmp_path}/set.jsonl line 2",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
known_names = st.sampled_from(
    "problem Question prompt messages answer answerKey label options choices A B body option1 option2 solution "
    "reward_model id Incorrect_Answer_1 correct family".split()
)


@settings(deadline=None)
@given(row=st.dictionaries(known_names, json_values, max_size=6))
def test_any_row_is_a_problem_or_one_sentence(row: dict[str, Any]) -> None:
    from tacit.tasks.fields import Row, read

    try:
        problem = read(Row(row, "here", "x/0"), {}, 0).problem
    except DataError as error:
        assert str(error).startswith("here")
    else:
        assert problem.text.strip() and problem.id
