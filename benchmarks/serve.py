"""What memory and learning cost and give at the server: ``M:tacit`` against ``M``, learning on against learning off.

    python benchmarks/serve.py --out runs/serve

Two real ``tacit serve`` processes take turns, one with a learner beside it and one without. In each turn ``clients``
clients ask without pause, greedy, half of their requests to ``M`` and half to ``M:tacit``, fresh testbed problems.
Before and between the turns a fixed set of other problems is asked of the learning server (``learn`` false): the share
of right answers and of answers that ``M:tacit`` shares with ``M``. Gold answers are read by this scorer alone. Any
status but 200 and 429 is counted as a failure. Writes ``serve.json`` and ``serve.png``.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from common import machine, parser, pyplot, table, write

from tacit.answers.equivalence import equivalent
from tacit.answers.extraction import extract
from tacit.problem import Problem
from tacit.tasks import sources as problems

PLAIN, MEMORY = "testbed", "testbed:tacit"


@dataclass
class Turns:
    """What the clients of one server saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {PLAIN: [], MEMORY: []})
    statuses: Counter[int] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)


@contextmanager
def serving(bank: Path, *options: str) -> Iterator[str]:
    """A ``tacit serve`` process; its address."""
    log = bank.with_suffix(".log")
    command = [sys.executable, "-m", "tacit", "serve", "--bank", str(bank), "--port", "0", *options]
    with log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"http://\S+:\d+", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {log.read_text()}")
            time.sleep(0.1)
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def ask(client: httpx.AsyncClient, model: str, problem: str, **options: Any) -> httpx.Response:
    """One greedy answer."""
    body = {"model": model, "messages": [{"role": "user", "content": problem}], "temperature": 0, "tacit": options}
    return await client.post("/v1/chat/completions", json=body)


async def turn(
    url: str,
    clients: int,
    seconds: float,
    stream: Iterator[Problem],
    into: Turns,
    models: tuple[str, ...] = (PLAIN, MEMORY),
    **options: Any,
) -> None:
    """All clients ask for so many seconds, the models in turn; ``options`` are those of Tacit."""
    end = time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def one(number: int) -> None:
            while time.perf_counter() < end:
                number += 1
                model = models[number % len(models)]
                start = time.perf_counter()
                answer = await ask(client, model, next(stream).text, **options)
                into.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    into.seconds[model].append(time.perf_counter() - start)
                    into.routes[answer.json()["tacit"]["route"]] += 1
                elif answer.status_code == 429:
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

        await asyncio.gather(*map(one, range(clients)))


async def probe(url: str, asked: list[Problem]) -> dict[str, Any]:
    """Share of right answers of the fixed problems, and of answers alike, as the server now is."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        room = asyncio.Semaphore(8)

        async def both(problem: Problem) -> tuple[str | None, str | None, str, str | None]:
            async with room:
                plain = await ask(client, PLAIN, problem.text)
                memory = (await ask(client, MEMORY, problem.text, learn=False)).json()
            texts = [answer["choices"][0]["message"]["content"] for answer in (plain.json(), memory)]
            told = memory["tacit"]
            return extract(texts[0]), extract(texts[1]), told["route"], told["memory"]

        answers = await asyncio.gather(*map(both, asked))
        status = (await client.get("/metrics")).text
    right = [
        [a is not None and equivalent(a, str(p.gold)) for a in pair[:2]] for pair, p in zip(answers, asked, strict=True)
    ]
    alike = [a is not None and b is not None and equivalent(a, b) for a, b, *_ in answers]
    # What the most used memories were worth: problems asked, right with it and wrong without, and the other way round.
    worth: dict[str, list[int]] = {}
    for (*_, used), (plain, memory) in zip(answers, right, strict=True):
        counts = worth.setdefault(used or "none", [0, 0, 0])
        counts[0] += 1
        counts[1] += memory and not plain
        counts[2] += plain and not memory
    states = dict(re.findall(r'tacit:memories\{state="(\w+)"\} ([\d.]+)', status))
    return {
        "plain": sum(one[0] for one in right) / len(asked),
        "memory": sum(one[1] for one in right) / len(asked),
        "agreement": sum(alike) / len(asked),
        "recalled": sum(route != "no_memory" for _, _, route, _ in answers) / len(asked),
        "worth": dict(sorted(worth.items(), key=lambda one: -one[1][0])[:5]),
        "memories": {state: int(float(count)) for state, count in states.items()},
    }


def latency(name: str, ours: list[float], peer: list[float], percent: int, threads: int) -> dict[str, Any]:
    """A percentile of seconds per request as a ratio; above 1 means that ours takes longer."""
    a, b = (quantiles(side, n=100)[percent - 1] for side in (ours, peer))
    return {"name": f"p{percent} {name}", "ours": a, "peer": b, "ratio": a / b, "unit": "s", "threads": threads}


def main() -> None:
    """Measure, print tables, write ``serve.json`` and ``serve.png``."""
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=300, help="of traffic with learning on")
    made.add_argument("--turns", type=int, default=10, help="how many turns that time is divided into")
    made.add_argument("--clients", type=int, default=32)
    made.add_argument("--probes", type=int, default=150, help="fixed problems asked after each turn")
    arguments = made.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.turns, arguments.clients, arguments.probes = 6, 2, 4, 6
    os.environ["OMP_NUM_THREADS"] = "1"
    started = machine()
    asked = list(islice(problems.load("testbed", seed=arguments.seed + 1000, limit=arguments.probes), arguments.probes))
    fresh = iter(problems.load("testbed", seed=arguments.seed, limit=1_000 if arguments.quick else 80_000))
    sides = {"learning on": Turns(), "learning off": Turns()}
    curve: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        bank = Path(name) / "learning.sqlite"
        each = arguments.seconds / arguments.turns
        with serving(bank) as on, serving(Path(name) / "plain.sqlite", "--no-learn") as off:
            for number in range(arguments.turns + 1):
                curve.append({"seconds": number * each, **asyncio.run(probe(on, asked))})
                print({name: value for name, value in curve[-1].items() if name != "worth"}, flush=True)
                if number < arguments.turns:
                    asyncio.run(turn(on, arguments.clients, each, fresh, sides["learning on"]))
                    asyncio.run(turn(off, arguments.clients, each, fresh, sides["learning off"]))
    learning, plain = sides["learning on"], sides["learning off"]
    ratios = []
    for percent in (50, 99):
        ratios += [
            latency("M:tacit against M, learning on", learning.seconds[MEMORY], learning.seconds[PLAIN], percent, 1),
            latency("M:tacit against M, learning off", plain.seconds[MEMORY], plain.seconds[PLAIN], percent, 1),
            latency("M:tacit learning against M not", learning.seconds[MEMORY], plain.seconds[PLAIN], percent, 1),
        ]
    failed = sum(n for side in sides.values() for status, n in side.statuses.items() if status not in (200, 429))
    results = {side: {"statuses": dict(turns.statuses), "routes": dict(turns.routes)} for side, turns in sides.items()}
    write(
        arguments.out, "serve", ratios, started, clients=arguments.clients, seconds=arguments.seconds,
        probes=arguments.probes, failed=failed, results=results, curve=curve,
    )  # fmt: skip
    table(
        f"fixed problems while learning from traffic; {failed} failed requests",
        ("after", "M", "M:tacit", "alike", "recalled", "active", "candidates"),
        [
            (
                f"{point['seconds']:.0f} s", f"{point['plain']:.1%}", f"{point['memory']:.1%}",
                f"{point['agreement']:.1%}", f"{point['recalled']:.1%}",
                str(point["memories"].get("active", 0)), str(point["memories"].get("candidate", 0)),
            )
            for point in curve
        ],
    )  # fmt: skip
    plot(arguments.out / "serve.png", curve)


def plot(path: Path, curve: list[dict[str, Any]]) -> None:
    """Accuracy and agreement on the fixed problems against the seconds of traffic."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    after = [point["seconds"] for point in curve]
    for name, label in (("plain", "M"), ("memory", "M:tacit"), ("agreement", "answers alike")):
        axes.plot(after, [point[name] for point in curve], marker="o", label=label)
    axes.set(xlabel="s of traffic with learning on", ylabel="share of the fixed problems", title="serve", ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
