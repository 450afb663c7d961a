"""Files as a version of Tacit leaves them: how those under ``golden/v1`` were made, and what is read from them.

``golden/v1`` is of version 0.1.0 and is never made again: its files are what people have on their disks. Those of a
later version are made beside it, by ``python tests/yesterday.py tests/golden/v2``, and test_yesterday.py then opens
both. The folder holds

    run/                       a run of 4 problems out of 6, with its bank
    run-whole.jsonl            the rows of all 6, as that version continued it
    run-whole-memories.json    and the memories that it had then
    snapshot.sqlite            a snapshot of the bank of run/
    memory.safetensors, memory-peft/   its last memory, exported
    found.json                 what its bank, a search in it and a question to it gave
    server/bank.sqlite         a server's bank: one API key, jobs done, failed and queued, memories
    server/found.json          the key's secret (of this file alone), the jobs, and what the queued one came to
    comparison/                two finished cells and their table
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tacit.bank import export_peft, open_bank
from tacit.bank.base import Bank
from tacit.bank.portable import to_safetensors
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.experiments.compare import compare
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.report.comparison import write_comparison
from tacit.experiments.run import run
from tacit.judges.verifiers import VoteShare
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.worker import Worker

FIRST: dict[str, Any] = {"min_votes": 3, "min_lead": 2, "enough": 2.0, "distil": 0, "steps": 10}
"""Defaults of 0.1 that are others now."""
LEARN = LearnConfig(**{**FIRST, "tokens": 8, "steps": 2, "rollouts": 4, "min_votes": 1, "min_lead": 1, "admit": 0.1})
SAMPLING, RECALL = Sampling(samples=4), RecallConfig(floor=-1.0)
LATER = {"learning"}
"""Fields of provenance that came after the oldest version: what is learned today has more than what is kept of it."""
KEPT = ("run.json", "results.jsonl", "pending.jsonl", "summary.json", "bank.sqlite")
NAMESPACE = "home"
QUESTION = "tom has 12 eggs and sam has 31 eggs. how many more?"
SERVED = ["mary has 18 coins and tom has 41 coins. how many at most?", "what is 3 * 4 ?", "what is 17 + 5 ?"]
COMPARISON = CompareConfig(
    data=("testbed:A",),
    methods=("zero-shot", "elm"),
    seeds=(3,),
    limit=4,
    window=2,
    strict=False,
    jobs=1,
    probes=False,
    learn=LEARN,
    sampling=SAMPLING,
    recall=RECALL,
)


def run_of(out: Path, limit: int) -> RunConfig:
    """The run, to be begun or continued in a folder."""
    arms = ("icl", "random", "verified", "majority")
    return RunConfig(
        out=str(out),
        seed=2,
        limit=limit,
        window=2,
        strict=False,
        baselines=arms,
        learn=LEARN,
        sampling=SAMPLING,
        recall=RECALL,
        threads=1,
    )


def rows(file: Path) -> list[dict[str, Any]]:
    """Rows of results, without what depends on the clock."""
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def memories(bank: Bank, namespace: str) -> list[dict[str, Any]]:
    """What does not depend on clock or processor about the memories of a namespace, in the order of storing."""
    names = ("id", "problem_id", "problem", "key_kind", "fingerprint", "state", "reason", "label", "share", "margin")
    counters = ("uses", "agreed", "helped", "hurt")
    return [
        {
            **{name: getattr(info, name) for name in (*names, *counters)},
            "history": [[change.old, change.new] for change in bank.history(info.id, namespace)],
            "fields": sorted({*bank.get(info.id, namespace).provenance} - LATER),
        }
        for info in bank.find(namespace)
    ]


def search(bank: Bank, namespace: str) -> list[list[Any]]:
    """Each memory's two nearest, by key: the problem, and how similar they are."""
    found = []
    for info in bank.find(namespace):
        memory = bank.get(info.id, namespace)
        hits = bank.search(
            memory.key,
            namespace=namespace,
            fingerprint=memory.fingerprint,
            key_kind=memory.key_kind,
            k=2,
            states=tuple(State),
        )
        found.append([[hit.memory_id, hit.problem_id, hit.similarity] for hit in hits])
    return found


def jobs(queue: JobQueue) -> list[dict[str, Any]]:
    """The jobs, without times."""
    names = ("id", "namespace", "problem_id", "problem", "state", "attempts", "error", "memory_id", "outcome")
    found = [{name: getattr(job, name) for name in names} for job in queue.list(NAMESPACE)]
    return [{**job, "problem": job["problem"][:80]} for job in found]


def learner(bank: Bank, backbone: Backbone, engine: LocalEngine) -> Worker:
    """A learner on a server's bank, in this process."""
    settings = WorkerSettings(
        bank="", verifier="vote", sampling=SAMPLING, learn=LEARN, recall=RECALL, promote=False, device="cpu"
    )
    worker = Worker(bank, backbone, engine, VoteShare(), settings)
    worker.name = "learner-1"
    return worker


def question(bank: Path) -> list[str]:
    """Words of a command that asks it something, learns from it, and prints JSON."""
    return ["ask", QUESTION, "--bank", str(bank), "--floor", "-1", "--samples", "4", "--learn", "--json"]


def write(file: Path, value: Any) -> None:
    """JSON for people to compare."""
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _make_run(folder: Path, scratch: Path) -> None:
    run(run_of(scratch / "run", 4))
    (folder / "run").mkdir()
    for name in KEPT:
        shutil.copy(scratch / "run" / name, folder / "run" / name)
    for name in ("run.json", "summary.json"):  # nobody else has the folder that this was made in
        text = (folder / "run" / name).read_text()
        (folder / "run" / name).write_text(text.replace(str(scratch / "run"), "runs/run"))
    with open_bank(str(scratch / "run/bank.sqlite"), create=False) as bank:
        bank.snapshot(folder / "snapshot.sqlite")
        last = bank.get(bank.find("default")[-1].id, "default")
        (folder / "memory.safetensors").write_bytes(to_safetensors(last))
        export_peft(last, folder / "memory-peft", "testbed")
        found = {"memories": memories(bank, "default"), "search": search(bank, "default"), "exported": last.id}
    shutil.copy(folder / "snapshot.sqlite", scratch / "asked.sqlite")
    words = [sys.executable, "-m", "tacit", *question(scratch / "asked.sqlite")]
    found["asked"] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    write(folder / "found.json", found)
    run(run_of(scratch / "run", 6))
    shutil.copy(scratch / "run/results.jsonl", folder / "run-whole.jsonl")
    with open_bank(str(scratch / "run/bank.sqlite"), create=False) as bank:
        write(folder / "run-whole-memories.json", memories(bank, "default"))


def _make_server(folder: Path) -> None:
    folder.mkdir()
    file = folder / "bank.sqlite"
    backbone = Backbone.load("testbed", device="cpu")
    engine = LocalEngine(backbone)
    with open_bank(str(file)) as bank:
        key, secret = KeyStore(bank).create("laptop", NAMESPACE, ("ask", "learn", "admin"))
        queue = JobQueue(bank)
        first, second, third = SERVED
        for text in (first, second, "what is 1 + 1 ? " * 180):
            assert queue.submit(NAMESPACE, text, key).job is not None
        assert learner(bank, backbone, engine).once()
        assert queue.submit(NAMESPACE, third, key).job is not None
        found = {"secret": secret, "key": key.id, "jobs": jobs(queue), "memories": memories(bank, NAMESPACE)}
    # What the job that is still queued comes to.
    shutil.copy(file, folder / "learned.sqlite")
    with open_bank(str(folder / "learned.sqlite")) as bank:
        assert learner(bank, backbone, engine).once()
        found |= {"jobs_later": jobs(JobQueue(bank)), "memories_later": memories(bank, NAMESPACE)}
    (folder / "learned.sqlite").unlink()
    write(folder / "found.json", found)


def make(folder: Path) -> None:
    """Everything, into a folder that does not exist."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        _make_run(folder, Path(scratch))
        _make_server(folder / "server")
        write_comparison(Path(scratch) / "c", compare(COMPARISON, Path(scratch) / "c"))
        shutil.copytree(Path(scratch) / "c/cells", folder / "comparison/cells")
        shutil.copy(Path(scratch) / "c/table.json", folder / "comparison/table.json")
    assert not [file for file in folder.rglob("*") if file.name.endswith(("-wal", "-shm"))]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
