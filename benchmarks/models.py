"""The models and problems that benchmarks run on: the shipped testbed, random weights in stated shapes, and real ones.

Random weights never end a text by themselves: their tokenizer's end token lies outside the vocabulary, so that every
rollout has its full length and both sides of a contest do the same work. Real weights, ``smollm2`` or a file or folder,
are kept from it in the same way.
"""

from __future__ import annotations

import tempfile
import time
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tacit import registry
from tacit.model import loading
from tacit.model.backbone import Backbone
from tacit.model.decoder import Product
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


REAL = "families:multiply@2,plurals@2,capitals@3,opposites@2"
"""What real weights are asked."""


def real(name: str) -> bool:
    """Whether it is neither the testbed nor random weights."""
    return name != "testbed" and name not in SHAPES


def load(name: str) -> tuple[Any, Any]:
    """Model (float32, CPU) and tokenizer: "testbed", a key of SHAPES with random weights (seed 0), or real weights."""
    if real(name):
        model, tokenizer, _ = loading.load(loading.resolve_model(name, None), name, torch.float32)
        model.generation_config.eos_token_id = None
        tokenizer.add_special_tokens({"eos_token": "<never>"})
        return model.eval(), tokenizer
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


def endless(name: str) -> Backbone:
    """That model as ours, whose texts do not end by themselves (but for the testbed's)."""
    if not real(name):
        return Backbone.load("testbed" if name == "testbed" else saved(name), device="cpu")
    backbone = Backbone.load(name, device="cpu")
    backbone.end_ids = frozenset()
    return backbone


def stream(count: int, seed: int, name: str = "testbed") -> list[Problem]:
    """Blind problems: of both sets of the testbed, or what real weights are asked."""
    if not real(name):
        return [Problem(id=item.id, text=item.text) for item in islice(problems("AB", seed), count)]
    kind, _, address = REAL.partition(":")
    drawn = islice(registry.get("source", kind)(address, seed, None), count)
    return [Problem(id=read.problem.id, text=read.problem.text) for read in drawn]


class Products:
    """What passes of a model cost in matrix products, and how fast this process makes them.

    Args:
        backbone: a decoder of plain projections.
    """

    def __init__(self, backbone: Backbone) -> None:
        shapes = {
            name: weight.shape for name, weight in backbone.model.named_parameters() if name.endswith("_proj.weight")
        }
        self.layer = [shape for name, shape in shapes.items() if ".layers.0." in name]
        self.head = backbone.embedding_matrix.shape
        self.layers = 2 * sum(shape.numel() for shape in shapes.values())
        """FLOP of one token in all layers."""
        self.logits = 2 * self.head.numel()
        """FLOP of one token's logits."""

    def seconds(self, rows: int, flop: float) -> float:
        """Processor seconds of so much work at the best rate of the model's own products of so many rows, float32, with
        weights that oneDNN has arranged or PyTorch's own."""
        return flop * self._per_flop(rows)

    @cache  # noqa: B019 - a benchmark has one
    def _per_flop(self, rows: int) -> float:
        spent = done = 0.0
        for out, inner in [*self.layer, self.head]:
            x, weight = torch.randn(rows, inner), torch.randn(out, inner)
            best = float("inf")
            # The clock of a process knows late of what its other threads did, so many products are one measurement.
            count = max(1, int(1e10 / (rows * out * inner)))
            for product in (Product(weight, None, arrange) for arrange in (True, False)):
                for _ in range(3):
                    began = time.process_time()
                    for _ in range(count):
                        product(x)
                    best = min(best, (time.process_time() - began) / count)
            # The head is one of many products: it counts as often as it is made.
            share = self.logits if (out, inner) == tuple(self.head) else self.layers / len(self.layer)
            spent, done = spent + best * share / (2 * out * inner), done + rows * share
        return spent / done
