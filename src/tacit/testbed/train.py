"""Trains the testbed's language model from scratch: ``train(out, seed)``, some minutes on one core.

Builds on corpus and tokenizer, and on torch and transformers. The result is a standard Hugging Face folder that
``AutoModelForCausalLM`` and ``AutoTokenizer`` load. Matrices are trained with Muon in float32 (a plain one: torch's own
was 20 times slower on a CPU at this size), all else with AdamW. Two phases: first mostly right solutions, so that the
arithmetic is learned from clean text; then the mixture with its bad habits, slips and notebooks.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from tacit.testbed import tokenizer as tokens
from tacit.testbed.corpus import Corpus

PHASES = ((1000, 0.75), (1000, 0.0))  # steps, share of rows that are all right
BATCH = 16
PEAK_LR = 4e-3
WARM_UP = 60
FINAL_LR_SHARE = 0.02

Progress = Callable[["Step"], None]


@dataclass(frozen=True)
class Step:
    """Where the training stands."""

    step: int
    total: int
    loss: float
    seconds: float


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for matrices only (Jordan et al., 2024)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["velocity"] = torch.zeros_like(param)
                state["velocity"].lerp_(param.grad, 1 - group["momentum"])
                update = orthogonal(param.grad.lerp(state["velocity"], group["momentum"]))
                # A tall matrix needs larger steps for the same change of its outputs.
                param.add_(update, alpha=-group["lr"] * max(1.0, param.shape[0] / param.shape[1]) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Near-orthogonal matrix of the same row and column space, by five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if tall else matrix
    x = x / (matrix.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def config(which: str = "AB") -> Qwen3Config:
    """The architecture: Qwen3 at 0.57 million parameters."""
    vocabulary = tokens.vocabulary(which)
    return Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=tokens.MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=vocabulary.index(tokens.PAD),
        eos_token_id=vocabulary.index(tokens.EOS),
        bos_token_id=None,
        dtype="float32",
    )


def optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and heads."""
    named = list(model.named_parameters())
    inner = [param for name, param in named if param.ndim == 2 and ".layers." in name]
    outer = [param for name, param in named if not (param.ndim == 2 and ".layers." in name)]
    return [Muon(inner, lr), torch.optim.AdamW(outer, lr, betas=(0.9, 0.98), weight_decay=0.0)]


def rate(step: int, total: int) -> float:
    """Learning rate as a share of its peak: linear warm-up, then one cosine."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, total - WARM_UP)
    return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * done))


def apply_step(model: nn.Module, optims: list[torch.optim.Optimizer], lr: float) -> None:
    """One update of all optimizers, gradients clipped to norm 1."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = lr
        optim.step()
        optim.zero_grad(set_to_none=True)


def train(
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    phases: tuple[tuple[int, float], ...] = PHASES,
    which: str = "AB",
) -> float:
    """Train the model of sets "AB" or of set "C" and save it with its tokenizer in ``out``; returns the mean loss of
    the last 50 steps."""
    started = time.monotonic()
    total = sum(steps for steps, _ in phases)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config(which))
    optims = optimizers(model, PEAK_LR)
    for steps, right_share in phases:
        corpus = Corpus(seed, right_share, which)
        for _ in range(steps):
            ids, weights = (torch.from_numpy(array) for array in corpus.batch(BATCH))
            logits = model(input_ids=ids, use_cache=False).logits
            each = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            weight = weights[:, 1:].flatten()
            loss = (each * weight).sum() / weight.sum()
            loss.backward()
            apply_step(model, optims, PEAK_LR * rate(len(losses), total))
            losses.append(loss.item())
            if progress:
                progress(Step(len(losses), total, losses[-1], time.monotonic() - started))
    save(model, out, which)
    tail = losses[-50:]
    return sum(tail) / len(tail)


def save(model: Qwen3ForCausalLM, out: Path, which: str = "AB") -> None:
    """Write the folder: weights, configuration, generation defaults, tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    ends = model.config.eos_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=model.config.pad_token_id, do_sample=True, top_k=0, max_new_tokens=64
    )
    model.save_pretrained(os.fspath(out))
    tokens.build(which).save_pretrained(os.fspath(out))
