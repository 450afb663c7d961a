"""What the command line says of itself: version, completion in shells, the settings in force, what to do next."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tacit
from conftest import Tacit
from tacit.config import RunConfig
from tacit.experiments.run_folder import PARTS, RunFolder
from tacit.model.presets import known
from test_cli_run import asked  # noqa: F401 - a fixture

TASK = 'instruction = "Say \\"it\\"."\npattern = "it: (.+)"\n'
PLUGIN = (
    'from tacit import register\n\nregister("reward", "of-the-shown")(lambda attempts: [0.0] * len(attempts.answers))\n'
)


def test_version(cli: Tacit) -> None:
    assert cli("--version") == (0, f"tacit {tacit.__version__}\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """By the script that `tacit --show-completion bash` prints, in a shell that finds `tacit`."""
    command = tmp_path / "tacit"
    start = "import sys; sys.argv[0] = 'tacit'; from tacit.cli.main import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    command.chmod(0o755)
    ask = 'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tacit_completion tacit; echo "${COMPREPLY[*]}"'
    script = f"""source <(tacit --show-completion bash)
    complete -p tacit
    COMP_WORDS=(tacit ""); {ask}
    COMP_WORDS=(tacit config sh); {ask}
    COMP_WORDS=(tacit doctor --js); {ask}
    """
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=300, check=True)
    bound, commands, show, option = done.stdout.splitlines()
    assert "_tacit_completion tacit" in bound
    assert set(commands.split()) >= {"run", "ask", "serve", "compare", "memories", "config", "doctor"}
    assert (show.strip(), option.strip()) == ("show", "--json")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--lr", "0.003", "--temperature", "0.5", "--key", "last:2", "--limit", "7", "--baselines", "none"],
        ["--model", "some/model", "--max-tokens", "100", "--instruction", 'So: "\\boxed{}"\n\té\x7f', "--stop", "a,b"],
        ["--task", "mine.toml", "--plugin", "mine.py", "--reward", "of-the-shown", "--field", "problem=Frage"],
        ["--bank", "there/bank.sqlite", "--out", "elsewhere", "--allow-code", "--seed", "3"],
    ],
    ids=["nothing", "numbers", "texts", "parts", "places"],
)
def test_what_is_shown_is_taken_back(cli: Tacit, asked: list[RunConfig], arguments: list[str]) -> None:  # noqa: F811
    Path("mine.toml").write_text(TASK)
    Path("mine.py").write_text(PLUGIN)
    code, out, err = cli("config", "show", *arguments)
    assert (code, err) == (0, "")
    Path("shown.toml").write_text(out)
    assert cli("run", *arguments)[0] == cli("run", "--config", "shown.toml")[0] == 0
    meant, taken = asked
    assert taken == known(meant)
    assert cli("config", "show", "--config", "shown.toml")[1].count("\n") == out.count("\n")


def test_flags_variables_file_and_run_folder_are_in_force(cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("seed = 4\nwindow = 2\n[learn]\nlr = 0.1\nsteps = 7\n")
    monkeypatch.setenv("TACIT_STEPS", "8")
    RunFolder("begun", RunConfig(out="begun").settings()).close()
    (Path("begun") / "run.json").write_text('{"instruction": "so", "window": 5}')
    found = tomllib.loads(cli("config", "show", "--config", "mine.toml", "--lr", "0.2", "--out", "begun")[1])
    assert (found["seed"], found["window"], found["instruction"]) == (4, 2, "so")
    assert (found["learn"]["lr"], found["learn"]["steps"]) == (0.2, 8)


def test_what_fits_the_model_is_marked(cli: Tacit) -> None:
    fits = {"temperature", "max_tokens", "lr", "init", "distil", "steps", "settled", "key"}
    shown = cli("config", "show", "--model", "testbed")[1]
    marked = {line.split(" = ")[0] for line in shown.splitlines() if line.endswith("# what fits the model")}
    assert marked == fits and tomllib.loads(shown)["learn"]["lr"] == 0.02
    shown = cli("config", "show", "--model", "some/model", "--lr", "0.5")[1]
    unknown = {line[2:].split(":")[0] for line in shown.splitlines() if "known once it is loaded" in line}
    assert unknown == fits - {"lr"}
    assert not unknown & {name for table in PARTS for name in tomllib.loads(shown)[table]}


def test_no_password_is_shown(cli: Tacit) -> None:
    code, out, _ = cli("config", "show", "--bank", "postgresql://me:s3cret@host/bank")
    assert code == 0 and "s3cret" not in out and "me:***@host/bank" in out and "bank" not in tomllib.loads(out)


def test_wrong_settings_are_one_sentence(cli: Tacit) -> None:
    code, out, err = cli("config", "show", "--window", "0")
    assert (code, out) == (2, "") and err == "error: window is 0; it must be at least 1\n"


def test_doctor_ends_with_what_to_do_next(cli: Tacit) -> None:
    assert cli("doctor")[1].splitlines()[-2:] == [
        "next: tacit demo shows it at work, in minutes",
        "next: tacit doctor --model NAME looks at a model of your own",
    ]
    cli("keys", "create", "--bank", "made.db", "--name", "me")
    assert cli("doctor", "--bank", "made.db")[1].splitlines()[-1] == "next: tacit memories list --bank made.db"
    Path("bad.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    code, out, _ = cli("doctor", "--bank", "bad.db")
    mend, back = out.splitlines()[-2:]
    assert code == 1 and "(bank)" in mend and "tacit memories restore FILE --bank" in back
