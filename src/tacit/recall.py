"""Recall: from a problem to the memory of the most similar earlier one, or to none.

Builds on backbone, kinds of keys (model/keys.py), the bank, routing and the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np

from tacit import registry
from tacit.bank.base import Bank, Hit
from tacit.bank.damage import undamaged
from tacit.config import RecallConfig
from tacit.errors import MemoryNotFound, ModelError
from tacit.memory import Memory
from tacit.model.backbone import Backbone
from tacit.model.keys import tokens_of
from tacit.routing import Route

LATEST, CLOSE = 256, 1e-6
"""Keys that are kept, since a window's are asked for more than once; what sums in another order may differ by."""


class Keys:
    """Makes keys of one kind with one backbone; needs no bank, so that baselines search by the same similarity."""

    def __init__(self, backbone: Backbone, kind: str) -> None:
        self.backbone = backbone
        name, _, self._argument = kind.partition(":")
        self._make = registry.get("key", name)
        self._key = lru_cache(LATEST)(self._made)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 keys [N, D] of problem texts; D depends on the kind of key.

        Raises:
            ModelError: a text has no tokens.
        """
        return np.stack([self._key(text) for text in texts])

    def _made(self, text: str) -> np.ndarray:
        if not len(tokens_of(self.backbone, text)):
            raise ModelError(f"the tokenizer of {self.backbone.name} makes no tokens of the problem {text[:60]!r}")
        key = self._make(self.backbone, text, self._argument).double().cpu().numpy()
        return np.ascontiguousarray(key / max(float(np.linalg.norm(key)), 1e-12), dtype=np.float32)


def strangers(keys: np.ndarray, known: Sequence[float]) -> int:
    """How many problems, from the first, are nearer to what is in store than to each other. Answered side by side, they
    recall what they would recall one after the other.

    Args:
        keys: of unit norm [N, D], N of at least 1.
        known: for each the similarity from which on it would recall another.
    """
    for place in range(1, len(keys)):
        if float((keys[:place] @ keys[place]).max()) > known[place] - CLOSE:
            return place
    return len(keys)


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
        return [self._held(hits[0]) if hits else None for hits in self._nearest(keys)]

    def strangers(self, texts: Sequence[str]) -> int:
        """How many of these problems (one at least), from the first, would recall no memory of each other."""
        keys = self.keys(texts)
        return strangers(keys, [hits[0].similarity if hits else self.config.floor for hits in self._nearest(keys)])

    def _nearest(self, keys: np.ndarray) -> list[list[Hit]]:
        return self.bank.search_many(
            keys,
            namespace=self.namespace,
            fingerprint=self.backbone.fingerprint,
            key_kind=self.config.key,
            k=1,
            floor=self.config.floor,
        )

    def count(self, hit: Hit, decided: Route) -> None:
        """Count at the memory that was answered with what routing made of it."""
        with suppress(MemoryNotFound):  # deleted meanwhile
            self.bank.count(hit.memory_id, self.namespace, uses=1, **decided.counts)

    def _held(self, hit: Hit) -> tuple[Hit, Memory] | None:
        memory = undamaged(self.bank, hit.memory_id, self.namespace)
        return None if memory is None else (hit, memory)
