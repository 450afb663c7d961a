"""Faults in the learner: the job at fault fails alone, damaged memories are read around, what keeps dying is told."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banks import make
from conftest import stream
from server import InProcess
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.bank.damage import DAMAGED
from tacit.engines.base import Request, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import BankUnavailable
from tacit.judges.verifiers import VoteShare
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.server.keys import KeyStore
from tacit.server.learner import process as processes
from tacit.server.learner.jobs import MAX_ATTEMPTS, JobQueue
from tacit.server.learner.process import LearnerProcess
from tacit.server.learner.promotion import UNPROVEN
from tacit.server.learner.worker import Worker
from test_server_jobs import Clock
from test_server_worker import LEARN, settings_for, submitted, until

POISON = "what is 6 * 6 * 6 * 6 ?"


class Faulty(LocalEngine):
    """An engine that has a fault with one problem: not an error that anybody expects."""

    def __init__(self, backbone: Backbone, fault: Exception) -> None:
        super().__init__(backbone)
        self.fault = fault

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        poison = self.backbone.encode(POISON)
        if any(len(one.ids) == len(poison) and bool((one.ids == poison).all()) for one in requests):
            raise self.fault
        return super().generate(requests)


def with_poison(path: Path) -> tuple[Bank, JobQueue, str]:
    bank = submitted(path, 2)
    queue = JobQueue(bank)
    job = queue.submit("home", POISON, KeyStore(bank).all()[0]).job
    assert job is not None
    return bank, queue, job.id


def worker_for(bank: Bank, testbed: Backbone, engine: LocalEngine, **changes: Any) -> Worker:
    return Worker(bank, testbed, engine, VoteShare(), settings_for(Path(), **changes))


@pytest.mark.parametrize("fault", [RuntimeError("shapes"), MemoryError(), ValueError("a bug"), RecursionError("deep")])
def test_a_fault_fails_the_job_at_fault_alone_and_in_the_end(
    tmp_path: Path, testbed: Backbone, fault: Exception
) -> None:
    bank, queue, id = with_poison(tmp_path / "bank.db")
    clock = Clock()
    worker = worker_for(bank, testbed, Faulty(testbed, fault), learn=LEARN)
    worker.queue = JobQueue(bank, clock)
    rounds = 0
    while worker.once():
        rounds += 1
        assert rounds < 20, "the same jobs are claimed for ever"
    assert queue.counts("home") == {"queued": 1, "learning": 0, "done": 2, "failed": 0}
    paused = queue.get(id, "home")
    assert paused is not None and paused.attempts == 1 and type(fault).__name__ in str(paused.error)
    for attempt in range(2, MAX_ATTEMPTS + 1):
        assert not worker.once()  # not at once
        clock.now += 1000
        assert worker.once()
        tried = queue.get(id, "home")
        assert tried is not None and tried.attempts == attempt
    failed = queue.get(id, "home")
    assert failed is not None and failed.state == "failed" and failed.error is not None
    assert f"{MAX_ATTEMPTS} attempts" in failed.error and str(fault) in failed.error
    clock.now += 1000
    assert not worker.once()
    again = queue.retry(id, "home")
    assert again is not None and again.state == "queued" and worker.once()


def test_a_worker_runs_on_beside_a_fault(tmp_path: Path, testbed: Backbone) -> None:
    """The whole loop, in which the attempt used to be given back, and everything claimed again for ever."""
    bank, queue, id = with_poison(tmp_path / "bank.db")
    worker = worker_for(bank, testbed, Faulty(testbed, RuntimeError("shapes")), learn=LEARN)
    turns = 0

    def counted() -> bool:
        nonlocal turns
        turns += 1
        if turns > 10:
            worker.stop.set()
        return False

    worker.review = counted  # type: ignore[method-assign]
    worker.run()
    tried = queue.get(id, "home")
    assert queue.counts("home")["done"] == 2 and tried is not None and tried.attempts >= 1 and tried.error


def test_a_bank_that_is_away_costs_no_job_an_attempt(
    tmp_path: Path, testbed: Backbone, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = submitted(tmp_path / "bank.db", 2)
    worker = worker_for(bank, testbed, engine)
    compute, left = worker._compute, 2 * MAX_ATTEMPTS

    def away(jobs: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise BankUnavailable("the disk is full")
        return compute(jobs)

    monkeypatch.setattr(worker, "_compute", away)
    monkeypatch.setattr(worker.stop, "wait", lambda seconds: worker.stop.is_set())
    worker._turn()
    assert [(job.state, job.attempts) for job in JobQueue(bank).list("home")] == [("done", 1)] * 2


def damaged(path: Path, what: str, ids: Sequence[str]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        for id in ids:
            raw.execute(f"UPDATE {what} WHERE position = (SELECT position FROM memories WHERE id = ?)", (id,))
        raw.commit()


def test_a_damaged_neighbour_is_read_around_and_reported(
    tmp_path: Path, testbed: Backbone, engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    bank = submitted(tmp_path / "bank.db", 4)
    worker = worker_for(bank, testbed, engine)
    while worker.once():
        pass
    ids = [info.id for info in bank.find("home")]
    for id in ids:
        bank.set_state(id, "home", State.ACTIVE, "for recall")
    damaged(tmp_path / "bank.db", "payloads SET prompt = x'00'", ids)
    for problem in stream(3, seed=12):
        JobQueue(bank).submit("home", problem.text, KeyStore(bank).all()[0])
    while worker.once():
        pass
    assert JobQueue(bank).counts("home") == {"queued": 0, "learning": 0, "done": 7, "failed": 0}
    found = [info for info in bank.find("home", states=[State.QUARANTINED])]
    assert found and {info.reason for info in found} == {DAMAGED} and "out of use" in caplog.text


def test_a_damaged_candidate_stops_no_trial(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db", 4)
    worker = worker_for(bank, testbed, engine, promote=True)
    while worker.once():
        pass
    ids = [info.id for info in bank.find("home")]
    for id in ids:
        bank.set_state(id, "home", State.CANDIDATE, UNPROVEN)
    damaged(tmp_path / "bank.db", "payloads SET provenance = '{'", ids[:1])
    damaged(tmp_path / "bank.db", "keys SET key = x'00'", ids[1:2])
    worker.review()
    worker.review()
    assert not worker._resting
    assert bank.info(ids[0], "home").reason == DAMAGED == bank.info(ids[1], "home").reason


def test_a_fault_in_one_namespace_rests_it_alone(
    tmp_path: Path, testbed: Backbone, engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    bank = submitted(tmp_path / "bank.db", 1)
    bank.bind("other", testbed.fingerprint, testbed.name)
    worker = worker_for(bank, testbed, engine, promote=True, poll=1000.0)
    reached = []

    def promote(namespace: str) -> bool:
        reached.append(namespace)
        if namespace == "home":
            raise RuntimeError("a bug")
        return False

    worker._promote = promote  # type: ignore[method-assign]
    bank.bind("home", testbed.fingerprint, testbed.name)
    for _ in range(3):
        assert worker.review() is False
    assert sorted(reached) == ["home", "other", "other", "other"] and "'home'" in caplog.text


def test_a_name_of_the_longest_kind_stops_no_review(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db", 1)
    long = make("x" * 400, problem_id="p", fingerprint=testbed.fingerprint, uses=5, hurt=5)
    bank.add(long)
    worker = worker_for(bank, testbed, engine, promote=True)
    assert worker.review() and not worker._resting
    assert bank.info(long.id, "home").state is State.QUARANTINED


def test_a_damaged_job_stops_no_other(tmp_path: Path, testbed: Backbone, engine: LocalEngine) -> None:
    bank = submitted(tmp_path / "bank.db", 3)
    with contextlib.closing(sqlite3.connect(tmp_path / "bank.db")) as raw:
        raw.execute("UPDATE jobs SET progress = '{' WHERE number = 1")
        raw.execute("UPDATE jobs SET state = 'asleep' WHERE number = 2")
        raw.commit()
    worker = worker_for(bank, testbed, engine)
    while worker.once():
        pass
    assert sorted(job.state for job in JobQueue(bank).list("home")) == ["done", "done", "failed"]


# -- the process ------------------------------------------------------------------------------------------------------


def test_a_crash_loop_is_told_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(processes, "FIRST_WAIT", 0.01)
    open_bank(str(tmp_path / "bank.db")).close()
    process = LearnerProcess(settings_for(tmp_path / "bank.db"))
    with monkeypatch.context() as broken:
        broken.setattr(processes.sys, "executable", "/bin/false")
        process.start()
        until(lambda: process.failing)
    assert process.state == "failing" and process.reason is not None and "exit code 1" in process.reason
    assert "died 3 times" in caplog.text
    until(lambda: process.alive)  # it goes on trying
    assert process.stop(timeout=60)


def test_pauses_grow_and_stay_numbers() -> None:
    process = LearnerProcess(settings_for(Path("bank.db")))
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        process.deaths += 100
        return len(waits) > 20

    process._launch = lambda: None  # type: ignore[method-assign]
    process._stopping = SimpleNamespace(wait=wait, is_set=lambda: False)  # type: ignore[assignment]
    process._watch()
    assert waits[0] == processes.FIRST_WAIT and set(waits[1:]) == {processes.LONGEST_WAIT}


NO_FILES = """
import os, resource, sys, time
from tacit.server.learner import process as processes
from tacit.server.learner.process import LearnerProcess, WorkerSettings
processes.FIRST_WAIT = 0.02
process = LearnerProcess(WorkerSettings.from_json(sys.argv[1]))
if sys.argv[2] == "later":
    process.start()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
if sys.argv[2] == "later":
    os.kill(process.pid, 9)
else:
    process.start()
end = time.monotonic() + 60
while process.deaths < 4 and time.monotonic() < end:
    time.sleep(0.01)
print(process.alive, process.state, process.reason, flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
while not process.alive and time.monotonic() < end:
    time.sleep(0.01)
print(process.alive, flush=True)
process.stop()
"""


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_start_that_fails_is_tried_again(tmp_path: Path, when: str) -> None:
    """Without a file descriptor left, no process can be started; nor must the thread that watches die of it."""
    settings = settings_for(tmp_path / "bank.db").to_json()
    command = [sys.executable, "-c", NO_FILES, settings, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))
    told, alive = done.stdout.splitlines()
    assert told.startswith("False failing it cannot be started") and "Too many open files" in told
    assert alive == "True" and done.returncode == 0


def test_a_failing_learner_shows_everywhere(tmp_path: Path) -> None:
    served = InProcess(tmp_path / "bank.db")
    try:
        client = served.client("home", "admin", "ask")
        assert client.get("/health/ready").json() == {"status": "ready", "learner": "none", "storing": True}
        learner = LearnerProcess(settings_for(tmp_path / "bank.db"))
        served.service.learner = learner
        for deaths, state in ((0, "starting again"), (processes.LOOPING, "failing")):
            learner.deaths, learner.reason = deaths, "it cannot be started" if deaths else None
            ready = served.anyone().get("/health/ready")
            assert ready.status_code == 200 and ready.json()["learner"] == state
            status = client.get("/tacit/v1/status").json()["learner"]
            assert (status["failing"], status["reason"]) == (deaths > 0, learner.reason)
            metrics = client.get("/metrics").text
            assert f'tacit:learner{{what="failing"}} {float(deaths > 0)}' in metrics
        assert 'tacit:learner{what="alive"} 0.0' in metrics and 'tacit:learner{what="restarts"} 0.0' in metrics
    finally:
        served.service.learner = None
        served.service.close()


def test_an_engine_that_has_failed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread ends for good: whoever asks is told to come back, and a supervisor to start the server anew."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    served = InProcess(tmp_path / "bank.db")
    try:
        asked = {"model": "testbed", "messages": [{"role": "user", "content": "3 + 4"}], "max_tokens": 4}

        def out_of_memory() -> Any:
            raise MemoryError

        monkeypatch.setattr(served.service.engine._session, "step", out_of_memory)
        for _ in range(2):
            told = served.anyone().post("/v1/chat/completions", json=asked)
            assert (told.status_code, told.json()["error"]["code"]) == (503, "engine_lost")
        ready = served.anyone().get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "engine_failed"})
    finally:
        served.service.close()
