"""Problems that ask for two kinds at once, on real weights: two memories together, either alone, one of such problems.

    tacit demo --real --out runs/demo-real
    python benchmarks/composition.py --bank runs/demo-real/bank.sqlite --out runs/composition

SmolLM2-135M-Instruct and the kinds of the demonstration on real weights, whose bank has memories of single questions. A
problem here is two questions of different kinds ("What is the capital of Jordan? What is the plural of brush?"). It
is asked

- whole: without a memory; with the memory that is recalled for its first question, for its second, and for all of it;
  with the first two one after the other, in either order; with one learned from other such problems by their own votes
  (of those, the one that is recalled);
- in parts: each question alone, without a memory; with the first question's memory for both, with the second's; each
  with its own; and as routed by vote between its own and none.

No right answer is used to learn, to recall or to route. A response is right if both reference answers stand in it, in
any order; the responses to two parts are read together. Sampled accuracy in points; differences to the better single
memory of the same way of asking, paired by problem, with intervals over problems. Prints a table and writes
``composition.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import table

from tacit import registry
from tacit.agent import Agent
from tacit.assembly import build_agent, build_verifier, load_backbone, open_engine
from tacit.bank import open_bank
from tacit.engines.base import Request
from tacit.experiments.real import DATA, demonstration
from tacit.experiments.report.figures import mean_interval
from tacit.memory import Memory
from tacit.problem import Problem
from tacit.recall import Recall
from tacit.tasks.base import Task
from tacit.tasks.families.source import cells, item
from tacit.tasks.text import Text, fold

MAX_TOKENS = 40
"""Of a response to two questions; 20 to one."""
_CLAUSES = re.compile(r"[.;\n]+|,? (?:and|while|whereas|but) ")
_QUESTIONS = re.compile(r"(?<=\?) ")


@registry.register("task", "questions")
class Questions(Task):
    """Answers to several questions in their order, a clause each."""

    readers: tuple[Task, ...] = ()

    def on(self, problem: str) -> Task:
        bound = Questions()
        bound.readers = tuple(Text().on(question) for question in _QUESTIONS.split(problem))
        return bound

    def extract(self, text: str) -> str | None:
        clauses = [part for part in _CLAUSES.split(text) if part.strip()]
        if len(clauses) != len(self.readers):
            return None
        found = [reader.extract(clause) for reader, clause in zip(self.readers, clauses, strict=True)]
        return None if None in found else "; ".join(map(str, found))

    def same(self, one: str, other: str) -> bool:
        return fold(one) == fold(other)


Pair = tuple[Problem, Problem]


def pairs(count: int, seed: int) -> list[Pair]:
    """Two questions of different kinds; each ordered pair of kinds as often."""
    kinds = list(itertools.permutations(cells(DATA.partition(":")[2]), 2))
    made = []
    for number in range(count):
        (one, low), (other, high) = kinds[number % len(kinds)]
        made.append((item(one, low or 2, seed, number)[0], item(other, high or 2, seed, number)[0]))
    return made


def both(pair: Pair) -> Problem:
    """One problem of two questions."""
    return Problem("+".join(one.id for one in pair), " ".join(one.text for one in pair))


def halves(texts: Sequence[str], pair: Pair) -> list[tuple[bool, bool]]:
    """Of each response, whether the answers to the first and to the second question stand in it."""
    words = [f" {fold(text)} " for text in texts]
    first, second = (f" {fold(str(one.gold))} " for one in pair)
    return [(first in text, second in text) for text in words]


def prompt_of(recall: Recall, text: str) -> Memory | None:
    """The memory that is recalled for a text."""
    found = recall.recalled(recall.keys([text]))[0]
    return found[1] if found else None


def asked(alone: Agent, whole: Agent, pair: Pair) -> dict[str, list[str]]:
    """Responses to a problem of two questions, by the way in which it was asked; see the module."""
    problem = both(pair)
    one, other = (prompt_of(alone.recall, part.text) for part in pair)
    nearest, own = prompt_of(alone.recall, problem.text), prompt_of(whole.recall, problem.text)
    arms: dict[str, list[Memory | None]] = {
        "whole, no memory": [], "whole, first": [one], "whole, second": [other], "whole, recalled": [nearest],
        "whole, first then second": [one, other], "whole, second then first": [other, one],
        "whole, learned from such": [own],
    }  # fmt: skip
    requests: list[Request] = []
    for memories in arms.values():
        prompts = [memory.prompt for memory in memories if memory is not None]
        prompt = np.concatenate(prompts) if prompts else None
        requests += whole.responder.requests(problem, whole.backbone.encode(problem.text), "whole", prompt)
    said = whole.responder.generate(requests, [problem] * len(arms))
    texts = {name: [sample.text for sample in each.samples] for name, each in zip(arms, said, strict=True)}
    parts = alone.answer(pair)
    swapped = alone.responder.generate(
        [
            request
            for part, memory in zip(pair, (other, one), strict=True)
            for request in alone.responder.requests(
                part, whole.backbone.encode(part.text), "memory", None if memory is None else memory.prompt
            )
        ],
        pair,
    )
    own_samples = [(part.memory or part.zero_shot).samples for part in parts]
    answers = {
        "parts, no memory": [part.zero_shot.samples for part in parts],
        "parts, first's": [own_samples[0], swapped[1].samples],
        "parts, second's": [swapped[0].samples, own_samples[1]],
        "parts, each its own": own_samples,
        "parts, routed": [
            tuple(
                (part.memory if route.takes_memory and part.memory else part.zero_shot).samples[n]
                for n, route in enumerate(part.routes)
            )
            for part in parts
        ],
    }
    for name, (a, b) in answers.items():
        texts[name] = [f"{x.text} {y.text}" for x, y in zip(a, b, strict=True)]
    return texts


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=Path("runs/demo-real/bank.sqlite"))
    parser.add_argument("--out", type=Path, default=Path("runs/composition"))
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--learn", type=int, default=24, help="problems of two questions that are learned from")
    parser.add_argument("--seed", type=int, default=900)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    single = demonstration()
    double = replace(single, task="questions", sampling=replace(single.sampling, max_tokens=MAX_TOKENS))
    backbone = load_backbone(single)
    scored: dict[str, list[list[tuple[bool, bool]]]] = {}
    with (
        open_bank(str(given.bank), create=False) as bank,
        open_bank(str(given.out / "bank.sqlite")) as learned,
        closing(open_engine(single, backbone)) as engine,
    ):
        verifier = build_verifier(single)
        alone = build_agent(single, bank, engine, seed=given.seed, verifier=verifier)
        whole = build_agent(double, learned, engine, seed=given.seed, verifier=verifier)
        lessons = [both(pair) for pair in pairs(given.learn, given.seed + 1)]
        for start in range(0, len(lessons), 4):
            answered = whole.answer(lessons[start : start + 4], use_memory=False)
            whole.remember(answered, whole.learn(answered))
        kept = {str(state): number for state, number in learned.counts("default").items()}
        print("learned from problems of two questions:", kept, flush=True)
        for pair in pairs(given.problems, given.seed):
            texts = asked(alone, whole, pair)
            for name, found in texts.items():
                scored.setdefault(name, []).append(halves(found, pair))
    accuracy = {
        name: np.array([100.0 * np.mean([a and b for a, b in each]) for each in found])
        for name, found in scored.items()
    }
    singles = {
        way: max((accuracy[name] for name in names), key=lambda values: float(values.mean()))
        for way, names in {
            "whole": ("whole, first", "whole, second"), "parts": ("parts, first's", "parts, second's"),
        }.items()
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name, values in accuracy.items():
        first, second = (100.0 * np.mean([[half[at] for half in each] for each in scored[name]]) for at in (0, 1))
        against = mean_interval(values - singles[name.partition(",")[0]])
        rows.append(
            {
                "arm": name,
                "both": mean_interval(values),
                "first": first,
                "second": second,
                "less the better one": against,
            }
        )
    (given.out / "composition.json").write_text(json.dumps({"learned": kept, "rows": rows}, indent=1) + "\n", "utf-8")
    table(
        f"{given.problems} problems of two questions, 8 samples each",
        ("asked", "both right", "95 %", "first", "second", "less the better single memory"),
        [
            (
                str(row["arm"]), f"{row['both']['mean']:.1f}", f"{row['both']['low']:.1f} to {row['both']['high']:.1f}",
                f"{row['first']:.1f}", f"{row['second']:.1f}",
                "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**row["less the better one"]),
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
