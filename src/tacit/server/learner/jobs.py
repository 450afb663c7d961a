"""The queue of problems to learn, in the bank's database: nothing acknowledged is lost, no problem is learned twice.

Builds on keys and the bank. A worker *claims* jobs under a lease and extends it while it works. If it dies, the lease
runs out and another worker gets them: at least once. That a memory is stored exactly once follows from ``finish``: only
the job's present owner can, in the transaction that stores the memory. Its id is a function of the problem.

    queued --claim--> learning --finish--> done
                      learning --fail----> failed
                      learning --release--> queued, as if it never had been claimed
                      learning --setback, or the lease ran out--> as if queued, until MAX_ATTEMPTS
    failed --retry--> queued
    done --submitted once more after its memory was deleted--> queued

Leases are in wall-clock time, which processes of one machine share. If it jumps, work may be done twice; memories are
still stored once. What a clock that was put back shows to be of a time to come holds nobody up: such a lease has run
out, and the latest day that a key has spent of is today (by up to a day, so that a clock that once was years ahead does
not shut a key out for years).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, case, exists, func, insert, literal, or_, select, update

from tacit.bank import schema
from tacit.bank.base import Bank
from tacit.checks.values import check_name, check_text
from tacit.errors import MemoryFormatError
from tacit.problem import LONGEST, Problem
from tacit.server.keys import ApiKey

MAX_ATTEMPTS = 3
"""So many attempts at a job may end in a fault, or the worker's death, before it counts as failed."""

FIRST_PAUSE = 5.0
"""Seconds until a job is tried again after a fault; each time four times as long."""

DAY = 86_400.0

GIVEN_UP = "given up"  # how the error of a job begins that failed by a fault
LONGEST_NOTE = 2000
"""Most characters kept of an error or an outcome."""

_j = schema.jobs.c
_d = schema.learned_days.c


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    LEARNING = "learning"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class JobRow:
    """A job; the fields of ``Job`` that concern its namespace. Times are unix seconds."""

    id: str
    problem_id: str
    problem: str
    key_id: str
    state: JobState
    attempts: int
    error: str | None
    memory_id: str | None
    outcome: str | None
    progress: dict[str, Any] | None
    created: float
    started: float | None
    finished: float | None


@dataclass(frozen=True)
class Job(JobRow):
    """One problem to be learned, as it was when it was read.

    Attributes:
        number: order of submission, across the bank.
        problem_id: "served-" and 16 hex digits of ``problem_digest``.
        attempts: claims so far, without those that a worker gave back in good order.
        lease_until: unix seconds; until then it is ``worker``'s alone, or if it is queued, nobody's. Else None.
        worker: who has or had it.
        memory_id: the memory that came of it; None while there is none, and where nothing was worth keeping.
        progress: what the worker last said about it, a JSON object.
        created, started, finished: unix seconds; ``started`` is that of the latest attempt.
    """

    number: int
    namespace: str
    lease_until: float | None
    worker: str | None

    @property
    def task(self) -> Problem:
        """What an agent is handed."""
        return Problem(self.problem_id, self.problem)


Jobs = list[Job]  # said so because JobQueue.list hides the built-in one

_COLUMNS = [_j[name] for name in Job.__dataclass_fields__]


_NONE = dict.fromkeys(("worker", "lease_until", "error", "outcome", "started", "finished", "progress"))
FRESH: dict[str, Any] = {"state": JobState.QUEUED.value, "attempts": 0, **_NONE}
"""A job as if it had never been tried."""


@dataclass(frozen=True)
class Submitted:
    """What became of a submission: the job, new or of earlier, or None if it was refused; and why, in a few words."""

    job: Job | None
    why: str


class JobQueue:
    """The jobs of one bank. Thread-safe, and safe between processes; every method is one transaction."""

    def __init__(self, bank: Bank, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives unix seconds."""
        self.bank, self.clock = bank, clock

    # -- for those who submit --------------------------------------------------------------------------------------

    def submit(self, namespace: str, problem_text: str, key: ApiKey) -> Submitted:
        """Queue a problem, unless the namespace has had it before, at the cost of one of the key's daily budget.

        What is refused (a key that may not learn here, a spent budget, no text) is told, not raised.
        """
        refusal = _refusal(namespace, problem_text, key)
        if refusal:
            return Submitted(None, refusal)
        digest = problem_digest(namespace, problem_text)
        with self.bank.connection(write=True) as connection:
            known = _one(connection, (_j.namespace == namespace) & (_j.digest == digest))
            again = known is not None and known.state is JobState.DONE and _gone(connection, known)
            if known is not None and not again:
                return Submitted(known, _known(known))
            day = _today(connection, key, self.clock())
            if not _spend(connection, key, day):
                return Submitted(None, f"the key's budget of {key.learn_per_day} problems a day is spent for {day} UTC")
            if known is not None:  # its memory was deleted: it is learned as if it never had been, and for this key
                fresh = {**FRESH, "key_id": key.id, "memory_id": None, "created": self.clock()}
                connection.execute(update(schema.jobs).where(_j.id == known.id).values(**fresh))
                return Submitted(_one(connection, _j.id == known.id), "queued")
            job = {
                "id": f"job-{secrets.token_hex(8)}",
                "namespace": namespace,
                "problem_id": f"served-{digest[:16]}",
                "problem": problem_text,
                "digest": digest,
                "key_id": key.id,
                "state": JobState.QUEUED.value,
                "attempts": 0,
                "created": self.clock(),
            }
            connection.execute(insert(schema.jobs).values(**job))
            return Submitted(_one(connection, _j.id == job["id"]), "queued")

    def get(self, id: str, namespace: str) -> Job | None:
        """The job of this id in this namespace, or None."""
        with self.bank.connection() as connection:
            return _one(connection, (_j.id == id) & (_j.namespace == namespace))

    def retry(self, id: str, namespace: str) -> Job | None:
        """Queue a failed job once more, as if it had never been tried; the job, or None if there is none of this id.

        A job in any other state stays as it is.
        """
        here = (_j.id == id) & (_j.namespace == namespace)
        with self.bank.connection(write=True) as connection:
            connection.execute(update(schema.jobs).where(here, _j.state == JobState.FAILED).values(**FRESH))
            return _one(connection, here)

    def list(self, namespace: str, states: Collection[JobState | str] | None = None, limit: int = 100) -> list[Job]:
        """The namespace's latest jobs, newest first; ``states=None`` for all states."""
        statement = select(*_COLUMNS).where(_j.namespace == namespace).order_by(_j.number.desc()).limit(limit)
        if states is not None:
            statement = statement.where(_j.state.in_([JobState(state).value for state in states]))
        with self.bank.connection() as connection:
            return [_job(row) for row in connection.execute(statement)]

    def counts(self, namespace: str) -> dict[str, int]:
        """How many of the namespace's jobs are in each state; every state is there."""
        statement = select(_j.state, func.count()).where(_j.namespace == namespace).group_by(_j.state)
        with self.bank.connection() as connection:
            found = {state: count for state, count in connection.execute(statement)}
        return {state.value: found.get(state.value, 0) for state in JobState}

    # -- for workers -----------------------------------------------------------------------------------------------

    def claim(self, worker: str, lease_seconds: float, batch: int) -> Jobs:
        """Up to ``batch`` jobs of any namespace, which are this worker's alone for ``lease_seconds``.

        The keys take turns, so that one that floods the queue delays itself alone. A job that has been left behind
        ``MAX_ATTEMPTS`` times fails; one with a single attempt left is handed out alone: a batch that it kills would
        count against all in it.

        Args:
            worker: a name that no other process has and that a restarted one does not take over.
            lease_seconds: of work before another worker may take over, unless extended.
            batch: most jobs.
        """
        now = self.clock()
        # A lease that began in time to come, by more than clocks of several machines differ: the clock was put back.
        over = or_(_j.lease_until.is_(None), _j.lease_until <= now, _j.started > now + lease_seconds)
        free = and_(_j.state.in_([JobState.QUEUED, JobState.LEARNING]), over)
        turn = func.row_number().over(partition_by=(_j.namespace, _j.key_id), order_by=_j.number)
        with self.bank.connection(write=True) as connection:
            error = f"{GIVEN_UP}: {MAX_ATTEMPTS} attempts ended without a result, and the last left no word"
            said = func.coalesce(literal(error + "; one before it: ") + _j.error, error)
            connection.execute(
                update(schema.jobs)
                .where(free, _j.attempts >= MAX_ATTEMPTS)
                .values(state=JobState.FAILED.value, error=said, finished=now, lease_until=None)
            )
            rows = connection.execute(select(_j.id, _j.attempts).where(free).order_by(turn, _j.number).limit(batch))
            found = list(rows)
            if found and found[0].attempts == MAX_ATTEMPTS - 1:
                found = found[:1]
            found = [row for row in found if row.attempts < MAX_ATTEMPTS - 1] or found
            taken = _j.id.in_([row.id for row in found])
            connection.execute(
                update(schema.jobs)
                .where(taken)
                .values(
                    state=JobState.LEARNING.value,
                    worker=worker,
                    lease_until=now + lease_seconds,
                    attempts=_j.attempts + 1,
                    started=now,
                    progress=None,
                )
            )
            return [_job(row) for row in connection.execute(select(*_COLUMNS).where(taken).order_by(_j.number))]

    def extend(self, jobs: Sequence[Job], worker: str, lease_seconds: float) -> frozenset[str]:
        """Lengthen the leases of those of the jobs that are still this worker's; returns their ids."""
        mine, now = and_(_j.id.in_([job.id for job in jobs]), _owned(worker)), self.clock()
        began = case((_j.started > now, now), else_=_j.started)
        with self.bank.connection(write=True) as connection:
            connection.execute(update(schema.jobs).where(mine).values(lease_until=now + lease_seconds, started=began))
            return frozenset(connection.execute(select(_j.id).where(mine)).scalars())

    def progress(self, job: Job, worker: str, info: dict[str, Any]) -> bool:
        """Say how far a job is; False, and nothing said, if it is no longer this worker's."""
        return self._write(job, worker, progress=json.dumps(info, allow_nan=False))

    def finish(self, job: Job, worker: str, memory_id: str | None, outcome: str) -> bool:
        """The job is done; False, and nothing changed, if it is no longer this worker's.

        Store the memory in the same ``bank.transaction()``, and only if this says True.
        """
        ended = {"state": JobState.DONE.value, "memory_id": memory_id, "outcome": note(outcome), "error": None}
        return self._write(job, worker, finished=self.clock(), lease_until=None, **ended)

    def fail(self, job: Job, worker: str, error: str) -> bool:
        """The job cannot be done; False, and nothing changed, if it is no longer this worker's."""
        ended = {"state": JobState.FAILED.value, "error": note(error)}
        return self._write(job, worker, finished=self.clock(), lease_until=None, **ended)

    def setback(self, job: Job, worker: str, error: str) -> bool:
        """An attempt at the job ended in a fault: it is tried again after a pause, and has failed if it was the last.

        False, and nothing changed, if it is no longer this worker's.
        """
        if job.attempts >= MAX_ATTEMPTS:
            return self.fail(job, worker, f"{GIVEN_UP} after {job.attempts} attempts: {error}")
        until = self.clock() + FIRST_PAUSE * 4 ** (job.attempts - 1)
        back = {"state": JobState.QUEUED.value, "worker": None, "progress": None}
        return self._write(job, worker, error=note(error), lease_until=until, **back)

    def release(self, worker: str) -> int:
        """Give back everything that this worker has claimed, as if it never had; returns the number of jobs."""
        back = {"state": JobState.QUEUED.value, "worker": None, "lease_until": None, "started": None, "progress": None}
        statement = update(schema.jobs).where(_owned(worker)).values(attempts=_j.attempts - 1, **back)
        with self.bank.connection(write=True) as connection:
            return connection.execute(statement).rowcount

    def _write(self, job: Job, owner: str, /, **values: Any) -> bool:
        with self.bank.connection(write=True) as connection:
            done = connection.execute(update(schema.jobs).where(_j.id == job.id, _owned(owner)).values(**values))
            return done.rowcount == 1


def problem_digest(namespace: str, text: str) -> str:
    """Hex SHA-256 of a problem in a namespace; the same for texts that differ in white space or Unicode form alone."""
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(json.dumps([namespace, normalised]).encode()).hexdigest()


def _refusal(namespace: str, text: str, key: ApiKey) -> str | None:
    try:
        check_name("namespace", namespace)
        check_text("the problem", text)
    except MemoryFormatError as error:
        return str(error)
    if not key.may("learn"):
        return "the key may not have problems learned"
    if key.namespace != namespace:
        return f"the key does not belong to namespace {namespace!r}"
    if not text.strip():
        return "the problem has no text"
    if len(text) > LONGEST:
        return f"the problem has {len(text):,} characters; at most {LONGEST:,} are learned from"
    return None


def _gone(connection: Connection, job: Job) -> bool:
    """Whether the memory that came of a job is there no more."""
    m = schema.memories.c
    held = select(m.position).where(m.namespace == job.namespace, m.id == job.memory_id)
    return job.memory_id is not None and connection.execute(held).first() is None


def _known(job: Job) -> str:
    if job.state is JobState.DONE:
        return "already learned"
    return "already queued" if job.state is not JobState.FAILED else f"already tried: {why_failed(job)}"


def why_failed(job: JobRow) -> str | None:
    """``error`` for who asked: what it says of a fault of the server names its files, which are the operator's."""
    fault = job.error is not None and (job.state is not JobState.FAILED or job.error.startswith(GIVEN_UP))
    return "the server failed at it; its log says why" if fault else job.error


def _today(connection: Connection, key: ApiKey, now: float) -> str:
    """The UTC day whose budget is spent: today, or tomorrow where the key has spent of that already."""
    today, tomorrow = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in (now, now + DAY))
    ahead = select(exists().where(_d.key_id == key.id, _d.day == tomorrow))
    return tomorrow if connection.execute(ahead).scalar_one() else today


def _spend(connection: Connection, key: ApiKey, day: str) -> bool:
    """Take one problem from the key's budget of the day; False if nothing is left of it."""
    here = (_d.key_id == key.id) & (_d.day == day)
    spent = connection.execute(select(_d.n).where(here)).scalar_one_or_none()
    if (spent or 0) >= key.learn_per_day:
        return False
    if spent is None:
        connection.execute(insert(schema.learned_days).values(key_id=key.id, day=day, n=1))
    else:
        connection.execute(update(schema.learned_days).where(here).values(n=_d.n + 1))
    return True


def _owned(worker: str) -> Any:
    return and_(_j.worker == worker, _j.state == JobState.LEARNING)


def note(text: str) -> str:
    """``text`` as every database can keep it, of bearable length: errors quote all sorts of things."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")[:LONGEST_NOTE]


def _one(connection: Connection, where: Any) -> Job | None:
    row = connection.execute(select(*_COLUMNS).where(where)).one_or_none()
    return None if row is None else _job(row)


def _job(row: Row[Any]) -> Job:
    fields = dict(row._mapping)
    # What is no state or no JSON is damage: of this job alone, so it must not keep others from being read.
    known = fields["state"] in set(JobState)
    fields["state"] = JobState(fields["state"]) if known else JobState.FAILED
    try:
        progress = json.loads(fields["progress"] or "null")
    except (ValueError, TypeError, RecursionError):
        progress = None
    return Job(**{**fields, "progress": progress if isinstance(progress, dict) else None})
