"""What earlier versions left on disks opens, answers, continues and is restored as if it were of today.

The files are in ``tests/golden/v1`` and so on; yesterday.py says how they were made. Everything is compared exactly,
but for similarities (1e-5) and what depends on the clock; the bits of soft prompts may differ between processors.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Tacit
from frozen import GOLDEN
from server import InProcess
from tacit.bank import import_peft, open_bank, restore
from tacit.bank.portable import from_safetensors, to_safetensors
from tacit.engines.local import LocalEngine
from tacit.experiments.compare import Cell, compare, run_cell
from tacit.experiments.report.comparison import write_comparison
from tacit.experiments.report.run import write_report
from tacit.experiments.run import run
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from yesterday import COMPARISON, FIRST, NAMESPACE, jobs, learner, memories, question, rows, run_of, search

VERSIONS = sorted(GOLDEN.glob("v*"))


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what a version left."""
    return Path(shutil.copytree(request.param, tmp_path / "old"))


def near(value: Any) -> Any:
    """The value, to compare with: floats within 1e-5, everything else exactly."""
    if isinstance(value, dict):
        return {name: near(item) for name, item in value.items()}
    if isinstance(value, list):
        return [near(item) for item in value]
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


def loosely(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which similarities, and nothing else, are compared within 1e-5."""
    return [
        {
            arm: {**item, "similarity": near(item["similarity"])}
            if isinstance(item, dict) and "similarity" in item
            else item
            for arm, item in row.items()
        }
        for row in found
    ]


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_there_are_files_of_yesterday() -> None:
    assert VERSIONS and not [file for file in GOLDEN.rglob("*") if file.name.endswith(("-wal", "-shm"))]


def test_a_bank_opens_lists_and_is_searched(old: Path, cli: Tacit) -> None:
    found = read(old / "found.json")
    with open_bank(str(old / "run/bank.sqlite"), create=False) as bank:
        bank.check()
        assert memories(bank, "default") == found["memories"]
        assert search(bank, "default") == near(found["search"])
    code, out, _ = cli("memories", "list", "--bank", old / "run/bank.sqlite", "--json")
    assert code == 0 and [one["id"] for one in json.loads(out)] == [one["id"] for one in found["memories"]]


def test_a_bank_is_asked_and_taught(old: Path, cli: Tacit) -> None:
    first = [part for name, value in FIRST.items() for part in ("--" + name.replace("_", "-"), value)]
    code, out, err = cli(*question(old / "run/bank.sqlite"), *first)
    assert code == 0, err
    asked, wanted = json.loads(out), read(old / "found.json")["asked"]
    assert asked["recalled"]["similarity"] == near(wanted["recalled"].pop("similarity"))
    del asked["recalled"]["similarity"]
    assert asked == wanted


@pytest.mark.parametrize("torn", [False, True], ids=["between windows", "killed after a window's transaction"])
def test_a_run_is_continued(old: Path, torn: bool) -> None:
    out = old / "run"
    if torn:
        kept = (out / "results.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (out / "results.jsonl").write_text("".join(kept[:2]) + kept[2][:40], encoding="utf-8")
    run(run_of(out, 6))
    wanted = rows(old / "run-whole.jsonl")
    assert len(wanted) == 6 and rows(out / "results.jsonl") == loosely(wanted)
    with open_bank(str(out / "bank.sqlite"), create=False) as bank:
        assert memories(bank, "default") == read(old / "run-whole-memories.json")


def test_the_report_of_a_run_is_written_again(old: Path) -> None:
    wanted = read(old / "run/summary.json")
    write_report(old / "run")
    written = read(old / "run/summary.json")
    for name, arm in wanted["arms"].items():  # what came later stands beside it
        written["arms"][name] = {figure: written["arms"][name][figure] for figure in arm}
    assert {name: written[name] for name in wanted} == near(wanted)


def test_a_snapshot_is_restored(old: Path) -> None:
    target = old / "restored.sqlite"
    assert restore(old / "snapshot.sqlite", str(target)) is None
    with open_bank(str(target), create=False) as bank:
        bank.check()
        assert memories(bank, "default") == read(old / "found.json")["memories"]


def test_exported_memories_come_in(old: Path) -> None:
    data, found = (old / "memory.safetensors").read_bytes(), read(old / "found.json")
    [wanted] = [one for one in found["memories"] if one["id"] == found["exported"]]
    memory = from_safetensors(data, trusted=True)
    assert to_safetensors(memory) == data
    assert to_safetensors(import_peft(old / "memory-peft", trusted=True)) == data
    with open_bank(str(old / "run/bank.sqlite"), create=False) as bank:
        assert to_safetensors(bank.get(memory.id, "default")) == data
    with open_bank(str(old / "new.sqlite")) as bank:
        bank.bind("default", memory.fingerprint, "testbed")
        assert bank.add(memory) and memories(bank, "default") == [wanted]
        assert from_safetensors(data).state is State.CANDIDATE


def test_a_servers_bank_is_served(old: Path) -> None:
    found = read(old / "server/found.json")
    server = InProcess(old / "server/bank.sqlite", verifier="vote")
    try:
        client = server.anyone()
        assert client.get("/tacit/v1/memories").status_code == 401
        client.headers["Authorization"] = f"Bearer {found['secret']}"
        listed = client.get("/tacit/v1/memories", params={"order": "asc"}).json()
        assert {one["id"] for one in listed["memories"]} == {one["id"] for one in found["memories"]}
        one = client.get(f"/tacit/v1/memories/{listed['memories'][0]['id']}")
        assert one.status_code == 200 and one.json()["problem"] == listed["memories"][0]["problem"]
        queue = client.get("/tacit/v1/jobs").json()["jobs"]
        assert [(job["id"], job["state"]) for job in queue] == [(job["id"], job["state"]) for job in found["jobs"]]
        body = {"model": "testbed:tacit", "messages": [{"role": "user", "content": "what is 3 * 4 ?"}], "seed": 1}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    finally:
        server.service.close()


def test_the_queue_of_a_server_is_worked_off(old: Path, testbed: Backbone, engine: LocalEngine) -> None:
    found = read(old / "server/found.json")
    with open_bank(str(old / "server/bank.sqlite"), create=False) as bank:
        bank.check()
        key = KeyStore(bank).lookup(found["secret"])
        assert key is not None and (key.id, key.namespace) == (found["key"], NAMESPACE)
        queue = JobQueue(bank)
        assert jobs(queue) == found["jobs"] and memories(bank, NAMESPACE) == found["memories"]
        again = queue.submit(NAMESPACE, f"  {found['jobs'][-1]['problem']} ", key)
        assert again.why == "already learned" and jobs(queue) == found["jobs"]
        assert learner(bank, testbed, engine).once()
        assert jobs(queue) == found["jobs_later"] and memories(bank, NAMESPACE) == found["memories_later"]


def test_a_comparison_keeps_its_cells(old: Path) -> None:
    out = old / "comparison"
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(out.glob("cells/**/*.json*"))}
    wanted = read(out / "table.json")
    write_comparison(out, compare(COMPARISON, out))
    assert before and {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    written = read(out / "table.json")
    assert [{name: row[name] for name in kept} for row, kept in zip(written["rows"], wanted["rows"], strict=True)] == (
        near(wanted["rows"])
    )


def test_what_consolidation_left_opens_and_more_of_it_is_refused(old: Path, cli: Tacit) -> None:
    out, file = old / "comparison", old / "run/bank.sqlite"
    text = (out / "cells/elm/testbed-A/shuffled-3/cell.json").read_text(encoding="utf-8")
    (gone := out / "cells/elm-consolidated/testbed-A/shuffled-3").mkdir(parents=True)
    shutil.copytree(out / "cells/elm/testbed-A/shuffled-3", gone, dirs_exist_ok=True)
    (gone / "cell.json").write_text(text.replace('"elm"', '"elm-consolidated"'), encoding="utf-8")
    code, report, err = cli("report", out)
    assert code == 0 and "elm-consolidated" in report, err
    code, _, err = cli("compare", "--methods", "zero-shot,elm-consolidated", "--limit", 2, "--out", old / "new")
    assert code == 2 and "the method 'elm-consolidated' did not pay and has left" in err and "Traceback" not in err
    code, _, err = cli("consolidate", "--bank", file, "--near", ".8")
    assert code == 2 and err.count("\n") == 1 and "tacit bank tend" in err
    with open_bank(str(file), create=False) as bank:
        part = bank.get(read(old / "found.json")["memories"][0]["id"], "default")
        examples = [{"id": part.problem_id, "problem": part.problem, "label": "1"}]
        more = {"parts": [part.id], "examples": examples, "whole": 1.0, "apart": 0.5}
        whole = replace(part, id="c" * 24, state=State.ACTIVE, provenance={**part.provenance, **more})
        bank.add(whole)
        bank.set_state(part.id, "default", State.RETIRED, f"consolidated into {whole.id}")
        bank.mark("default", "consolidated:fcf9e205190afd9ac54a8297", "kept")
        bank.check()
        assert bank.get(whole.id, "default").provenance["parts"] == [part.id]
    assert cli("memories", "show", whole.id, "--bank", file)[0] == 0
    code, said, err = cli("bank", "tend", file, "--dry-run", "--json")
    assert code == 0 and json.loads(said)["active"][0], err


def test_a_cell_done_again_is_the_same(old: Path) -> None:
    [file] = old.glob("comparison/cells/elm/*/*/rows.jsonl")
    run_cell(COMPARISON, Cell("elm", "testbed:A", "shuffled", 3), old / "again")
    [again] = old.glob("again/cells/elm/*/*/rows.jsonl")
    for row, wanted in zip(rows(again), rows(file), strict=True):
        assert {name: row[name] for name in wanted} == {**wanted, "notes": near(wanted["notes"])}
