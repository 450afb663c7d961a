"""kill -9 of the server and of its learner under load: what was acknowledged is learned, exactly once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from conftest import stream
from server import Served, serving
from tacit.bank import open_bank
from tacit.server.learner.jobs import JobQueue

NAMESPACE = "default"
CLIENTS = 3
DEADLINE = 300.0


class Load:
    """Clients that ask fresh problems until they are stopped or the server is gone."""

    def __init__(self, served: Served, texts: list[str], acknowledged: dict[str, str]) -> None:
        self._served, self._texts, self._acknowledged = served, texts, acknowledged
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        client = self._served.client()
        while self._texts and not self._stopped.is_set():
            text = self._texts.pop()
            try:
                answer = client.chat.completions.create(
                    model="testbed:tacit", messages=[{"role": "user", "content": text}], temperature=0
                )
            except openai.APIConnectionError:
                self._texts.insert(0, text)  # not acknowledged: asked again of the next server
                return
            job: dict[str, Any] = answer.model_dump()["tacit"]["job"]
            self._acknowledged[job["id"]] = text
            time.sleep(0.05)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def kill_under_load(path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    texts = list(dict.fromkeys(problem.text for problem in stream(3 * kills, seed=77)))
    acknowledged: dict[str, str] = {}
    options = ("--steps", "2", "--max-tokens", "48")
    for number in range(kills):
        with serving(path, *options) as running:
            load = Load(running, texts, acknowledged)
            time.sleep(chance.uniform(0.0, 2.5))
            children = psutil.Process(running.process.pid).children(recursive=True)
            if number % 2 and children:
                chance.choice(children).kill()
                time.sleep(chance.uniform(0.0, 1.0))
            load.stop() if number % 2 else running.process.kill()
            load.stop()
        with open_bank(str(path)) as bank:  # type: ignore[attr-defined]
            bank.check()
    assert len(acknowledged) >= kills
    with serving(path, *options), open_bank(str(path)) as bank:  # type: ignore[attr-defined]
        queue, end = JobQueue(bank), time.monotonic() + DEADLINE
        while {"queued", "learning"} & {n for n, c in queue.counts(NAMESPACE).items() if c} and time.monotonic() < end:
            time.sleep(0.2)
        jobs = {job.id: job for job in queue.list(NAMESPACE, limit=100_000)}
        memories = bank.find(NAMESPACE)
    assert set(acknowledged) <= set(jobs)
    assert all(jobs[id].problem == text and jobs[id].state == "done" for id, text in acknowledged.items())
    assert all(job.state == "done" for job in jobs.values())
    named = Counter(job.memory_id for job in jobs.values() if job.memory_id is not None)
    assert named == Counter(memory.id for memory in memories)  # each once, none lost, none that no job knows of
    assert len({memory.problem for memory in memories}) == len(memories) > 0


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    kill_under_load(tmp_path / "bank.sqlite", kills=20, seed=2)
