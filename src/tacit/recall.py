"""Recall: from a problem to the memory of the most similar earlier one, or to none.

Builds on backbone, the bank, routing and the registry. Similarity is measured on keys (method.md, "Retrieval"):

- ``input``: the mean input embedding of the problem's tokens (paper: "input");
- ``hidden`` or ``hidden:L``: the mean hidden state of a layer (default: the middle one);
- ``kv``: the mean key and value activations of every layer, each layer and kind scaled to unit norm so that none
  drowns the others (paper: "KV");
- ``last`` or ``last:L``: the hidden state of a layer (default: the middle one) at the last position of the whole
  prompt, where the model is about to answer. It says what the model makes of a problem rather than which words it has,
  and found a memory of the same kind where the others fell for a likeness of words (docs/log/). The default.

The first three are made of the problem text alone: a chat template's fixed words would make everything look alike. The
input key is taken relative to the vocabulary's mean for the same reason: embeddings share a large common direction,
and a similarity floor means something only without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from tacit import registry
from tacit.bank.base import Bank, Hit
from tacit.bank.damage import undamaged
from tacit.config import RecallConfig
from tacit.errors import MemoryNotFound, ModelError
from tacit.memory import Memory
from tacit.model.backbone import Backbone
from tacit.registry import register
from tacit.routing import Route


@register("key", "input")
def input_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean input embedding of a problem's tokens, relative to the vocabulary's."""
    return backbone.embed(_tokens(backbone, text)).float().mean(0) - backbone.embedding_mean


@register("key", "hidden")
def hidden_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean hidden state of a problem's tokens."""
    return _layer(backbone, _tokens(backbone, text), layer).mean(0)


@register("key", "last")
def last_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The hidden state at the last position of the whole prompt."""
    return _layer(backbone, backbone.encode(text), layer)[-1]


@register("key", "kv")
def kv_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean keys and values of every layer over a problem's tokens, each scaled to unit norm."""
    keys, values = backbone.key_values(_tokens(backbone, text))
    parts = [states.float().mean(1).flatten() for states in [*keys, *values]]
    return torch.cat([part / part.norm().clamp(min=1e-12) for part in parts])


def _tokens(backbone: Backbone, text: str) -> Tensor:
    """Token ids [T] of the problem alone, without its prompt."""
    return torch.tensor(backbone.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)


def _layer(backbone: Backbone, ids: Tensor, name: str) -> Tensor:
    """Hidden states [T, d] of a layer; the middle one for ""."""
    last = int(backbone.model.config.num_hidden_layers)
    layer = int(name) if name else (last + 1) // 2
    if layer > last:
        raise ModelError(f"there is no layer {layer} to make a key of: {backbone.name} has layers 0 to {last}")
    return backbone.layer_states(ids, layer).float()


class Keys:
    """Makes keys of one kind with one backbone; needs no bank, so that baselines search by the same similarity."""

    def __init__(self, backbone: Backbone, kind: str) -> None:
        self.backbone = backbone
        name, _, self._argument = kind.partition(":")
        self._make = registry.get("key", name)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 keys [N, D] of problem texts; D depends on the kind of key.

        Raises:
            ModelError: a text has no tokens.
        """
        return np.stack([self._key(text) for text in texts])

    def _key(self, text: str) -> np.ndarray:
        if not len(_tokens(self.backbone, text)):
            raise ModelError(f"the tokenizer of {self.backbone.name} makes no tokens of the problem {text[:60]!r}")
        key = self._make(self.backbone, text, self._argument).double().cpu().numpy()
        return np.ascontiguousarray(key / max(float(np.linalg.norm(key)), 1e-12), dtype=np.float32)


class Recall:
    """Makes keys with one backbone and looks them up in one namespace of a bank."""

    def __init__(self, backbone: Backbone, bank: Bank, config: RecallConfig, namespace: str) -> None:
        self.backbone, self.bank, self.config, self.namespace = backbone, bank, config, namespace
        self._keys = Keys(backbone, config.key)

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 keys [N, D] of problem texts; D depends on the kind of key."""
        return self._keys.of(texts)

    def recalled(self, keys: np.ndarray) -> list[tuple[Hit, Memory] | None]:
        """The memory to answer with, for each key [N, D]; None where none is similar enough, or can be read."""
        found = self.bank.search_many(
            keys,
            namespace=self.namespace,
            fingerprint=self.backbone.fingerprint,
            key_kind=self.config.key,
            k=1,
            floor=self.config.floor,
        )
        return [self._held(hits[0]) if hits else None for hits in found]

    def count(self, hit: Hit, decided: Route) -> None:
        """Count at the memory that was answered with what routing made of it."""
        with suppress(MemoryNotFound):  # deleted meanwhile
            self.bank.count(hit.memory_id, self.namespace, uses=1, **decided.counts)

    def _held(self, hit: Hit) -> tuple[Hit, Memory] | None:
        memory = undamaged(self.bank, hit.memory_id, self.namespace)
        return None if memory is None else (hit, memory)
