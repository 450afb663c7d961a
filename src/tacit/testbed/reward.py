"""Trains the testbed's process reward model: which steps of a solution are right so far.

Builds on families, solutions, sampling and train. It is the language model with a token-classification head
(``Qwen3ForTokenClassification``, two labels), in the format of TRL's PRMTrainer: a prompt, a list of completions (the
steps), a label for each.

**Input**: the ids of ``Problem: {text} Solution:``, then for each step its ids and the id of the separator token. The
steps are the response split at the separator (``step_separator`` in config.json, ``;``) and stripped. The answer
(``Answer: 92``) is the last of them, with a separator like all others. There is no begin or end token. **Score**: at
each separator, the softmax probability of label 1, "this step and all before it are right". The score of the response
is the one at the last separator.

Training is supervised: the labels come from the generator, which knows the right steps. Half of the solutions are
written by the generator (right, slipped, in wrong styles, misconceptions), half sampled from the language model.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3ForTokenClassification,
)

from tacit.testbed import solutions
from tacit.testbed import train as lm
from tacit.testbed.arithmetic import FAMILIES
from tacit.testbed.families import draw
from tacit.testbed.family import STYLES, TEMPERS
from tacit.testbed.sampling import sample
from tacit.testbed.tokenizer import PAD, prompt

STEPS = 800
BATCH = 32
SAMPLES = 3600
PEAK_LR = 1e-3
IGNORED = -100


class Example(TypedDict):
    """A row in the format of TRL's PRMTrainer."""

    prompt: str
    completions: list[str]
    labels: list[bool]


def encode(tokenizer: PreTrainedTokenizerBase, text: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Input ids for a prompt and its steps, and the position of the separator after each step."""
    separator = token_id(tokenizer, solutions.SEPARATOR)
    ids: list[int] = list(tokenizer(text)["input_ids"])
    positions = []
    for step in steps:
        ids += [*tokenizer(step)["input_ids"], separator]
        positions.append(len(ids) - 1)
    return ids, positions


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def written(seed: int) -> Iterator[Example]:
    """Solutions by the generator, without end: a third as the corpus has them, the rest spread over all ways."""
    rng = random.Random(f"reward/{seed}")
    while True:
        family = rng.choice(FAMILIES)
        text, numbers, _ = draw(family, rng, unseen=False)
        kind = rng.random()
        if kind < 1 / 3:
            style, temper = solutions.choose(family, rng)
        elif kind < 2 / 3:
            style, temper = family.style, rng.choice(list(TEMPERS))
        else:
            style, temper = rng.choice([family.habit, *STYLES]), rng.choice(list(TEMPERS))
        solution = solutions.write(family, numbers, style, temper, rng)
        yield Example(prompt=prompt(text), completions=list(solution.parts), labels=list(solution.right))


def sampled(model: Any, tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[Example]:
    """Solutions by the language model to training problems, judged by the generator.

    Half of them are opened in the right style, or too few would be right in the hard families.
    """
    rng = random.Random(f"reward-samples/{seed}")
    drawn = []
    for _ in range(count):
        family = rng.choice(FAMILIES)
        text, numbers, _ = draw(family, rng, unseen=False)
        opening = solutions.heading(family.style, rng.choice(list(TEMPERS))).strip() if rng.random() < 0.5 else ""
        drawn.append((family, text, numbers, opening))
    texts, openings = [text for _, text, _, _ in drawn], [opening for *_, opening in drawn]
    made = sample(model, tokenizer, texts, seed=seed, openings=openings)
    examples = []
    for (family, text, numbers, opening), (rest,) in zip(drawn, made, strict=True):
        parts, right = solutions.judge(family, numbers, f"{opening} {rest}".strip())
        examples.append(Example(prompt=prompt(text), completions=parts, labels=list(right)))
    return examples


def batch(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Right-padded ids, mask, and labels at the separators."""
    encoded = [encode(tokenizer, example["prompt"], example["completions"]) for example in examples]
    width = max(len(ids) for ids, _ in encoded)
    shape = (len(examples), width)
    ids = torch.full(shape, token_id(tokenizer, PAD))
    mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    for row, ((tokens, positions), example) in enumerate(zip(encoded, examples, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, positions] = torch.tensor(example["labels"], dtype=torch.long)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(
    out: Path,
    model_dir: Path,
    seed: int = 0,
    progress: lm.Progress | None = None,
    *,
    steps: int = STEPS,
    samples: int = SAMPLES,
) -> float:
    """Train the reward model from the language model in ``model_dir``; returns the mean loss of the last 50 steps."""
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    policy = AutoModelForCausalLM.from_pretrained(model_dir)
    pool = sampled(policy, tokenizer, samples, seed)
    config = AutoConfig.from_pretrained(
        model_dir, num_labels=2, id2label={0: "wrong", 1: "right"}, label2id={"wrong": 0, "right": 1}
    )
    # Not fields of this configuration, so from_pretrained would drop them.
    config.step_separator = solutions.SEPARATOR
    config.classifier_dropout = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForTokenClassification(config)
    model.model.load_state_dict(policy.model.state_dict())
    optims = lm.optimizers(model, PEAK_LR)
    generator, rng = written(seed), random.Random(f"reward-order/{seed}")
    losses: list[float] = []
    for _ in range(steps):
        own = rng.sample(pool, min(BATCH // 2, len(pool)))
        inputs = batch(tokenizer, [*own, *(next(generator) for _ in range(BATCH - len(own)))])
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), ignore_index=IGNORED)
        loss.backward()
        lm.apply_step(model, optims, PEAK_LR * lm.rate(len(losses), steps))
        losses.append(loss.item())
        if progress:
            progress(lm.Step(len(losses), steps, losses[-1], time.monotonic() - started))
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(os.fspath(out))
    tokenizer.save_pretrained(os.fspath(out))
    tail = losses[-50:]
    return sum(tail) / len(tail)
