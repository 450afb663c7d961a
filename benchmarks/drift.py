"""What becomes of memories whose kind of problem changes its right answer, and changes back.

    python benchmarks/drift.py --out runs/drift --seeds 0 1 2

Every second problem is of one kind: two people who have things. First the question is how many there are in all
(worked step by step, carefully), then how many one has at most (all listed, quickly), then in all again, ``PHASE``
problems each. Recall does not see which: the key ``opening`` is of the text before the question, so that to the bank
one kind has changed its right way of working, twice. The problems between are of four other kinds, which do not change.
The testbed's reward model, which knows both questions, is the verifier; there are no labels.

One problem at a time, tended every ``TEND`` problems: once with what drift does (methods/drift.py) and once without.
Prints and writes (``drift.json``), for each change: problems of the kind until each memory from before it was out of
use, until the last recall of it, and how much better than the frozen model it was meanwhile; of those that were out of
use, problems until their return, the right and the wrong ones; sampled and greedy accuracy of the kind and of the
others in each part; problems on which one was tried.
``--steady N`` runs N problems of sets A and B as well, where nothing changes.
As a plug-in (``--plugin benchmarks/drift.py``) it registers the source ``drifting`` and the key, and runs nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from tacit import registry
from tacit.bank import open_bank
from tacit.bank.harm import DRIFTED
from tacit.config import RecallConfig, RunConfig
from tacit.experiments.run import run
from tacit.memory import State
from tacit.methods import drift
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.testbed.families import item

PHASE, TEND = 40, 60
TURNS = ("total", "most", "total")
OTHERS = ("boxes", "mul", "last", "count")


@registry.register("key", "opening")
def opening(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The last hidden state of a problem without its question (in set C: from the number of days on)."""
    key: Tensor = registry.get("key", "last")(backbone, text.partition(" how many ")[0].partition(" days ")[0], layer)
    return key


@registry.register("source", "drifting")
def drifting(phase: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """The stream; ``phase`` problems of the kind in each of its three parts."""
    count = int(phase or PHASE)
    for number in range(len(TURNS) * count):
        for name in (TURNS[number // count], OTHERS[number % len(OTHERS)]):
            made = item(name, seed, number)
            yield Problem(made.id, made.text, made.gold, name)


def measured(out: Path, seed: int, data: str, limit: int | None, watching: bool) -> dict[str, Any]:
    """One run of a stream, and what it came to."""
    drifts = data.startswith("drifting")
    recall = RecallConfig(key="opening") if drifts else RecallConfig()
    config = RunConfig(
        data=data, out=str(out), seed=seed, limit=limit, tend=TEND, baselines=(), recall=recall, device="cpu"
    )
    states: list[dict[str, tuple[str, str]]] = []
    tried: list[Any] = []

    def look(row: dict[str, Any], done: int, total: int) -> None:
        with open_bank(str(out / "bank.sqlite"), create=False) as bank:
            found = bank.find("default")
        states.append({one.id: (one.problem_id.split("/")[1], f"{one.state}: {one.reason}") for one in found})

    def tries(self: drift.Drift, *asked: Any) -> Iterator[Any]:
        for one in found(self, *asked):
            tried.append(one)
            yield one

    found = drift.Drift._tries
    lead = drift.LEAD if watching else float("inf")
    with mock.patch.object(drift, "LEAD", lead), mock.patch.object(drift.Drift, "_tries", tries):
        run(config, look)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [said for _, said in states[-1].values()]
    return {
        "data": data,
        "seed": seed,
        "drift": watching,
        **(figures(rows, states) if drifts else {"accuracy": accuracy(rows)}),
        "active": sum(map(active, last)),
        "drifted": sum(DRIFTED in said for said in last),
        "quarantined_ever": len({id for at in states for id, (_, said) in at.items() if DRIFTED in said}),
        "tried": len(tried),
        "tokens": sum(row["tokens"] for row in rows) / len(rows),
    }


def benefit(recalls: list[dict[str, Any]]) -> float | None:
    """What a memory's samples were better by than those without, where it was recalled, by the right answers."""
    gains = [row["memory"]["correct"] - row["zero_shot"]["correct"] for row in recalls]
    return sum(gains) / len(gains) if gains else None


def accuracy(picked: list[dict[str, Any]]) -> list[float]:
    """Sampled and greedy, as routed."""
    return [sum(row["routed"][name] for row in picked) / len(picked) for name in ("correct", "greedy_correct")]


def figures(rows: list[dict[str, Any]], states: list[dict[str, tuple[str, str]]]) -> dict[str, Any]:
    """Of the rows and the states of all memories after each."""
    size = len(rows) // len(TURNS)
    parts = [range(turn * size, (turn + 1) * size) for turn in range(len(TURNS))]
    changes = []
    for turn in range(1, len(TURNS)):
        before = states[parts[turn][0] - 1]
        after = [at for at in parts[turn] if rows[at]["family"] in TURNS]
        used = [(rows[at]["memory"] or {}).get("memory_id") for at in after]

        def until(id: str, wanted: bool, after: list[int] = after) -> int | None:
            return next((n for n, at in enumerate(after, 1) if active(states[at][id][1]) == wanted), None)

        there = [id for id, (name, said) in before.items() if name == TURNS[turn - 1] and active(said)]
        away = {id: name == TURNS[turn] for id, (name, said) in before.items() if DRIFTED in said}
        changes.append(
            {
                "out": [until(id, False) for id in there],
                "benefit": [
                    benefit([rows[at] for at, name in zip(after, used, strict=True) if name == id]) for id in there
                ],
                "last_used": [max((n for n, name in enumerate(used, 1) if name == id), default=0) for id in there],
                "returned": [until(id, True) for id, right in away.items() if right],
                "returned_wrongly": [until(id, True) for id, right in away.items() if not right],
            }
        )
    return {
        "changes": changes,
        "kind": [accuracy([rows[at] for at in part if rows[at]["family"] in TURNS]) for part in parts],
        "others": [accuracy([rows[at] for at in part if rows[at]["family"] in OTHERS]) for part in parts],
    }


def active(state: str) -> bool:
    """Whether this is the state of a memory in use."""
    return state.startswith(f"{State.ACTIVE}: ")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/drift"), help="folder of the runs and of drift.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--phase", type=int, default=PHASE, help="problems of the kind between changes")
    parser.add_argument("--steady", type=int, default=0, help="problems of a stream without a change")
    given = parser.parse_args()
    streams = [(f"drifting:{given.phase}", None), *([("testbed", given.steady)] if given.steady else [])]
    found = []
    for seed in given.seeds:
        for data, limit in streams:
            for watching in (True, False):
                out = given.out / f"{data.partition(':')[0]}-{seed}-{'with' if watching else 'without'}"
                found.append(measured(out, seed, data, limit, watching))
                print(json.dumps(found[-1]), flush=True)
                (given.out / "drift.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
