"""What a method is: something that answers problems as they come and may learn from them. Add one in one file.

Builds on responses and what stands below; the comparison (``tacit compare``) builds on this. Every method gets the
same ``World``: one frozen model, engine, template, sampler and seed. It answers a window of blind problems, then may
learn from that window; who is right is decided elsewhere and after. Tokens, seconds and memory are metered by the
comparison, not reported by the method.

    @register("always-42")
    class AlwaysFortyTwo(Method):
        def answer(self, problems):
            return [Reply(("42",), "42") for _ in problems]
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.engines.base import Engine, Request, Rollout
from tacit.errors import ConfigError, TacitError
from tacit.judges.verifiers import Verifier
from tacit.methods.planning import Plan, Setting, answering
from tacit.model.backbone import Backbone
from tacit.problem import Problem
from tacit.responses import Responder, Responses


class Oracle(Protocol):
    """Marks answers with the truth. Given only to methods that say ``uses_labels``: upper bounds and sanity runs."""

    def right(self, problem_id: str, answers: Sequence[str | None]) -> list[bool]:
        """Whether each answer to the problem is right."""
        ...

    def truth(self, problem_id: str) -> str:
        """The right answer."""
        ...


@dataclass(frozen=True)
class World:
    """What a method works with; the same for all methods of a comparison.

    Attributes:
        backbone, engine: the frozen model and its generator.
        seed: of all randomness (with the problem's id).
        folder: scratch folder of this cell alone, for a bank or whatever a method keeps.
        stream: all problems of the cell, blind, in order. For offline methods; an online method must not look ahead.
        training: blind problems of the same kind that are not in the stream, for methods that train on a labelled
            set of their own; may be empty.
        oracle: marks answers to ``stream`` and ``training``; None unless the method says ``uses_labels``.
        verifier: as for routing.
        options: further settings of this one method, by name.
    """

    backbone: Backbone
    engine: Engine
    seed: int
    folder: Path
    stream: tuple[Problem, ...] = ()
    training: tuple[Problem, ...] = ()
    oracle: Oracle | None = None
    verifier: Verifier | None = None
    sampling: Sampling = field(default_factory=Sampling)
    learning: LearnConfig = field(default_factory=LearnConfig)
    recalling: RecallConfig = field(default_factory=RecallConfig)
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def responder(self) -> Responder:
        """Asks the frozen model."""
        return Responder(self.engine, self.sampling, self.seed)

    def requests(self, problems: Sequence[Problem]) -> list[Request]:
        """The sampled and the greedy request of every problem, just as it stands."""
        return [
            request
            for problem in problems
            for request in self.responder.requests(problem, self.backbone.encode(problem.text), "zero-shot")
        ]

    def rollouts(
        self, problems: Sequence[Problem], counts: Sequence[int], drawn: Sequence[Sequence[Rollout]] = ()
    ) -> list[list[Rollout]]:
        """As many zero-shot rollouts of each problem as ``counts`` says, beginning with those ``drawn`` already."""
        held = [list(rollouts) for rollouts in drawn] or [[] for _ in problems]
        places, requests = [], []
        for place, (problem, count) in enumerate(zip(problems, counts, strict=True)):
            if more := range(len(held[place]), count):
                places.append(place)
                requests.append(self.responder.sampled(problem, self.backbone.encode(problem.text), "zero-shot", more))
        for place, rollouts in zip(places, self.engine.generate(requests), strict=True):
            held[place] += rollouts
        return held


@dataclass(frozen=True)
class Reply:
    """What a method says to one problem.

    Attributes:
        answers: as many as were sampled (one for a method that gives one answer); None where there is no answer.
        greedy_answer: what it says at temperature 0.
        notes: JSON-ready particulars for the row (source, similarity, route ...).
        arms: what else it had to choose from, by name (as "memory"): sampled answers and greedy answer, marked for
            the record.
        state: anything the method wants to see again in ``learn``; not stored.
    """

    answers: tuple[str | None, ...]
    greedy_answer: str | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, tuple[Sequence[str | None], str | None]] = field(default_factory=dict)
    state: Any = None

    @classmethod
    def of(cls, responses: Responses, state: Any = None, **notes: Any) -> Reply:
        """The reply that gives ``responses`` as they are."""
        return cls(responses.answers, responses.greedy_answer, notes, state=state)


@dataclass(frozen=True)
class Lesson:
    """What a method took from one problem, for the record.

    Attributes:
        label: the answer that it learned to give; None if it learned none.
        kept: whether what it learned will be used.
        why: in one sentence.
        notes: JSON-ready particulars (margin of the vote, rewards ...).
    """

    label: str | None
    kept: bool
    why: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


class Method(ABC):
    """A way of answering a stream of problems.

    Attributes:
        uses_labels: whether it is given an oracle; such methods are marked in tables.
        probed: whether it is asked again at the end of the stream; pointless for one that keeps nothing.
        window: problems it answers before it learns from them; None leaves it to the comparison.
        defaults: its options and their default values; other names are refused.
        trainable: parameters that it trains, at most, at once (of one memory; of a whole model).
        gradient_steps: taken so far.
    """

    name: str = ""
    uses_labels: ClassVar[bool] = False
    probed: ClassVar[bool] = True
    window: ClassVar[int | None] = None
    defaults: ClassVar[Mapping[str, Any]] = {}
    trainable: int = 0
    gradient_steps: int = 0

    def __init__(self, world: World) -> None:
        unknown = sorted(set(world.options) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise ConfigError(f"method {self.name} has no option {', '.join(unknown)}; it has: {known}")
        self.world = world
        self.options: dict[str, Any] = {**self.defaults, **world.options}

    @classmethod
    def plan(cls, setting: Setting) -> Plan:
        """What it spends at most, said before a model is loaded (``tacit compare --dry-run``); by default that of
        answering once: sampled and greedy, learning nothing."""
        return Plan((answering(setting),))

    def prepare(self) -> None:  # noqa: B027 - doing nothing is the usual case
        """Whatever comes before the first problem: offline methods train here."""

    @abstractmethod
    def answer(self, problems: Sequence[Problem]) -> list[Reply]:
        """Answer blind problems, in order. Changes nothing: it is also asked after the stream, for replay."""

    def learn(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> Sequence[Lesson] | None:
        """Learn from a window just answered; a lesson per problem if there is something to tell."""
        return None

    def close(self) -> None:  # noqa: B027
        """Let go of files."""


M = TypeVar("M", bound=type[Method])
_METHODS: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: make a method selectable by name."""

    def decorate(cls: M) -> M:
        if name in _METHODS:
            raise ConfigError(f"there is already a method {name}; choose another name")
        cls.name = name
        _METHODS[name] = cls
        return cls

    return decorate


def load_file(path: str | Path) -> None:
    """Run a Python file that registers methods of its own.

    Raises:
        ConfigError: the file is missing or fails.
    """
    file = Path(path)
    spec = importlib.util.spec_from_file_location(f"tacit_method_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"{file} is no Python file; give one that registers a method (docs/how-to.md)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except TacitError:
        raise
    except Exception as error:  # user code: any kind
        raise ConfigError(f"{file} cannot be run: {type(error).__name__}: {error}") from error


def names() -> list[str]:
    """Names of all registered methods."""
    _load_all()
    return sorted(_METHODS)


def get(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        ConfigError: there is none.
    """
    _load_all()
    if name not in _METHODS:
        raise ConfigError(f"there is no method {name!r}; there are: {', '.join(sorted(_METHODS))}")
    return _METHODS[name]


def _load_all() -> None:
    """Import every module of this package, so that each registers what it holds."""
    import pkgutil

    import tacit.methods

    for module in pkgutil.iter_modules(tacit.methods.__path__):
        importlib.import_module(f"tacit.methods.{module.name}")
