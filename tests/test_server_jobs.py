"""The job queue on real bank files: at least once, memories exactly once, leases, budgets, processes that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from banks import make
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.server.keys import ApiKey, KeyStore
from tacit.server.learner.jobs import LONGEST_NOTE, MAX_ATTEMPTS, Job, JobQueue, JobState

HERE = Path(__file__).parent
NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bank(factory: Any) -> Iterator[Bank]:
    opened: Bank = factory.open()
    yield opened
    opened.close()


def key_for(bank: Bank, namespace: str = "home", learn_per_day: int = 100, rights: str = "ask,learn") -> ApiKey:
    return KeyStore(bank).create("test", namespace, rights.split(","), learn_per_day)[0]


def put(queue: JobQueue, key: ApiKey, *texts: str) -> list[Job]:
    jobs = [queue.submit(key.namespace, text, key).job for text in texts]
    return [job for job in jobs if job is not None]


def test_a_problem_is_queued_once_per_namespace(bank: Bank) -> None:
    queue, key, other, foreign = JobQueue(bank), key_for(bank), key_for(bank), key_for(bank, "work")
    first = queue.submit("home", "what is 1 + 2 ?", key)
    assert first.job is not None and first.why == "queued"
    assert first.job.state is JobState.QUEUED and first.job.problem_id.startswith("served-")
    again = queue.submit("home", "  what is\n1 + 2 ?", other)
    assert again.job == first.job and again.why == "already queued"
    elsewhere = queue.submit("work", "what is 1 + 2 ?", foreign)
    assert elsewhere.why == "queued" and elsewhere.job is not None and elsewhere.job.id != first.job.id
    assert queue.get(first.job.id, "work") is None  # another namespace's job looks missing
    [claimed, _] = queue.claim("w", 60, 9)
    assert queue.finish(claimed, "w", "m1", "admitted") and bank.add(make("m1"))
    again = queue.submit("home", "what is 1 + 2 ?", key)
    assert again.why == "already learned" and again.job is not None and again.job.memory_id == "m1"
    assert queue.counts("home") == {"queued": 0, "learning": 0, "done": 1, "failed": 0}


def test_a_key_spends_its_daily_budget_on_new_problems_alone(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank, learn_per_day=2)
    assert [queue.submit("home", text, key).why for text in ("a", "a", "b")] == ["queued", "already queued", "queued"]
    refused = queue.submit("home", "c", key)
    assert refused.job is None and "budget of 2 problems a day" in refused.why
    assert queue.submit("home", "a", key).why == "already queued"  # asking about it costs nothing
    clock.now += 12 * 3600 - 1
    assert queue.submit("home", "c", key).job is None
    clock.now += 1  # midnight
    assert queue.submit("home", "c", key).why == "queued"


@pytest.mark.parametrize(
    ("text", "namespace", "key", "why"),
    [
        ("a", "home", {"rights": "ask"}, "may not have problems learned"),
        ("a", "home", {"learn_per_day": 0}, "budget of 0"),
        ("a", "home", {"namespace": "work"}, "does not belong to namespace 'home'"),
        (" \n", "home", {}, "no text"),
        ("x" * 100_001, "home", {}, "100,001 characters"),
        ("a\0", "home", {}, "NUL"),
        ("a\ud800", "home", {}, "surrogate"),
    ],
)
def test_refusals_say_why(bank: Bank, text: str, namespace: str, key: dict[str, object], why: str) -> None:
    refused = JobQueue(bank).submit(namespace, text, key_for(bank, **key))  # type: ignore[arg-type]
    assert refused.job is None and why in refused.why
    assert JobQueue(bank).claim("w", 60, 9) == []


def test_a_revoked_key_submits_nothing(bank: Bank) -> None:
    key = key_for(bank)
    assert JobQueue(bank).submit("home", "a", KeyStore(bank).revoke(key.id)).job is None


def test_keys_take_turns(bank: Bank) -> None:
    queue, flood, modest = JobQueue(bank), key_for(bank), key_for(bank)
    put(queue, flood, *(f"flood {i}" for i in range(20)))
    put(queue, modest, "one", "two")
    assert {job.problem for job in queue.claim("w", 60, 4)} == {"flood 0", "one", "flood 1", "two"}


def test_progress_outcomes_and_errors_are_kept(bank: Bank) -> None:
    queue, key = JobQueue(bank), key_for(bank)
    put(queue, key, "a", "b", "c")
    a, b, c = queue.claim("w", 60, 9)
    assert queue.progress(a, "w", {"step": 3})
    held = queue.get(a.id, "home")
    assert held is not None and held.progress == {"step": 3} and held.state is JobState.LEARNING
    assert queue.finish(a, "w", None, "weak vote")
    assert queue.fail(b, "w", "bad \0 \ud800" + "x" * 9999)
    held = queue.get(b.id, "home")
    assert held is not None and held.error is not None and len(held.error) == LONGEST_NOTE
    assert queue.submit("home", "b", key).why.startswith("already tried: bad")
    assert queue.release("w") == 1
    assert [job.problem for job in queue.list("home")] == ["c", "b", "a"]
    assert [job.problem for job in queue.list("home", states=["queued", "failed"], limit=1)] == ["c"]
    assert not queue.fail(a, "w", "too late") and not queue.progress(c, "w", {})


def test_a_failed_job_can_be_tried_again(bank: Bank) -> None:
    queue, key = JobQueue(bank), key_for(bank)
    put(queue, key, "a", "b")
    a, b = queue.claim("w", 60, 9)
    assert queue.fail(a, "w", "no room") and queue.finish(b, "w", None, "weak vote")
    retried = queue.retry(a.id, "home")
    assert retried is not None and (retried.state, retried.attempts, retried.error) == (JobState.QUEUED, 0, None)
    [claimed] = queue.claim("w", 60, 9)
    assert (claimed.id, claimed.attempts) == (a.id, 1)
    for job, state in ((a, JobState.LEARNING), (b, JobState.DONE)):  # neither has failed
        kept = queue.retry(job.id, "home")
        assert kept is not None and kept.state is state
    assert queue.retry(a.id, "work") is None and queue.retry("nothing", "home") is None


def test_a_job_that_kills_its_workers_fails_in_the_end_and_takes_no_other_along(bank: Bank) -> None:
    clock = Clock()
    queue, key = JobQueue(bank, clock), key_for(bank)
    put(queue, key, "deadly", "harmless", "good")
    for attempt in range(MAX_ATTEMPTS):
        claimed = queue.claim(f"w{attempt}", 60, 9)
        assert [job.problem for job in claimed] == ["deadly", "harmless", "good"][: 3 if attempt < 2 else 1]
        clock.now += 61
    states = set()
    for _ in range(2):
        [job] = queue.claim("w", 60, 9)
        assert queue.finish(job, "w", None, "done")
        states.add(job.problem)
    assert states == {"harmless", "good"}
    assert queue.claim("w", 60, 9) == []
    [failed] = queue.list("home", states=["failed"])
    assert failed.problem == "deadly" and failed.error is not None and "3 attempts" in failed.error


def test_giving_back_is_no_attempt(bank: Bank) -> None:
    queue, key = JobQueue(bank), key_for(bank)
    put(queue, key, "a")
    for _ in range(2 * MAX_ATTEMPTS):
        assert [job.attempts for job in queue.claim("w", 60, 1)] == [1]
        assert queue.release("w") == 1


class Schedule(RuleBasedStateMachine):
    """Any order of submitting, claiming, working, dying and waiting, against what the queue promises."""

    claims: Bundle[tuple[Job, str]] = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.folder = Path(os.environ["SCHEDULES"]) / os.urandom(8).hex()
        self.bank = open_bank(str(self.folder / "bank.db"))
        self.queue = JobQueue(self.bank, self.clock)
        self.keys = [key_for(self.bank, learn_per_day=3), key_for(self.bank, learn_per_day=2)]
        self.leases: dict[str, tuple[str, float]] = {}  # job: who has it, until when
        self.finished: dict[str, int] = {}
        self.submitted: set[str] = set()

    @rule(text=st.sampled_from("abcdef"), which=st.integers(0, 1))
    def submit(self, text: str, which: int) -> None:
        done = self.queue.submit("home", text, self.keys[which])
        if text in self.submitted:
            assert done.job is not None and done.why.startswith("already")
        elif done.job is not None:
            self.submitted.add(text)

    @rule(target=claims, worker=st.sampled_from("uvw"), lease=st.sampled_from([5, 20]), batch=st.integers(1, 3))
    def claim(self, worker: str, lease: int, batch: int):  # type: ignore[no-untyped-def]
        jobs = self.queue.claim(worker, lease, batch)
        for job in jobs:
            assert job.id not in self.finished and 1 <= job.attempts <= MAX_ATTEMPTS
            if job.id in self.leases:
                assert self.leases[job.id][1] <= self.clock.now, "claimed under another's live lease"
            self.leases[job.id] = (worker, self.clock.now + lease)
        return multiple(*[(job, worker) for job in jobs])

    @rule(held=claims, lease=st.sampled_from([5, 20]))
    def extend(self, held: tuple[Job, str], lease: int) -> None:
        job, worker = held
        if self.queue.extend([job], worker, lease):
            assert self.leases[job.id][0] == worker
            self.leases[job.id] = (worker, self.clock.now + lease)

    @rule(held=claims)
    def finish(self, held: tuple[Job, str]) -> None:
        job, worker = held
        with self.bank.transaction():
            owned = self.queue.finish(job, worker, f"memory-{job.problem}", "admitted")
            if owned:
                assert self.bank.add(make(f"memory-{job.problem}"))  # False if it were there already
        if owned:
            assert self.leases.pop(job.id)[0] == worker
            self.finished[job.id] = self.finished.get(job.id, 0) + 1

    @rule(held=claims)
    def finish_but_the_transaction_fails(self, held: tuple[Job, str]) -> None:
        with pytest.raises(RuntimeError), self.bank.transaction():
            self.queue.finish(held[0], held[1], f"memory-{held[0].problem}", "admitted")
            raise RuntimeError

    @rule(held=consumes(claims))
    def fail(self, held: tuple[Job, str]) -> None:
        if self.queue.fail(held[0], held[1], "an error"):
            assert self.leases.pop(held[0].id)[0] == held[1]
            self.finished[held[0].id] = 0

    @rule(held=claims)
    def setback(self, held: tuple[Job, str]) -> None:
        job, worker = held
        if self.queue.setback(job, worker, "a fault"):
            assert self.leases.pop(job.id)[0] == worker

    @rule(worker=st.sampled_from("uvw"))
    def release(self, worker: str) -> None:
        mine = [id for id, (who, _) in self.leases.items() if who == worker]
        released = self.queue.release(worker)
        assert released <= len(mine)  # some may have failed for good meanwhile
        for id in mine:
            del self.leases[id]

    @rule(seconds=st.sampled_from([1, 6, 30]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def once(self) -> None:
        if not hasattr(self, "bank"):
            return
        done = {job.memory_id for job in self.queue.list("home", states=["done"])}
        assert done == {info.id for info in self.bank.find("home")}
        assert set(self.finished.values()) <= {0, 1}
        assert sum(self.queue.counts("home").values()) == len(self.submitted)
        assert len(self.submitted) <= 5  # what the two keys may have learned on one day

    def teardown(self) -> None:
        if not hasattr(self, "bank"):
            return
        self.clock.now += 1000  # pauses after faults
        for _ in range(30):  # whatever happened, a worker that lives brings everything to an end
            self.clock.now += 30
            for job in self.queue.claim("last", 60, 3):
                assert self.queue.finish(job, "last", None, "done")
        counts = self.queue.counts("home")
        assert counts["queued"] == counts["learning"] == 0
        self.bank.close()


def test_any_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULES", str(tmp_path))
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Schedule, settings=settings(max_examples=25, stateful_step_count=30, deadline=None, database=None)
    )


PRELUDE = f"""
import sys, time
sys.path.insert(0, {str(HERE)!r})
from banks import make
from tacit.bank import open_bank
from tacit.server.learner.jobs import JobQueue
bank = open_bank(sys.argv[1]); queue, me = JobQueue(bank), sys.argv[2]
"""

CLAIMER = """
print("ready"); sys.stdin.readline()
while jobs := queue.claim(me, 60, 3):
    print(*[job.problem for job in jobs])
"""

LEARNER = """
while jobs := queue.claim(me, 60, 2):
    for job in jobs:
        with bank.transaction():
            if queue.finish(job, me, f"memory-{job.problem}", "admitted"):
                assert bank.add(make(f"memory-{job.problem}"))
        print(job.problem)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", PRELUDE + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_claim_at_once_never_share_a_lease(bank: Bank) -> None:
    put(JobQueue(bank), key_for(bank), *(f"p{i}" for i in range(40)))
    claimers = [start(CLAIMER, bank.url, f"w{i}") for i in range(3)]
    for claimer in claimers:
        assert claimer.stdout is not None and claimer.stdout.readline() == "ready\n"
    outputs = []
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    for claimer in claimers:
        outputs += claimer.communicate(timeout=60)[0].split()
        assert claimer.returncode == 0
    assert sorted(outputs) == sorted(f"p{i}" for i in range(40))


def test_kill_9_of_workers_loses_no_job_and_doubles_no_memory(bank: Bank) -> None:
    queue, chance = JobQueue(bank), random.Random(3)
    put(queue, key_for(bank), *(f"p{i}" for i in range(60)))
    later: Callable[[], float] = lambda: NOON + 10**9  # noqa: E731 - long after any lease
    acknowledged: list[str] = []
    for number in range(5):
        worker = start(LEARNER, bank.url, f"w{number}")
        assert worker.stdout is not None
        for _ in range(chance.randrange(1, 6)):
            acknowledged.append(worker.stdout.readline().strip())
        os.kill(worker.pid, signal.SIGKILL)
        acknowledged += worker.communicate()[0].split()
        bank.check()
    assert {info.id for info in bank.find("home")} >= {f"memory-{name}" for name in acknowledged}
    left = [job.problem for job in queue.list("home", states=["learning"])]
    done = {job.problem for job in queue.list("home", states=["done"])}
    assert done >= set(acknowledged) and len(acknowledged) == len(set(acknowledged))
    patient = JobQueue(bank, later)  # the leases of the dead have run out
    while jobs := patient.claim("last", 60, 50):
        for job in jobs:
            with bank.transaction():
                assert patient.finish(job, "last", f"memory-{job.problem}", "admitted")
                assert bank.add(make(f"memory-{job.problem}"))
    assert queue.counts("home") == {"queued": 0, "learning": 0, "done": 60, "failed": 0}
    assert len(bank.find("home")) == 60 and set(left) <= {job.problem for job in queue.list("home")}
