"""The learner process: claims problems from the queue, learns a memory for each, stores it as a candidate.

Builds on the agent, jobs, and process (its settings); run as ``python -m tacit.server.worker`` with the settings as
JSON on stdin, normally by ``process.LearnerProcess``. Everything that outlives the process is in the bank: it may be
killed at any moment, and the next one goes on. A job is finished in the transaction that stores its memory. Memories
are functions of problem, seed, settings and the memories recalled. So interruptions leave no trace in what is learned.

A fault ends a job, not the learner. What is wrong with a job by itself (too long, another model's) fails it at once.
Any other exception counts as an attempt at that job alone; it is tried again after a pause, and fails with the reason
after the last one. What is wrong with all of them (no engine, no bank) costs no job an attempt: the bank is waited for,
and without an engine the process ends, to be started again.

What comes from traffic proves itself before it is used: every memory starts as a candidate, and ``promotion`` decides.
``provenance["admitted"]`` says whether it passed the agent's own rule, without which it is never promoted. Uses of
recalled memories are not counted here: the server has counted them when it answered. What its own samples, drawn as
it draws them, say of drift (methods/drift.py) is noted with the job's end: once for a problem, however often it died.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from tacit.agent import Agent, Answered, Remembered
from tacit.assembly import build_agent, build_verifier, load_backbone, open_engine, set_threads
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.bank.tending.plan import Rule
from tacit.bank.tending.work import due, tend
from tacit.engines.base import Engine
from tacit.errors import (
    BankUnavailable,
    EngineError,
    EngineLost,
    FingerprintError,
    MemoryFormatError,
    ModelError,
    TacitError,
)
from tacit.judges.verifiers import Verifier
from tacit.memory import Memory, State
from tacit.methods.drift import Drift
from tacit.model.backbone import Backbone
from tacit.server.keys import served
from tacit.server.learner.jobs import Job, JobQueue
from tacit.server.learner.process import PATIENCE, WorkerSettings
from tacit.server.learner.promotion import UNPROVEN, Promoter, Sources, namespaces, quarantine_hurtful

LOG = logging.getLogger("tacit.learner")

LONGEST_PAUSE = 60.0
"""Seconds at most until the bank, or a namespace whose candidates could not be tried, is looked at again."""

TENDING = 0.01
"""Share of the time that tending, and looking whether it is due, may take: few of those who ask meanwhile notice."""


class Stopped(BaseException):
    """SIGTERM came while something was computed that can be thrown away."""


class Worker:
    """Learns what is queued in a bank.

    Args:
        bank, backbone, engine, verifier: what its agents work with; all outlive it.
        settings: see WorkerSettings.
    """

    def __init__(
        self, bank: Bank, backbone: Backbone, engine: Engine, verifier: Verifier | None, settings: WorkerSettings
    ) -> None:
        self.bank, self.backbone, self.engine, self.verifier = bank, backbone, engine, verifier
        self.settings = settings
        self.queue = JobQueue(bank)
        # Random, so that a restarted worker does not take its predecessor's leases for its own.
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.stop = threading.Event()
        self._agents: dict[str, Agent] = {}
        self._promoters: dict[str, Promoter] = {}
        self._held: dict[str, Job] = {}
        self._resting: dict[tuple[str, str], tuple[float, float]] = {}  # until when, and for how long the next time
        self._interruptible = False
        self._tend_at = 0.0

    def run(self, parent: int | None = None) -> None:
        """Work until ``stop`` is set, SIGTERM comes or the process ``parent`` is gone; then give back what is not
        finished."""
        beat = threading.Thread(target=self._heartbeat, args=(parent,), name="tacit-heartbeat", daemon=True)
        beat.start()
        try:
            while not self.stop.is_set():
                self._turn()
        except Stopped:
            pass
        finally:
            self.stop.set()
            beat.join()
            with suppress(BankUnavailable):  # then the leases run out
                self.queue.release(self.name)

    def _turn(self) -> None:
        """Learn what there is, and wait where there is nothing; a bank that cannot be had is waited for."""
        pause, away = self.settings.poll, False
        while not self.stop.is_set():
            try:
                if away:
                    self.queue.release(self.name)  # none of what was begun may count as an attempt
                learned = self.once()
                tried, tended = self.review(), self.tend()
                if not (learned or tried or tended):
                    self.stop.wait(self.settings.poll)
                return
            except BankUnavailable as error:
                LOG.warning("%s; the learner waits", error)
                self._held, away = {}, True
                self.stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def once(self) -> bool:
        """Claim one batch and learn it; False if there was nothing to claim."""
        jobs = self.queue.claim(self.name, self.settings.lease, self.settings.learn.batch)
        self._held = {job.id: job for job in jobs}
        for namespace in dict.fromkeys(job.namespace for job in jobs):
            self._learn([job for job in jobs if job.namespace == namespace])
        self._held = {}
        return bool(jobs)

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """Handler of SIGTERM."""
        self.stop.set()
        if self._interruptible:
            self._interruptible = False
            raise Stopped

    def agent(self, namespace: str) -> Agent:
        """The agent of a namespace; FingerprintError if its memories are another model's."""
        if namespace not in self._agents:
            self._agents[namespace] = build_agent(
                self.settings,
                self.bank,
                self.engine,
                namespace=namespace,
                seed=self.settings.seed,
                verifier=self.verifier,
            )
        return self._agents[namespace]

    def _learn(self, jobs: Sequence[Job]) -> None:
        """Learn jobs of one namespace together; if that fails, one by one, so that only the culprits fail."""
        try:
            for job, (result, note) in zip(jobs, self._compute(jobs), strict=True):
                self._end(job, result, note)
        except (EngineLost, BankUnavailable):
            raise  # no fault of the jobs
        except Exception as error:
            if len(jobs) > 1:
                for job in [job for job in jobs if job.id in self._held]:
                    self._learn([job])
                return
            [job] = jobs
            self._held.pop(job.id, None)
            if isinstance(error, EngineError | ModelError | FingerprintError | MemoryFormatError):
                self.queue.fail(job, self.name, str(error))
            else:
                LOG.exception("job %s: attempt %d failed", job.id, job.attempts)
                self.queue.setback(job, self.name, said(error))

    def _compute(self, jobs: Sequence[Job]) -> list[tuple[Remembered, Callable[[], None]]]:
        """What came of each job, and what notes the drift that it shows (see ``_watched``)."""
        agent = self.agent(jobs[0].namespace)
        self._say(jobs, [{"stage": "answering", "together": len(jobs)}] * len(jobs))
        with self._may_be_interrupted():
            answered = agent.answer([job.task for job in jobs])
        votes = [one.zero_shot.vote for one in answered]
        self._say(jobs, [{"stage": "learning", "answer": vote.answer, "share": vote.share} for vote in votes])
        with self._may_be_interrupted():
            notes = self._watched(agent, jobs, answered)
            return list(zip(agent.learn(answered, {"source": "traffic"}), notes, strict=True))

    def _watched(self, agent: Agent, jobs: Sequence[Job], answered: Sequence[Answered]) -> list[Callable[[], None]]:
        """What notes, job by job, how the memories do that were recalled, and drifted ones; see ``Drift``."""
        notes: list[Callable[[], None]] = [lambda: None for _ in jobs]

        def watch() -> bool:
            sources = Sources.of(self.bank, agent.namespace)
            drift = Drift(agent, sources.owner) if sources else Drift(agent)
            speakers = [sources.speaker(job.key_id) if sources else "" for job in jobs]
            notes[:] = [partial(drift.note, told) for told in drift.told(answered, speakers)]
            return True

        if self.settings.promote:
            self._guarded(agent.namespace, watch, "watching memories")
        return notes

    def _say(self, jobs: Sequence[Job], infos: Sequence[dict[str, Any]]) -> None:
        with self.bank.transaction():
            for job, info in zip(jobs, infos, strict=True):
                self.queue.progress(job, self.name, info)

    def _end(self, job: Job, result: Remembered, note: Callable[[], None]) -> None:
        memory = None if result.memory is None else _candidate(result.memory, job, result.known)
        outcome = result.learned.reason if memory is None else memory.reason
        with self.bank.transaction():
            if self.queue.finish(job, self.name, None if memory is None else memory.id, outcome):
                note()
                if memory is not None:
                    self.bank.add(memory)
        self._held.pop(job.id, None)

    def review(self) -> bool:
        """Quarantine what has hurt, and try candidates of each namespace; False if there was nothing to do.

        As many at a time as a batch has problems, so that trials keep pace with learning.
        """
        if not self.settings.promote:
            return False
        done = self._guarded("", lambda: bool(quarantine_hurtful(self.bank)))
        for namespace in namespaces(self.bank, self.backbone.fingerprint):
            done = self._guarded(namespace, partial(self._promote, namespace)) or done
        return done

    def tend(self) -> bool:
        """Tend the namespaces that it is due for; False if there was none.

        It waits after each time, so that it takes ``TENDING`` of the time at most however large the bank is.
        """
        if not self.settings.tend or time.monotonic() < self._tend_at:
            return False
        began, done = time.monotonic(), False
        for namespace in namespaces(self.bank, self.backbone.fingerprint):
            done = self._guarded(namespace, partial(self._tend, namespace), "tending") or done
        now = time.monotonic()
        self._tend_at = now + (now - began) / TENDING
        return done

    def _tend(self, namespace: str) -> bool:
        if not due(self.bank, namespace, self.settings.tend):
            return False
        try:
            tend(self.bank, namespace, Rule(keep=self.settings.keep))
        except BankUnavailable as error:  # another process is at it
            LOG.warning("%s", error)
            return False
        return True

    def _promote(self, namespace: str) -> bool:
        if namespace not in self._promoters:
            self._promoters[namespace] = Promoter(self.agent(namespace))
        return bool(self._promoters[namespace].step(self.settings.learn.batch, self._may_be_interrupted))

    def _guarded(self, namespace: str, work: Callable[[], bool], what: str = "trying candidates") -> bool:
        """``work``; a fault of it holds up that work in its namespace alone, for longer each time."""
        until, pause = self._resting.get((what, namespace), (0.0, self.settings.poll))
        if time.monotonic() < until:
            return False
        try:
            done = work()
        except (EngineLost, BankUnavailable):
            raise
        except Exception:
            LOG.exception("%s failed in namespace %r; again in %g s", what, namespace, pause)
            self._resting[what, namespace] = (time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE))
            self._promoters.pop(namespace, None)
            return False
        self._resting.pop((what, namespace), None)
        return done

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        """Inside, SIGTERM throws the work away; outside, it waits until what is being written is written."""
        self._interruptible = True
        try:
            if self.stop.is_set():
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def _heartbeat(self, parent: int | None) -> None:
        """Extend the leases of what is being worked on, and end with the parent process."""
        waited, pulse = 0.0, min(1.0, self.settings.lease / 3)
        while not self.stop.wait(pulse):
            if parent is not None and os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            waited += pulse
            held = list(self._held.values())
            if held and waited >= self.settings.lease / 3:
                try:
                    self.queue.extend(held, self.name, self.settings.lease)
                    waited = 0.0
                except Exception as error:  # locked, say: the next beat tries again, and the lease has time for two
                    LOG.warning("the leases could not be extended: %s", said(error))


def work(settings: WorkerSettings, parent: int | None = None) -> None:
    """Load the model and work until SIGTERM, in this process; ``parent`` is the process to end with.

    Raises:
        TacitError: the model or bank cannot be opened, or the bank no longer be written.
    """
    os.nice(settings.nice)
    set_threads(settings, products=True)
    bank = open_bank(settings.bank, create=False, busy_timeout=PATIENCE)
    engine = None
    try:
        backbone = load_backbone(settings, bank, served(bank), unsaid="")
        verifier = build_verifier(settings)
        engine = open_engine(settings, backbone)
        worker = Worker(bank, backbone, engine, verifier, settings)
        signal.signal(signal.SIGTERM, worker.terminate)
        if parent is not None and os.getppid() != parent:
            return  # it died while the model was loading
        worker.run(parent)
    finally:
        if engine is not None:
            engine.close()
        bank.close()


def main() -> int:
    """Entry point: settings on stdin, the process to end with as argument, if any; exit code 0 after SIGTERM, 2 for an
    error that a user can mend."""
    # Told rather than asked for: the parent may have died while torch was being imported.
    parent = int(sys.argv[1]) if len(sys.argv) > 1 else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the server says when to stop
    logging.basicConfig(format="learner: %(message)s")
    try:
        work(WorkerSettings.from_json(sys.stdin.read()), parent)
    except TacitError as error:
        sys.stderr.write(f"learner: {error}\n")
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def said(error: Exception) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, TacitError) else f"{type(error).__name__}: {error}".strip(": ")


def _candidate(memory: Memory, job: Job, known: bool) -> Memory:
    """A learned memory as it enters from traffic."""
    if known:
        return memory
    admitted = memory.state is State.ACTIVE
    reason = f"{UNPROVEN}; {memory.reason}" if admitted else memory.reason
    origin = {"job": job.id, "key": job.key_id, "admitted": admitted}
    return replace(memory, state=State.CANDIDATE, reason=reason, provenance={**memory.provenance, **origin})
