"""A long stream whose kinds come, go and change: a bank that is kept small against one that only grows.

    python benchmarks/long.py --out runs/long --problems 20000 --seeds 0

Kinds of sets A and B of the testbed. Six are there all the time, one comes after the first quarter, one leaves after
the second and comes back for the last. One changes its right way of working half-way: two people have things, and the
question is how many they have in all, then how many one has at most. Recall does not see which (the key ``opening`` of
benchmarks/drift.py). Labels and routing are by the testbed's reward model; there are no right answers.

The small bank is tended every ``TEND`` problems and keeps at most ``KEEP`` memories; the other is not tended. Prints
and writes (``long-both.json``) a row for each bank and each twentieth of the stream. It holds answers right as routed,
sampled and greedy, of all kinds, of those that do not change and of the one that does. Then tokens and processor
seconds a problem, active memories, and bytes of the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drift  # registers the key

from tacit import registry
from tacit.bank import open_bank
from tacit.config import RecallConfig, RunConfig
from tacit.experiments.run import run
from tacit.memory import State
from tacit.problem import Problem
from tacit.testbed.families import item

KEEP, TEND, WINDOW, PARTS = 300, 200, 8, 20
ALWAYS = ("boxes", "mul", "last", "count", "add", "prec")
LATE, AWAY = "max", "before"
CHANGES = ("total", "most")


@registry.register("source", "changing")
def changing(address: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """The stream of so many problems."""
    count = int(address)
    for number in range(count):
        quarter = 4 * number // count
        kinds = [*ALWAYS, CHANGES[quarter >= 2], *([LATE] if quarter else []), *([AWAY] if quarter != 2 else [])]
        name = kinds[number % len(kinds)]
        made = item(name, seed, number)
        yield Problem(made.id, made.text, made.gold, name)


def measured(out: Path, problems: int, seed: int, kept: bool) -> list[dict[str, Any]]:
    """One run; a row for each part of the stream."""
    config = RunConfig(
        data=f"changing:{problems}", out=str(out), seed=seed, window=WINDOW, baselines=(), device="cpu",
        recall=RecallConfig(key=drift.opening.__name__), tend=TEND if kept else 0, keep=KEEP if kept else None,
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
    return [*drift.accuracy(picked), len(picked)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/long"), help="folder of the runs and of long.json")
    parser.add_argument("--problems", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=("kept", "growing"), help="one of the two banks")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for seed in given.seeds:
        for kept in (True, False):
            if given.only not in (None, "kept" if kept else "growing"):
                continue
            out = given.out / f"{'kept' if kept else 'growing'}-{seed}"
            found += measured(out, given.problems, seed, kept)
            name = f"long-{given.only or 'both'}.json"
            (given.out / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
