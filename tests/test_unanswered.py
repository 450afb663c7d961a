"""Responses in which nothing is found are told: as a run goes on, in its figures, on its page, by compare and ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import forked_cells, ran
from conftest import Tacit
from tacit.engines.base import Rollout
from tacit.experiments.scoring import HELP, Watch
from tacit.responses import Responses
from tacit.tasks.maths import MATHS

NEVER = r"regex:zzz(\d+)"
SHORT = ["--samples", 3, "--steps", 2, "--rollouts", 3, "--window", 2, "--no-strict", "--baselines", "none"]
TOLD = "no answer that the task"
TASKS = "; try another --task or --instruction"


def run(*arguments: object) -> tuple[str, str]:
    """stdout and stderr of a run on the testbed."""
    done = ran("run", *SHORT, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def unanswered(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())["unanswered"]
    return found


def test_a_run_whose_task_finds_nothing_says_so_once_and_everywhere(tmp_path: Path) -> None:
    out, err = run("--task", NEVER, "--limit", 6, "--out", tmp_path / "run")
    [line] = [line for line in err.splitlines() if TOLD in line]
    # After the first window of two problems, each sampled three times.
    assert line.startswith(f"6 of 6 responses so far (100.0 %) have {TOLD} {NEVER} can read, for example ")
    assert TASKS in line and "--max-tokens" not in line and "\x1b" not in err
    assert err.splitlines()[-1].startswith("6 of 6 problems;") and "; 100.0 % without an answer; " in err
    assert f"zero-shot responses without an answer 100.0 %; try {HELP}" in out
    assert unanswered(tmp_path / "run") == {"responses": 18, "none": 18, "share": 1.0}
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"in 100.0 % of the zero-shot responses (18 of 18); no answer counts as wrong. Try {HELP}." in page
    # Continued: what is finished counts, and the line has an example of what came now.
    _, err = run("--task", NEVER, "--limit", 8, "--out", tmp_path / "run")
    assert [line[:8] for line in err.splitlines() if TOLD in line] == ["24 of 24"]


def test_a_run_that_finds_its_answers_says_no_more_than_the_share(tmp_path: Path) -> None:
    out, err = run("--limit", 4, "--out", tmp_path / "run")
    found = unanswered(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    none = sum(answer is None for row in rows for answer in row["zero_shot"]["answers"])
    assert found == {"responses": 12, "none": none, "share": none / 12} and none < 6
    assert TOLD not in err and f"; {100 * none / 12:.1f} % without an answer; " in err and HELP not in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"in {100 * none / 12:.1f} % of the zero-shot responses ({none} of 12)" in page and HELP not in page


def test_responses_that_are_cut_want_more_tokens(tmp_path: Path) -> None:
    _, err = run("--limit", 2, "--max-tokens", 3, "--out", tmp_path / "run")
    assert TOLD in err and "; try more --max-tokens, which cut most of them, a --stop where they run on" in err


def test_problems_that_were_not_asked_are_no_responses(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"problem": text}) + "\n" for text in ("compute 1 + 1", "compute " + "1 + " * 4000))
    )
    _, err = run("--data", data, "--task", NEVER, "--out", tmp_path / "run")
    assert unanswered(tmp_path / "run")["responses"] == 3 and "3 of 3 responses so far" in err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "there is no accuracy to report" in page and "(3 of 3)" in page


def row(*answers: str | None) -> dict[str, Any]:
    return {"zero_shot": {"answers": list(answers)}}


def said(text: str, *answers: str | None, finish: str = "stop") -> Responses:
    """Responses of one text, in which these answers were found."""
    rollout = Rollout((1,), (0.0,), text, finish)
    return Responses((rollout,) * len(answers), rollout, answers, None, MATHS.vote(answers))


def test_more_than_a_half_is_told_and_what_is_shown_is_short() -> None:
    lines: list[str] = []
    watch = Watch(lines.append, "maths")
    watch.rows([row("1", None)], [said("half", "1", None)])
    assert lines == []
    watch.rows([row(None, None)])  # of an earlier part of the run: there are no responses to show
    watch.rows([row("1")], [said("found", "1")])
    assert lines == []
    watch.rows([row(None)], [said("begin\n" + "x" * 10_000 + "\tend", None)])
    watch.rows([row(None)], [said("again", None)])
    [line] = lines
    assert (
        line.startswith("4 of 6 responses so far (66.7 %)") and '"begin xxx' in line and 'xxx end"; try another' in line
    )
    assert len(line) < 400 and "\n" not in line


def test_a_line_with_what_a_model_wrote_is_harmless_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from tacit.cli.run import Progress

    with Progress("a run", 2) as progress:
        watch = Watch(progress.tell, "maths")
        watch.rows([row(None)], [said("\x1b[2J[bold]\u202etxt\r\n:smile: \ud800", None)])
    [line] = capsys.readouterr().err.splitlines()
    assert line.isprintable() and "[2J[bold]" in line and ":smile:" in line


def test_compare_tells_it_of_a_cell_and_in_its_table(
    cli: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked_cells(monkeypatch)
    words = ["--data", "testbed:A", "--limit", 2, "--seeds", 0, "--no-probes", "--samples", 3]
    code, out, err = cli("compare", "--methods", "zero-shot,icl", *words, "--task", NEVER, "--out", "none")
    assert code == 0, err
    assert err.count("100.0 % of the responses without an answer") == 2 and err.count(HELP) == 1
    assert "| no answer |" in out and out.count("| 0.0 | 100.0 |") == 2
    table = json.loads((tmp_path / "none" / "table.json").read_text())
    assert table["rows"][0]["unanswered"] == {"responses": 6, "none": 6, "share": 1.0}
    assert ">no answer</th>" in (tmp_path / "none" / "report.html").read_text()
    code, out, err = cli("compare", "--methods", "zero-shot", *words, "--out", "found")
    assert code == 0 and "without an answer" not in err and "| no answer |" in out


def test_ask_says_what_helps_where_nothing_is_found(cli: Tacit) -> None:
    words = ["--bank", "bank.db", "--learn", "--samples", 3]
    code, out, _ = cli("ask", "compute 3 + 4", *words, "--task", NEVER)
    assert code == 0 and "\nhint         3 of 3 responses have no answer, for example " in out and TASKS in out
    assert "\nzero-shot    none greedy; none of 3 gave an answer" in out


def test_one_question_makes_no_bank_of_choices_and_a_bank_keeps_its_task(cli: Tacit) -> None:
    options = "which is more?\nA) 41\nB) 18"
    bound = {}
    for name, problem, words in (
        ("maths", options, ()),
        ("maths", options, ()),  # the bank is there
        ("text", options, ("--task", "text")),
        ("choice", options, ("--task", "choice")),
    ):
        code, _, err = cli("ask", problem, "--bank", f"{name}.db", "--learn", "--samples", 2, *words)
        assert code == 0, err
        bound[name] = task_of_bank(f"{name}.db")
    assert bound == {name: name for name in bound}


def task_of_bank(file: str) -> str:
    from tacit.assembly import binding
    from tacit.bank import open_bank

    with open_bank(file, create=False) as bank:
        return binding(bank, ["default"])["task"]


@pytest.mark.parametrize(
    ("task", "problem", "gold", "why"),
    [
        ("number", "compute 1 + 2", "a red house", "'a red house' is not read as a number"),
        ("choice", "which is more?\nA) 41\nB) 18", "D", "'D' is none of the options, which are: 41, 18"),
        ("choice", "compute 1 + 2", "3", "'3' is no letter, and the problem shows no options"),
        ("maths", "compute 1 + 2", " ", "it is empty; where there is none, leave the field out"),
    ],
)
def test_a_reference_answer_that_cannot_be_read_is_named_with_its_line(
    cli: Tacit, tmp_path: Path, task: str, problem: str, gold: str, why: str
) -> None:
    good = {"problem": "which is more?\nA) 8\nB) 9", "answer": {"choice": "B"}.get(task, "9")}
    lines = [json.dumps(good), "", json.dumps({"problem": problem, "answer": gold})]
    (tmp_path / "some.jsonl").write_text("\n".join(lines) + "\n")
    code, out, err = cli("run", "--task", task, "--data", "some.jsonl", "--out", "out")
    assert (code, out) == (2, "") and not (tmp_path / "out").exists()
    assert err == (
        f"error: some.jsonl line 3: the task {task} cannot read the reference answer: {why}; choose another --task, "
        "say which field has it (--field answer=NAME), or mend the data\n"
    )
