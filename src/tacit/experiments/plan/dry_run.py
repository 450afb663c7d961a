"""What a comparison will do, before anything heavy is loaded: problems, rollouts, tokens, steps, memory, time.

Builds on compare_config, each method's own ``plan``, and estimates. Counts are upper bounds (every problem finds a
memory, every vote is clear, every answer runs to ``max_tokens``); the estimate of tokens takes a mean length instead,
and time follows from it. No weights are loaded, and of the data only what lies here is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tacit.config import filled
from tacit.errors import ConfigError
from tacit.experiments.compare import PROBES, REPLAYED
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.plan import estimates
from tacit.experiments.plan.estimates import Dimensions, Gpu, Lengths
from tacit.methods.planning import Plan, Setting, Work
from tacit.model import presets
from tacit.tasks import sources
from tacit.testbed import shipped

CHARACTERS = 3
"""Characters of mathematical text in a token, where no tokenizer is at hand."""
TEMPLATE = 40
"""Tokens that a chat template and the instruction add."""
PROMPT = 200
"""Tokens of a prompt of which nothing is known."""
TOGETHER = 4
"""Problems of a window that recall nothing of each other: of windows of 12 on the testbed (docs/log/)."""
LONGER = 4
"""Times that the longest prompt is longer than the mean one, where nothing is known."""


@dataclass(frozen=True)
class Data:
    """What is known of one source.

    Attributes:
        problems: of a stream; None if unknown.
        known: how: "read", "given" (in the configuration) or "unknown until loaded".
        prompt, longest: tokens of the mean and of the longest prompt.
        answer: tokens of a mean answer.
    """

    source: str
    problems: int | None
    known: str
    prompt: int
    longest: int
    answer: float


def dry_run(config: CompareConfig, gpu: str | None = None, tokens_per_answer: float | None = None) -> dict[str, Any]:
    """The plan of a comparison, JSON-ready.

    Args:
        config: the comparison.
        gpu: a name in ``estimates.GPUS``, to say whether it fits and how long it takes; None for neither.
        tokens_per_answer: mean length of an answer; None for what the configuration expects of each source, else half
            of ``max_tokens``.

    Returns:
        ``model``, ``reward_model``, ``gpu``, ``data``, ``rows`` (one per label and source: figures of one cell, and
        how many ``cells``), ``total`` over all cells, and ``assumptions`` in words. Bytes, seconds, tokens.

    Raises:
        ConfigError, ModelError, DataError: as running it would, where that can be told now.
    """
    if tokens_per_answer is not None and tokens_per_answer <= 0:
        raise ConfigError(f"--tokens-per-answer is {tokens_per_answer}; it must be above 0")
    labels = config.labels()
    device = None if gpu is None else estimates.gpu(gpu)
    dims = estimates.dimensions(config.model)
    judge = config.reward_model or ("testbed" if config.model == "testbed" else None)
    reward = None if judge is None else estimates.dimensions(judge, reward=True)
    planned = presets.planned(config, dims.parameters)
    config = replace(config, sampling=filled(config.sampling, planned), learn=filled(config.learn, planned))
    data = [look(config, source, tokens_per_answer) for source in config.data]
    rows = [_Row(config, label, one, dims, reward, device).values() for label in labels for one in data]
    return {
        "model": {"name": config.model, "dtype": config.dtype, **_shown(dims, config.dtype)},
        "reward_model": None if reward is None else {"name": judge, **_shown(reward, config.dtype)},
        "gpu": None if device is None else asdict(device),
        "jobs": config.jobs,
        "data": [asdict(one) for one in data],
        "rows": rows,
        "total": _total(rows),
        "assumptions": _assumptions(config, data, device),
    }


def look(config: CompareConfig, source: str, tokens_per_answer: float | None) -> Data:
    """What can be known of a source without the network: its problems if they lie here, else what was given."""
    expected = config.expected.get(source, {})
    answer = tokens_per_answer or expected.get("tokens") or config.sampling.max_tokens / 2
    if not source.startswith("hub:") or Path(source.split(":")[1]).is_dir():
        limit, fields = config.limit, config.fields
        stream = sources.load(source, seed=config.seeds[0], limit=limit, fields=fields, model=config.model)
        lengths = _prompt_tokens(config.model, [problem.text for problem in stream])
        mean = int(expected.get("prompt") or sum(lengths) / len(lengths))
        return Data(source, len(stream), "read", mean, max(lengths), float(answer))
    prompt = int(expected.get("prompt", PROMPT))
    given = expected.get("problems")
    count = None if given is None else min(int(given), config.limit or int(given))
    known = "unknown until loaded" if count is None else "given"
    return Data(source, count, known, prompt, LONGER * prompt, float(answer))


def _prompt_tokens(model: str, texts: Sequence[str]) -> list[int]:
    """Tokens of each prompt: counted if the tokenizer lies here, else guessed from the characters."""
    ours = shipped(model)
    if ours is None and not Path(model).is_dir():
        return [len(text) // CHARACTERS + TEMPLATE for text in texts]
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(ours or model)
    extra = 4 if ours else TEMPLATE  # the testbed's template is four words
    return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + extra for text in texts]


class _Row:
    """One label on one source."""

    def __init__(
        self,
        config: CompareConfig,
        label: str,
        data: Data,
        dims: Dimensions,
        reward: Dimensions | None,
        device: Gpu | None,
    ) -> None:
        self.method, settings, options = config.resolve(label)
        self.config, self.settings, self.label, self.data = config, settings, label, data
        self.dims, self.reward, self.device = dims, reward, device
        trains = self.method.uses_labels and (data.source in config.training or sources.endless(data.source))
        count = data.problems or 1
        self.setting = Setting(
            count,
            min(TOGETHER if config.keeps_apart(self.method) else config.window, config.window, count),
            count if trains else 0,
            reward is not None,
            settings.sampling,
            settings.learn,
            settings.recall,
            {**self.method.defaults, **options},
        )
        self.plan: Plan = self.method.plan(self.setting)
        self.work = [*self.plan.work, *self._probes()]
        self.soft = settings.learn.tokens if self.plan.policy in ("memory", "soft") else 0

    def _probes(self) -> list[Work]:
        """Answering again at the end: earlier problems, and fresh ones of every endless source."""
        if not (self.config.probes and self.method.probed):
            return []
        asked = min(REPLAYED, self.setting.problems)
        if not self.method.uses_labels:
            asked += PROBES * sum(sources.endless(source) for source in self.config.data)
        share = asked / self.setting.problems
        return [
            replace(
                one,
                what="probe",
                rollouts=round(one.rollouts * share),
                calls=max(1, round(one.calls * share)),
                trained=round(one.trained * share),
                steps=0,  # gradient steps of probes are not counted by the methods either
            )
            for one in self.plan.work
            if one.what == "answer"
        ]

    def _lengths(self, work: Work | None = None) -> Lengths:
        """Of prompts and answers: means for time, and the most for memory (no ``work``)."""
        most, data = self.settings.sampling.max_tokens, self.data
        answer = min(data.answer, most)
        if work is None:
            shown = math.ceil(max((one.shown for one in self.work), default=0))
            prompt = data.longest + self.soft + shown * (data.longest + most)
            return Lengths(int(min(prompt, max(self.dims.context - most, 1))), answer, most)
        return Lengths(int(data.prompt + self.soft + work.shown * (data.prompt + answer)), answer, most)

    def values(self) -> dict[str, Any]:
        """The figures of one cell; None where they hang on a number of problems that is unknown."""
        config, plan, learn = self.config, self.plan, self.settings.learn
        known = self.data.problems is not None
        memory = estimates.memory(plan, self.dims, self.reward, config.dtype, self._lengths(), learn)
        rollouts = sum(one.rollouts for one in self.work)
        most = rollouts * self.settings.sampling.max_tokens
        answer = min(self.data.answer, self.settings.sampling.max_tokens)
        too_long = self.data.prompt + self.soft + self.settings.sampling.max_tokens > self.dims.context
        return {
            "method": self.label,
            "data": self.data.source,
            "uses_labels": self.method.uses_labels,
            "cells": len(config.orders) * len(config.seeds),
            "problems": self.data.problems,
            "rollouts": rollouts if known else None,
            "rollouts_per_problem": rollouts / self.setting.problems,
            "tokens_most": most if known else None,
            "tokens": round(rollouts * answer) if known else None,
            "gradient_steps": plan.steps if known else None,
            "trainable": self.dims.trainable(plan, learn.tokens),
            "scored": plan.scored if known and self.reward else (0 if known else None),
            "memory": memory,
            "fits": None if self.device is None else config.jobs * memory["peak"] <= self.device.memory,
            "seconds": self._seconds() if known and self.device else None,
            "cannot": plan.cannot or ("a mean prompt and max_tokens exceed the model's context" if too_long else None),
        }

    def _seconds(self) -> float:
        assert self.device is not None
        config, learn = self.config, self.settings.learn
        seconds = sum(
            estimates.work_seconds(
                one, self.plan, self.dims, config.dtype, self.device, self._lengths(one), learn.rollouts
            )
            for one in self.work
        )
        if self.reward:
            lengths = Lengths(self.data.prompt, min(self.data.answer, self.settings.sampling.max_tokens), 1)
            seconds += estimates.scoring_seconds(self.reward, config.dtype, self.device, self.plan.scored, lengths)
        return seconds


def _shown(dims: Dimensions, dtype: str) -> dict[str, Any]:
    values = {name: value for name, value in asdict(dims).items() if name not in ("linear", "qk_norm", "embedding")}
    return values | {"bytes": dims.weights(dtype)}


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"cells": sum(row["cells"] for row in rows)}
    for name in ("rollouts", "tokens_most", "tokens", "gradient_steps", "seconds"):
        held = [row[name] for row in rows]
        total[name] = None if None in held else sum(row[name] * row["cells"] for row in rows)
    total["peak"] = max(row["memory"]["peak"] for row in rows)
    return total


def _assumptions(config: CompareConfig, data: Sequence[Data], device: Gpu | None) -> list[str]:
    lengths = ", ".join(f"{one.answer:g} for {one.source}" for one in data)
    said = [
        "counts are of one cell at most: every problem finds a memory, and every vote is clear enough to learn from",
        f"tokens at most take {config.sampling.max_tokens} an answer; tokens take {lengths}",
        "memory takes the longest prompts and answers; what the allocator wastes, a tenth or so, is not in it",
    ]
    if device is not None:
        share = estimates.ASSUMED
        said.append(
            f"time takes {share['bandwidth']:.0%} of {device.bandwidth / 1e12:g} TB/s and, of {config.dtype} FLOPs "
            f"({device.flops(config.dtype) / 1e12:g} T/s), {share['decode']:.0%} in decoding and {share['pass']:.0%} "
            f"in whole sequences, and at least {1000 * share['layer_seconds']:g} ms a layer and token; cells one after "
            "the other; none of this was measured on that GPU"
        )
    return said


# ---------------------------------------------------------------- for the eye


def as_text(plan: dict[str, Any]) -> str:
    """The plan as lines for a terminal or a Markdown page."""
    model, reward, gpu, total = plan["model"], plan["reward_model"], plan["gpu"], plan["total"]
    lines = [
        f"model: {model['name']}, {_count(model['parameters'])} parameters in {model['dtype']} ({model['source']}), "
        f"context {model['context']:,}"
    ]
    if reward:
        lines.append(
            f"reward model: {reward['name']}, {_count(reward['parameters'])} parameters ({reward['source']}), "
            f"context {reward['context']:,}"
        )
    if gpu:
        lines.append(f"GPU: {gpu['name']}, {plan['jobs']} process(es) on it")
    lines += ["", "| data | problems | prompt | answer |", "|---|---|---|---|"]
    for one in plan["data"]:
        problems = one["known"] if one["problems"] is None else f"{one['problems']} ({one['known']})"
        lines.append(f"| {one['source']} | {problems} | {one['prompt']} | {one['answer']:g} |")
    lines += [
        "",
        "| method | data | cells | rollouts | tokens at most | tokens | gradient steps | trains | memory | time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in plan["rows"]:
        fits = "" if row["fits"] is not False else ", does not fit"
        lines.append(
            f"| {row['method']} | {row['data']} | {row['cells']} | {_count(row['rollouts'])} "
            f"| {_count(row['tokens_most'])} | {_count(row['tokens'])} | {_count(row['gradient_steps'])} "
            f"| {_count(row['trainable'])} | {row['memory']['peak'] / 1e9:.1f} GB{fits} | {_time(row['seconds'])} |"
        )
    lines += [
        "",
        f"in all: {total['cells']} cells, {_count(total['rollouts'])} rollouts, {_count(total['tokens'])} tokens (at "
        f"most {_count(total['tokens_most'])}), {_count(total['gradient_steps'])} gradient steps, at most "
        f"{total['peak'] / 1e9:.1f} GB a process, {_time(total['seconds'])}",
    ]
    largest = max(plan["rows"], key=lambda row: row["memory"]["peak"])
    parts = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in largest["memory"].items() if name != "peak")
    lines.append(f"largest: {largest['method']} on {largest['data']}, in GB: {parts}")
    cannot = {row["method"]: row["cannot"] for row in plan["rows"] if row["cannot"]}
    lines += [f"{method} will fail: {why}" for method, why in cannot.items()]
    lines += ["", *(f"- {one}" for one in plan["assumptions"])]
    return "\n".join(lines)


def _count(number: float | None) -> str:
    if number is None:
        return "unknown"
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if number >= size:
            return f"{number / (1e3 if letter == ' k' else size):.3g}{letter}"
    return f"{number:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
