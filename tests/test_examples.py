"""The programs of ``examples/`` are short, say what they show, and run as a user runs them, in an empty folder."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tacit.bank
from commands import script
from postgres import shared

FOLDER = Path(__file__).resolve().parent.parent / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))
SECONDS = 600


def ran(name: str, folder: Path, *arguments: str, cold: bool = False) -> str:
    """What ``python examples/NAME`` prints, run in a folder; ``cold``: by a Python that starts from nothing."""
    if cold:
        command = [sys.executable, str(FOLDER / name), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    else:
        with contextlib.chdir(folder):
            done = script(FOLDER / name, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def free_port() -> str:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return str(there.getsockname()[1])


def votes(said: str) -> list[int]:
    """How many of the samples were for the answer, line by line."""
    return [int(count) for count in re.findall(r"(\d) of 8 (?:samples )?say 258", said)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_an_example_is_short_and_says_how_to_run_it(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    assert text.count("\n") < 60
    first = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    assert re.search(rf": python examples/{program.name}\b", first)


def test_every_example_has_its_line_in_the_table() -> None:
    rows = re.findall(r"^\| \[([\w.]+)\]", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(file.name for file in FOLDER.iterdir() if file.suffix in (".py", ".ipynb"))


def test_quickstart(tmp_path: Path) -> None:
    said = ran("quickstart.py", tmp_path, cold=True)
    without, recalled = votes(said)
    assert recalled > without and "answered: 258 because" in said
    with tacit.bank.open_bank(str(tmp_path / "bank.sqlite"), create=False) as bank:
        assert [info.problem for info in bank.find("default")] == ["compute 99 * 4"]
    assert "answered: 258 because" in ran("quickstart.py", tmp_path)  # again, with what is there


def test_a_memory_works_without_tacit(tmp_path: Path) -> None:
    without, recalled = votes(ran("memory_to_peft.py", tmp_path))
    assert recalled > without
    kept = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (kept["peft_type"], kept["num_virtual_tokens"]) == ("PROMPT_TUNING", 20)


def test_a_memory_travels_as_a_file(tmp_path: Path) -> None:
    alone, recalled = votes(ran("shared_bank.py", tmp_path))
    assert recalled > alone
    found = [tacit.bank.open_bank(str(tmp_path / f"{name}.sqlite"), create=False) for name in ("first", "second")]
    ids = [[info.id for info in bank.find("default")] for bank in found]
    for bank in found:
        bank.close()
    assert ids[0] == ids[1] != []


@pytest.mark.scale
def test_two_machines_share_a_bank_in_postgresql(tmp_path: Path) -> None:
    url = shared().database()
    alone, recalled = votes(ran("shared_bank.py", tmp_path, url))
    assert recalled > alone and not list(tmp_path.glob("*.sqlite"))
    with tacit.bank.open_bank(url, create=False) as bank:
        assert [info.problem for info in bank.find("default")] == ["compute 99 * 4"]


@pytest.mark.slow
def test_a_task_from_a_file(tmp_path: Path) -> None:
    said = ran("task_from_file.py", tmp_path)
    assert "-> '[d, h, q, s]'" in said
    summary = json.loads((tmp_path / "runs/task/summary.json").read_text())
    assert summary["arms"]["routed"]["n"] == 12 and summary["settings"]["task"].startswith("toml:")
    assert f"routed: {summary['arms']['routed']['accuracy']:.2f} of 12" in said


@pytest.mark.slow
def test_a_reward_of_ones_own(tmp_path: Path) -> None:
    said = ran("custom_reward.py", tmp_path)
    rewards = {float(word) for line in said.splitlines()[1:] for word in line.partition("  reward ")[2].split()}
    assert len(rewards) > 3 and max(rewards) <= 1
    settings = json.loads((tmp_path / "runs/brief/run.json").read_text())
    assert settings["learn"]["reward"] == "brief"
    listed = subprocess.run(
        [sys.executable, "-m", "tacit", "run", "--plugin", FOLDER / "custom_reward.py", "--help"],
        env={**os.environ, "TACIT_PLUGINS": str(FOLDER / "custom_reward.py"), "COLUMNS": "300"},
        capture_output=True, text=True, timeout=SECONDS, check=True,
    ).stdout  # fmt: skip
    assert re.search(r"--reward\b.*\bbrief\b", listed)


@pytest.mark.slow
def test_a_server_learns_from_what_the_openai_package_asks(tmp_path: Path) -> None:
    said = ran("serve_openai.py", tmp_path, free_port())
    assert "'done': 6" in said and re.search(r"'active': [1-6]", said)
    plain, remembering = said.splitlines()[-2:]
    assert plain.startswith("testbed: ") and "(off: " in plain
    assert re.match(r"testbed:tacit: .*Answer: 365  \((agree|memory|zero_shot): ", remembering)


@pytest.mark.slow
def test_lm_eval_before_and_after(tmp_path: Path) -> None:
    if "CI" not in os.environ:
        pytest.importorskip("lm_eval", reason="needs the extra eval: `make test-slow` installs it")
    said = ran("lm_eval_before_after.py", tmp_path, free_port(), cold=True)  # it sets what imports read
    found = json.loads(said[said.index("{\n") :])
    assert found["testbed:tacit"]["exact match"] > found["testbed"]["exact match"]
    asked = [
        json.loads(line)["problem"] for line in (tmp_path / "runs/lm-eval/problems.jsonl").read_text().splitlines()
    ]
    rows = (tmp_path / "runs/lm-eval/results.jsonl").read_text().splitlines()
    assert len(asked) == 24 and not {json.loads(row)["problem"] for row in rows} & set(asked)


@pytest.mark.slow
def test_the_notebook(tmp_path: Path) -> None:
    if "CI" not in os.environ:
        pytest.importorskip("nbclient", reason="needs the extra notebook: `make test-slow` installs it")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / "quickstart.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code), "the notebook is kept without what it printed"
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    without, recalled = votes(said)
    assert recalled > without
    summary = json.loads((tmp_path / "runs/notebook/summary.json").read_text())
    assert f"routed     {100 * summary['arms']['routed']['accuracy']:.1f} %" in said
    assert any("image/png" in output.get("data", {}) for output in code[-1].outputs)
