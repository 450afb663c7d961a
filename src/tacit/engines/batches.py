"""Rollouts in flight, as a model sees them: what to feed next, and the logits that come of it.

Builds on backbone, cache, prefill and the engine protocol. A request's prompt is prefilled once, all but its last
token; its rows share those keys and values, and start by feeding that last token, so that logits are computed only
where a token is drawn. ``FusedBatch`` (fused_batch.py) is for small models on the CPU, ``RaggedBatch`` for every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tacit.engines.base import Alternatives, Request, Rollout
from tacit.engines.prefill import MIN_ROWS, prefill, prompt_embeddings
from tacit.model.backbone import Backbone
from tacit.model.cache import RaggedCache


@dataclass(eq=False)
class Row:
    """One rollout in flight; ``rollout`` once it is over.

    Attributes:
        feed: the token to feed next.
        position: its position in the sequence.
        slot: its place in the batch.
    """

    ticket: int
    index: int
    spec: Request
    draws: list[float]
    feed: int
    position: int
    slot: int = -1
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    rollout: Rollout | None = None


class Batch(Protocol):
    """What a session asks of a batch."""

    def start(self, groups: Sequence[Sequence[Row]]) -> None:
        """Prefill requests, whose rows are given, and join them to the batch."""
        ...

    def drop(self, rows: Sequence[Row]) -> None:
        """Rows that are over."""
        ...

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Float32 logits [R, V] after each row's ``feed``; ``rows`` are all that are in flight, in any order."""
        ...


def prompts_of(backbone: Backbone, groups: Sequence[Sequence[Row]]) -> list[Tensor]:
    return [prompt_embeddings(backbone, group[0].spec.ids[:-1], group[0].spec.soft_prompt) for group in groups]


class RaggedBatch:
    """A batch in a RaggedCache; implements ``Batch``."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._slots: list[Row | None] = []
        self._cache: RaggedCache | None = None

    def start(self, groups: Sequence[Sequence[Row]]) -> None:
        """See ``Batch.start``."""
        pasts = [group[0].spec.past for group in groups]
        cache = prefill(self.backbone, prompts_of(self.backbone, groups), pasts)
        rows = [row for group in groups for row in group]
        cache.reserve(max(row.position + row.spec.max_tokens for row in rows))  # while it has a row per request only
        cache = cache.take(self._index([place for place, group in enumerate(groups) for _ in group]))
        live = [slot for slot, row in enumerate(self._slots) if row is not None]
        if live:
            assert self._cache is not None
            held = self._cache if len(live) == len(self._slots) else self._cache.take(self._index(live))
            cache = held.join(cache)
        self._slots = [*(self._slots[slot] for slot in live), *rows]
        self._cache = cache
        self._number()

    def drop(self, rows: Sequence[Row]) -> None:
        """See ``Batch.drop``."""
        for row in rows:
            self._slots[row.slot] = None
        if not any(self._slots):
            self._slots, self._cache = [], None

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See ``Batch.logits``."""
        self._compact()
        device, slots, cache, first = self.backbone.device, self._slots, self._cache, rows[0]
        assert cache is not None
        # Idle slots repeat a live row's token at column 0: harmless, since nobody reads them.
        feed = torch.tensor([[row.feed if row else first.feed] for row in slots], device=device)
        positions = torch.tensor([[row.position if row else 0] for row in slots], device=device)
        logits = self.backbone.forward(self.backbone.embed(feed), positions, cache)[:, 0].float()
        places = [row.slot for row in rows]  # compaction has put them in another order
        return logits if places == list(range(len(slots))) else logits[self._index(places)]

    def _compact(self) -> None:
        """Bring the batch to the size that its live rows need."""
        slots, cache = self._slots, self._cache
        assert cache is not None
        live = [slot for slot, row in enumerate(slots) if row is not None]
        if len(slots) < MIN_ROWS:
            idle = MIN_ROWS - len(live)
            self._cache = cache.take(self._index(live + [live[0]] * idle))
            self._slots = [*(slots[slot] for slot in live), *[None] * idle]
        # Moving rows costs about as much as a few tokens: compact when a quarter of the rows is idle.
        elif len(live) <= 0.75 * len(slots) and len(slots) > MIN_ROWS:
            kept = max(MIN_ROWS, len(live))
            sources = [slot for slot in live if slot >= kept]
            targets = [slot for slot in range(kept) if slots[slot] is None][: len(sources)]
            cache.move(self._index(sources), self._index(targets), kept)
            for source, target in zip(sources, targets, strict=True):
                slots[target] = slots[source]
            self._slots = slots[:kept]
        self._number()

    def _number(self) -> None:
        for slot, row in enumerate(self._slots):
            if row is not None:
                row.slot = slot

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), dtype=torch.int64, device=self.backbone.device)
