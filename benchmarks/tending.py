"""What tending costs those who ask meanwhile: how long answers take with it on and off, in turns, in one run.

    python benchmarks/tending.py --out runs/tending

Two real ``tacit serve`` processes have a bank each of the same memories, and a learner beside them; only one of these
tends, as often as it may. They take turns, in an order that changes; the other one is stopped meanwhile (SIGSTOP), so
that it takes nothing of the machine. Both banks are tended before, and get memories near to those that they have before
each turn. In a turn clients ask ``M:tacit`` without pause, greedy, testbed problems of the kinds that the bank
knows, and nothing is learned from them: a learner that learns would be busy on both sides. Reported are the 50th, 90th
and 99th percentiles and the 99th over the 50th of a turn, their ratios with intervals by bootstrap over pairs of
turns, and what was tended. Any status but 200 ends it. Writes ``tending.json`` and ``tending.png``.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import machine, parser, pyplot, table, write
from serve import MEMORY, Turns, serving, turn

from tacit.bank import Bank, open_bank
from tacit.bank.tending.work import ledger_of, tend
from tacit.memory import Memory, State
from tacit.problem import Problem
from tacit.server.keys import OPEN_NAMESPACE
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig
from tacit.tasks import sources as problems

SIDES = ("on", "off")
ADDED = 20
"""Memories that a bank gets before each turn."""


class Maker:
    """Memories that fit the testbed's model: of real problems, with soft prompts of noise."""

    def __init__(self, bank: Path) -> None:
        self._service = Service(ServeConfig(bank=str(bank), learner=False))
        self._rng = np.random.default_rng(0)
        self._made = 0

    def memories(self, asked: Sequence[Problem]) -> Iterator[Memory]:
        """One for each problem, with its key."""
        service = self._service
        keys = service.recall(OPEN_NAMESPACE).keys([problem.text for problem in asked])
        for problem, key in zip(asked, keys, strict=True):
            self._made += 1
            prompt = self._rng.standard_normal((20, service.backbone.hidden_size)).astype(np.float32)
            prompt *= service.backbone.embedding_norm / np.linalg.norm(prompt, axis=1, keepdims=True)
            yield Memory(
                id=f"m{self._made}", namespace=OPEN_NAMESPACE, problem_id=f"p{self._made}", problem=problem.text,
                prompt=prompt, key=key, key_kind=service.config.recall.key, fingerprint=service.backbone.fingerprint,
                state=State.ACTIVE, reason="benchmark", created=0.0,
                provenance={"label": "7", "steps": [{"reward": float(self._rng.random())}]},
            )  # fmt: skip

    def close(self) -> None:
        """Let go of the model and of the bank."""
        self._service.close()


def add(bank: Bank, memories: Sequence[Memory]) -> None:
    """Store them at once."""
    with bank.transaction():
        for memory in memories:
            bank.add(memory)


@contextmanager
def alone(others: Sequence[psutil.Process]) -> Iterator[None]:
    """These processes are stopped meanwhile."""
    for process in others:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in others:
            process.send_signal(signal.SIGCONT)


def percentile(turns: Sequence[Sequence[float]], percent: float) -> float:
    """Of all answers of some turns, in milliseconds."""
    return float(np.percentile(np.concatenate([np.asarray(one) for one in turns]), percent)) * 1e3


def compared(seconds: dict[str, list[list[float]]], percent: float) -> dict[str, Any]:
    """Ratio on / off of a percentile: of all answers, with its interval, and of each pair of turns."""
    on, off = (seconds[side] for side in SIDES)
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(2000):
        chosen = rng.integers(len(on), size=len(on))
        ratios.append(percentile([on[i] for i in chosen], percent) / percentile([off[i] for i in chosen], percent))
    ours, peer = percentile(on, percent), percentile(off, percent)
    pairs = [percentile([a], percent) / percentile([b], percent) for a, b in zip(on, off, strict=True)]
    return {
        "name": f"p{percent:g} of answers, tending on / off", "ours": ours, "peer": peer, "ratio": ours / peer,
        "ratio_range": [float(x) for x in np.percentile(ratios, [2.5, 97.5])], "unit": "ms", "threads": 1,
        "pairs": pairs, "median_of_pairs": float(np.median(pairs)),
    }  # fmt: skip


def tail(seconds: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Ratio on / off of p99 over p50 within a turn: the median of pairs, with its interval.

    A machine that is slow for a minute slows both percentiles; tending, a hundredth of the time, can reach p99 alone.
    """
    on, off = ([percentile([one], 99) / percentile([one], 50) for one in seconds[side]] for side in SIDES)
    pairs = np.divide(on, off)
    drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    low, high = np.percentile(np.median(pairs[drawn], axis=1), [2.5, 97.5])
    return {
        "name": "p99/p50 of a turn, tending on / off", "ours": float(np.median(on)), "peer": float(np.median(off)),
        "ratio": float(np.median(pairs)), "ratio_range": [float(low), float(high)], "unit": "", "threads": 1,
        "pairs": pairs.tolist(), "median_of_pairs": float(np.median(pairs)),
    }  # fmt: skip


def main() -> None:
    """Measure, print tables, write ``tending.json`` and ``tending.png``."""
    made = parser(__doc__)
    made.add_argument("--pairs", type=int, default=12, help="turns of each side")
    made.add_argument("--seconds", type=float, default=20, help="of a turn")
    made.add_argument("--clients", type=int, default=4)
    made.add_argument("--memories", type=int, default=1000)
    arguments = made.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.seconds, arguments.memories = 2, 3, 60
    started = machine()
    count = arguments.memories + ADDED * 2 * (arguments.pairs + 1)
    known = list(islice(problems.load("testbed", seed=arguments.seed, limit=count), count))
    fresh = iter(problems.load("testbed", seed=arguments.seed + 1, limit=80_000))
    seconds: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        paths = {side: Path(name) / f"{side}.sqlite" for side in SIDES}
        maker = Maker(paths["on"])
        with open_bank(str(paths["on"]), create=False) as bank:
            add(bank, list(maker.memories(known[: arguments.memories])))
            tend(bank, OPEN_NAMESPACE)  # what has gathered until then, which is done once
        rest = list(maker.memories(known[arguments.memories :]))
        maker.close()
        shutil.copy(paths["on"], paths["off"])
        with serving(paths["on"], "--tend", "1") as on, serving(paths["off"]) as off:
            urls = {"on": on, "off": off}
            trees = {side: tree(paths[side]) for side in SIDES}
            for number in range(-1, arguments.pairs):  # the first pair warms up
                more, rest = rest[:ADDED], rest[ADDED:]
                for side in SIDES if number % 2 else SIDES[::-1]:
                    with alone([process for other in SIDES if other != side for process in trees[other]]):
                        with open_bank(str(paths[side]), create=False, busy_timeout=60) as bank:
                            add(bank, more)
                        into = Turns()
                        asyncio.run(
                            turn(urls[side], arguments.clients, arguments.seconds, fresh, into, (MEMORY,), learn=False)
                        )
                    if set(into.statuses) != {200}:
                        raise SystemExit(f"answers that are none: {into.statuses}")
                    if number >= 0:
                        seconds[side].append(into.seconds[MEMORY])
                        print(
                            side, len(into.seconds[MEMORY]), f"{percentile(seconds[side][-1:], 99):.0f} ms", flush=True
                        )
            with open_bank(str(paths["on"]), create=False) as bank:
                entries = ledger_of(bank, OPEN_NAMESPACE)["entries"][1:]
                left = bank.counts(OPEN_NAMESPACE)
    ratios = [*(compared(seconds, percent) for percent in (50, 90, 99)), tail(seconds)]
    told = [one["retired"] for one in entries]
    write(
        arguments.out, "tending", ratios, started, clients=arguments.clients, turn_seconds=arguments.seconds,
        answers={side: [len(one) for one in turns] for side, turns in seconds.items()}, tendings=told,
        left={str(state): number for state, number in left.items()}, seconds=seconds,
    )  # fmt: skip
    table(
        f"tended {len(entries)} times, {sum(sum(one.values()) for one in told)} memories taken out of use",
        ("percentile", "on", "off", "ratio", "95 %", "median of pairs"),
        [
            (
                row["name"].split()[0], *(f"{row[side]:.1f} {row['unit']}" for side in ("ours", "peer")),
                f"{row['ratio']:.3f}",
                " to ".join(f"{x:.3f}" for x in row["ratio_range"]), f"{row['median_of_pairs']:.3f}",
            )
            for row in ratios
        ],
    )  # fmt: skip
    plot(arguments.out / "tending.png", seconds)


def tree(bank: Path) -> list[psutil.Process]:
    """The server of a bank, and its learner once it runs."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.Process().children():
            if str(bank) in process.cmdline() and process.children():
                return [process, *process.children(recursive=True)]
        time.sleep(0.1)
    raise SystemExit(f"no server of {bank} with a learner")


def plot(path: Path, seconds: dict[str, list[list[float]]]) -> None:
    """The share of answers that took longer than so many milliseconds."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for side in SIDES:
        every = np.sort(np.concatenate([np.asarray(one) for one in seconds[side]])) * 1e3
        axes.loglog(every, 1 - np.arange(len(every)) / len(every), label=f"tending {side}")
    axes.set(xlabel="ms", ylabel="share of answers that took longer", title="tending")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
