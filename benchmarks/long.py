"""A long stream whose kinds come, go and change: a bank that is kept small against one that only grows.

    python benchmarks/long.py --out runs/long --problems 20000 --seeds 0 --set AB
    python benchmarks/long.py --out runs/steady --problems 5500 --seeds 0 --set C --steady

Kinds of sets A and B of the testbed, or of C, which has a model of its own. Some are there all the time, one comes
after the first quarter, one leaves after the second and comes back for the last. One changes its right way of working
half-way. With A and B two people have things, and the question is how many they have in all, then how many one has at
most; with C somebody comes so many days after a day, then before it. Recall does not see which (the key ``opening`` of
benchmarks/drift.py). Labels and routing are by the testbed's reward model for A and B, and by votes alone for C.
``--steady``: all kinds of the set instead, in random order, of which none changes, with the default key.

The small bank is tended every ``TEND`` problems and keeps at most ``KEEP`` memories; the other is not tended. Prints
and writes (``long-both.json``) a row for each bank and each twentieth of the stream. It holds answers right as routed,
sampled and greedy, of all kinds, of those that do not change and of the one that does. Then tokens and processor
seconds a problem, active memories, and bytes of the file. Where both banks were run it prints their differences in
points, paired by problem with intervals over problems, and by how much each kind fell below its own past.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drift  # registers the key
import numpy as np

from tacit import registry
from tacit.bank import open_bank
from tacit.config import RecallConfig, RunConfig
from tacit.experiments.report.figures import mean_interval
from tacit.experiments.run import run
from tacit.memory import State
from tacit.problem import Problem
from tacit.testbed.families import item

KEEP, TEND, WINDOW, PARTS = 300, 200, 8, 20


@dataclass(frozen=True)
class Stream:
    """A model's kinds, and those that come, are away for a quarter, and change."""

    model: str
    task: str
    always: tuple[str, ...]
    late: str
    away: str
    changes: tuple[str, str]
    all: str


STREAMS = {
    "AB": Stream(
        "testbed", "maths", ("boxes", "mul", "last", "count", "add", "prec"), "max", "before",
        ("total", "most"), "testbed",
    ),
    "C": Stream(
        "testbed:C", "text", ("backwards", "sort", "kinds", "close", "odd", "first"), "alphabet", "partner",
        ("later", "earlier"), "testbed:C",
    ),
}  # fmt: skip
CHANGES = {name for stream in STREAMS.values() for name in stream.changes}


@registry.register("source", "changing")
def changing(address: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """The stream of a set and of so many problems, as in "AB:20000"."""
    which, _, number = address.partition(":")
    stream, count = STREAMS[which], int(number)
    for at in range(count):
        quarter = 4 * at // count
        late, away = [stream.late] * (quarter > 0), [stream.away] * (quarter != 2)
        kinds = [*stream.always, stream.changes[quarter >= 2], *late, *away]
        name = kinds[at % len(kinds)]
        made = item(name, seed, at)
        yield Problem(made.id, made.text, made.gold, name)


def measured(out: Path, which: str, problems: int, seed: int, *, kept: bool, steady: bool) -> list[dict[str, Any]]:
    """One run; a row for each part of the stream."""
    stream = STREAMS[which]
    config = RunConfig(
        data=stream.all if steady else f"changing:{which}:{problems}", limit=problems, model=stream.model,
        task=stream.task, out=str(out), seed=seed, window=WINDOW, baselines=(), device="cpu",
        recall=RecallConfig() if steady else RecallConfig(key=drift.opening.__name__),
        tend=TEND if kept else 0, keep=KEEP if kept else None,
    )  # fmt: skip
    size, began = problems // PARTS, time.process_time()
    found: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []

    def look(row: dict[str, Any], done: int, total: int) -> None:
        nonlocal began
        rows.append(row)
        if len(rows) % size:
            return
        with open_bank(str(out / "bank.sqlite"), create=False) as bank:
            active = sum(one.state == State.ACTIVE for one in bank.find("default"))
        part, now = rows[-size:], time.process_time()
        found.append(
            {
                "kept": kept,
                "seed": seed,
                "problems": done,
                "all": accuracy(part),
                "unchanged": accuracy([one for one in part if one["family"] not in CHANGES]),
                "changing": accuracy([one for one in part if one["family"] in CHANGES]),
                "tokens": sum(one["tokens"] for one in part) / size,
                "seconds": (now - began) / size,
                "active": active,
                "bytes": (out / "bank.sqlite").stat().st_size,
            }
        )
        print(json.dumps(found[-1]), flush=True)
        began = now

    run(config, look)
    return found


def accuracy(picked: list[dict[str, Any]]) -> list[float]:
    """Sampled and greedy, as routed, and of how many."""
    return [*drift.accuracy(picked), len(picked)] if picked else [0, 0, 0]


# -- the two banks beside each other ------------------------------------------------------------------------------


def rows_of(out: Path) -> list[dict[str, Any]]:
    """A run's rows, in order."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: row["position"])


def differences(kept: Sequence[Path], growing: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Tended less growing in points, of parts of the stream; the runs of several seeds together."""
    pairs = [
        (row["family"], row["position"] / len(rows), row["routed"], other["routed"])
        for rows, others in ((rows_of(a), rows_of(b)) for a, b in zip(kept, growing, strict=True))
        for row, other in zip(rows, others, strict=True)
    ]
    parts: dict[str, Callable[[str, float], bool]] = {
        "from a tenth on": lambda kind, at: at >= 0.1,
        "second half": lambda kind, at: at >= 0.5,
        "the kind that changed, a twentieth after": lambda kind, at: kind in CHANGES and 0.5 <= at < 0.55,
        "the kind that changed, second half": lambda kind, at: kind in CHANGES and at >= 0.5,
        "kinds that do not change, from a tenth on": lambda kind, at: kind not in CHANGES and at >= 0.1,
    }
    return {
        name: {
            field: mean_interval(
                np.array([100.0 * (a[field] - b[field]) for kind, at, a, b in pairs if within(kind, at)])
            )
            for field in ("correct", "greedy_correct")
        }
        for name, within in parts.items()
    }


def falls(runs: Sequence[Path]) -> dict[str, np.floating[Any]]:
    """For each kind that does not change: the worst tenth of its problems, from the third on, against all before it, in
    points of sampled accuracy; the runs of several seeds tenth by tenth together."""
    tenths: dict[str, list[list[float]]] = {}
    for out in runs:
        kinds: dict[str, list[float]] = {}
        for row in rows_of(out):
            if row["family"] not in CHANGES:
                kinds.setdefault(row["family"], []).append(100.0 * row["routed"]["correct"])
        for kind, values in kinds.items():
            for at, part in enumerate(np.array_split(np.array(values), 10)):
                tenths.setdefault(kind, [[] for _ in range(10)])[at].extend(part)
    return {
        kind: min(np.mean(parts[at]) - np.mean(np.concatenate(parts[:at])) for at in range(2, len(parts)))
        for kind, parts in tenths.items()
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/long"), help="folder of the runs and of long.json")
    parser.add_argument("--problems", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", choices=tuple(STREAMS), default="AB")
    parser.add_argument("--steady", action="store_true", help="all kinds of the set, of which none changes")
    parser.add_argument("--only", choices=("kept", "growing"), help="one of the two banks")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    folders: dict[str, list[Path]] = {"kept": [], "growing": []}
    for seed in given.seeds:
        for side in folders if given.only is None else (given.only,):
            folders[side].append(out := given.out / f"{side}-{seed}")
            found += measured(out, given.set, given.problems, seed, kept=side == "kept", steady=given.steady)
            name = f"long-{given.only or 'both'}.json"
            (given.out / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.only is None:
        for part, both in differences(folders["kept"], folders["growing"]).items():
            print(
                part, *(f"{key} {one['mean']} [{one['low']}, {one['high']}] of {one['n']}" for key, one in both.items())
            )
    for side, runs in folders.items():
        if runs:
            print(side, "below its own past:", {kind: round(value, 2) for kind, value in falls(runs).items()})


if __name__ == "__main__":
    main()
