"""Recall: from a problem to the memory of the most similar earlier one, or to none.

Builds on backbone, the bank and routing. Keys are what similarity is measured on (method.md, "Retrieval"):

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

from tacit.bank.base import Bank, Hit
from tacit.config import RecallConfig
from tacit.errors import MemoryNotFound, ModelError
from tacit.memory import Memory
from tacit.model.backbone import Backbone
from tacit.routing import Route

CONSIDERED = 4
"""Nearest memories that measured use may choose among."""


class Keys:
    """Makes keys of one kind with one backbone; needs no bank, so that baselines search by the same similarity."""

    def __init__(self, backbone: Backbone, kind: str) -> None:
        self.backbone, self.kind = backbone, kind
        self._centre = backbone.embedding_matrix.float().mean(0)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 keys [N, D] of problem texts; D depends on the kind of key."""
        return np.stack([self._key(text) for text in texts])

    def _key(self, text: str) -> np.ndarray:
        ids = torch.tensor(self.backbone.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)
        if not len(ids):
            raise ModelError(f"the tokenizer of {self.backbone.name} makes no tokens of the problem {text[:60]!r}")
        kind, _, layer = self.kind.partition(":")
        if kind == "input":
            pooled = self._input(ids)
        elif kind == "hidden":
            pooled = self._layer(ids, layer).mean(0)
        elif kind == "last":
            pooled = self._layer(self.backbone.encode(text), layer)[-1]
        else:
            pooled = self._kv(ids)
        key = pooled.double().cpu().numpy()
        return np.ascontiguousarray(key / max(float(np.linalg.norm(key)), 1e-12), dtype=np.float32)

    def _input(self, ids: Tensor) -> Tensor:
        return self.backbone.embed(ids).float().mean(0) - self._centre

    def _layer(self, ids: Tensor, name: str) -> Tensor:
        """Hidden states [T, d] of a layer; the middle one for ""."""
        last = int(self.backbone.model.config.num_hidden_layers)
        layer = int(name) if name else (last + 1) // 2
        if layer > last:
            raise ModelError(f"key {self.kind}: {self.backbone.name} has layers 0 to {last}")
        return self.backbone.layer_states(ids, layer).float()

    def _kv(self, ids: Tensor) -> Tensor:
        keys, values = self.backbone.key_values(ids)
        parts = [states.float().mean(1).flatten() for states in [*keys, *values]]
        return torch.cat([part / part.norm().clamp(min=1e-12) for part in parts])


class Recall:
    """Makes keys with one backbone and looks them up in one namespace of a bank."""

    def __init__(self, backbone: Backbone, bank: Bank, config: RecallConfig, namespace: str) -> None:
        self.backbone, self.bank, self.config, self.namespace = backbone, bank, config, namespace
        self._keys = Keys(backbone, config.key)

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 keys [N, D] of problem texts; D depends on the kind of key."""
        return self._keys.of(texts)

    def recalled(self, keys: np.ndarray) -> list[list[tuple[Hit, Memory]]]:
        """The memories to answer with, for each key [N, D]: up to ``config.k`` of them, best first."""
        config = self.config
        found = self._search(keys, max(CONSIDERED, config.k) if config.use else config.k)
        return [self._best(self._held(hits)) for hits in found]

    def neighbours(self, keys: np.ndarray, count: int) -> list[list[Memory]]:
        """The ``count`` most similar active memories of each key, nearest first."""
        return [[memory for _, memory in self._held(hits)] for hits in self._search(keys, count)]

    def count(self, hits: Sequence[Hit], decided: Route) -> None:
        """Count at the memories that were answered with what routing made of them."""
        for hit in hits:
            with suppress(MemoryNotFound):  # deleted meanwhile
                self.bank.count(hit.memory_id, self.namespace, uses=1, **decided.counts)

    def _held(self, hits: Sequence[Hit]) -> list[tuple[Hit, Memory]]:
        held = []
        for hit in hits:
            with suppress(MemoryNotFound):  # deleted meanwhile
                held.append((hit, self.bank.get(hit.memory_id, self.namespace)))
        return held

    def _best(self, held: list[tuple[Hit, Memory]]) -> list[tuple[Hit, Memory]]:
        if self.config.use:
            # A stable sort: equal worth keeps the order of similarity.
            held = sorted(held, key=lambda pair: -(pair[0].similarity + self.config.use * utility(pair[1])))
        return held[: self.config.k]

    def _search(self, keys: np.ndarray, k: int) -> list[list[Hit]]:
        return self.bank.search_many(
            keys,
            namespace=self.namespace,
            fingerprint=self.backbone.fingerprint,
            key_kind=self.config.key,
            k=k,
            floor=self.config.floor,
        )


def utility(memory: Memory) -> float:
    """Measured use in (-1, 1): how much more often a memory's answer was preferred than rejected, per use.

    Two uses without effect are counted in, so that a single one does not decide.
    """
    return (memory.helped - memory.hurt) / (memory.uses + 2)


def compose(prompts: Sequence[np.ndarray], how: str) -> np.ndarray:
    """One soft prompt [K', d] of several [K, d], best first: concatenated with the best nearest to the problem, or
    averaged row by row (composition is left open by the paper)."""
    if len(prompts) == 1:
        return prompts[0]
    if how == "average":
        return np.asarray(np.mean(prompts, axis=0, dtype=np.float32))
    return np.concatenate(list(reversed(prompts)))


def fitting(
    memories: list[tuple[Hit, Memory]], how: str, room: int
) -> tuple[list[tuple[Hit, Memory]], np.ndarray | None]:
    """The best of the memories, composed, that leave room for an answer: a long problem may fit without them alone.

    Args:
        memories: best first.
        how: see ``compose``.
        room: positions that the soft prompt may take.

    Returns:
        Those kept, and their soft prompt [K', d]; none and None where not even the best one fits.
    """
    while memories:
        prompt = compose([memory.prompt for _, memory in memories], how)
        if len(prompt) <= room:
            return memories, prompt
        memories = memories[:-1]
    return [], None
