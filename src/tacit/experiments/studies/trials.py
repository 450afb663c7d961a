"""What studies do: an agent with a bank for the while, answers under one memory, and what they gain.

Builds on the agent and scoring (which alone sees gold answers).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tacit.agent import Agent
from tacit.assembly import assembled
from tacit.bank import open_bank
from tacit.config import RunConfig
from tacit.experiments.scoring import Grader
from tacit.memory import Memory
from tacit.problem import Problem
from tacit.responses import Responses

Tell = Callable[[str], None]
"""Is told a line as each part is done."""

Gain = tuple[float, float]
"""Of sampled answers and of the greedy one."""


@contextlib.contextmanager
def scratch_agent(run: RunConfig) -> Iterator[Agent]:
    """An agent of these settings, whose bank is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_bank(str(Path(folder) / "bank.sqlite")) as bank,
        assembled(run, bank) as agent,
    ):
        yield agent


def under(agent: Agent, pairs: Sequence[tuple[Memory, Problem]]) -> list[Responses]:
    """Responses under each memory to each problem, in one batch."""
    requests = []
    for memory, problem in pairs:
        ids = agent.backbone.encode(problem.text)
        requests += agent.responder.requests(problem, ids, f"study/{memory.problem_id}", memory.prompt)
    return agent.responder.generate(requests, (problem for _, problem in pairs))


def accuracies(grader: Grader, answers: Sequence[str | None], greedy: str | None) -> Gain:
    """Share of right samples and whether the greedy answer is right; NaN without a gold answer."""
    marks, single = grader.rights(answers), grader.right(greedy)
    return np.nan if marks is None else float(np.mean(marks)), np.nan if single is None else float(single)


def gain(grader: Grader, answer: Responses, zero: Responses) -> Gain:
    """Accuracies over zero-shot's; NaN without a gold answer."""
    mine, other = (accuracies(grader, one.answers, one.greedy_answer) for one in (answer, zero))
    return mine[0] - other[0], mine[1] - other[1]
