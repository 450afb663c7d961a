"""The commands that need no run: memories, testbed, report, doctor, on real banks and files; and errors."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit.cli.main
from conftest import Result, Tacit
from tacit.bank import open_bank
from tacit.bank.portable import from_safetensors
from tacit.memory import Memory, State
from test_metrics_rows import synthetic_rows

COMMAND = [sys.executable, "-c", "from tacit.cli.main import main; main()"]


def memory(number: int, **changes: Any) -> Memory:
    rng = np.random.default_rng(number)
    key = rng.normal(size=16)
    fields: dict[str, Any] = {
        "id": f"{number:04d}abcd",
        "namespace": "default",
        "problem_id": f"p{number}",
        "problem": f"[bold]what[/bold] is {number} + 1? \x1b[31m",
        "prompt": rng.normal(size=(4, 8)).astype(np.float32),
        "key": (key / np.linalg.norm(key)).astype(np.float32),
        "key_kind": "input",
        "fingerprint": "f" * 16,
        "state": State.ACTIVE,
        "reason": "mean reward .8 of the last 3 steps",
        "provenance": {"label": str(number + 1), "share": 0.75, "margin": 0.5, "seed": 0},
        "created": 1_700_000_000.0 + number,
    }
    return Memory(**{**fields, **changes})


@pytest.fixture
def bank(tmp_path: Path) -> str:
    """A bank of three memories, and one in another namespace."""
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    opened = open_bank(url)
    for number, state in enumerate((State.ACTIVE, State.QUARANTINED, State.ACTIVE)):
        opened.add(memory(number, state=state))
    opened.add(memory(7, namespace="other"))
    opened.count("0000abcd", "default", uses=3, helped=1)
    opened.close()
    return url


def one_error(result: Result, *words: str) -> str:
    """The result is a user error: exit 2, nothing on stdout, one line on stderr with these words."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    return err


# --------------------------------------------------------------------------------------------------------- memories


def test_list_json_has_what_programs_read(cli: Tacit, bank: str) -> None:
    code, out, err = cli("memories", "list", "--bank", bank, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [entry["id"] for entry in found] == ["0000abcd", "0001abcd", "0002abcd"]
    first = found[0]
    assert first["sha256"] == memory(0).sha256
    assert (first["problem_id"], first["namespace"], first["state"]) == ("p0", "default", "active")
    assert first["created"] == 1_700_000_000.0
    assert [first[name] for name in ("uses", "agreed", "helped", "hurt")] == [3, 0, 1, 0]


def test_list_filters_and_keeps_namespaces_apart(cli: Tacit, bank: str) -> None:
    ids = [
        entry["id"] for entry in json.loads(cli("memories", "list", "--bank", bank, "--json", "--state", "active")[1])
    ]
    assert ids == ["0000abcd", "0002abcd"]
    others = json.loads(cli("memories", "list", "--bank", bank, "--json", "--namespace", "other")[1])
    assert [entry["id"] for entry in others] == ["0007abcd"]
    assert json.loads(cli("memories", "list", "--bank", bank, "--json", "--namespace", "nobody")[1]) == []
    one_error(cli("memories", "list", "--bank", bank, "--state", "asleep"), "candidate, active, quarantined, retired")


def test_list_shows_a_table_of_harmless_text(cli: Tacit, bank: str) -> None:
    code, out, _ = cli("memories", "list", "--bank", bank)
    assert code == 0 and "0002abcd" in out and "quarantined" in out and "3 memories" in out
    assert "[bold]what" in out  # text of a problem is no markup
    assert "\x1b" not in out  # nor may it steer the terminal


def test_the_bank_can_come_from_the_environment(cli: Tacit, bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_BANK", bank)
    assert len(json.loads(cli("memories", "list", "--json")[1])) == 3


def test_show_one_memory(cli: Tacit, bank: str) -> None:
    code, out, _ = cli("memories", "show", "0001", "--bank", bank, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["id"] == "0001abcd" and facts["sha256"] == memory(1).sha256
    assert facts["provenance"]["label"] == "2" and facts["prompt"]["tokens"] == 4
    assert [step["new"] for step in facts["history"]] == ["quarantined"]
    code, out, _ = cli("memories", "show", "0001abcd", "--bank", bank)
    assert code == 0 and "4 x 8" in out and "quarantined: mean reward" in out and "\x1b" not in out


def test_unknown_foreign_and_ambiguous_ids_are_refused(cli: Tacit, bank: str) -> None:
    unknown = one_error(cli("memories", "show", "ffff", "--bank", bank), "no memory")
    foreign = one_error(cli("memories", "show", "0007abcd", "--bank", bank), "no memory")
    assert unknown.replace("ffff", "0007abcd") == foreign
    one_error(cli("memories", "show", "000", "--bank", bank), "3 memories")
    one_error(cli("memories", "rm", "", "--bank", bank), "no memory")


def test_rm_deletes_all_that_is_named_or_nothing(cli: Tacit, bank: str) -> None:
    one_error(cli("memories", "rm", "0000abcd", "nope", "--bank", bank))
    assert len(json.loads(cli("memories", "list", "--bank", bank, "--json")[1])) == 3
    assert cli("memories", "rm", "0000abcd", "0001", "0001abcd", "--bank", bank)[0] == 0
    left = json.loads(cli("memories", "list", "--bank", bank, "--json")[1])
    assert [entry["id"] for entry in left] == ["0002abcd"]


def test_quarantine_and_activate_leave_a_history(cli: Tacit, bank: str) -> None:
    assert cli("memories", "quarantine", "0000", "--bank", bank, "--reason", "wrong label")[0] == 0
    assert cli("memories", "activate", "0000", "--bank", bank)[0] == 0
    facts = json.loads(cli("memories", "show", "0000", "--bank", bank, "--json")[1])
    assert [(step["new"], step["reason"]) for step in facts["history"]][1:] == [
        ("quarantined", "wrong label"),
        ("active", "activated by hand"),
    ]


def test_export_and_import_a_file(cli: Tacit, bank: str, tmp_path: Path) -> None:
    assert cli("memories", "export", "0002", "m.safetensors", "--bank", bank)[0] == 0
    exported = from_safetensors((tmp_path / "m.safetensors").read_bytes(), trusted=True)
    assert exported.sha256 == memory(2).sha256
    one_error(cli("memories", "export", "0002", "m.safetensors", "--bank", bank), "exists")
    one_error(cli("memories", "export", "0002", "no/such/folder", "--bank", bank), "cannot be written")
    code, out, _ = cli("memories", "import", "m.safetensors", "--bank", "new.db", "--namespace", "mine")
    assert code == 0 and "candidate" in out
    found = json.loads(cli("memories", "list", "--bank", "new.db", "--namespace", "mine", "--json")[1])
    assert (found[0]["state"], found[0]["sha256"], found[0]["uses"]) == ("candidate", exported.sha256, 0)
    code, out, _ = cli("memories", "import", "m.safetensors", "--bank", "new.db", "--namespace", "mine")
    assert code == 0 and "already there" in out


def test_trusted_import_keeps_the_state(cli: Tacit, bank: str) -> None:
    cli("memories", "export", "0001", "m.safetensors", "--bank", bank)
    assert cli("memories", "import", "m.safetensors", "--bank", "new.db", "--trusted")[0] == 0
    found = json.loads(cli("memories", "list", "--bank", "new.db", "--json")[1])
    assert found[0]["state"] == "quarantined"


def test_export_and_import_a_peft_adapter(cli: Tacit, bank: str, tmp_path: Path) -> None:
    one_error(cli("memories", "export", "0000", "adapter", "--bank", bank, "--peft"), "--base-model")
    assert cli("memories", "export", "0000", "adapter", "--bank", bank, "--peft", "--base-model", "some/model")[0] == 0
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["num_virtual_tokens"]) == ("some/model", 4)
    one_error(cli("memories", "export", "0000", "adapter", "--bank", bank, "--peft", "--base-model", "x"), "not empty")
    assert cli("memories", "import", "adapter", "--bank", "new.db")[0] == 0


def test_what_is_no_memory_is_not_imported(cli: Tacit, bank: str, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\x80\x04junk")
    (tmp_path / "empty").mkdir()
    one_error(cli("memories", "import", "junk", "--bank", bank), "safetensors")
    one_error(cli("memories", "import", "empty", "--bank", bank))
    one_error(cli("memories", "import", "nowhere", "--bank", bank), "nowhere")
    assert len(json.loads(cli("memories", "list", "--bank", bank, "--json")[1])) == 3


def test_a_memory_of_another_backbone_is_refused(cli: Tacit, bank: str) -> None:
    other = open_bank("foreign.db")
    other.add(memory(9, fingerprint="e" * 16))
    other.close()
    cli("memories", "export", "0009", "m.safetensors", "--bank", "foreign.db")
    one_error(cli("memories", "import", "m.safetensors", "--bank", bank))
    assert len(json.loads(cli("memories", "list", "--bank", bank, "--json")[1])) == 3


def test_snapshot_and_restore(cli: Tacit, bank: str) -> None:
    assert cli("memories", "snapshot", "copy.db", "--bank", bank)[0] == 0
    one_error(cli("memories", "snapshot", "copy.db", "--bank", bank), "copy.db")
    cli("memories", "rm", "0000", "0001", "--bank", bank)
    one_error(cli("memories", "restore", "copy.db", "--bank", bank))
    code, out, _ = cli("memories", "restore", "copy.db", "--bank", bank, "--force")
    assert code == 0 and "kept at" in out
    assert len(json.loads(cli("memories", "list", "--bank", bank, "--json")[1])) == 3
    one_error(cli("memories", "restore", "nowhere.db", "--bank", bank, "--force"))


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "url, words",
    [
        ("missing.db", "no bank"),
        ("redis://localhost/0", "redis"),
        ("sqlite://", "sqlite:///"),
        ("", "empty"),
        (".", ""),
        ("text.db", ""),
        ("chinook.db", ""),
    ],
)
def test_addresses_that_are_no_bank(cli: Tacit, tmp_path: Path, url: str, words: str) -> None:
    (tmp_path / "text.db").write_text("not a database at all, but long enough to be read as one" * 20)
    other = sqlite3.connect(tmp_path / "chinook.db")
    other.execute("create table album (id integer)")
    other.commit()
    other.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    one_error(cli("memories", "list", "--bank", url), words)
    one_error(cli("memories", "rm", "x", "--bank", url))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "args",
    [
        ["bogus"],
        ["memories", "bogus"],
        ["memories", "list"],
        ["memories", "show", "--bank", "x.db"],
        ["memories", "list", "--bank", "x.db", "--frobnicate"],
        ["testbed", "problems", "--limit", "many"],
        ["testbed", "problems", "--limit", "-1"],
        ["testbed", "problems", "--set", "D"],
        ["testbed", "train", "--set", "A", "--out", "new"],
        ["testbed", "train"],
        ["testbed", "train", "--out", "new", "--seed", "-3"],
        ["testbed", "train", "--out", "taken"],
        ["testbed", "train", "--out", "taken/file/new"],
        ["report"],
        ["report", "nowhere"],
        ["report", "taken/file"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(cli: Tacit, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("here")
    one_error(cli(*args))


def test_help(cli: Tacit) -> None:
    for args in ([], ["--help"], ["memories", "--help"], ["testbed", "train", "-h"]):
        code, out, err = cli(*args)
        assert code == (0 if args else 2) and "Usage:" in out + err
    assert cli("--version")[1].startswith("tacit ")


def test_a_bug_keeps_its_traceback(cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tacit.cli.main, "emit", broken)
    monkeypatch.setattr(sys, "argv", ["tacit", "--version"])
    with pytest.raises(ZeroDivisionError):
        tacit.cli.main.main()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; import tacit.cli.main;"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib', 'sqlalchemy', 'jinja2'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [*COMMAND, "testbed", "problems", "--limit", "50000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b"problem" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "testbed", "problems", "--limit", "2"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2 and done.stderr == "error: The output cannot be written: No space left on device.\n"


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    written = tmp_path / "problems"
    with (
        written.open("w") as out,
        subprocess.Popen(
            [*COMMAND, "testbed", "problems", "--limit", "100000000"],
            stdout=out,
            stderr=subprocess.PIPE,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        ) as process,
    ):
        while not written.stat().st_size and process.poll() is None:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read().decode() == "interrupted\n"


# --------------------------------------------------------------------------------------------- testbed, report, doctor


def test_testbed_problems_are_seeded_jsonl(cli: Tacit) -> None:
    code, out, _ = cli("testbed", "problems", "--set", "A", "--limit", "12", "--seed", "5")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(lines) == 12
    assert all(set(line) == {"id", "problem", "answer", "family"} for line in lines)
    assert cli("testbed", "problems", "--set", "A", "--limit", "12", "--seed", "5")[1] == out
    assert cli("testbed", "problems", "--set", "A", "--limit", "12", "--seed", "6")[1] != out
    assert cli("testbed", "problems", "--set", "B", "--limit", "0")[:2] == (0, "")


def test_testbed_card(cli: Tacit) -> None:
    code, out, _ = cli("testbed", "card")
    assert code == 0 and out.startswith("# ")


def test_report_of_a_run_folder(cli: Tacit, tmp_path: Path) -> None:
    rows = synthetic_rows(30)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"model": "testbed", "seed": 4}))
    code, out, _ = cli("report", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 0 and summary["seed"] == 4
    assert "% right" in out and f" {100 * summary['arms']['routed']['accuracy']:.1f} " in out
    assert "not evidence about 7B models" in out
    (tmp_path / "run" / "results.jsonl").write_text("{}\n" + "\n")
    one_error(cli("report", "run"), "line 1")


def test_doctor_on_a_sound_installation(cli: Tacit, bank: str) -> None:
    code, out, _ = cli("doctor", "--bank", bank, "--json")
    report = json.loads(out)
    checks = {check["name"]: check for check in report["checks"]}
    assert code == 0 and report["ok"] is True
    assert {"python", "torch", "transformers", "tacit", "device", "threads", "testbed weights", "bank"} <= set(checks)
    assert checks["bank"]["ok"] and checks["testbed weights"]["ok"] and checks["answer worker"]["ok"]
    code, out, _ = cli("doctor")
    assert code == 0 and "testbed weights" in out


def test_doctor_exits_1_on_a_bank_that_does_not_open(cli: Tacit, tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    code, out, _ = cli("doctor", "--bank", "bad.db", "--json")
    assert code == 1 and json.loads(out)["ok"] is False
    assert [check["name"] for check in json.loads(out)["checks"] if check["ok"] is False] == ["bank"]


def test_a_locked_bank_is_said_and_loses_nothing(cli: Tacit, bank: str) -> None:
    other = sqlite3.connect(bank.removeprefix("sqlite:///"))
    other.execute("begin immediate")
    try:
        one_error(cli("memories", "rm", "0000abcd", "--bank", bank), "busy")
    finally:
        other.rollback()
        other.close()
    assert len(json.loads(cli("memories", "list", "--bank", bank, "--json")[1])) == 3
