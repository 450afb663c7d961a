"""What a soft prompt starts from: noise, random tokens, or the worked example that its problem left.

Builds on backbone and the registry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tacit.model.backbone import Backbone
from tacit.registry import register

EXAMPLE = 64
"""Most rows of a soft prompt that starts from a worked example."""


@dataclass(frozen=True)
class Start:
    """What a start is made of.

    Attributes:
        backbone: whose inputs it has to be.
        tokens: K, rows wanted.
        rng: for what is drawn.
        example: the problem and a response that gives its label, if there is one.
    """

    backbone: Backbone
    tokens: int
    rng: np.random.Generator
    example: tuple[str, str] | None = None


@register("start", "gaussian")
def gaussian(start: Start) -> Tensor:
    """Noise at the scale of the embeddings, float32 [K, d] on the CPU."""
    noise = start.rng.standard_normal((start.tokens, start.backbone.hidden_size), dtype=np.float32)
    return torch.from_numpy(noise) * start.backbone.embedding_std


@register("start", "vocabulary")
def vocabulary(start: Start) -> Tensor:
    """Embeddings of random tokens."""
    ids = torch.from_numpy(start.rng.integers(0, len(start.backbone.tokenizer), start.tokens))
    return start.backbone.embed(ids).detach().float().cpu().clone()


@register("start", "trace")
def trace(start: Start) -> Tensor:
    """Embeddings of the problem with its own response as a worked example, its last ``EXAMPLE`` tokens at most. So
    learning begins where in-context learning ends; else rows of random tokens."""
    ids = None if start.example is None else start.backbone.example_ids(*start.example)
    return vocabulary(start) if ids is None else start.backbone.embed(ids[-EXAMPLE:]).detach().float().cpu().clone()


trace.informed = True  # type: ignore[attr-defined]
