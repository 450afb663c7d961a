"""Rollouts in flight for compiled passes: a prompt's keys and values lie once for all its rows.

Builds on backbone, fused and batches. What rows draw goes into slots of tiles, which the next rows take over; nothing
is copied when rows end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tacit.engines.batches import Row, prompts_of
from tacit.engines.checks import past_of
from tacit.model.backbone import Backbone
from tacit.model.fused.model import MIN_ROWS, Fused, up


@dataclass(eq=False)
class _Prompt:
    """A request's prompt in the batch: tiles [layers, ...], and where they begin among all."""

    tiles: np.ndarray
    columns: int
    rows: int
    begin: int = 0


class FusedBatch:
    """A batch for ``Fused``; implements ``Batch``. Prompts lie once for all their rows; rows have slots of tiles."""

    def __init__(self, backbone: Backbone, fused: Fused) -> None:
        self.backbone, self.fused = backbone, fused
        self._prompts: dict[int, _Prompt] = {}  # by ticket
        self._tables = self._own = np.zeros((fused.layers, 0), np.float32)
        self._tiles = 0
        self._free: list[int] = []
        self._slots = 0

    def start(self, groups: Sequence[Sequence[Row]]) -> None:
        """See ``Batch.start``."""
        for group, embeds in zip(groups, prompts_of(self.backbone, groups), strict=True):
            spec = group[0].spec
            past = None if spec.past is None else (spec.past.keys, spec.past.values)
            tiles = self.fused.prefill(embeds, past)
            self._prompts[group[0].ticket] = _Prompt(tiles, past_of(spec) + len(embeds), len(group))
        self._lay()
        rows = [row for group in groups for row in group]
        self._grow(len(rows), max(up(row.spec.max_tokens) // up(1) for row in rows))
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
        feed = torch.tensor([row.feed for row in rows] + [rows[0].feed] * (MIN_ROWS - len(rows)))
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
        grown = np.zeros((fused.layers, self._slots + more, fused.kv, tiles, 2 * up(1) * fused.head_dim), np.float32)
        if self._slots:
            held = self._own.reshape(fused.layers, self._slots, fused.kv, self._tiles, -1)
            grown[:, : self._slots, :, : self._tiles] = held
        self._free = [*range(self._slots, self._slots + more), *self._free]
        self._own, self._tiles, self._slots = grown.reshape(fused.layers, -1), tiles, self._slots + more
