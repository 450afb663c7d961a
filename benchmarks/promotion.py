"""What promotion without labels lets through on the testbed, with and without a key that floods the namespace.

    python benchmarks/promotion.py --seed 0 --verifier vote --out promotion-0.json

Two honest, trusted keys bring problems of both sets in turn; a third, in the flooded run, problems of the two families
with a misconception whose vote is wrong (it knows the answers, as an attacker would). Gold answers are read here alone,
after the decisions: to say whether a memory was good or bad for fresh problems of its own family, and for the accuracy
of routed answers to fresh problems.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tacit.agent import Agent
from tacit.answers.equivalence import equivalent
from tacit.answers.extraction import extract
from tacit.assembly import build_verifier
from tacit.bank import open_bank
from tacit.bank.base import Bank
from tacit.config import LearnConfig, Settings
from tacit.engines.local import LocalEngine
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.promotion import Promoter, key_ids, quarantine_hurtful
from tacit.server.learner.worker import Worker
from tacit.testbed import families

MISLED = ("prec", "before")


def right(problem: Problem, answer: str | None) -> bool:
    """Whether an answer is the gold one."""
    assert problem.gold is not None
    return answer is not None and equivalent(answer, problem.gold)


def stream(seed: int, count: int, wanted: tuple[str, ...] | None = None) -> list[Problem]:
    """Problems of the testbed, of these families if any are named."""
    items = families.problems("AB", seed)
    chosen = (item for item in items if wanted is None or item.family in wanted)
    return [Problem(item.id, item.text, item.gold, item.family) for item in islice(chosen, count)]


def learn(bank: Bank, worker: Worker, key: Any, problems: list[Problem]) -> None:
    """Submit and learn problems of one key."""
    for problem in problems:
        JobQueue(bank).submit(key.namespace, problem.text, key)
    while worker.once():
        pass


def gain(agent: Agent, prompt: np.ndarray, problems: list[Problem]) -> float:
    """By how much a soft prompt raises the share of right samples on problems."""

    def requests(name: str, soft: torch.Tensor | None) -> list[Any]:
        return [
            agent.responder.sampled(p.blind(), agent.backbone.encode(p.text), name, range(8), soft) for p in problems
        ]

    groups = agent.engine.generate([*requests("judge", torch.tensor(prompt)), *requests("judge", None)])
    shares = [
        float(np.mean([right(problem, extract(rollout.text)) for rollout in group]))
        for problem, group in zip([*problems, *problems], groups, strict=True)
    ]
    return float(np.mean(shares[: len(problems)]) - np.mean(shares[len(problems) :]))


def accuracy(agent: Agent, problems: list[Problem], *, use_memory: bool = True) -> dict[str, float]:
    """Of routed sampled answers: over all problems, and over those of families without a misconception."""
    answered = agent.answer(problems, use_memory=use_memory)
    scores = [float(np.mean([right(p, a) for a in one.answers])) for p, one in zip(problems, answered, strict=True)]
    others = [score for problem, score in zip(problems, scores, strict=True) if problem.family not in MISLED]
    return {"all": float(np.mean(scores)), "others": float(np.mean(others))}


def served(agent: Agent, problems: list[Problem], fresh: list[Problem], flooder: str | None) -> dict[str, Any]:
    """Answer traffic, count what routing made of the memories, quarantine; and the accuracy after that."""
    origins, taken = key_ids(agent.bank, agent.namespace), []
    for start in range(0, len(problems), 16):
        agent.remember(agent.answer(problems[start : start + 16]), [])
        taken += quarantine_hurtful(agent.bank)
    flooding = sum(origins[id] == flooder for id in taken)
    return {"quarantined": len(taken), "of_flood": flooding, "accuracy": accuracy(agent, fresh)}


def measured(agent: Agent, family: dict[str, str], flooder: str | None, seed: int) -> list[dict[str, Any]]:
    """Promote until nothing is left to try; every admitted candidate with its trial and its gain."""
    promoter, verdicts = Promoter(agent), {}
    while step := promoter.step(16):
        verdicts.update({verdict.memory_id: verdict for verdict in step})
    fresh = {name: stream(seed + 900, 8, (name,)) for name in set(family.values())}
    origins, rows = key_ids(agent.bank, agent.namespace), []
    for info in agent.bank.find(agent.namespace):
        memory = agent.bank.get(info.id, agent.namespace)
        if memory.provenance["admitted"]:
            verdict = verdicts.get(info.id)
            rows.append(
                {
                    "family": family[info.problem],
                    "flood": origins[info.id] == flooder,
                    "gain": gain(agent, memory.prompt, fresh[family[info.problem]]),
                    "benefits": list(verdict.benefits) if verdict else None,
                    "active": info.state is State.ACTIVE,
                }
            )
    return rows


def use_admitted(bank: Bank) -> None:
    """Take everything into use that admission lets through."""
    for info in bank.find("home", states=[State.CANDIDATE]):
        if bank.get(info.id, "home").provenance["admitted"]:
            bank.set_state(info.id, "home", State.ACTIVE, "admitted")


def options(description: str | None, honest: int, fresh: int) -> argparse.ArgumentParser:
    """What one seed with one verifier is called with; the defaults of how many problems."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verifier", default="vote")
    parser.add_argument("--honest", type=int, default=honest)
    parser.add_argument("--fresh", type=int, default=fresh)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main() -> None:
    """One seed, one verifier."""
    parser = options(__doc__, honest=96, fresh=144)
    parser.add_argument("--flood", type=int, default=48)
    parser.add_argument("--trust-flood", action="store_true", help="as if the flooding key were trusted too")
    parser.add_argument("--traffic", type=int, default=288)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    backbone = Backbone.load("testbed", device="cpu")
    engine, verifier = LocalEngine(backbone), build_verifier(Settings(verifier=args.verifier, device="cpu"))
    learning = LearnConfig()
    honest = stream(args.seed, args.honest)
    fresh = stream(args.seed + 500, args.fresh)
    result: dict[str, Any] = {"seed": args.seed, "verifier": args.verifier, "flood_trusted": args.trust_flood}
    with TemporaryDirectory() as folder:

        def opened(name: str) -> tuple[Bank, Worker, Agent]:
            bank = open_bank(f"{folder}/{name}")
            settings = WorkerSettings(bank=bank.url, learn=learning, seed=args.seed)
            worker = Worker(bank, backbone, engine, verifier, settings)
            return bank, worker, worker.agent("home")

        bank, worker, agent = opened("quiet")
        rights = [["learn", "trust"]] * 2 + [["learn", "trust"] if args.trust_flood else ["learn"]]
        first, second, third = [
            KeyStore(bank).create(name, "home", some, 10_000)[0] for name, some in zip("abc", rights, strict=True)
        ]
        learn(bank, worker, first, honest[::2])
        learn(bank, worker, second, honest[1::2])
        bank.snapshot(f"{folder}/flooded")
        family = {problem.text: problem.family or "" for problem in honest}
        result["zero_shot"] = accuracy(agent, fresh, use_memory=False)
        result["quiet"] = {"memories": measured(agent, family, None, args.seed)}
        result["quiet"]["accuracy"] = accuracy(agent, fresh)
        traffic = stream(args.seed + 700, args.traffic)
        result["quiet"]["served"] = served(agent, traffic, fresh, None)

        bank, worker, agent = opened("flooded")
        asked = stream(args.seed + 300, 3 * args.flood, MISLED)
        answered = agent.answer(asked, use_memory=False)
        poison = [
            problem
            for problem, one in zip(asked, answered, strict=True)
            if one.zero_shot.vote.votes >= 3 and not right(problem, one.zero_shot.vote.answer)
        ][: args.flood]
        learn(bank, worker, third, poison)
        family |= {problem.text: problem.family or "" for problem in poison}
        result["flooded"] = {"poison": len(poison), "memories": measured(agent, family, third.id, args.seed)}
        result["flooded"]["accuracy"] = accuracy(agent, fresh)
        result["flooded"]["served"] = served(agent, traffic, fresh, third.id)
        use_admitted(bank)  # as without promotion
        result["ungated"] = {"accuracy": accuracy(agent, fresh)}
    result["seconds"] = time.perf_counter() - began
    args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
