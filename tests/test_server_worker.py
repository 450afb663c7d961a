"""The learner process on the testbed: what it makes of jobs, and that dying, stopping and stalling lose nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import stream
from tacit.agent import Agent
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.config import LearnConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError
from tacit.judges.verifiers import VoteShare
from tacit.memory import Memory, State
from tacit.model.backbone import Backbone
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import LearnerProcess, WorkerSettings
from tacit.server.learner.promotion import UNPROVEN
from tacit.server.learner.worker import Worker

PROBLEMS = stream(6, seed=11)
SAMPLING = Sampling(samples=4, max_tokens=48)
STRICT = LearnConfig(distil=0, steps=4, batch=6, admit=0.6)
LEARN = LearnConfig(tokens=8, distil=0, steps=3, rollouts=4, batch=2, min_votes=1, min_lead=1)


def settings_for(path: Path, **changes: Any) -> WorkerSettings:
    fixed = {"verifier": "vote", "sampling": SAMPLING, "learn": LEARN, "lease": 1.0, "poll": 0.05, "promote": False}
    return WorkerSettings(**{"bank": str(path), "device": "cpu", "nice": 0, **fixed, **changes})


def submitted(path: Path, count: int = len(PROBLEMS), namespace: str = "home") -> Bank:
    bank = open_bank(str(path))
    key, _ = KeyStore(bank).create("test", namespace)
    for problem in PROBLEMS[:count]:
        assert JobQueue(bank).submit(namespace, problem.text, key).job is not None
    return bank


def learned(bank: Bank, namespace: str = "home") -> dict[str, tuple[Any, ...]]:
    """What must not depend on how often a worker died."""
    memories: list[Memory] = [bank.get(info.id, namespace) for info in bank.find(namespace)]
    return {m.id: (m.problem, m.sha256, m.state, m.reason, m.provenance["label"]) for m in memories}


def worker_for(bank: Bank, testbed: Backbone, engine: LocalEngine, **changes: Any) -> Worker:
    return Worker(bank, testbed, engine, VoteShare(), settings_for(Path(), **changes))


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for other processes; fails where they hang."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the worker hangs"
        time.sleep(0.02)


def test_memories_are_candidates_with_reasons(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db")
    worker = worker_for(bank, testbed, engine, learn=STRICT)
    assert worker.once() and not worker.once()
    jobs = {job.id: job for job in JobQueue(bank).list("home")}
    assert {job.state for job in jobs.values()} == {"done"}
    memories = [bank.get(info.id, "home") for info in bank.find("home")]
    assert {m.id for m in memories} == {job.memory_id for job in jobs.values()} - {None}
    for memory in memories:
        assert memory.state is State.CANDIDATE and memory.uses == 0
        job = jobs[memory.provenance["job"]]
        assert (job.memory_id, job.key_id, job.outcome) == (memory.id, memory.provenance["key"], memory.reason)
        assert memory.reason.startswith(UNPROVEN) == memory.provenance["admitted"]
    assert {m.provenance["admitted"] for m in memories} == {True, False}
    for job in jobs.values():
        assert job.memory_id is not None or job.outcome  # where nothing is kept, it says why
        assert job.progress is not None and job.progress["stage"] == "learning"
    # They are what an agent learns that never heard of a server.
    elsewhere = open_bank(str(tmp_path / "other.db"))
    agent = Agent(testbed, engine, elsewhere, "home", 0, VoteShare(), SAMPLING, STRICT)
    results = agent.learn(agent.answer([job.task for job in sorted(jobs.values(), key=lambda job: job.number)]))
    assert {r.memory.id: r.memory.sha256 for r in results if r.memory} == {m.id: m.sha256 for m in memories}


def test_one_bad_problem_fails_alone(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db", 2)
    queue, key = JobQueue(bank), KeyStore(bank).all()[0]
    bad = queue.submit("home", "what is " + "1 + " * 5000 + "1 ?", key).job
    assert bad is not None
    worker = worker_for(bank, testbed, engine, learn=LearnConfig(steps=1, batch=8, min_votes=1, min_lead=1))
    assert worker.once()
    assert queue.counts("home") == {"queued": 0, "learning": 0, "done": 2, "failed": 1}
    failed = queue.get(bad.id, "home")
    assert failed is not None and failed.error is not None and "tokens" in failed.error


def test_another_models_namespace_fails_its_jobs_and_no_others(
    tmp_path: Path, testbed: Backbone, engine: LocalEngine
) -> None:
    bank = submitted(tmp_path / "bank.db", 1)
    bank.bind("foreign", "f" * 16, "some other model")
    foreign, _ = KeyStore(bank).create("test", "foreign")
    JobQueue(bank).submit("foreign", "what is 1 + 1 ?", foreign)
    assert worker_for(bank, testbed, engine).once()
    assert JobQueue(bank).counts("home")["done"] == 1
    [failed] = JobQueue(bank).list("foreign")
    assert failed.state == "failed" and failed.error is not None and "another" in failed.error


def test_what_another_worker_has_taken_over_is_not_stored_twice(
    tmp_path: Path, testbed: Backbone, engine: LocalEngine
) -> None:
    """A worker stalls beyond its lease, another does its jobs, then the first goes on as if nothing had been."""
    bank = submitted(tmp_path / "bank.db", 2)
    stalled = worker_for(bank, testbed, engine, lease=0.01)
    jobs = stalled.queue.claim(stalled.name, 0.01, 2)
    time.sleep(0.02)
    assert worker_for(bank, testbed, engine).once()
    before = learned(bank)
    stalled._learn(jobs)
    assert learned(bank) == before and JobQueue(bank).counts("home")["done"] == 2


def test_kill_9_at_any_moment_changes_nothing(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    quiet = submitted(tmp_path / "quiet.db")
    worker = worker_for(quiet, testbed, engine)
    while worker.once():
        pass
    bank, chance = submitted(tmp_path / "bank.db"), random.Random(1)
    queue = JobQueue(bank)
    process = LearnerProcess(settings_for(tmp_path / "bank.db"))
    process.start()
    try:
        for _ in range(2):
            victim = process.pid
            until(lambda: queue.counts("home")["learning"] > 0 or queue.counts("home")["done"] == len(PROBLEMS))
            time.sleep(chance.uniform(0, 0.3))
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            until(lambda: process.pid not in (None, victim))  # noqa: B023 - called before the loop goes on
        until(lambda: queue.counts("home")["done"] == len(PROBLEMS))
        assert process.restarts == 2 and process.exit_code == -signal.SIGKILL and process.alive
    finally:
        in_order = process.stop(timeout=120)
    assert in_order and not process.alive
    bank.check()
    assert learned(bank) == learned(quiet) and len(learned(bank)) > 0


LONG = LearnConfig(steps=100_000, batch=2, min_votes=1, min_lead=1)


def test_sigterm_gives_back_what_is_not_finished(tmp_path: Path) -> None:
    bank = submitted(tmp_path / "bank.db", 2)
    queue = JobQueue(bank)
    process = LearnerProcess(settings_for(tmp_path / "bank.db", learn=LONG, lease=600.0))
    process.start()
    until(lambda: any((job.progress or {}).get("stage") == "learning" for job in queue.list("home")))
    assert process.stop(timeout=120)
    assert [(job.state, job.attempts) for job in queue.list("home")] == [("queued", 0)] * 2
    process.start()  # and it can be started again
    assert process.alive
    process.stop()


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


PARENT = """
import sys, time
from tacit.server.learner.process import LearnerProcess, WorkerSettings
process = LearnerProcess(WorkerSettings.from_json(sys.argv[1]))
process.start()
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("early", [True, False])
def test_the_worker_ends_with_its_parent(tmp_path: Path, early: bool) -> None:
    """Also where the parent dies before the worker has come to look after it."""
    bank = submitted(tmp_path / "bank.db", 1)
    settings = settings_for(tmp_path / "bank.db", learn=LONG, lease=600.0)
    command = [sys.executable, "-c", PARENT, settings.to_json()]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    if not early:
        until(lambda: JobQueue(bank).counts("home")["learning"] == 1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: gone(worker))
    assert JobQueue(bank).counts("home")["queued"] == 1


def test_a_user_error_is_one_line(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "bank.db", model=str(tmp_path / "nothing"))
    done = subprocess.run(
        [sys.executable, "-m", "tacit.server.worker"],
        check=False,
        input=settings.to_json(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("learner: ") and "Traceback" not in done.stderr
    assert WorkerSettings.from_json(settings.to_json()) == settings
    for wrong in ("", "[]", json.dumps({"bank": "b", "speed": 9}), json.dumps({"bank": "b", "learn": {"steps": "x"}})):
        with pytest.raises(ConfigError):
            WorkerSettings.from_json(wrong)


def test_a_namespace_is_tended_when_it_is_due(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db")
    worker = worker_for(bank, testbed, engine, tend=4, keep=1)
    assert not worker.tend() and worker.once() and worker.once()
    for info in bank.find("home"):
        bank.set_state(info.id, "home", State.ACTIVE, "by hand")
    worker._tend_at = time.monotonic() + 1000
    assert not worker.tend()  # it rests
    worker._tend_at = 0.0
    assert worker.tend() and bank.counts("home")[State.ACTIVE] == 1
    worker._tend_at = 0.0
    assert not worker.tend()  # nothing came since
    assert not worker_for(bank, testbed, engine).tend()  # off unless asked for
