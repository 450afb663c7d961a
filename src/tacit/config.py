"""Settings, each with its default, its unit and, where the default was measured, where to read about it.

Builds on errors. Plain frozen dataclasses: every setting can be given in Python, most by a flag of the same name.
``digest`` enters a memory's id, so the same problem learned with other settings is another memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tacit.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """ConfigError with this message unless ``ok``."""
    if not ok:
        raise ConfigError(message)


def addresses_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Addresses as an option takes them: repeated, or several by commas."""
    return tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())


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


GONE: dict[str, dict[str, Any]] = {
    "learn": {
        "init_text": "Let us think step by step and check every step.",
        "rehearse": 0,
        "normalise_advantage": False,
        "kl": 0.0,
        "keep": "last",
    },
    "recall": {"k": 1, "compose": "concatenate", "use": 0.0},
}
"""Settings that 0.1 had and that did not pay (docs/log/), with the values at which they did nothing: what was made with
those goes on, and is known by the same ids."""

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
        init: "gaussian" (at the embedding scale), "vocabulary" (rows of random tokens), or "nearest" (the recalled
            memory, else gaussian).
        label: whose vote becomes the label. "verified" (all responses, with memory or without, weighted by a verifier
            whose scores are probabilities; with another verifier, or where it trusts none, as "zero-shot"),
            "confident" (a vote weighted by likelihood, labels.py), "zero-shot" (the plain vote of the rollouts without
            memory, as in the paper), "routed" (the routed answers), or "renewed" (each step's own group). Measured in
            docs/log/.
        reward: name of a registered reward.
        min_votes, min_lead: the vote gate, for 8 responses and scaled to other numbers: fewer votes, or a smaller
            lead over the runner-up, and the problem is not learned from (after SCRL, arXiv 2603.19880).
        norm_cap: largest norm of a soft-prompt row, in mean embedding norms.
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
    label: str = "verified"
    reward: str = "majority"
    min_votes: int = 3
    min_lead: int = 2
    norm_cap: float = 3.0
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
        require(self.norm_cap > 0, f"norm_cap is {self.norm_cap}; it must be above 0")
        require(self.settled >= 0, f"settled is {self.settled}; it must be 0 or more")
        require(0 <= self.admit <= 1, f"admit is {self.admit}; it must be between 0 and 1")
        require(0 <= self.admit_belief <= 1, f"admit_belief is {self.admit_belief}; it must be between 0 and 1")
        require(0 < self.enough < math.inf, f"enough is {self.enough}; it must be above 0 (above 1: learn always)")
        _one_of("init", self.init, ("gaussian", "vocabulary", "nearest"))
        _one_of("label", self.label, ("zero-shot", "routed", "verified", "confident", "renewed"))

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
            **GONE["learn"],
            "tokens": self.tokens,
            "steps": self.steps,
            "rollouts": self.rollouts,
            "lr": self.lr,
            "clip": self.clip,
            "init": self.init,
            "label": self.label,
            "reward": self.reward,
            "min_votes": self.min_votes,
            "min_lead": self.min_lead,
            "norm_cap": self.norm_cap,
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
    """

    key: str = "last"
    floor: float = 0.5

    def __post_init__(self) -> None:
        kind, _, layer = self.key.partition(":")
        _one_of("key", kind, ("last", "input", "hidden", "kv"))
        require(
            not layer or (kind in ("hidden", "last") and layer.isdigit()),
            f"key is {self.key!r}; only hidden and last take a layer, as in last:12",
        )
        require(-1 <= self.floor <= 1, f"floor is {self.floor}; a cosine similarity lies between -1 and 1")


@dataclass(frozen=True)
class RunConfig:
    """One online run over a stream of problems.

    Attributes:
        model: "testbed", a folder, or a Hub id.
        data: "testbed", "testbed:A", "testbed:B", a JSONL file, or "hub:NAME".
        out: run folder.
        bank: bank URL or path; None for ``out/bank.sqlite``.
        seed: of everything.
        limit: problems to do; None for all (endless sources need one).
        window: problems answered before their memories are learned together and become available; 1 is the strict
            protocol of the paper.
        namespace: whose memories.
        verifier: "reward-model", "vote", "logprob" or "none" (always the memory's answer); None: the best available.
        reward_model: "testbed", folder or Hub id of a process reward model; None: the testbed's for the testbed.
        engine: addresses of vLLM servers that sample; none for this process. A run may go on with others, but not with
            servers that draw with other random numbers (docs/scale.md).
        baselines: controls run beside: "icl", "random", "majority", "verified".
        device, dtype, threads: where and how the model runs; threads None leaves them as they are, but for the
            testbed means one for a product (so small a model loses more to hand-over than it gains) and all for
            problems of a window, side by side.
        ray: Ray's address, or "local", to learn and generate in actors (cluster.py); None: in this process. Where the
            work is done changes no result: a run may go on elsewhere than it began.
        learners, engines: actors that learn (and generate, where there are no engines), and that only generate.
    """

    model: str = "testbed"
    data: str = "testbed"
    out: str = "runs/run"
    bank: str | None = None
    seed: int = 0
    limit: int | None = None
    window: int = 1
    namespace: str = "default"
    verifier: str | None = None
    reward_model: str | None = None
    engine: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("icl", "majority")
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    ray: str | None = None
    learners: int = 2
    engines: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    learn: LearnConfig = field(default_factory=LearnConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}; it must be at least 1")
        require(self.window >= 1, f"window is {self.window}; it must be at least 1")
        require(self.threads is None or self.threads >= 1, f"threads is {self.threads}; it must be at least 1")
        require(self.learners >= 1, f"learners is {self.learners}; it must be at least 1")
        require(
            not (self.engine and self.ray),
            "--engine and --ray are given; Ray's actors generate themselves, so give one of them",
        )
        require(self.engines >= 0, f"engines is {self.engines}; it must be 0 or more")
        require(self.seed >= 0, f"seed is {self.seed}; it must be 0 or more")
        for name in self.baselines:
            _one_of("baseline", name, ("icl", "random", "majority", "verified"))
        if self.verifier is not None:
            _one_of("verifier", self.verifier, ("reward-model", "vote", "logprob", "none"))

    def settings(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json, which people pass on: without a password in the bank's address."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.bank is not None and self.bank.startswith("postgres"):
            values["bank"] = re.sub(r"([?&]password=)[^&]*", r"\1***", self.bank)
            values["bank"] = re.sub(r"^([^:]*://[^:/@]*:)[^@]*@", r"\1***@", values["bank"])
        return values


PARTS: dict[str, Any] = {"sampling": Sampling, "learn": LearnConfig, "recall": RecallConfig}


def completed(held: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file as if they were of today: those that are newer than it have their defaults, and those
    that are gone are left out.

    Raises:
        ConfigError: one that is gone was in use.
    """
    values = dict(held)
    for part, kind in PARTS.items():
        if not isinstance(value := values.get(part), dict):
            continue
        gone = GONE.get(part, {})
        used = [f"{name} = {value[name]!r}" for name in gone if name in value and value[name] != gone[name]]
        used += ["init = 'text'"] if part == "learn" and value.get("init") == "text" else []
        require(
            not used,
            f"this run used {', '.join(used)}, which this version no longer has; continue it with tacit 0.1 or start "
            "another",
        )
        kept = {name: held for name, held in value.items() if name not in gone}
        values[part] = {**dataclasses.asdict(kind()), **kept}
    return values
