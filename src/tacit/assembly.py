"""Assembly: settings become threads, model, engine, verifier and agent. The one place where they are put together.

Builds on the spine and, through the registry, on whatever provides its parts. ``tacit run``, ``ask``, ``compare``,
``serve``, its learner and Ray's actors all come here. So the same settings mean the same everywhere.

The instruction, the system message and the kind of key are kept with the binding of namespace to model: a bank knows
how it wants to be asked, and nobody has to say it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

import torch

from tacit import registry
from tacit.agent import Agent
from tacit.bank.base import Bank
from tacit.config import RunConfig, Settings, filled
from tacit.engines.base import Engine
from tacit.engines.local import cores, use_threads
from tacit.errors import FingerprintError, TacitError
from tacit.judges.verifiers import Verifier
from tacit.model import presets
from tacit.model.backbone import Backbone
from tacit.model.prompts import Prompt, Template
from tacit.tasks.base import Task, called, task_named
from tacit.tasks.maths import MATHS

BINDING = "binding"
"""Name of the mark under which a namespace keeps how its memories are asked for, as JSON."""

TESTBED = "testbed"

S = TypeVar("S", bound=Settings)


def set_threads(settings: Settings, *, products: bool = False) -> int:
    """Use the threads asked for; returns how many a product takes.

    Without a number, torch's choice holds; for the testbed one for a product, and all there are for problems side by
    side.

    Args:
        settings: see ``Settings.threads``.
        products: whether all work is in products, so that none is for problems side by side (a server's engine).
    """
    use_threads(None)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif settings.model.partition(":")[0] == TESTBED:
        torch.set_num_threads(1)
        if not products:
            use_threads(cores())
    return torch.get_num_threads()


def task_of(settings: Settings) -> Task:
    """The task that the settings name, mathematics where they name none."""
    return task_named(settings.task or MATHS.name, code=settings.allow_code)


# -- what a bank knows of how it is asked -----------------------------------------------------------------------------


def binding(bank: Bank, namespaces: Sequence[str]) -> dict[str, str]:
    """How the first of these namespaces that has memories is asked: task, instruction, system, carrier, key. Memories
    made before this was kept, or imported, tell key, carrier and fingerprint alone."""
    for name in namespaces if bank.revision() else ():
        if (text := bank.marked(name, BINDING)) is not None:
            held: dict[str, str] = json.loads(text)
            return held
        _, found = bank.page(name, limit=1)
        if found:
            held = {"key": found[0].key_kind, "fingerprint": found[0].fingerprint}
            with suppress(TacitError):  # a damaged one says so where it is used
                held["carrier"] = bank.get(found[0].id, name).carrier
            return held
    return {}


def as_bound(settings: S, bank: Bank, namespaces: Sequence[str]) -> S:
    """Settings whose defaults are those of a bank: its task, its carrier and its kind of key."""
    held = binding(bank, namespaces)
    said = settings.task if "fingerprint" in held else None  # the fingerprint tells whether it is right
    return replace(
        settings,
        task=held.get("task", said or MATHS.name) if held else settings.task,
        carrier=held.get("carrier", Prompt.name) if held else settings.carrier,
        recall=replace(settings.recall, key=held.get("key", settings.recall.key)),
    )


def bind(bank: Bank, namespace: str, backbone: Backbone, settings: Settings) -> None:
    """Tie a namespace to a model and keep how it is asked.

    Raises:
        FingerprintError: it is tied to another model or prompt.
    """
    bank.bind(namespace, backbone.fingerprint, backbone.name)
    if bank.marked(namespace, BINDING) is None:
        template = backbone.template
        held = {"task": template.task, "instruction": template.instruction, "system": template.system}
        if backbone.carrier.name != Prompt.name:
            held["carrier"] = backbone.carrier.name
        bank.mark(namespace, BINDING, json.dumps({**held, "key": settings.recall.key}, sort_keys=True))


# -- parts ------------------------------------------------------------------------------------------------------------


def load_backbone(
    settings: Settings, bank: Bank | None = None, namespaces: Sequence[str] = (), *, unsaid: str | None = None
) -> Backbone:
    """The model, with the prompt that the settings say; where they do not, that of the bank, else ``unsaid``, else the
    model's preset or the task's.

    Args:
        settings: model, where and how it runs, and the instruction, if it is said.
        bank, namespaces: whose memories it shall serve; see ``binding``.
        unsaid: instruction where nobody says one; None for the task's.

    Raises:
        ModelError: see ``Backbone.load``.
        FingerprintError: the memories are for another instruction than the one given.
    """
    held = binding(bank, namespaces) if bank is not None else {}
    said = settings.instruction
    if said is not None and said != held.get("instruction", said):
        raise FingerprintError(
            f"the memories of this bank are for the instruction {held['instruction']!r}, not for {said!r}; leave "
            "--instruction out, or use another bank"
        )
    before = {"carrier": Prompt.name, **({} if "fingerprint" in held else {"task": MATHS.name})}
    for what, named in (("task", settings.task), ("carrier", settings.carrier)):
        kept = held.get(what, before.get(what))
        if held and kept is not None and named not in (None, kept):
            raise FingerprintError(
                f"the memories of this bank are for the {what} {called(kept)}, not for {called(named)}; leave "
                f"--{what} out, or use another bank"
            )
    task = task_of(settings)
    usual = "" if settings.model.partition(":")[0] == TESTBED else task.instruction
    instruction = held.get("instruction", said if said is not None else unsaid if unsaid is not None else usual)
    system = held.get("system", task.system) if settings.system is None else settings.system
    template = Template(instruction, system, task.examples, (*task.stop, *settings.stop), task.name)
    backbone = Backbone.load(settings.model, dtype=settings.dtype, device=settings.device, template=template)
    backbone = backbone.carrying(held.get("carrier", settings.carrier or Prompt.name))
    if said is None and unsaid is None and "instruction" not in held and usual:
        text = presets.preset_of(backbone).instructions.get(task.name, instruction)
        backbone = backbone if text == instruction else backbone.asked(replace(template, instruction=text))
    known = held.get("fingerprint", backbone.fingerprint)
    # Memories from before the instruction was kept: it was one of these.
    tried = (backbone.asked(replace(template, instruction=text)) for text in ("", task.instruction) if said is None)
    for one in (backbone, *tried):
        if one.fingerprint == known:
            return one
    raise FingerprintError(
        f"the memories of this bank were not made with {settings.model} and the task {called(task.name)} so asked; "
        "give what they were made with: --model, --task, --instruction, --system"
    )


def check_engine(settings: Settings) -> None:
    """Whether an engine that others run is there, where it can tell (an attribute ``check``): before files are made.

    Raises:
        ConfigError: there is no such engine, or nobody answers.
    """
    check = getattr(_engine(settings), "check", None)
    if check is not None:
        check(settings)


def open_engine(settings: Settings, backbone: Backbone) -> Engine:
    """What samples, to be closed after use: this process, vLLM servers, Ray's actors, or a registered engine.

    Raises:
        ConfigError: there is no such engine, or it cannot be reached.
    """
    engine: Engine = _engine(settings)(backbone, settings)
    return engine


def _engine(settings: Settings) -> Callable[[Backbone, Settings], Engine]:
    name = "ray" if settings.ray is not None else "local"
    if settings.engine:
        name = settings.engine[0].partition(":")[0].lower()
        name = "vllm" if name in ("http", "https") or "." in settings.engine[0] else name
    part: Callable[[Backbone, Settings], Engine] = registry.get("engine", name)
    return part


def build_verifier(settings: Settings) -> Verifier | None:
    """The verifier asked for; without a name the reward model where there is one, else vote share: on the testbed the
    first was best, the second and log-probability level with each other, and each better than none (docs/log/).

    Raises:
        ConfigError: there is no such verifier, or no reward model where one is asked for.
        ModelError: the reward model cannot be loaded.
    """
    has_model = settings.reward_model is not None or settings.model == TESTBED
    name = settings.verifier or ("reward-model" if has_model else "vote")
    verifier: Verifier | None = registry.get("verifier", name)(settings)
    return verifier


def build_agent(
    settings: Settings,
    bank: Bank,
    engine: Engine,
    *,
    namespace: str = "default",
    seed: int = 0,
    verifier: Verifier | None = None,
) -> Agent:
    """The agent that the settings describe, on an open bank and engine; memories are found by the bank's kind of key,
    unless another is said."""
    held = filled(settings.recall, {"key": binding(bank, [namespace]).get("key")})
    settings = replace(settings, recall=presets.fitted(held, engine.backbone))
    bind(bank, namespace, engine.backbone, settings)
    return Agent(
        engine.backbone,
        engine,
        bank,
        namespace,
        seed,
        verifier,
        settings.sampling,
        settings.learn,
        settings.recall,
        task_of(settings),
    )


def agent_for(config: RunConfig, bank: Bank | Callable[[], Bank]) -> Agent:
    """The agent of a run on an open bank, with an engine of its own, to be closed after use. For a bank that is not
    there yet what makes it may be given: it is called once model, engine and verifier are there."""
    set_threads(config)
    engine = open_engine(config, load_backbone(config, None if callable(bank) else bank, [config.namespace]))
    verifier = build_verifier(config)
    made = bank() if callable(bank) else bank
    return build_agent(config, made, engine, namespace=config.namespace, seed=config.seed, verifier=verifier)


@contextmanager
def assembled(config: RunConfig, bank: Bank | Callable[[], Bank]) -> Iterator[Agent]:
    """``agent_for``; its engine is closed at the end."""
    agent = agent_for(config, bank)
    with closing(agent.engine):
        yield agent
