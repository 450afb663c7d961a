"""Whole runs as a user starts them: the files they leave, continuing after kill -9, real data, and user errors."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Command, cold, ran
from conftest import save_tiny_qwen2
from tacit.bank import open_bank

DATA = Path(__file__).parents[2] / "shared" / "data"
SHORT = ["--steps", "3", "--samples", "4", "--window", "4", "--max-tokens", "40"]


def tacit(
    *arguments: object, code: int = 0, start: Callable[..., subprocess.CompletedProcess[str]] = ran, **settings: Any
) -> subprocess.CompletedProcess[str]:
    done = start(*arguments, **settings)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def refused(*arguments: object, **settings: Any) -> str:
    """The one line on stderr of a command that fails for a reason the user can mend."""
    done = tacit(*arguments, code=2, **settings)
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def results(out: Path) -> list[dict[str, Any]]:
    """Rows without what depends on the clock."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return rows


def contents(out: Path | str) -> list[tuple[Any, ...]]:
    """Every memory of a run's folder, or of the bank at an address, but for the time."""
    bank = open_bank(out if isinstance(out, str) else str(out / "bank.sqlite"), create=False)
    bank.check()
    infos = bank.find("default")
    bank.close()
    return [(i.id, i.problem_id, i.state, i.reason, i.sha256, i.uses, i.agreed, i.helped, i.hurt) for i in infos]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, uninterrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    baselines = "icl,majority,random,verified"
    tacit("run", "--data", "testbed", "--limit", 24, "--out", out, *SHORT, "--baselines", baselines, start=cold)
    return out


def test_a_run_leaves_what_others_rely_on(finished: Path) -> None:
    rows = results(finished)
    assert [row["position"] for row in rows] == list(range(24))
    for row in rows:
        for arm in ("zero_shot", "routed"):
            assert {"answer", "correct", "greedy_correct"} <= set(row[arm])
            assert 0 <= row[arm]["correct"] <= 1
        assert "route" in row["routed"]
        assert row["memory"] is None or {"memory_id", "similarity"} <= set(row["memory"])
        assert row["learned"] is None or {"memory_id", "state", "label", "share", "margin"} <= set(row["learned"])
        assert row["majority"]["n"] >= 5 and row["tokens"] > 0
    assert any(row["memory"] for row in rows) and any(row["learned"] for row in rows)
    summary = json.loads((finished / "summary.json").read_text())
    for arm in ("zero_shot", "memory", "routed", "icl", "majority"):
        assert {"accuracy", "greedy", "n", "low", "high"} <= set(summary["arms"][arm])
    assert {"mean", "low", "high"} <= set(summary["gain"]) & set(summary["gain_greedy"])
    assert summary["model"] == "testbed" and summary["seed"] == 0 and summary["memories"] == len(contents(finished))
    mean = sum(row["routed"]["correct"] for row in rows) / len(rows)
    assert summary["arms"]["routed"]["accuracy"] == pytest.approx(mean)
    lead = summary["arms"]["memory"]["accuracy"] - summary["arms"]["random"]["accuracy"]
    assert summary["gain_over_random"]["mean"] == pytest.approx(lead)
    assert (finished / "report.html").stat().st_size > 10_000
    assert len(list((finished / "plots").glob("*.png"))) >= 3


def test_memories_of_the_run_are_listed(finished: Path) -> None:
    listed = json.loads(tacit("memories", "list", "--bank", finished / "bank.sqlite", "--json").stdout)
    assert [entry["id"] for entry in listed] == [entry[0] for entry in contents(finished)]
    assert {"id", "problem_id", "namespace", "state", "sha256", "created"} <= set(listed[0])


def test_a_finished_run_is_continued_to_a_larger_limit(finished: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    options = ["--data", "testbed", "--out", part, *SHORT, "--baselines", "icl,majority,random,verified"]
    tacit("run", "--limit", 12, *options)
    tacit("run", "--limit", 24, *options)
    assert results(part) == results(finished)
    assert contents(part) == contents(finished)
    line = refused("run", "--limit", 24, *options, "--seed", 1)
    assert "another seed" in line and "--out" in line
    assert results(part) == results(finished)


def killed_and_continued(options: list[str], folder: Path, kills: int, pause: float) -> list[Path]:
    """Run to the end, killing the process at random moments; the run folders, each of which is a finished run.

    A quick machine may come to the end before the last kill: then another run is begun.
    """
    rng = random.Random(7)
    finished: list[Path] = []
    dead = 0
    while dead < kills:
        before_this, out = dead, folder / f"killed{len(finished)}"
        while dead < kills and killed(options, out, rng, pause):
            dead += 1
        assert dead > before_this, "a whole run has ended before it could be killed"
        tacit(*options, out)
        finished.append(out)
    return finished


def killed(options: list[str], out: Path, rng: random.Random, pause: float) -> bool:
    """Start or continue a run and kill it at a random moment; whether it was still running then."""
    process = Command(*options, out)
    done_before = len(acknowledged(out))
    # Starting takes seconds in which nothing can be lost: more than half of the kills should hit the work itself.
    if rng.random() < 0.6:
        while process.poll() is None and len(acknowledged(out)) == done_before:
            time.sleep(0.01)
    time.sleep(rng.random() * pause)
    if process.poll() is not None:
        assert process.returncode == 0, process.written()
        return False
    before = acknowledged(out)
    process.kill()
    process.wait()
    assert acknowledged(out)[: len(before)] == before
    return True


def acknowledged(out: Path) -> list[str]:
    """Ids of problems whose rows are complete."""
    file = out / "results.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize(
    ("limit", "window", "kills"), [(16, 4, 3), pytest.param(60, 2, 20, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_kill_9_changes_nothing(tmp_path: Path, limit: int, window: int, kills: int) -> None:
    options = ["run", "--data", "testbed", "--limit", str(limit), *SHORT, "--window", str(window), "--out"]
    tacit(*options, tmp_path / "whole", start=cold)
    for out in killed_and_continued(options, tmp_path, kills, pause=0.6):
        assert results(out) == results(tmp_path / "whole")
        assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["math500", "amc23", "aime24", "gsm8k_test"])
def test_real_benchmarks_run_on_a_small_random_model(name: str, tmp_path: Path) -> None:
    file = DATA / f"{name}.jsonl"
    if not file.exists():
        pytest.skip("the benchmark files are not beside the project")
    model = save_tiny_qwen2(tmp_path / "model")
    out = tmp_path / "out"
    tacit(
        "run", "--model", model, "--data", file, "--limit", 20, "--out", out, "--window", 10,
        "--samples", 3, "--max-tokens", 24, "--steps", 1, "--rollouts", 2,
    )  # fmt: skip
    rows = results(out)
    gold = [json.loads(line)["answer"] for line in file.read_text().splitlines()[:20]]
    assert [row["gold"] for row in rows] == [str(answer) for answer in gold]
    assert (out / "report.html").exists()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD = '{"id": "1", "problem": "compute 3 + 4", "answer": "7"}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "not json\n", "line 2"),
        (GOOD + '{"id": "2", "answer": "7"}\n', "line 2"),
        (GOOD + '["list"]\n', "line 2"),
        (GOOD + '{"problem": "x", "answer": {"a": 1}}\n', "line 2"),
        (GOOD + GOOD, "occurs twice"),
        (GOOD + '{"problem": "  "}\n', "line 2"),
        (GOOD + '{"problem": "compute 1 + \\ud800 2"}\n', "line 2"),
        (GOOD + '{"problem": "compute 1 + \\u0000 2"}\n', "line 2"),
        (GOOD + '{"problem": "' + "x" * 100_001 + '"}\n', "line 2"),
        ("", "no problems"),
        ("\n\n", "no problems"),
    ],
)
def test_bad_data_is_one_clear_sentence(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused("run", "--data", write(tmp_path / "data.jsonl", text), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def problems_file(path: Path, problems: list[tuple[str, str]]) -> Path:
    rows = [{"id": f"{gold}: {text[:12]}", "problem": text, "answer": gold} for text, gold in problems]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_problem_that_the_model_has_no_room_for_is_wrong_and_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    known = [(row["problem"], row["gold"]) for row in results(finished)[:4]]
    long, longer = (" + ".join(["2"] * 600 + [str(number)]) for number in (3, 4))
    mixed = [known[0], (long, "1203"), *known[1:3], (longer, "1204"), known[3]]
    short, both = problems_file(tmp_path / "short.jsonl", known), problems_file(tmp_path / "both.jsonl", mixed)
    more = ["--baselines", "icl,majority,random,verified", *SHORT]
    tacit("run", "--data", short, "--out", tmp_path / "short", *more, "--window", 1)
    done = tacit("run", "--data", both, "--out", tmp_path / "both", *more, "--window", 1)
    assert "not asked, because the model has no room for them: 2 of 6 problems" in done.stdout
    rows = results(tmp_path / "both")
    assert [row["position"] for row in rows] == list(range(6))
    unasked = [row for row in rows if row["gold"] in ("1203", "1204")]
    for row in unasked:
        assert row["zero_shot"]["correct"] == row["routed"]["correct"] == 0 and row["routed"]["answers"] == [None] * 4
        assert row["tokens"] == 0 and row["learned"] is None and row["not_learned"].startswith("not asked: ")
        assert row["not_learned"] == row["routed"]["why"] and "context of 1024" in row["not_learned"]
    others = [{**row, "position": place} for place, row in enumerate(row for row in rows if row not in unasked)]
    assert others == results(tmp_path / "short")
    assert json.loads((tmp_path / "both" / "summary.json").read_text())["not_learned"]["not asked"] == 2
    # In one window with others, and in a window of their own.
    tacit("run", "--data", both, "--out", tmp_path / "wide", *more, "--window", 6)
    assert [row["not_learned"] for row in results(tmp_path / "wide")][1::3] == [row["not_learned"] for row in unasked]
    none = problems_file(tmp_path / "none.jsonl", [(long, "1203"), (longer, "1204")])
    line = refused("run", "--data", none, "--out", tmp_path / "none", *SHORT)
    assert "no problem of" in line and "context of 1024" in line and "--max-tokens" in line


def test_bad_arguments_are_one_clear_sentence(tmp_path: Path, finished: Path) -> None:
    out = ["--out", tmp_path / "out"]
    data = ["--data", write(tmp_path / "data.jsonl", GOOD)]
    (tmp_path / "empty").mkdir()
    assert "folder" in refused("run", "--data", tmp_path / "empty", *out, start=cold)
    assert "no data at" in refused("run", "--data", tmp_path / "missing.jsonl", *out)
    assert "no model at" in refused("run", "--model", tmp_path / "missing", *data, *out)
    assert "limit" in refused("run", *data, "--limit", -3, *out)
    assert "--limit" in refused("run", "--data", "testbed", *out)
    assert "say --model testbed:C" in refused("run", "--data", "testbed:C", "--limit", 1, *out)
    assert "has the sets AB, A, B" in refused("run", "--data", "testbed:D", "--limit", 1, *out)
    assert "scheme" in refused("run", *data, "--bank", "mongodb://x/y", *out)
    no_bank = write(tmp_path / "notes.txt", "these are my notes, " * 400)
    refused("run", *data, "--bank", no_bank, *out)
    assert no_bank.read_text() == "these are my notes, " * 400
    assert "folder" in refused("run", *data, "--bank", tmp_path, *out)


def test_a_bank_of_another_backbone_is_refused_and_kept(finished: Path, tmp_path: Path) -> None:
    model = save_tiny_qwen2(tmp_path / "model")
    before = contents(finished)
    data = write(tmp_path / "data.jsonl", GOOD)
    line = refused(
        "run", "--model", model, "--data", data, "--bank", finished / "bank.sqlite", "--out", tmp_path / "out"
    )
    assert "backbone" in line
    assert contents(finished) == before


def test_a_run_goes_on_after_a_setting_was_added(finished: Path, tmp_path: Path) -> None:
    """A setting that an older run.json lacks had its default then; another value is still refused."""
    out = tmp_path / "older"
    shutil.copytree(finished, out)
    held = json.loads((out / "run.json").read_text())
    del held["learn"]["row_tokens"]
    (out / "run.json").write_text(json.dumps(held))
    settings = ["--data", "testbed", "--limit", 24, "--out", out, *SHORT, "--baselines", "icl,majority,random,verified"]
    assert "another learn" in refused("run", *settings, "--row-tokens", 99)
    tacit("run", *settings)
    assert results(out) == results(finished)


def test_a_locked_bank_is_one_clear_sentence(finished: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", GOOD)
    blocker = sqlite3.connect(finished / "bank.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        line = refused("run", "--data", data, "--bank", finished / "bank.sqlite", "--out", tmp_path / "out")
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert "lock" in line or "busy" in line
    tacit("run", "--data", data, "--bank", finished / "bank.sqlite", "--out", tmp_path / "out", *SHORT)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: writes fail at some point in the middle of the run."""
    out = tmp_path / "out"
    options = ["run", "--data", "testbed", "--limit", 16, *SHORT, "--out", out]
    done = tacit(*options, code=2, largest=200 * 1024)
    assert "Traceback" not in done.stderr
    kept = acknowledged(out)
    tacit(*options)
    assert acknowledged(out)[: len(kept)] == kept
    tacit("run", "--data", "testbed", "--limit", 16, *SHORT, "--out", tmp_path / "whole")
    assert results(out) == results(tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_folder_is_used_by_one_process_at_a_time_and_a_changed_bank_is_noticed(
    finished: Path, tmp_path: Path
) -> None:
    options = ["--data", "testbed", *SHORT, "--baselines", "icl,majority,random,verified"]
    other = tmp_path / "empty.sqlite"
    line = refused("run", "--limit", 24, *options, "--out", finished, "--bank", other)
    assert "another bank" in line


def test_settings_without_bounds_are_refused(tmp_path: Path) -> None:
    options = ["--data", write(tmp_path / "data.jsonl", GOOD), "--out", tmp_path / "out"]
    assert "temperature" in refused("run", *options, "--temperature", "inf")
    assert "lr" in refused("run", *options, "--lr", "inf")
    assert "--max-tokens" in refused("run", *options, "--max-tokens", 10**9)


@pytest.mark.parametrize("line", ["[1, 2]\n", '{"id": "x"}\n'])
def test_results_edited_by_hand_are_noticed(tmp_path: Path, line: str) -> None:
    options = ["run", "--data", write(tmp_path / "data.jsonl", GOOD), "--out", tmp_path / "out", *SHORT]
    tacit(*options)
    (tmp_path / "out" / "results.jsonl").write_text(line)
    assert "no result of a run" in refused(*options)


def test_a_run_without_baselines_loads_no_method(tmp_path: Path) -> None:
    script = (
        "import sys; from tacit.config import RunConfig; from tacit.experiments.run import run\n"
        f"run(RunConfig(out={str(tmp_path)!r}, limit=1, baselines=()))\n"
        "print([name for name in sys.modules if name.startswith('tacit.methods')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_run_is_not_continued_over_other_problems(tmp_path: Path) -> None:
    """A line that is put first moves all that follow, and their ids with them."""
    lines = [json.dumps({"problem": f"compute {n} + 4", "answer": str(n + 4)}) for n in (34, 3, 30)]
    data, out = tmp_path / "p.jsonl", tmp_path / "run"
    data.write_text("\n".join(lines))
    asked = ("run", "--data", data, "--out", out, *SHORT, "--baselines", "none")
    tacit(*asked, "--limit", 2)
    before = results(out)
    data.write_text("\n".join(['{"problem": "compute 5 + 5", "answer": "10"}', *lines]))
    assert "has answered another problem at position 0" in refused(*asked, "--limit", 4)
    assert results(out) == before
    data.write_text("\n".join([*lines, lines[0]]))  # what comes after is new
    tacit(*asked, "--limit", 3)
    assert results(out)[:2] == before
