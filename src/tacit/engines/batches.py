"""Rollouts in flight, as a model sees them: what to feed next, and the logits that come of it; and how likely it finds
tokens that are given.

Builds on backbone, cache, fused and the engine protocol. A request's prompt is prefilled once, all but its last token;
its rows share those keys and values, and start by feeding that last token. So logits are computed only where a token is
drawn. ``FusedBatch`` is for models with compiled passes, ``RaggedBatch`` for every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.engines.base import Alternatives, Request, Rollout, distribution, most_likely
from tacit.model.backbone import Backbone, prefill, prompt_embeddings
from tacit.model.cache import RaggedCache

if TYPE_CHECKING:
    from tacit.engines.grammar import Follower
    from tacit.model.fused.model import Fused
    from tacit.model.fused.woven import Woven

SCORED_AT_ONCE = 512
"""Tokens whose logits are made together; they take as many times the vocabulary floats."""


@dataclass(eq=False)
class Row:
    """One rollout in flight; ``rollout`` once it is over.

    Attributes:
        feed: the token to feed next.
        position: its position in the sequence.
        slot: its place in the batch.
        follower: its place in the grammar that it follows, if any.
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
    follower: Follower | None = None


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


def batch_for(backbone: Backbone) -> Batch:
    """An empty batch, of the kind that suits the model."""
    steps = backbone.steps
    return RaggedBatch(backbone) if steps is None else FusedBatch(backbone, steps)


class RaggedBatch:
    """A batch in a RaggedCache; implements ``Batch``."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._slots: list[Row | None] = []
        self._cache: RaggedCache | None = None

    def start(self, groups: Sequence[Sequence[Row]]) -> None:
        """See ``Batch.start``."""
        specs = [group[0].spec for group in groups]
        prompts = [prompt_embeddings(self.backbone, spec.ids[:-1], spec.soft_prompt) for spec in specs]
        cache = prefill(self.backbone, prompts, [spec.soft_prompt for spec in specs])
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
        live, least = [slot for slot, row in enumerate(slots) if row is not None], self.backbone.least_rows
        if len(slots) < least:
            idle = least - len(live)
            self._cache = cache.take(self._index(live + [live[0]] * idle))
            self._slots = [*(slots[slot] for slot in live), *[None] * idle]
        # Moving rows costs about as much as a few tokens: compact when a quarter of the rows is idle.
        elif len(live) <= 0.75 * len(slots) and len(slots) > least:
            kept = max(least, len(live))
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


@dataclass(eq=False)
class _Prompt:
    """A request's prompt in the batch: tiles [layers, ...], and where they begin among all."""

    tiles: np.ndarray
    columns: int
    rows: int
    begin: int = 0


class FusedBatch:
    """A batch for ``Fused``; implements ``Batch``. A prompt's keys and values lie once for all its rows; what rows draw
    goes into slots of tiles, which the next rows take over: nothing is copied when rows end."""

    def __init__(self, backbone: Backbone, fused: Fused | Woven) -> None:
        self.backbone, self.fused = backbone, fused
        self._prompts: dict[int, _Prompt] = {}  # by ticket
        self._tables = self._own = np.zeros((fused.layers, 0), np.float32)
        self._tiles = 0
        self._free: list[int] = []
        self._slots = 0

    def start(self, groups: Sequence[Sequence[Row]]) -> None:
        """See ``Batch.start``."""
        prompts = [(group[0].spec.ids[:-1], group[0].spec.soft_prompt) for group in groups]
        for group, (columns, tiles) in zip(groups, self.fused.prefill(self.backbone, prompts), strict=True):
            self._prompts[group[0].ticket] = _Prompt(tiles, columns, len(group))
        self._lay()
        rows = [row for group in groups for row in group]
        self._grow(len(rows), max(self.fused.tiles(row.spec.max_tokens) for row in rows))
        for row in rows:
            row.slot = self._free.pop()

    def drop(self, rows: Sequence[Row]) -> None:
        """See ``Batch.drop``."""
        for row in rows:
            self._free.append(row.slot)
            prompt = self._prompts[row.ticket]
            prompt.rows -= 1
            if not prompt.rows:
                del self._prompts[row.ticket]
        if not self._prompts:
            self._tables = self._own = np.zeros((self.fused.layers, 0), np.float32)
            self._free, self._slots, self._tiles = [], 0, 0

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See ``Batch.logits``."""
        prompts = [self._prompts[row.ticket] for row in rows]
        begin = np.array([prompt.begin for prompt in prompts])
        before = np.array([prompt.columns for prompt in prompts])
        position = np.array([row.position for row in rows])
        feed = torch.tensor([row.feed for row in rows] + [rows[0].feed] * (self.fused.least_rows - len(rows)))
        slot = np.array([row.slot for row in rows])
        return self.fused.step(
            self.backbone.embed(feed), position, (self._tables, begin, before), self._own, slot, position - before,
            self._tiles,
        )  # fmt: skip

    def _lay(self) -> None:
        """All prompts, one behind the other."""
        begin = 0
        for prompt in self._prompts.values():
            prompt.begin = begin
            begin += prompt.tiles.shape[1]
        self._tables = np.concatenate([prompt.tiles for prompt in self._prompts.values()], axis=1)

    def _grow(self, rows: int, tiles: int) -> None:
        """Room for ``rows`` more rows, with ``tiles`` each at least."""
        more = max(0, rows - len(self._free))
        tiles = max(tiles, self._tiles)
        if not more and tiles == self._tiles:
            return
        if more:  # twice as many at least, since each growth copies what is there
            more = max(more, self._slots)
        fused = self.fused
        # Zeros, which the system hands out as they are touched: what was never written is read, times nothing.
        grown = np.zeros((fused.layers, self._slots + more, fused.kv, tiles, fused.tile_size), np.float32)
        if self._slots:
            held = self._own.reshape(fused.layers, self._slots, fused.kv, self._tiles, -1)
            grown[:, : self._slots, :, : self._tiles] = held
        self._free = [*range(self._slots, self._slots + more), *self._free]
        self._own, self._tiles, self._slots = grown.reshape(fused.layers, -1), tiles, self._slots + more


def scores(
    backbone: Backbone, cache: RaggedCache, start: int, embeds: Tensor, targets: Tensor, spec: Request
) -> list[tuple[float, Alternatives]]:
    """The log-prob of a token after each of some embeddings, and the most likely tokens (``spec.top``) in its place.

    Args:
        backbone: the model.
        cache: one row, of what stands before them.
        start: the position of the first.
        embeds: [T, d].
        targets: token ids [T].
        spec: the request of whose distribution they are.
    """
    found: list[tuple[float, Alternatives]] = []
    cache.reserve(start + len(embeds))
    for at in range(0, len(embeds), SCORED_AT_ONCE):
        part, wanted = embeds[at : at + SCORED_AT_ONCE], targets[at : at + SCORED_AT_ONCE].to(embeds.device)
        positions = torch.arange(start + at, start + at + len(part), device=embeds.device)[None]
        logits = backbone.forward(part[None], positions, cache)[0].float()
        logprobs = distribution(logits, [spec] * len(part))
        found += zip(logprobs.gather(1, wanted[:, None])[:, 0].tolist(), most_likely(logprobs, spec.top), strict=True)
    return found
