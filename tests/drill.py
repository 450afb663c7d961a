"""The kill drill: kill -9 of server, learner and commands at random moments, disks that fill at random moments.

``python tests/drill.py --kills 100 --fills 20`` (``make drill``). Clients ask fresh problems all the while. What a
server has acknowledged, a job's id, has to be learned in the end, once; every start has to be a clean one; a run that
was killed and continued has to equal one that was not; memories that a killed ``tacit bank tend`` takes out of use,
brings back or deletes have to be as before or as after, and in the end as if nobody had been killed
(``--tendings``); and with a full disk answers have to be the same as ever, and to
say that they could not be queued. A disk is a small tmpfs where one may be mounted; elsewhere its part is left out, and
that is said.

Builds on what the tests of each part use. Prints its figures as JSON; fails with the first sentence that is false.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import openai
import psutil

from commands import Command, ran
from conftest import stream
from server import Served, serving
from tacit.bank import open_bank
from tacit.server.learner.jobs import JobQueue
from tended import RULE, crowd, killed, states, stored

NAMESPACE = "default"
CLIENTS = 2
DEADLINE = 600.0
OPTIONS = ("--steps", "2", "--rollouts", "4", "--samples", "4", "--max-tokens", "48")
FIXED = "compute 7 + 8"
DISK = "4m"
FILLS = 20  # of one disk


class Load:
    """Clients that ask fresh problems until they are stopped or the server is gone.

    Attributes:
        acknowledged: text by the id of the job that a server has named.
        unstored: answers that said that they could not be queued.
        refused: answers that were none, by status.
        plain: what the plain model said to one fixed problem; one entry, or it has said something wrong.
    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.acknowledged: dict[str, str] = {}
        self.unstored = 0
        self.refused: Counter[int] = Counter()
        self.plain: set[str] = set()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, served: Served) -> None:
        """Ask this server."""
        self._stopped.clear()
        self._threads = [threading.Thread(target=self._ask, args=(served.client(),)) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Until one more is acknowledged."""
        before, late = len(self.acknowledged), time.monotonic() + 60
        while len(self.acknowledged) == before and self.texts:
            assert time.monotonic() < late, "no question is answered and queued"
            time.sleep(0.01)

    def end(self) -> None:
        """Stop asking."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: openai.OpenAI) -> None:
        while self.texts and not self._stopped.is_set():
            text = self.texts.pop()
            try:
                self.plain.add(str(self._said(client, "testbed", FIXED).choices[0].message.content))
                answer: dict[str, Any] = self._said(client, "testbed:tacit", text).model_dump()
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                self.texts.insert(0, text)  # not acknowledged: asked again later
                if not isinstance(error, openai.APIStatusError):
                    return  # the server is gone
                self.refused[error.status_code] += 1
                time.sleep(0.2)
                continue
            job = answer["tacit"]["job"]
            if job is None:
                assert "could not be queued" in answer["tacit"]["learning"], answer["tacit"]
                self.texts.insert(0, text)
                self.unstored += 1
            else:
                self.acknowledged[job["id"]] = text
            time.sleep(0.05)

    @staticmethod
    def _said(client: openai.OpenAI, model: str, text: str) -> Any:
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=32
        )


def kill_servers(path: Path, load: Load, kills: int, chance: random.Random, end: float) -> Counter[str]:
    """Kill servers and learners at random moments, in the middle of starting too; how many of each."""
    dead: Counter[str] = Counter()
    while dead.total() < kills and time.monotonic() < end:
        kind = chance.choice(("starting", "server", "server", "learner", "learner"))
        if kind == "starting":
            process = Command("serve", "--bank", path, "--port", "0", *OPTIONS, log=path.with_suffix(".start"))
            time.sleep(chance.uniform(0.0, 3.0))
            process.kill()
            process.wait()
            dead[kind] += 1
        else:
            with serving(path, *OPTIONS) as running:  # a start that is none fails here
                load.begin(running)
                # Most of the kills should hit the work itself, however long a machine takes to come to it.
                if chance.random() < 0.8:
                    load.wait()
                time.sleep(chance.uniform(0.0, 2.0))
                if kind == "learner":
                    children = psutil.Process(running.process.pid).children(recursive=True)
                    if children:
                        chance.choice(children).kill()
                        dead[kind] += 1
                    time.sleep(chance.uniform(0.0, 1.0))
                running.process.kill()
                dead["server"] += 1
                load.end()
        look(path)
    return dead


def look(path: Path) -> None:
    """The bank is whole."""
    with open_bank(str(path)) as bank:
        bank.check()


def settle(path: Path, load: Load) -> dict[str, int]:
    """Let a server learn what is left, and check that nothing was lost or doubled; how much there was."""
    given_up = 0
    with serving(path, *OPTIONS), open_bank(str(path)) as bank:
        queue, end = JobQueue(bank), time.monotonic() + DEADLINE
        while {"queued", "learning"} & {n for n, c in queue.counts(NAMESPACE).items() if c}:
            assert time.monotonic() < end, f"the learner hangs: {queue.counts(NAMESPACE)}"
            time.sleep(0.2)
            for job in queue.list(NAMESPACE, ["failed"]):  # three kills in the middle of the same job
                assert job.error is not None and job.error.startswith("given up"), job.error
                given_up += queue.retry(job.id, NAMESPACE) is not None
        jobs = {job.id: job for job in queue.list(NAMESPACE, limit=1_000_000)}
        memories = bank.find(NAMESPACE)
        bank.check()
    lost = {id for id, text in load.acknowledged.items() if id not in jobs or jobs[id].problem != text}
    assert not lost, f"acknowledged and lost: {lost}"
    assert {str(job.state) for job in jobs.values()} <= {"done"}, "a job has failed"
    named = Counter(job.memory_id for job in jobs.values() if job.memory_id is not None)
    assert named == Counter(memory.id for memory in memories), "memories and jobs do not belong together"
    assert len({memory.problem for memory in memories}) == len(memories), "a problem was learned twice"
    assert len({job.problem for job in jobs.values()}) == len(jobs), "a problem was queued twice"
    assert len(load.plain) <= 1, f"the plain model has said different things: {load.plain}"
    assert set(load.refused) <= {429, 503}, load.refused
    told = {"acknowledged": len(load.acknowledged), "jobs": len(jobs), "memories": len(memories)}
    return told | {"given up, and retried": given_up}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of a few megabytes; None where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> None:
    """Leave no room."""
    with suppress(OSError), (disk / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()


def fill_disks(disk: Path, load: Load, fills: int, chance: random.Random, end: float) -> Counter[str]:
    """Fill the disk of a server at random moments, and kill it then now and again; how often."""
    done: Counter[str] = Counter()
    path = disk / "bank.sqlite"
    log = disk.parent / "disk.log"
    while done["fills"] < fills and time.monotonic() < end:
        with serving(path, *OPTIONS, log=log) as running:
            load.begin(running)
            for _ in range(chance.randint(1, 5)):
                time.sleep(chance.uniform(0.0, 2.0))
                fill(disk)
                done["fills"] += 1
                time.sleep(chance.uniform(0.0, 2.0))
                if chance.random() < 0.2:
                    break  # killed with a full disk
                (disk / "ballast").unlink()
            running.process.kill()
            done["kills"] += 1
            load.end()
        (disk / "ballast").unlink(missing_ok=True)
        look(path)
    return done


def kill_runs(folder: Path, kills: int) -> None:
    """Kill a run at random moments and continue it: it has to equal one that was left in peace."""
    from test_runs import SHORT, contents, killed_and_continued, results, tacit

    options = ["run", "--data", "testbed", "--limit", str(3 * kills), *SHORT, "--window", "2", "--out"]
    tacit(*options, folder / "whole")
    for out in killed_and_continued(options, folder, kills, pause=0.6):
        assert results(out) == results(folder / "whole"), f"a killed run is another one: {out}"
        assert contents(out) == contents(folder / "whole"), f"a killed run has other memories: {out}"


def kill_tendings(folder: Path, kills: int, chance: random.Random, end: float) -> Counter[str]:
    """Kill ``tacit bank tend`` at its work, then its undoing or its deleting, on one copy of a bank after another.
    "in the midst": part of the work was done by the one that was killed."""

    start, tended, emptied = (folder / f"{name}.db" for name in ("start", "tended", "emptied"))
    crowd(start, 600)
    shutil.copy(start, tended)
    assert ran("bank", "tend", tended, *RULE).returncode == 0
    shutil.copy(tended, emptied)
    delete, back = (*RULE, "--undo-days", 0), ("--undo", "last", "--namespace", "home")
    assert ran("bank", "tend", emptied, *delete).returncode == 0
    before, after, left = states(start), states(tended), states(emptied)
    ends = {
        "tending": (RULE, states, after),
        "deleting": (delete, states, left),
        "undoing": (back, stored, stored(start)),
    }
    done: Counter[str] = Counter()
    for number in itertools.count():
        path = Path(shutil.copy(start, folder / f"killed-{number}.db"))
        for doing in ("tending", "undoing" if number % 2 else "deleting"):
            arguments, look, goal = ends[doing]
            while look(path) != goal:
                if sum(done[name] for name in ends) >= kills or time.monotonic() > end:
                    return done
                held = states(path)
                killed(path, chance.uniform(0, 0.15), *arguments, begun=chance.random() < 0.7)
                done[doing] += 1
                found = states(path)
                done["in the midst"] += found not in (held, before, after, left)
                assert all(state in (before[id][0], after[id][0]) for id, (state, _) in found.items()), doing
                missing = set(before) - set(found)
                assert not missing or (doing == "deleting" and not missing & set(left)), f"{doing} lost {missing}"
            done[f"{doing}, whole"] += 1
        path.unlink()
    return done


def drill(folder: Path, *, kills: int, fills: int, tendings: int, seed: int, seconds: float) -> dict[str, Any]:
    """All of it; AssertionError with what was lost, doubled or unclean. No round is begun after ``seconds``."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    told: dict[str, Any] = {"seed": seed}
    texts = list(dict.fromkeys(problem.text for problem in stream(2 * kills + 20, seed=seed)))
    runs = kills // 5
    if runs:
        kill_runs(folder, runs)
        told["killed runs"] = runs
    if kills > runs:
        load = Load(list(texts))
        told["killed"] = dict(kill_servers(folder / "bank.sqlite", load, kills - runs, chance, end))
        told["after the kills"] = settle(folder / "bank.sqlite", load)
    if tendings:
        told["killed at tending"] = dict(kill_tendings(folder, tendings, chance, time.monotonic() + seconds))
    # A disk that is used for long is full of memories in earnest, and nothing more can be learned on it.
    disks = [small_drill(folder / f"disk{at}", list(texts), min(FILLS, fills - at), chance, end + seconds / 2)
             for at in range(0, fills, FILLS)]  # fmt: skip
    if None in disks:
        told["full disks"] = "left out: no small disk can be mounted here"
    elif disks:
        told["full disks"] = dict(sum(map(Counter, disks), Counter()))
    return told


def small_drill(folder: Path, texts: list[str], fills: int, chance: random.Random, end: float) -> dict[str, int] | None:
    """One small disk, filled and freed, and then settled; None where none may be mounted."""
    with small_disk(folder) as disk:
        if disk is None:
            return None
        load = Load(texts)
        told = fill_disks(disk, load, fills, chance, end)
        return told | settle(disk / "bank.sqlite", load) | {"said so": load.unstored, "503": load.refused[503]}


def main() -> int:
    """Run it and print its figures."""
    parser = argparse.ArgumentParser(description="Kill and fill up at random moments.")
    parser.add_argument("--kills", type=int, default=100, help="of servers, learners and runs")
    parser.add_argument("--fills", type=int, default=20, help="of a small disk")
    parser.add_argument("--tendings", type=int, default=0, help="kills of tending, undoing and deleting")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="after which no kill is begun; says how many there were"
    )
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tacit-drill-") as folder:
        try:
            told = drill(
                Path(folder),
                kills=asked.kills,
                fills=asked.fills,
                tendings=asked.tendings,
                seed=asked.seed,
                seconds=asked.seconds,
            )
        except AssertionError as error:
            sys.stderr.write(f"the drill has found something: {error}\n")
            raise
    print(json.dumps({**told, "seconds": round(time.monotonic() - began)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
