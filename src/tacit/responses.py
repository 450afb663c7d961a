"""What a way of answering gives for a problem: sampled rollouts, a greedy one, their answers and their vote.

Builds on the task, the engine protocol, seeds and verifiers. Every arm of a run and every baseline asks through one
``Responder``, so that they differ in prompts alone: same sampling, same random numbers per (seed, problem, purpose).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from tacit.config import Sampling
from tacit.engines.base import Engine, Request, Rollout
from tacit.judges.verifiers import Candidate, candidates
from tacit.problem import Problem
from tacit.seeds import derive
from tacit.tasks.base import Task, Vote
from tacit.tasks.maths import MATHS


@dataclass(frozen=True)
class Responses:
    """What one way of answering gave for one problem.

    Attributes:
        samples: rollouts at the sampling temperature.
        greedy: the rollout at temperature 0.
        answers, greedy_answer: extracted from them, None where there is none.
        vote: over ``answers``.
        task: on this problem; said where the answers are, and which are the same.
    """

    samples: tuple[Rollout, ...]
    greedy: Rollout
    answers: tuple[str | None, ...]
    greedy_answer: str | None
    vote: Vote
    task: Task = MATHS

    @classmethod
    def of(cls, samples: Sequence[Rollout], greedy: Rollout, task: Task = MATHS) -> Responses:
        """Rollouts, read as the task says."""
        answers = tuple(task.extract(rollout.text) for rollout in samples)
        return cls(tuple(samples), greedy, answers, task.extract(greedy.text), task.vote(answers), task)

    @classmethod
    def none(cls, samples: int) -> Responses:
        """Of a problem that was not asked: ``samples`` times nothing."""
        nothing = Rollout((), (), "", "length")
        answers = (None,) * samples
        return cls((nothing,) * samples, nothing, answers, None, MATHS.vote(answers))

    @property
    def tokens(self) -> int:
        """Tokens generated."""
        return sum(len(rollout.token_ids) for rollout in (*self.samples, self.greedy))

    @property
    def trace(self) -> Rollout | None:
        """The first sample that gives the answer of the vote; None if nobody gave an answer."""
        return next((one for one, agrees in zip(self.samples, self.vote.agrees, strict=True) if agrees), None)

    def candidates(self) -> list[Candidate]:
        """The samples, then the greedy rollout, with their shares of the vote, for a verifier."""
        return candidates((*self.samples, self.greedy), (*self.answers, self.greedy_answer), self.answers, self.task)


@dataclass(frozen=True)
class Responder:
    """Asks an engine for responses.

    Attributes:
        engine: generates.
        sampling: how.
        seed: with the problem and the purpose, decides every random number.
        task: reads the answers.
    """

    engine: Engine
    sampling: Sampling
    seed: int
    task: Task = MATHS

    def requests(
        self, problem: Problem, ids: torch.Tensor, purpose: str, soft_prompt: np.ndarray | None = None
    ) -> list[Request]:
        """The sampled and the greedy request of one way of answering; ``purpose`` enters the seeds."""
        prompt = None if soft_prompt is None else torch.tensor(soft_prompt)
        sampled = self.sampled(problem, ids, purpose, range(self.sampling.samples), prompt)
        return [sampled, replace(sampled, n=1, temperature=0.0, top_p=1.0, seeds=())]

    def sampled(
        self, problem: Problem, ids: torch.Tensor, purpose: str, numbers: range, soft_prompt: torch.Tensor | None = None
    ) -> Request:
        """The request for the samples of these numbers: a sample's random numbers hang on its own number alone, so
        that more samples begin with the same ones."""
        seeds = tuple(derive(self.seed, problem.id, purpose, sample) for sample in numbers)
        how, stop = self.sampling, self.engine.backbone.stop
        return Request(ids, soft_prompt, len(numbers), how.temperature, how.top_p, how.max_tokens, seeds, stop)

    def room(self, length: int) -> int:
        """Tokens that the longest answer to a prompt of ``length`` tokens, soft prompt included, leaves free; below 0
        where they do not fit the model."""
        return self.engine.context - length - self.sampling.max_tokens

    def ask(self, problems: Sequence[Problem], purpose: str = "zero-shot") -> list[Responses]:
        """Responses to problems as they stand, without a memory, in one batch."""
        encode = self.engine.backbone.encode
        pairs = [self.requests(problem, encode(problem.text), purpose) for problem in problems]
        return self.generate([request for pair in pairs for request in pair], problems)

    def generate(self, requests: Sequence[Request], problems: Iterable[Problem]) -> list[Responses]:
        """Serve (sampled, greedy) pairs of requests, each for its problem, and extract the answers."""
        pairs = list(zip(requests[::2], requests[1::2], problems, strict=True))
        views = [self._views(sampled, problem) for sampled, _, problem in pairs]
        every = [one for parts, (_, greedy, _) in zip(views, pairs, strict=True) for one in (*parts, greedy)]
        drawn = iter(self.engine.generate(every) if every else [])
        found = []
        for parts, (_, _, problem) in zip(views, pairs, strict=True):
            task = self.task.on(problem.text)
            readers = [task] if len(parts) == 1 else [self.task.on(text) for text in self._texts(problem, len(parts))]
            groups, [greedy] = [next(drawn) for _ in parts], next(drawn)
            answers = tuple(
                reader.extract(one.text) for reader, group in zip(readers, groups, strict=True) for one in group
            )
            samples, vote = tuple(chain.from_iterable(groups)), task.vote(answers)
            found.append(Responses(samples, greedy, answers, task.extract(greedy.text), vote, task))
        return found

    def _texts(self, problem: Problem, count: int) -> list[str]:
        return [self.task.shown(problem.text, number) for number in range(count)]

    def _views(self, sampled: Request, problem: Problem) -> list[Request]:
        """A request for samples; one for each, where they are shown the problem in different ways."""
        texts, encode = self._texts(problem, sampled.n), self.engine.backbone.encode
        if set(texts) == {problem.text} or not torch.equal(sampled.ids, encode(problem.text)):
            return [sampled]
        parts = zip(texts, sampled.seeds, strict=True)
        return [replace(sampled, ids=encode(text), n=1, seeds=(seed,)) for text, seed in parts]
