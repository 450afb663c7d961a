"""What becomes of memories whose kind of problem changes its right answer, in a server: the stream of drift.py, served.

    python benchmarks/drift_served.py --out runs/drift-served --seeds 0 1 2

One client with a key of its own sends each problem over HTTP twice (eight samples, which may be learned from, and a
greedy one); then the learner does what is queued, tries candidates, takes out what has hurt, and tends every ``TEND``
problems. Once with drift and once without. Prints and writes (``drift-served.json``) what drift.py does, and how many
memories went by the counts of their uses; each stream's problems are in its ``rows.json``. Answers are drawn by random
numbers that nobody chose, so two calls differ. Right answers are read here alone. ``--steady N`` serves N problems of
sets A and B as well, where nothing changes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import drift as stream
import torch
from promotion import right
from promotion import stream as mixed
from starlette.testclient import TestClient

from tacit.agent import Answered
from tacit.answers.extraction import extract
from tacit.assembly import build_verifier
from tacit.bank import open_bank
from tacit.bank.harm import DRIFTED
from tacit.config import RecallConfig, Settings
from tacit.engines.local import LocalEngine
from tacit.methods.drift import LEAD, Drift
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.server.app import create_app
from tacit.server.keys import KeyStore
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.worker import Worker
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig


def measured(out: Path, seed: int, problems: Sequence[Problem], recall: RecallConfig, watching: bool) -> dict[str, Any]:
    """One served stream, and what it came to."""
    out.mkdir(parents=True)
    bank = open_bank(str(out / "bank.sqlite"))
    key, secret = KeyStore(bank).create("client", "home", ["ask", "learn", "trust"], 10_000)
    backbone, verifier = Backbone.load("testbed", device="cpu"), build_verifier(Settings(device="cpu"))
    settings = WorkerSettings(bank=bank.url, seed=seed, recall=recall, tend=stream.TEND)
    worker = Worker(bank, backbone, LocalEngine(backbone), verifier, settings)
    service = Service(ServeConfig(bank=bank.url, seed=seed, recall=recall, learner=False, device="cpu"))
    client = TestClient(create_app(service), "http://localhost")
    client.headers["Authorization"] = f"Bearer {secret}"
    answered: list[Answered] = []
    tried: list[Any] = []
    found = {name: getattr(Drift, name) for name in ("told", "_tries")}

    def told(self: Drift, seen: Sequence[Answered], *speakers: Any) -> Any:
        answered.extend(seen)
        return found["told"](self, seen, *speakers)

    def tries(self: Drift, *asked: Any) -> Any:
        for one in found["_tries"](self, *asked):
            tried.append(one)
            yield one

    def ask(problem: Problem, **changes: Any) -> float:
        body = {"model": "testbed:tacit", "messages": [{"role": "user", "content": problem.text}], **changes}
        said = client.post("/v1/chat/completions", json=body).json()["choices"]
        return sum(right(problem, extract(one["message"]["content"])) for one in said) / len(said)

    rows, states, families = [], [], {problem.text: str(problem.family) for problem in problems}
    lead = mock.patch("tacit.methods.drift.LEAD", LEAD if watching else float("inf"))
    with lead, mock.patch.object(Drift, "told", told), mock.patch.object(Drift, "_tries", tries):
        for problem in problems:
            answered.clear()
            routed = {"correct": ask(problem, n=8)}
            routed["greedy_correct"] = ask(problem, temperature=0, tacit={"learn": False})
            while worker.once():
                pass
            while worker.review():
                pass
            worker._tend_at = 0.0
            worker.tend()
            seen = (
                arms(problem, answered[0]) if answered else {"zero_shot": None, "memory": None}
            )  # a problem came again
            rows.append({"family": problem.family, "routed": routed, **seen})
            infos = bank.find(key.namespace)
            states.append({info.id: (families[info.problem], f"{info.state}: {info.reason}") for info in infos})
    service.close()
    (out / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    said = [{id: one for id, (_, one) in at.items()} for at in states]
    kind = recall.key == "opening"
    figures = stream.figures(rows, states) if kind else {"accuracy": stream.accuracy(rows)}

    def ever(words: str) -> int:
        return len({id for at in said for id, one in at.items() if words in one})

    return {
        "seed": seed, "data": "drifting" if kind else "testbed", "drift": watching, **figures,
        "memories": len(said[-1]), "active": sum(map(stream.active, said[-1].values())),
        "drifted": sum(DRIFTED in one for one in said[-1].values()), "drifted_ever": ever(DRIFTED),
        "returned_ever": ever(": returned: "), "by_counts_ever": ever("quarantined: in "), "tried": len(tried),
    }  # fmt: skip


def arms(problem: Problem, one: Answered) -> dict[str, Any]:
    """What the learner's own samples were worth, with and without a memory."""

    def share(answers: Sequence[str | None]) -> dict[str, Any]:
        return {"correct": sum(right(problem, answer) for answer in answers) / len(answers)}

    memory = one.memory and one.hit and {**share(one.memory.answers), "memory_id": one.hit.memory_id}
    return {"zero_shot": share(one.zero_shot.answers), "memory": memory}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/drift-served"), help="folder of banks and figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--phase", type=int, default=stream.PHASE, help="problems of the kind between changes; 0: none")
    parser.add_argument("--steady", type=int, default=0, help="problems of a stream without a change")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for seed in given.seeds:
        drifting = list(stream.drifting(str(given.phase), seed, None)) if given.phase else []
        kinds = ((drifting, RecallConfig(key="opening")), (mixed(seed, given.steady), RecallConfig()))
        for problems, recall in kinds:
            for watching in (True, False) if problems else ():
                out = given.out / f"{'steady-' * (problems is not drifting)}{seed}-{'with' if watching else 'without'}"
                found.append(measured(out, seed, problems, recall, watching))
                print(json.dumps(found[-1]), flush=True)
                (given.out / "drift-served.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
