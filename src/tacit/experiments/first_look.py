"""A first look at a model, for ``tacit doctor``: what it is, how fast it samples, what a task makes of its responses.

Builds on the agent, the sources and families of made problems. Nothing is learned and no file is left. No reference
answer is read: what counts is whether there is an answer at all, and a vote clear enough to learn from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from tacit.agent import Agent
from tacit.config import RunConfig
from tacit.errors import ConfigError
from tacit.experiments.studies.trials import scratch_agent
from tacit.model import presets
from tacit.problem import Problem
from tacit.responses import Responses
from tacit.tasks import sources
from tacit.tasks.base import called
from tacit.tasks.families.source import TASKS
from tacit.tasks.maths import MATHS

PROBLEMS = 8
SECONDS = 120.0
"""If the first problem leaves no time for the others within this, fewer are asked."""
ANSWERED, CONFIDENT = 0.9, 0.25
"""Shares below which something should be done before a run."""
UNBOUNDED = 1 << 31


@dataclass(frozen=True)
class Look:
    """What was found; shares in 0..1.

    Attributes:
        model, task, data: as they were named, or chosen.
        architecture: as transformers calls it.
        parameters, bytes, context: of the model; ``context`` None if it has no bound.
        chat_template: whether it has one.
        fingerprint: of the model as this task asks it.
        tokens_per_second: sampled, all problems together.
        problems: how many were asked.
        answered: share of sampled responses with an answer.
        cut: share of sampled responses that the token limit ended, without an answer.
        confident: share of votes that the gate lets learn.
        settings: that a run would use.
        preset: the same in a sentence.
        next: what to do now, one sentence or command each.
    """

    model: str
    task: str
    data: str
    architecture: str
    parameters: int
    bytes: int
    context: int | None
    chat_template: bool
    fingerprint: str
    tokens_per_second: float
    problems: int
    answered: float
    cut: float
    confident: float
    settings: dict[str, Any]
    preset: str
    next: tuple[str, ...] = ()


def sample_data(task: str | None, model: str) -> str:
    """A source of problems for a task, where nobody names one.

    Raises:
        ConfigError: there are none for it.
    """
    if model.partition(":")[0] == "testbed":
        return model
    if task in (None, MATHS.name):
        return "families:number"
    if task in TASKS:
        return f"families:{task}"
    raise ConfigError(
        f"there are no sample problems for the task {called(str(task))}; give some with --data FILE.jsonl"
    )


def look(config: RunConfig, tell: Callable[[str], None] = lambda line: None) -> Look:
    """Load the model, ask it a few problems and see.

    Args:
        config: model, task, data and how it is sampled; the number of problems is ``limit``.
        tell: called with a line before what takes long.

    Raises:
        TacitError: it cannot be loaded, or asked.
    """
    found = sources.load(
        config.data, seed=config.seed, limit=config.limit or PROBLEMS, fields=config.fields, model=config.model
    )
    config = replace(config, task=config.task or found.task)
    tell(f"loading {config.model}")
    with scratch_agent(config) as agent:
        responses, tokens, seconds = _asked(agent, [one.blind() for one in found], tell)
        drawn = [(one, answer) for each in responses for one, answer in zip(each.samples, each.answers, strict=True)]
        backbone = agent.backbone
        weights = list(backbone.model.parameters())
        seen = Look(
            model=config.model,
            task=called(config.task or MATHS.name),
            data=config.data,
            architecture=str(backbone.model.config.model_type),
            parameters=sum(one.numel() for one in weights),
            bytes=sum(one.numel() * one.element_size() for one in weights),
            context=None if backbone.context >= UNBOUNDED else backbone.context,
            chat_template=bool(getattr(backbone.tokenizer, "chat_template", None)),
            fingerprint=backbone.fingerprint,
            tokens_per_second=tokens / seconds,
            problems=len(responses),
            answered=sum(answer is not None for _, answer in drawn) / len(drawn),
            cut=sum(one.finish == "length" and answer is None for one, answer in drawn) / len(drawn),
            confident=sum(agent.learner.gate(one.vote) is None for one in responses) / len(responses),
            settings={
                "instruction": backbone.template.instruction,
                "sampling": asdict(agent.sampling),
                "learn": asdict(agent.learning),
                "recall": asdict(agent.recalling),
            },
            preset=presets.said(backbone, agent.sampling, agent.learning),
        )
        return replace(seen, next=advice(seen, measured=bool(presets.preset_of(backbone).measured)))


def _asked(agent: Agent, problems: list[Problem], tell: Callable[[str], None]) -> tuple[list[Responses], int, float]:
    """Responses to as many problems as there is time for, and the tokens and seconds of the last batch."""
    fits = [one for one in problems if agent.too_long(one) is None]
    if not fits:
        raise ConfigError(
            f"none of the {len(problems)} problems fits the model's context with {agent.sampling.max_tokens} tokens of "
            "answer; say fewer --max-tokens"
        )

    def ask(some: list[Problem]) -> tuple[list[Responses], int, float]:
        began = time.perf_counter()
        found = agent.responder.ask(some)
        return found, sum(each.tokens for each in found), max(time.perf_counter() - began, 1e-9)

    [short, _] = agent.responder.requests(fits[0], agent.backbone.encode(fits[0].text), "zero-shot")
    agent.engine.generate([replace(short, max_tokens=1)])  # what is compiled or made ready at first is no measure
    tell(f"asking {len(fits)} problems, {agent.sampling.samples + 1} responses each")
    first, tokens, seconds = ask(fits[:1])
    others = fits[1 : 1 + int(SECONDS / seconds)]
    if not others:
        return first, tokens, seconds
    rest, tokens, seconds = ask(others)
    return [*first, *rest], tokens, seconds


def advice(seen: Look, *, measured: bool) -> tuple[str, ...]:
    """What to do next, after what was seen."""
    own = "" if seen.task.startswith("FILE.toml") else f" --task {seen.task}"
    how = f"--model {seen.model}"
    if seen.answered < ANSWERED:
        most = "most of the others were cut: say more --max-tokens, or " if 2 * seen.cut > 1 - seen.answered else ""
        where = f"tacit tasks try {seen.task} {how} --data {seen.data}"
        return (
            f"{1 - seen.answered:.0%} of the responses have no answer: {most}say another --instruction or --task; "
            f"see what it writes with: {where}",
        )
    if seen.confident < CONFIDENT:
        return (
            f"only {seen.confident:.0%} of the votes are clear enough to learn from: give problems that it can solve "
            f"sometimes; see which those are with: tacit study signal {how} --out runs/signal",
        )
    begin = f"tacit run {how}{own} --data FILE.jsonl --out runs/mine"
    if not measured:
        return (f"tacit tune {how}{own} --data FILE.jsonl --out tuned.toml", begin)
    return (begin, f"tacit serve {how}{own} --bank bank.sqlite")
