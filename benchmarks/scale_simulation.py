"""How many problems a second a number of workers gives: a discrete-event simulation, checked against a real run.

    python benchmarks/scale_simulation.py --out runs/bench

1. A stream of testbed problems runs in this process, and what every window asks of engine and learner is written down,
   with the seconds that remain for the driver itself (keys, recall, routing, verifier, bank, report).
2. The unit costs, seconds of generating n rollouts and of learning n memories together, are measured in as many
   processes at once as the real run has workers, since they share memory and caches.
3. The simulation plays the windows with these costs: pieces as ``cluster.crew`` cuts them, taken by whoever is idle.
4. The same stream runs on Ray with that many learners; predicted and measured seconds are compared.
5. The simulation then says what more workers would give, and larger windows.

Start-up (Ray, loading models) is in neither. Writes ``scale.json``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import simpy
import torch
from common import machine, parser, table, write

from tacit.agent import Agent
from tacit.assembly import agent_for
from tacit.bank import open_bank
from tacit.cluster.connection import Cluster
from tacit.cluster.crew import pieces
from tacit.cluster.remote import ANY, GOOD_ROLLOUTS, GOOD_TARGETS, RayEngine
from tacit.config import RunConfig
from tacit.engines.base import Request, Rollout
from tacit.learning import Learned, Target
from tacit.problem import Problem
from tacit.tasks import sources
from tacit.tasks.maths import MATHS

ROLLOUTS, TASKS = (9, 18, 36, 72, 144), (1, 2, 4, 8, 16)
"""Sizes of batches whose seconds are measured."""


@dataclass(frozen=True)
class Window:
    """What a window asks for: the rollouts of each request, and how many problems are learned from."""

    problems: int
    rollouts: tuple[int, ...]
    tasks: int


@dataclass(frozen=True)
class Costs:
    """Seconds: ``base + each * n`` for a batch of n rollouts or memories; of the driver per problem; of handing over a
    piece."""

    generate: tuple[float, float]
    learn: tuple[float, float]
    driver: float
    piece: float


# -- the simulation ---------------------------------------------------------------------------------------------------


def simulated(windows: Sequence[Window], costs: Costs, workers: int, batch: int = 32) -> float:
    """Seconds of a stream on so many workers."""
    env = simpy.Environment()
    idle = simpy.Store(env)
    idle.items.extend(range(workers))

    def piece(seconds: float) -> Generator[Any, Any, None]:
        worker = yield idle.get()
        yield env.timeout(costs.piece + seconds)
        idle.put(worker)

    def call(weights: Sequence[int], cost: tuple[float, float], good: int, most: int) -> Any:
        cut = pieces(None, weights, weights, workers, good, most)
        return env.all_of([env.process(piece(cost[0] + cost[1] * sum(one.items))) for one in cut])

    def driver() -> Generator[Any, Any, None]:
        for window in windows:
            yield call(window.rollouts, costs.generate, GOOD_ROLLOUTS, ANY)
            yield env.timeout(costs.driver * window.problems)
            if window.tasks:
                yield call([1] * window.tasks, costs.learn, GOOD_TARGETS, batch)

    env.process(driver())
    env.run()
    return float(env.now)


# -- what larger machines would give ----------------------------------------------------------------------------------

WORKERS = (1, 8, 64)

# An H100's bandwidth and bf16 rate by its data sheet, of which decoding reaches a half and products two fifths:
# assumed, not measured. Rollouts of 600 tokens after prompts of 200. ``kv``: bytes of a token's keys and values.
SEVEN: dict[str, Any] = {"weights": 7.6e9, "kv": 57_344, "bandwidth": 0.5 * 3.35e12, "flops": 0.4 * 989e12}
SEVENTY: dict[str, Any] = {"weights": 70.6e9, "kv": 327_680, "bandwidth": 8 * 0.5 * 3.35e12, "flops": 8 * 0.4 * 989e12}


def assumed(
    weights: float, kv: float, bandwidth: float, flops: float, tokens: int = 600, prompt: int = 200, steps: int = 10
) -> Costs:
    """Costs of a model in bf16 on one worker: a token step reads the weights once and every rollout's keys and values,
    or computes, whichever takes longer at large batches; a gradient costs 4 FLOP for each weight and token."""
    base = tokens * 2 * weights / bandwidth
    each = tokens * max((prompt + tokens / 2) * kv / bandwidth, 2 * weights / flops)
    learn = steps * (8 * each + 8 * tokens * 4 * weights / flops)
    return Costs((base, each), (steps * base, learn), driver=0.02, piece=0.005)


def predictions(costs: Costs, sizes: Sequence[int], rollouts: float, share: float) -> list[dict[str, Any]]:
    """Problems an hour for every number of workers and size of window."""
    found = []
    for size in sizes:
        window = Window(size, (max(1, round(rollouts / 2)),) * (2 * size), max(1, round(share * size)))
        for workers in WORKERS:
            seconds = simulated([window] * 4, costs, workers)
            found.append({"window": size, "workers": workers, "problems_per_hour": 3600 * 4 * size / seconds})
    return found


# -- what it needs to know --------------------------------------------------------------------------------------------


def played(agent: Agent, problems: Sequence[Problem], window: int) -> float:
    """Answer, learn and remember a stream; seconds. The first window warms up and is not counted."""
    began = time.perf_counter()
    for start in range(0, len(problems), window):
        chosen = problems[start : start + window]
        answered = agent.answer(chosen)
        agent.remember(answered, agent.learn(answered))
        if start == 0:
            began = time.perf_counter()
    return time.perf_counter() - began


class Watched:
    """An engine or learner that writes down what it is asked and how long it takes."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seconds = inner, 0.0
        self.asked: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``."""
        self.asked.append(tuple(request.n for request in requests))
        rollouts: list[list[Rollout]] = self._timed(self.inner.generate, requests)
        return rollouts

    def learn(self, tasks: Sequence[Target]) -> list[Learned]:
        """See ``Learner.learn``."""
        learned: list[Learned] = self._timed(self.inner.learn, tasks)
        self.asked.append((sum(one.prompt is not None for one in learned),))
        return learned

    def _timed(self, work: Callable[[Any], Any], given: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(given)
        finally:
            self.seconds += time.perf_counter() - began


def observed(config: RunConfig, problems: Sequence[Problem]) -> tuple[list[Window], float, float]:
    """The windows of the stream but for the first, the driver's seconds per problem, and the seconds of it all, in one
    process."""
    with TemporaryDirectory() as folder, open_bank(str(Path(folder) / "bank.sqlite")) as bank:
        agent = agent_for(config, bank)
        engine, learner = Watched(agent.engine), Watched(agent.learner)
        agent.responder = replace(agent.responder, engine=engine)
        agent.learner = learner  # type: ignore[assignment]
        began = time.perf_counter()
        counted = played(agent, problems, config.window)
        everything = time.perf_counter() - began
    windows = [
        Window(min(config.window, len(problems) - number * config.window), rollouts, tasks[0])
        for number, (rollouts, tasks) in enumerate(zip(engine.asked, learner.asked, strict=True))
    ]
    own = (everything - engine.seconds - learner.seconds) / len(problems)
    return windows[1:], own, counted


def unit_costs(config: RunConfig, texts: Sequence[str], barrier: Any, answers: Any) -> None:
    """In a process of its own: median seconds of batches of every size, all processes at the same size together."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, open_bank(str(Path(folder) / "bank.sqlite")) as bank:
        agent = agent_for(config, bank)
        asked = [agent.backbone.encode(text) for text in texts]
        problems = [Problem(f"cost-{number}", text) for number, text in enumerate(texts)]
        drawn = agent.responder.generate(_requests(agent, texts, asked, len(texts)), problems)
        votes = [response.vote for response in drawn]
        tasks = [
            Target(problem, MATHS.vote([vote.answer] * 8), label=vote.answer)
            for problem, vote in zip(problems, votes, strict=True)
            if vote.answer is not None
        ]
        measured: dict[str, list[tuple[int, float]]] = {"generate": [], "learn": []}

        def timed(kind: str, size: int, repeats: int, work: Callable[[int], Any]) -> None:
            seconds = []
            for repeat in range(repeats):
                barrier.wait()
                began = time.perf_counter()
                work(repeat)
                seconds.append(time.perf_counter() - began)
            measured[kind].append((size, statistics.median(seconds)))

        for size in ROLLOUTS:
            count = size // (agent.sampling.samples + 1)

            def generate(repeat: int, count: int = count) -> None:
                agent.engine.generate(_requests(agent, texts[repeat * 7 :], asked[repeat * 7 :], count))

            timed("generate", size, 5, generate)
        for size in TASKS:

            def learn(repeat: int, size: int = size) -> None:
                agent.learner.learn(tasks[repeat * 5 : repeat * 5 + size])

            timed("learn", size, 3, learn)
    answers.put(measured)


def _requests(agent: Agent, texts: Sequence[str], ids: Sequence[torch.Tensor], count: int) -> list[Request]:
    return [
        request
        for number in range(count)
        for request in agent.responder.requests(Problem(f"cost-{number}", texts[number]), ids[number], "cost")
    ]


def fitted(config: RunConfig, texts: Sequence[str], workers: int) -> dict[str, tuple[float, float]]:
    """``base, each`` of generating and learning, measured in ``workers`` processes at once."""
    context = get_context("spawn")
    barrier, answers = context.Barrier(workers), context.Queue()
    running = [context.Process(target=unit_costs, args=(config, texts, barrier, answers)) for _ in range(workers)]
    for process in running:
        process.start()
    found = [answers.get() for _ in running]
    for process in running:
        process.join()
    lines = {}
    for kind in ("generate", "learn"):
        points = np.array([point for one in found for point in one[kind]])
        # Relative errors count alike, or the largest batch alone would decide.
        each, base = np.polyfit(points[:, 0], points[:, 1], 1, w=1 / points[:, 1])
        lines[kind] = (max(0.0, float(base)), float(each))
    return lines


def real(config: RunConfig, problems: Sequence[Problem], workers: int) -> tuple[float, float]:
    """Seconds of the stream on Ray, its first window left out; and of handing one small piece over and back."""
    with (
        Cluster("local", learners=workers, threads=1) as cluster,
        TemporaryDirectory() as folder,
        open_bank(str(Path(folder) / "bank.sqlite")) as bank,
    ):
        agent = agent_for(config, bank)
        learners, engines = cluster.crews(replace(config, threads=1, instruction=""), agent.backbone)
        engine = RayEngine(engines, agent.backbone, learners)
        agent = replace(agent, engine=engine)
        seconds = played(agent, problems, config.window)
        one = [Request(agent.backbone.encode("compute 1 + 2"), temperature=0.0, max_tokens=1)]
        there, here = [], []
        for _ in range(50):
            began = time.perf_counter()
            agent.engine.generate(one)
            there.append(time.perf_counter() - began)
            began = time.perf_counter()
            engine._local.generate(one)
            here.append(time.perf_counter() - began)
        return seconds, max(0.0, statistics.median(there) - statistics.median(here))


def main() -> None:
    """Measure, simulate, compare, extrapolate."""
    made = parser(__doc__)
    made.add_argument("--problems", type=int, default=112)
    made.add_argument("--window", type=int, default=16)
    made.add_argument("--workers", type=int, default=2)
    arguments = made.parse_args()
    if arguments.quick:
        arguments.problems, arguments.window = 24, 8
    torch.set_num_threads(1)
    started = machine()
    config = RunConfig(window=arguments.window, seed=arguments.seed, baselines=(), threads=1)
    problems = [
        one.blind() for one in islice(sources.load("testbed", seed=config.seed, limit=arguments.problems), None)
    ]
    texts = [one.text for one in sources.load("testbed", seed=config.seed + 1000, limit=64)]
    windows, own, alone = observed(config, problems)
    lines = fitted(config, texts, arguments.workers)
    measured, handing = real(config, problems, arguments.workers)
    costs = Costs(lines["generate"], lines["learn"], own, handing)
    predicted = simulated(windows, costs, arguments.workers)
    counted = sum(window.problems for window in windows)
    error = predicted / measured - 1
    each = sum(sum(window.rollouts) for window in windows) / counted  # rollouts of a problem
    share = sum(window.tasks for window in windows) / counted  # of the problems are learned from
    more = {
        "testbed, as measured here": predictions(costs, (arguments.window, 128, 1024), each, share),
        "7B on H100s, assumed": predictions(assumed(**SEVEN), (1, 32, 256, 2048), 18, 0.9),
        "70B on groups of 8 H100s, assumed": predictions(assumed(**SEVENTY), (1, 32, 256, 2048), 18, 0.9),
    }
    write(
        arguments.out, "scale", [
            {
                "name": f"stream on {arguments.workers} workers, simulated against real", "ratio": predicted / measured,
                "ours": counted / predicted, "peer": counted / measured, "unit": "problems/s", "threads": 1,
            },
            {
                "name": f"{arguments.workers} workers against one process", "ratio": alone / measured,
                "ours": counted / measured, "peer": counted / alone, "unit": "problems/s", "threads": 1,
            },
        ],
        started, costs={"generate": costs.generate, "learn": costs.learn, "driver": own, "piece": handing},
        predicted_seconds=predicted, measured_seconds=measured, alone_seconds=alone, error=error, predictions=more,
    )  # fmt: skip
    print(f"predicted {predicted:.1f} s, measured {measured:.1f} s ({error:+.1%}); {costs}")
    for name, rows in more.items():
        table(
            f"problems an hour: {name}",
            ("window", *(f"{workers} workers" for workers in WORKERS)),
            [
                (str(window), *(f"{one['problems_per_hour']:,.0f}" for one in rows if one["window"] == window))
                for window in dict.fromkeys(one["window"] for one in rows)
            ],
        )


if __name__ == "__main__":
    main()
