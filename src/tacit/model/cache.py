"""A key/value cache for ragged batches in which a column *is* a position.

Builds on transformers' Cache interface. Every sequence starts at column 0 and grows to the right by itself, whatever
its neighbours' lengths. Two things follow. A query at position p sees exactly the columns <= p, so one comparison makes
the mask. Padding is always behind what is read, and the capacity a multiple of 32. So the masked tail adds exact zeros
to reductions in the same order: a row computes the same bits in any batch (docs/concepts.md, "Same bits").

The cache is functional where gradients flow: a prefix computed once can be repeated for a group of rollouts and
extended. Autograd sums the group's gradients into it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 32  # columns are allotted in blocks: vectorised reductions then split a row the same way at any capacity


def round_up(n: int, block: int = BLOCK) -> int:
    """The least multiple of ``block`` that is >= n (and > 0)."""
    return max(block, -(-n // block) * block)


class _Layer(CacheLayerMixin):
    """Keys and values of one layer; see RaggedCache."""

    is_sliding = False

    def __init__(self, owner: RaggedCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Weakly: a cycle would keep a dropped cache, gigabytes of it, until Python happens to look for cycles, which it
        # does by the number of objects and not by their size.
        self.owner: RaggedCache = weakref.proxy(owner)
        self.keys: Any = None  # [R, heads, capacity, head_dim] once written
        self.values: Any = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.is_initialized = True
        self.keys = self.owner.write(self.keys, key_states)
        self.values = self.owner.write(self.values, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.capacity, 0

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.owner.capacity

    def get_max_length(self) -> int:
        return -1


class RaggedCache(Cache):
    """Keys and values [R, heads, capacity, head_dim] per layer, written at per-row columns.

    Attributes:
        added: [R, layers, d] what a pass adds to each row's residual stream after each layer; None for nothing.
    """

    def __init__(self, layers: int, added: Tensor | None = None) -> None:
        self.added = added
        self.parts = [_Layer(self) for _ in range(layers)]
        super().__init__(layers=list(self.parts))
        self.capacity = 0
        self._columns = torch.zeros(0)

    @property
    def keys(self) -> list[Tensor]:
        """Keys of every layer."""
        return [part.keys for part in self.parts]

    @property
    def values(self) -> list[Tensor]:
        """Values of every layer."""
        return [part.values for part in self.parts]

    def begin(self, positions: Tensor) -> int:
        """Announce the columns [R, T] that the coming forward pass writes; returns the capacity it will see."""
        fresh = self.parts[0].keys is None
        self._columns = positions
        if fresh:  # a first pass always starts at column 0
            self.capacity = max(self.capacity, round_up(positions.shape[1]))
        return self.capacity

    def reserve(self, columns: int) -> None:
        """Make room for at least ``columns`` columns."""
        wanted = round_up(columns)
        if wanted <= self.capacity:
            return
        grown = wanted - self.capacity
        self.capacity = wanted
        for layer in self.parts:
            if layer.keys is not None:
                layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, 0, grown))
                layer.values = torch.nn.functional.pad(layer.values, (0, 0, 0, grown))

    def write(self, held: Tensor | None, states: Tensor) -> Tensor:
        """``held`` with ``states`` [R, heads, T, head_dim] at the announced columns (in place without autograd)."""
        if held is None:
            return torch.nn.functional.pad(states, (0, 0, 0, self.capacity - states.shape[2]))
        index = self._columns[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        if torch.is_grad_enabled() and (held.requires_grad or states.requires_grad):
            return held.scatter(2, index, states)
        return held.scatter_(2, index, states)

    def put(self, layer: int, rows: Tensor, columns: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write states [N, heads, head_dim] at ``rows`` and ``columns`` [N] of a layer; its keys and values.

        In place, also where gradients flow: what was there before is read by nobody's backward pass (``take`` and
        ``reserve`` keep their indices alone).
        """
        part = self.parts[layer]
        part.is_initialized = True
        if part.keys is None:
            shape = (int(rows[-1]) + 1, keys.shape[1], self.capacity, keys.shape[2])
            part.keys, part.values = keys.new_zeros(shape), values.new_zeros(*shape[:3], values.shape[2])
        for held, states in ((part.keys, keys), (part.values, values)):
            held.transpose(1, 2).index_put_((rows, columns), states)
        return part.keys, part.values

    def move(self, sources: Tensor, targets: Tensor, kept: int) -> None:
        """Copy rows over others and keep the first ``kept``, in place, which is cheap where most stay."""
        for part in self.parts:
            for name in ("keys", "values"):
                held = getattr(part, name)
                held[targets] = held[sources]
                setattr(part, name, held[:kept])
        if self.added is not None:
            self.added[targets] = self.added[sources]
            self.added = self.added[:kept]

    def take(self, rows: Tensor) -> RaggedCache:
        """A cache of the given rows [S] (int64), in that order; repetition allowed, gradients flow."""
        taken = RaggedCache(len(self.parts), None if self.added is None else self.added.index_select(0, rows))
        taken.capacity = self.capacity
        for new, old in zip(taken.parts, self.parts, strict=True):
            new.keys, new.values = old.keys.index_select(0, rows), old.values.index_select(0, rows)
        return taken

    def join(self, other: RaggedCache) -> RaggedCache:
        """The rows of both, at the larger capacity."""
        columns = max(self.capacity, other.capacity)
        self.reserve(columns)
        other.reserve(columns)
        both = None if self.added is None or other.added is None else torch.cat([self.added, other.added])
        joined = RaggedCache(len(self.parts), both)
        joined.capacity = columns
        for new, a, b in zip(joined.parts, self.parts, other.parts, strict=True):
            new.keys, new.values = torch.cat([a.keys, b.keys]), torch.cat([a.values, b.values])
        return joined
