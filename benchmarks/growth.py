"""Whether a problem takes longer the more memories there are: one stream beside banks of 100, 1,000 and 10,000.

    python benchmarks/growth.py --out runs/bench

Each bank is filled with memories of the testbed: every one has the key, by the model, of a problem of its own, and the
soft prompt and provenance of a memory that was really learned on a problem of the same family (beyond a few hundred
problems the smallest families repeat their texts, so some keys are equal; the JSON says how many differ). Each bank is
served by a process of its own. They take turns: in every round all answer, learn and remember the same fresh problems
in windows of 8, and what that stored is deleted again, so that the sizes stay. Opening a bank and its first search are
not counted. Ratios are seconds a problem against the smallest bank, so the goal is at most 1.10.

Besides: how much of the time goes into recall (search and reading the memories) and into storing, and the bytes a
memory takes: of the file beyond an empty bank's, and of the process's memory after the first search beyond that before
opening, per memory more than the smallest bank has. Writes ``growth.json`` and ``growth.png``.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import Contestant, Round, machine, parser, pyplot, table, write

from tacit.agent import Agent
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.config import RunConfig
from tacit.memory import Memory, State
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.recall import Keys
from tacit.testbed import problems

WINDOW = 8
TAUGHT, FILLING, ASKED = 1_000_001, 1_000_002, 1_000_003  # added to the seed: streams that share no problem
GOAL = 1.10


def fresh_agent(bank: Bank, seed: int) -> Agent:
    """The agent of ``tacit run`` on the testbed, defaults throughout."""
    from tacit.assembly import agent_for

    return agent_for(RunConfig(seed=seed, device="cpu"), bank)


def taught(folder: Path, count: int, seed: int) -> dict[str, Memory]:
    """Memories that were really learned, one for each family among ``count`` problems."""
    asked = list(islice(problems("AB", seed + TAUGHT), count))
    with open_bank(str(folder / "taught.db")) as bank:
        agent = fresh_agent(bank, seed)
        remembered = agent.learn(agent.answer([Problem(item.id, item.text) for item in asked]))
    pairs = zip(asked, remembered, strict=True)
    return {item.family: result.memory for item, result in pairs if result.memory is not None}


def memories(count: int, learned: dict[str, Memory], seed: int) -> list[Memory]:
    """``count`` active memories of as many problems, with their own keys and learned soft prompts."""
    stream = list(islice(problems("AB", seed + FILLING), count))
    any_family = next(iter(learned.values()))
    keys = Keys(Backbone.load("testbed", device="cpu"), any_family.key_kind).of([item.text for item in stream])
    return [
        replace(
            learned.get(item.family, any_family), id=f"m{number}", problem_id=item.id, problem=item.text, key=key,
            state=State.ACTIVE, reason="filling of a benchmark",
        )
        for number, (item, key) in enumerate(zip(stream, keys, strict=True))
    ]  # fmt: skip


def fill(path: Path, chosen: list[Memory]) -> int:
    """Store memories at ``path``; bytes of the file in all."""
    with open_bank(str(path)) as bank:
        for first in range(0, len(chosen), 1000):
            with bank.transaction():
                for memory in chosen[first : first + 1000]:
                    bank.add(memory)
    return path.stat().st_size


def side(path: str, warm: str, fingerprint: str, dim: int, asked: int, search_threads: int, seed: int) -> Round:
    """A round answers, learns and remembers ``asked`` problems beside the bank at ``path``."""
    ram, bank = opened(path, warm, fingerprint, dim, search_threads)
    agent = fresh_agent(bank, seed)
    stream = problems("AB", seed + ASKED)
    spent = {"recall": 0.0, "store": 0.0}
    agent.recall.recalled = timed(agent.recall.recalled, spent, "recall")  # type: ignore[method-assign]
    agent.remember = timed(agent.remember, spent, "store")  # type: ignore[method-assign]

    def work() -> tuple[float, float, dict[str, float]]:
        chosen = [Problem(item.id, item.text) for item in islice(stream, asked)]
        stored, recalled = [], 0
        spent.update(recall=0.0, store=0.0)
        began, cpu = time.perf_counter(), time.process_time()
        for first in range(0, asked, WINDOW):
            answered = agent.answer(chosen[first : first + WINDOW])
            remembered = agent.learn(answered)
            agent.remember(answered, remembered)
            recalled += sum(one.hit is not None for one in answered)
            stored += [result.memory.id for result in remembered if result.memory is not None]
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        with bank.transaction():
            for id in stored:
                bank.delete(id, agent.namespace)
        shares = {"recalled": recalled / asked, "stored": len(stored) / asked}
        return asked, seconds, {"cpu": cpu, "ram": ram, **shares, **spent}

    return work


def opened(path: str, warm: str, fingerprint: str, dim: int, threads: int) -> tuple[int, Bank]:
    """Bytes that opening a bank and a first search add to this process, and the bank."""

    def first_search(url: str) -> Bank:
        bank = open_bank(url, create=False, search_threads=threads)
        key = np.ones(dim, dtype=np.float32)
        bank.search(key, namespace="default", fingerprint=fingerprint, key_kind=RunConfig().recall.key)
        return bank

    first_search(warm).close()  # so that libraries and pools are not counted
    gc.collect()
    before = resident()
    bank = first_search(path)
    gc.collect()
    return resident() - before, bank


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def timed(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """``call``, whose seconds are added to ``spent[name]``."""

    def called(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - began

    return called


def measure(sides: dict[int, Contestant], rounds: int) -> dict[int, list[dict[str, float]]]:
    """What each side measured in each round; a first round of each, the warm-up, is dropped."""
    measured: dict[int, list[dict[str, float]]] = {size: [] for size in sides}
    order = list(sides)
    for _ in range(rounds + 1):
        for size in order:
            units, seconds, more = sides[size].round()
            measured[size].append({"seconds": seconds / units, **more, "cpu": more["cpu"] / units, "units": units})
        order = order[1:] + order[:1]  # no bank is always first
    return {size: of[1:] for size, of in measured.items()}


def summary(size: int, of: list[dict[str, float]], file: int, empty: int) -> dict[str, Any]:
    """All figures of one bank."""

    def middle(values: list[float]) -> float:
        return float(statistics.median(values))

    return {
        "memories": size,
        "seconds": middle([one["seconds"] for one in of]),
        "cpu_seconds": middle([one["cpu"] for one in of]),
        "recall_share": middle([one["recall"] / one["units"] / one["seconds"] for one in of]),
        "recall_ms": middle([one["recall"] / one["units"] * 1e3 for one in of]),
        "store_share": middle([one["store"] / one["units"] / one["seconds"] for one in of]),
        "recalled": statistics.mean(one["recalled"] for one in of),
        "stored": statistics.mean(one["stored"] for one in of),
        "file_bytes_per_memory": (file - empty) / size,
        "ram_bytes": int(of[0]["ram"]),
        "rounds": of,
    }


def against(row: dict[str, Any], least: dict[str, Any], threads: int) -> dict[str, Any]:
    """Time per problem of one bank against the smallest, paired by rounds."""
    pairs = list(zip(row["rounds"], least["rounds"], strict=True))
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    return {
        "name": f"time per problem {row['memories']:,} vs {least['memories']:,}", "ratio": statistics.median(ratios),
        "ours": row["seconds"], "peer": least["seconds"], "unit": "s/problem", "threads": threads,
        "ratio_range": [min(ratios), max(ratios)], "goal": GOAL,
        "cpu_ratio": statistics.median(a["cpu"] / b["cpu"] for a, b in pairs),
    }  # fmt: skip


def main() -> None:
    """Measure, print tables, write ``growth.json`` and ``growth.png``."""
    import torch

    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    made.add_argument("--rounds", type=int, default=8)
    made.add_argument("--problems", type=int, default=32, help="in a round")
    made.add_argument("--threads", type=int, default=1, help="of every process's matrix libraries and of a search")
    arguments = made.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.rounds, arguments.problems = [20, 200], 1, WINDOW
    started, sizes = machine(), sorted(arguments.sizes)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filling = memories(sizes[-1], taught(folder, 12 if arguments.quick else 48, arguments.seed), arguments.seed)
        distinct = {size: len({memory.key.tobytes() for memory in filling[:size]}) for size in sizes}
        empty = fill(folder / "empty.db", [])
        fill(folder / "warm.db", filling[:1])
        files = {size: fill(folder / f"{size}.db", filling[:size]) for size in sizes}
        options = {
            "warm": str(folder / "warm.db"), "fingerprint": filling[0].fingerprint, "dim": len(filling[0].key),
            "asked": arguments.problems, "seed": arguments.seed, "search_threads": arguments.threads,
        }  # fmt: skip
        del filling
        sides: dict[int, Contestant] = {}
        try:
            for size in sizes:
                sides[size] = Contestant(side, arguments.threads, path=str(folder / f"{size}.db"), **options)
            measured = measure(sides, arguments.rounds)
        finally:
            for one in sides.values():
                one.stop()
    rows = [summary(size, measured[size], files[size], empty) for size in sizes]
    for row in rows:
        row["distinct_keys"] = distinct[row["memories"]]
        more = row["memories"] - sizes[0]
        row["ram_bytes_per_memory"] = (row["ram_bytes"] - rows[0]["ram_bytes"]) / more if more else None
    ratios = [against(row, rows[0], arguments.threads) for row in rows[1:]]
    write(arguments.out, "growth", ratios, started, window=WINDOW, problems_a_round=arguments.problems, results=rows)
    table(
        "a problem beside banks of different sizes",
        ("memories", "s/problem", "CPU s", "recall", "of the time", "storing", "recalled", "file/memory", "RAM/memory"),
        [
            (
                f"{row['memories']:,}", f"{row['seconds']:.3f}", f"{row['cpu_seconds']:.3f}",
                f"{row['recall_ms']:.2f} ms", f"{row['recall_share']:.2%}", f"{row['store_share']:.2%}",
                f"{row['recalled']:.0%}", f"{row['file_bytes_per_memory']:,.0f} B",
                "" if row["ram_bytes_per_memory"] is None else f"{row['ram_bytes_per_memory']:,.0f} B",
            )
            for row in rows
        ],
    )  # fmt: skip
    plot(arguments.out / "growth.png", rows)


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Seconds per problem against the size of the bank, and the part of them that recall takes."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    sizes = [row["memories"] for row in rows]
    least = rows[0]["seconds"]
    axes.fill_between(
        sizes, 0, least * GOAL, color="#4477aa", alpha=0.15, label="within a tenth of the smallest bank's"
    )
    axes.plot(sizes, [row["seconds"] for row in rows], marker="o", label="answer, learn and remember")
    axes.plot(sizes, [row["recall_ms"] / 1e3 for row in rows], marker="o", label="of it recall")
    axes.set(xscale="log", ylim=0, xlabel="memories", ylabel="s per problem (median of rounds)", title="growth")
    axes.legend(loc="center left")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
