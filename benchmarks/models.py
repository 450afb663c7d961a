"""The models and problems that benchmarks run on: the shipped testbed, and random weights in stated shapes.

Random weights never end a text by themselves: their tokenizer's end token lies outside the vocabulary, so that every
rollout has its full length and both sides of a contest do the same work.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tacit.problem import Problem
from tacit.testbed import model_path, problems
from tacit.testbed.tokenizer import build

_FOLDER = tempfile.TemporaryDirectory(prefix="tacit-bench-")
SHAPES: dict[str, dict[str, Any]] = {
    "random-7m": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 32,
        "intermediate_size": 768,
    },
}


def load(name: str) -> tuple[Any, Any]:
    """Model (float32, CPU) and tokenizer: "testbed", or a key of SHAPES with random weights (seed 0)."""
    tokenizer = build()
    if name == "testbed":
        model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32, attn_implementation="sdpa")
        return model.eval(), tokenizer
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=None,
        tie_word_embeddings=True,
        **SHAPES[name],
    )
    config._attn_implementation = "sdpa"
    tokenizer.add_special_tokens({"eos_token": "<never>"})
    return Qwen3ForCausalLM(config).eval(), tokenizer


def saved(name: str) -> str:
    """A folder with that model, for what only loads from folders; it goes when the process ends."""
    if name == "testbed":
        return str(model_path())
    folder = Path(_FOLDER.name) / name
    model, tokenizer = load(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def stream(count: int, seed: int) -> list[Problem]:
    """Blind testbed problems of both sets."""
    return [Problem(id=item.id, text=item.text) for item in islice(problems("AB", seed), count)]
