"""Settings that fit a model: one table, each row with the log entry of the run that measured it.

Builds on config. A learning rate that suits one model is noise to another. A response that ends after twenty tokens on
a small model takes hundreds on a large one. What nobody says of such settings comes from here, by what the model is
(its architecture, its size, the scale of its inputs), never by what it is called; what is said wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tacit.config import TESTBED, S, Settings, filled

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone

T = TypeVar("T", bound=Settings)


@dataclass(frozen=True)
class Preset:
    """Settings for the models of one family and size. Defaults are those of a model that no other row fits: the scale
    of SmolLM2, and room for working.

    Attributes:
        name: of the row.
        families: their ``config.model_type``; none for any.
        weights: how many weights they have, from and to, in millions.
        lr: learning rate, in standard deviations of the inputs that the model sees.
        init: what a soft prompt starts from.
        distil: steps on the response that gave the label.
        steps: most GRPO steps of a memory.
        settled: steps in a row with the full reward that finish it before.
        temperature: of samples and rollouts.
        brief: most tokens of an answer where the prompt asks for a short one.
        worked: the same elsewhere; never more than half of the model's context.
        instructions: by task, what such a model is told in place of the task's own instruction.
        measured: entry of docs/log with the run that measured it; "" where nothing was.
        key: what memories are found by (docs/log/2026-11-28-a-key-that-can-say-no.md).
        layers_lr: learning rate of vectors by layer, in deviations of the residual stream
            (docs/log/2026-11-30-vectors-by-layer.md).
    """

    name: str
    families: tuple[str, ...] = ()
    weights: tuple[float, float] = (0, float("inf"))
    lr: float = 0.074
    init: str = "trace"
    distil: int = 0
    steps: int = 5
    settled: int = 1
    temperature: float = 0.7
    brief: int = 64
    worked: int = 1024
    measured: str = ""
    instructions: dict[str, str] = field(default_factory=dict)
    key: str = "relative"
    layers_lr: float = 0.001


PRESETS = (
    Preset(
        name="testbed",
        weights=(0, 10),
        lr=0.15,
        layers_lr=0.018,
        init="gaussian",
        distil=10,
        steps=2,
        settled=0,
        key="last",
        temperature=1.0,
        worked=64,
        measured="2026-11-23-learning-rate",
    ),
    Preset(
        name="smollm2-135m",
        families=("llama",),
        weights=(100, 200),
        brief=32,
        worked=128,
        measured="2026-11-29-a-memory-that-starts-from-its-trace",
        instructions={"number": "Answer briefly."},
    ),
    Preset(name="other"),
)
"""The first row that fits a model is its own."""

LEAST = 64
"""Tokens that an answer may have whatever the model's context."""

_LENGTH = ("distil", "steps", "settled")
_SHORT = re.compile(r"\b(brief|briefly|short|shortly|only|alone|few words|just|directly)\b", re.IGNORECASE)
_LONG = re.compile(r"\b(steps?|reason|think|explain|show|work|function|program|code)\b", re.IGNORECASE)


def preset_for(family: str, weights: int) -> Preset:
    """The row for a model of that architecture with so many weights."""
    fits = (one for one in PRESETS if one.weights[0] * 1e6 <= weights < one.weights[1] * 1e6)
    return next(one for one in fits if not one.families or family in one.families)


def preset_of(backbone: Backbone) -> Preset:
    """The row for a model."""
    return preset_for(backbone.model.config.model_type, sum(weight.numel() for weight in backbone.model.parameters()))


def briefly(instruction: str) -> bool:
    """Whether a prompt asks for a short answer: "Answer briefly.", "the letter alone", and no word of reasoning."""
    return bool(_SHORT.search(instruction)) and not _LONG.search(instruction)


def fitting(backbone: Backbone) -> dict[str, Any]:
    """The settings that fit a model as it is asked: lr, init, distil, steps, settled, key, temperature, max_tokens."""
    preset, asked = preset_of(backbone), backbone.template
    tokens = preset.brief if briefly(f"{asked.system} {asked.instruction}") else preset.worked
    fits = backbone.carrier.fits(preset)
    # Two digits: sums over the weights may differ in the last bit between machines, and memories' ids may not.
    fits["lr"] = float(f"{fits['lr']:.2g}")
    return {
        "init": preset.init,
        "distil": preset.distil,
        "steps": preset.steps,
        "settled": preset.settled,
        "key": preset.key,
        "temperature": preset.temperature,
        "max_tokens": min(tokens, max(LEAST, backbone.context // 2)),
        **fits,
    }


def planned(settings: Settings, weights: int) -> dict[str, Any]:
    """The same as far as it is known of a model that is not loaded: by its size, and by what it is told."""
    if (by_name := known(settings)) is not settings:
        return vars(by_name.sampling) | {name: getattr(by_name.learn, name) for name in _LENGTH}
    preset = preset_for("", weights)
    tokens = preset.brief if briefly(settings.instruction or "") else preset.worked
    length = {name: getattr(preset, name) for name in _LENGTH}
    return {"temperature": preset.temperature, "max_tokens": tokens, **length}


def fitted(part: S, backbone: Backbone) -> S:
    """A table of settings in which nothing is unsaid."""
    return filled(part, fitting(backbone)) if filled(part, TESTBED) is not part else part


def known(settings: T) -> T:
    """Settings of a model that is known by its name, the testbed: with what it has where nobody says it. Others as they
    are, until their model is loaded."""
    if settings.model.partition(":")[0] != "testbed":
        return settings
    return _each(settings, lambda part: filled(part, TESTBED))


def fit(settings: T, backbone: Backbone) -> T:
    """Settings with what fits their model where nobody said it."""
    return _each(known(settings), lambda part: fitted(part, backbone))


def _each(settings: T, change: Callable[[Any], Any]) -> T:
    tables = {name: change(getattr(settings, name)) for name in ("sampling", "learn", "recall")}
    return replace(settings, **tables)


def said(backbone: Backbone, sampling: Any, learning: Any) -> str:
    """What a model is asked and taught with, in a sentence for people; both tables as ``fitted`` gave them."""
    preset = preset_of(backbone)
    source = f"measured: docs/log/{preset.measured}.md" if preset.measured else "not measured on this model"
    carrier = backbone.carrier
    rate = f"lr {learning.lr:g} ({learning.lr / carrier.scale:.2g} deviations of {carrier.among})"
    how = f"temperature {sampling.temperature:g}, at most {sampling.max_tokens} tokens an answer"
    start = learning.init if carrier.rows is None else "zero"
    return f"{rate}, start {start}, {how}; what nobody said is of the preset {preset.name} ({source})"
