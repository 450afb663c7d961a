"""Settings, each with its default, its unit and, where the default was measured, where to read about it.

Builds on errors. Plain frozen dataclasses: every setting can be given in Python, most by a flag of the same name.
``digest`` enters a memory's id, so the same problem learned with other settings is another memory.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from tacit import registry
from tacit.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """ConfigError with this message unless ``ok``."""
    if not ok:
        raise ConfigError(message)


def addresses_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Addresses as an option takes them: repeated, or several by commas."""
    return tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())


def _of(kind: str, default: Any) -> Any:
    """A field whose values are the registry's names of a kind."""
    return field(default=default, metadata={"kind": kind})


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    require(value in allowed, f"{name} is {value!r}; use one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        samples: answers sampled per arm and problem at ``temperature`` (the vote and the sampled accuracy).
        temperature: of those samples; the greedy answer is always drawn as well.
        top_p: nucleus mass in (0, 1].
        max_tokens: most new tokens per answer.
    """

    samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64

    def __post_init__(self) -> None:
        require(self.samples >= 1, f"samples is {self.samples}; it must be at least 1")
        require(
            0 < self.temperature < math.inf,
            f"temperature is {self.temperature}; it must be above 0 and finite (greedy comes besides)",
        )
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be in (0, 1]")
        require(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}; it must be at least 1")

    def payload(self) -> str:
        """The settings as they enter a memory's id, written out: a setting may be renamed, its name here may not."""
        return (
            f"Sampling(samples={self.samples!r}, temperature={self.temperature!r}, top_p={self.top_p!r}, "
            f"max_tokens={self.max_tokens!r})"
        )


LATER: dict[str, Any] = {"kl": 0.0, "rehearse": 0, "admit_belief": 0.0, "enough": 2.0, "settled": 0}
"""Learning settings that did not exist from the start, with what memories were learned by until then; see
``LearnConfig.digest``. A new setting goes in here and into ``LearnConfig.payload``."""


@dataclass(frozen=True)
class LearnConfig:
    """How a memory is learned (method.md, "Creation"; paper: 20 tokens, 10 steps, 8 rollouts).

    Attributes:
        tokens: K, rows of the soft prompt.
        steps: policy-gradient steps, one group of rollouts each.
        rollouts: group size G.
        lr: Adam's learning rate.
        clip: largest gradient norm of one memory's soft prompt.
        init: "gaussian" (at the embedding scale), "vocabulary" (rows of random tokens), "text" (rows of
            ``init_text``'s tokens, repeated), or "nearest" (the recalled memory, else gaussian).
        init_text: for init "text".
        label: whose vote becomes the label. "verified" (all responses, with memory or without, weighted by a verifier
            whose scores are probabilities; with another verifier, or where it trusts none, as "zero-shot"),
            "confident" (a vote weighted by likelihood, labels.py), "zero-shot" (the plain vote of the rollouts without
            memory, as in the paper), "routed" (the routed answers), or "renewed" (each step's own group). Measured in
            docs/log/.
        rehearse: nearest earlier problems, with the labels that their active memories learned, that a new soft prompt
            has to serve besides its own problem, a group of rollouts each; 0 for none, as in the paper.
        reward: name of a registered reward.
        normalise_advantage: divide a group's advantages by their standard deviation.
        min_votes, min_lead: the vote gate, for 8 responses and scaled to other numbers: fewer votes, or a smaller
            lead over the runner-up, and the problem is not learned from (after SCRL, arXiv 2603.19880).
        kl: weight of a KL penalty towards the model without the soft prompt; 0 for none.
        norm_cap: largest norm of a soft-prompt row, in mean embedding norms.
        keep: "last" prompt, or the "best" by the mean reward of its own rollouts.
        admit: least mean reward over the last ``admit_steps`` steps for a memory to become active.
        admit_steps: see ``admit``.
        admit_belief: least probability that a calibrated verifier gives the responses behind the label, on average,
            for a memory to become active: catches consistent misconceptions, which no vote can. 0 asks no verifier.
        enough: a problem is not learned from where at least this share of the samples under the recalled memory give
            the label already; above 1 to learn always. Saves most of the compute of a stream that repeats itself.
        settled: a memory is finished after so many steps in a row in which every rollout earned the full reward, since
            such a step moves nothing; 0 to take all ``steps``.
        batch: problems learned at once; changes speed, never a memory.
        row_tokens: most tokens of rollouts (padding included) in one gradient pass, which holds activations of every
            layer for each; where one memory's rollouts have more, its gradient is summed over several passes. Changes
            speed, the bytes needed, and the rounding of such sums.
    """

    tokens: int = 20
    steps: int = 10
    rollouts: int = 8
    lr: float = 0.02
    clip: float = 1.0
    init: str = "gaussian"
    init_text: str = "Let us think step by step and check every step."
    label: str = "verified"
    rehearse: int = 0
    reward: str = "majority"
    normalise_advantage: bool = False
    min_votes: int = 3
    min_lead: int = 2
    kl: float = 0.0
    norm_cap: float = 3.0
    keep: str = "last"
    admit: float = 0.5
    admit_steps: int = 3
    admit_belief: float = 0.0
    enough: float = 2.0
    settled: int = 0
    batch: int = 32
    row_tokens: int = 16384

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "rollouts", "admit_steps", "batch", "row_tokens"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(self.rollouts >= 2, "rollouts is 1; a group needs at least 2 to have advantages")
        require(0 < self.lr < math.inf, f"lr is {self.lr}; it must be above 0 and finite")
        require(self.clip > 0, f"clip is {self.clip}; it must be above 0")
        require(0 <= self.kl < math.inf, f"kl is {self.kl}; it must be 0 or more")
        require(self.norm_cap > 0, f"norm_cap is {self.norm_cap}; it must be above 0")
        for name in ("rehearse", "settled"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 or more")
        require(0 <= self.admit <= 1, f"admit is {self.admit}; it must be between 0 and 1")
        require(0 <= self.admit_belief <= 1, f"admit_belief is {self.admit_belief}; it must be between 0 and 1")
        require(0 < self.enough < math.inf, f"enough is {self.enough}; it must be above 0 (above 1: learn always)")
        _one_of("init", self.init, ("gaussian", "vocabulary", "text", "nearest"))
        _one_of("label", self.label, ("zero-shot", "routed", "verified", "confident", "renewed"))
        _one_of("keep", self.keep, ("last", "best"))

    def digest(self) -> str:
        """Short hash of all settings that change a memory (``batch`` and ``row_tokens`` do not).

        A setting that came later counts only where it is used, so that memories made before keep their ids.
        """
        payload = self.payload()
        values = {name: value for name, value in payload.items() if name not in LATER or value != LATER[name]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    def payload(self) -> dict[str, Any]:
        """What ``digest`` is taken of, written out: a setting may be renamed, its name here may not."""
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "rollouts": self.rollouts,
            "lr": self.lr,
            "clip": self.clip,
            "init": self.init,
            "init_text": self.init_text,
            "label": self.label,
            "rehearse": self.rehearse,
            "reward": self.reward,
            "normalise_advantage": self.normalise_advantage,
            "min_votes": self.min_votes,
            "min_lead": self.min_lead,
            "kl": self.kl,
            "norm_cap": self.norm_cap,
            "keep": self.keep,
            "admit": self.admit,
            "admit_steps": self.admit_steps,
            "admit_belief": self.admit_belief,
            "enough": self.enough,
            "settled": self.settled,
        }


@dataclass(frozen=True)
class RecallConfig:
    """How memories are found.

    Attributes:
        key: "last" (hidden state of the middle layer where the answer begins; "last:L" of layer L), "input" (mean input
            embedding), "hidden" or "hidden:L" (mean hidden state over the problem) or "kv" (key and value activations
            of every layer). The paper has "input" and "kv".
        floor: least cosine similarity; below it the problem is answered without a memory.
        k: memories recalled together.
        compose: how several become one soft prompt: "concatenate" (nearest last) or "average".
        use: weight of measured use. Of the ``CONSIDERED`` nearest memories those are taken with the largest
            similarity + use x (helped - hurt) / (uses + 2); 0 for similarity alone, as in the paper.
    """

    key: str = "last"
    floor: float = 0.5
    k: int = 1
    compose: str = "concatenate"
    use: float = 0.0

    def __post_init__(self) -> None:
        kind, _, layer = self.key.partition(":")
        _one_of("key", kind, ("last", "input", "hidden", "kv"))
        require(
            not layer or (kind in ("hidden", "last") and layer.isdigit()),
            f"key is {self.key!r}; only hidden and last take a layer, as in last:12",
        )
        require(self.k >= 1, f"k is {self.k}; it must be at least 1")
        _one_of("compose", self.compose, ("concatenate", "average"))
        require(0 <= self.use < math.inf, f"use is {self.use}; it must be 0 or more")
        require(-1 <= self.floor <= 1, f"floor is {self.floor}; a cosine similarity lies between -1 and 1")


@dataclass(frozen=True)
class Settings:
    """What everything is told that loads a model and answers with it; runs, comparisons and servers add to it.

    Attributes:
        model: A causal language model: testbed, a folder, or a Hub id.
        task: What kind of problems they are: how they are asked, where an answer is found, when two are the same.
        instruction: Appended to every problem, "" for none. Default: the bank's, else the task's. It belongs to the
            fingerprint: memories are valid for one instruction only.
        device: Where the model runs: auto, cpu, cuda, cuda:1, ...
        dtype: Of the weights: float32, bfloat16 or float16.
        threads: CPU threads. Default: torch's choice; for the testbed one for a product (so small a model loses more to
            hand-over than it gains) and all for problems of a window, side by side.
        verifier: Who decides where the answers with and without memory differ. Default: the reward model where there is
            one, else the vote.
        reward_model: A process reward model, for the verifier of that name: a folder or a Hub id. The testbed has one.
        engine: What samples: addresses of vLLM servers (http://HOST:PORT/v1), or a registered engine. Default: this
            process. A run may go on with others, but not with servers that draw with other random numbers
            (docs/scale.md).
        ray: Learn and generate in Ray actors there: local, auto, HOST:PORT or ray://HOST:PORT. Where the work is done
            changes no result: a run may go on elsewhere than it began.
        learners: Ray actors that learn, and generate where there are no engines.
        engines: Ray actors that only generate.
        plugins: Python files that register parts of your own.
        sampling, learn, recall: see there.
    """

    model: str = "testbed"
    task: str = _of("task", "maths")
    instruction: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    verifier: str | None = _of("verifier", None)
    reward_model: str | None = None
    engine: tuple[str, ...] = ()
    ray: str | None = None
    learners: int = 2
    engines: int = 0
    plugins: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    learn: LearnConfig = field(default_factory=LearnConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)

    def __post_init__(self) -> None:
        registry.load(self.plugins)
        registry.known("task", self.task)
        if self.verifier is not None:
            registry.known("verifier", self.verifier)
        require(self.threads is None or self.threads >= 1, f"threads is {self.threads}; it must be at least 1")
        require(self.learners >= 1, f"learners is {self.learners}; it must be at least 1")
        require(self.engines >= 0, f"engines is {self.engines}; it must be 0 or more")
        require(
            not (self.engine and self.ray),
            "--engine and --ray are given; Ray's actors generate themselves, so give one of them",
        )


@dataclass(frozen=True)
class RunConfig(Settings):
    """One online run over a stream of problems.

    Attributes:
        data: Where the problems come from: testbed, testbed:A, testbed:B, hub:NAME, or a JSONL file.
        out: Run folder; an interrupted run continues.
        bank: Memory bank, its file or address. Default: a file in the run folder.
        seed: Same seed, same run.
        limit: How many problems. Default: all.
        window: Problems answered before their memories are learned together and become available. 1 is the strict
            protocol of the paper.
        namespace: Whose memories; nothing crosses namespaces.
        baselines: Controls run beside: icl, majority, random, verified; or none.
    """

    data: str = "testbed"
    out: str = "runs/run"
    bank: str | None = None
    seed: int = 0
    limit: int | None = None
    window: int = 1
    namespace: str = "default"
    baselines: tuple[str, ...] = ("icl", "majority")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}; it must be at least 1")
        require(self.window >= 1, f"window is {self.window}; it must be at least 1")
        require(self.seed >= 0, f"seed is {self.seed}; it must be 0 or more")
        for name in self.baselines:
            _one_of("baseline", name, ("icl", "random", "majority", "verified"))

    def settings(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json, which people pass on: without a password in the bank's address."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.bank is not None and self.bank.startswith("postgres"):
            values["bank"] = re.sub(r"([?&]password=)[^&]*", r"\1***", self.bank)
            values["bank"] = re.sub(r"^([^:]*://[^:/@]*:)[^@]*@", r"\1***@", values["bank"])
        return values


PARTS: dict[str, Any] = {"sampling": Sampling, "learn": LearnConfig, "recall": RecallConfig}
"""The tables of a settings file."""

S = TypeVar("S")


def changed(settings: S, values: Any, where: str) -> S:
    """``settings`` with other values, as a TOML or JSON file has them: lists for tuples, tables for nested settings.

    Raises:
        ConfigError: a name or a type that is not there; the message begins with ``where``.
    """
    require(isinstance(values, dict), f"{where}: settings are a table, not {type(values).__name__}")
    hints = typing.get_type_hints(type(settings))
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{where}: there is no setting {name!r}{meant}; there are: {', '.join(hints)}")
        if name in PARTS:
            given[name] = changed(getattr(settings, name), value, f"{where} [{name}]")
        else:
            given[name] = _typed(value, hints[name], f"{where}: {name}")
    return dataclasses.replace(settings, **given)  # type: ignore[type-var]


def _typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as a field of that type holds it; ConfigError if it cannot."""
    kinds = (
        [kind for kind in typing.get_args(hint) if kind is not type(None)] if isinstance(hint, UnionType) else [hint]
    )
    if value is None and kinds != [hint]:
        return None
    [kind] = kinds
    plain = typing.get_origin(kind) or kind
    if plain is tuple and isinstance(value, list | tuple):
        return tuple(_typed(one, typing.get_args(kind)[0], where) for one in value)
    if plain is float and type(value) is int:
        return float(value)
    name = "a list" if plain is tuple else "a table" if plain is dict else f"of type {plain.__name__}"
    require(type(value) is plain, f"{where} is {value!r}; it must be {name}")
    return value


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a settings file; ConfigError if there is none or it is malformed."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no settings at {path} ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None


def completed(held: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file, where every one that did not exist when it was written has its default."""
    whole = {
        name: {**dataclasses.asdict(PARTS[name]()), **LATER_THAN[name], **value}
        if name in PARTS and isinstance(value, dict)
        else value
        for name, value in held.items()
    }
    return whole
