"""Larger models on the CPU: compiled loops between products that oneDNN arranged.

Builds on forward, gradient, loops and the decoder. Of a step through PyTorch two fifths are not products: attention
reads every row up to the longest one, and norms and rotations are calls of their own. Here compiled loops stand in
between, and keys and values lie in tiles. A step leaves Python once a product, which a small model would feel.
Attention is divided over the threads that products take, a row at a time; which thread takes it changes nothing.

Gradients are those of gradient.py, with the same products. Prompts are read by the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from tacit.model.decoder import Decoder, product
from tacit.model.fused.forward import attend_tokens, pack, split_tokens
from tacit.model.fused.gradient import (
    GATED,
    INPUT,
    MIDDLE,
    PROJECTED,
    GroupPass,
    Q,
    attend_group,
    attention_backward,
)
from tacit.model.fused.lanes import (
    LANES,
    add,
    blas,
    by_address,
    compiled,
    floats_at,
    load,
    shared,
    store,
    taken,
    whole_at,
)
from tacit.model.fused.loops import norm_rows, norm_rows_backward, silu_mul, silu_mul_backward
from tacit.model.fused.model import NONE, Asked, Floats, Passes, flat, up

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone
    from tacit.model.cache import RaggedCache

carray: Any = numba.carray  # type: ignore[attr-defined]

ENDLESS = 1 << 40
NUMBERS = 20
"""Of what ``_attend`` works on."""
WORTH_KEEPING = 8
"""Tokens of an opening at least."""


@compiled
def add_and_norm(x: Any, more: Any, rows: int, width: int, weight: Any, eps: float, out: Any) -> None:
    """x += more, where there is more; out = the normed x."""
    for i in range(0, len(more), LANES):
        store(x, i, add(load(x, i), load(more, i)))
    norm_rows(x, rows, width, weight, eps, out)


@compiled
def floats(address: int) -> Any:
    """The float32 numbers there, without an end."""
    return carray(floats_at(address), ENDLESS)


@compiled
def whole(address: int) -> Any:
    """The int64 numbers there, without an end."""
    return carray(whole_at(address), ENDLESS)


@by_address
def _attend(address: Any) -> None:
    """Queries, keys, values and attention of rows, until none is left; for the numbers see ``Woven.step``."""
    table = carray(address, NUMBERS)
    rows, heads, kv, dim, tiles = table[1], table[2], table[3], table[4], table[5]
    position, slot, column = whole(table[7]), whole(table[8]), whole(table[9])
    begin, before = whole(table[10]), whole(table[11])
    eps, cos, sin, out = floats(table[12])[0], floats(table[13]), floats(table[14]), floats(table[15])
    norms, prompts, own, qkv = floats(table[16]), floats(table[17]), floats(table[18]), floats(table[19])
    query, after = np.empty(heads * dim, np.float32), np.empty(1, np.int64)
    row = taken(table)
    while row < rows:
        split_tokens(
            qkv[row * (heads + 2 * kv) * dim :], 1, heads, kv, dim, norms, table[6] != 0, eps, cos, sin,
            position[row : row + 1], slot[row : row + 1], column[row : row + 1], tiles, query, own,
        )  # fmt: skip
        after[0] = column[row] + 1
        attend_tokens(
            query, 1, heads, kv, dim, prompts, begin[row : row + 1], before[row : row + 1], own, slot[row : row + 1],
            after, tiles, dim**-0.5, out[row * heads * dim :],
        )  # fmt: skip
        row = taken(table)


class Woven(Passes):
    """See the module's docstring; where one finds ``Fused``, one finds this."""

    def __init__(self, decoder: Decoder, dim: int) -> None:
        super().__init__(decoder, dim)
        self.least_rows = decoder.least_rows
        self.decoder = decoder
        self._openings: dict[str, tuple[Tensor, RaggedCache | None]] = {}
        self.norms = [NONE if block.head_norms is None else flat(block.head_norms) for block in decoder.blocks]

    def group(self, prompt: int, lengths: list[int]) -> GroupPass:
        """See ``Passes.group``."""
        return WovenGroup(self, prompt, lengths)

    def prefill(self, backbone: Backbone, prompts: Sequence[Asked]) -> list[tuple[int, np.ndarray]]:
        """See ``Fused.prefill``. What all prompts of a template begin with is read once."""
        from tacit.model.backbone import prefill, prompt_embeddings

        opening, after = self._opening(backbone)
        known = len(opening)
        opened = [prompt is None and known > 0 and torch.equal(ids[:known], opening) for ids, prompt in prompts]
        found: dict[int, tuple[int, np.ndarray]] = {}
        for there, start, before in ((False, 0, None), (True, known, after)):
            places = [place for place, one in enumerate(opened) if one is there]
            if places:
                embeds = [prompt_embeddings(backbone, prompts[at][0][start:], prompts[at][1]) for at in places]
                cache = prefill(backbone, embeds, [None] * len(embeds), before, start)
                for row, (place, one) in enumerate(zip(places, embeds, strict=True)):
                    found[place] = start + len(one), self._packed(cache, row, start + len(one))
        return [found[place] for place in range(len(prompts))]

    def _opening(self, backbone: Backbone) -> tuple[Tensor, RaggedCache | None]:
        """Token ids that every prompt of the template begins with, and the cache after them; of few, none."""
        from tacit.model.backbone import prefill

        held = self._openings.get(backbone.fingerprint)
        if held is None:
            ids = backbone.opening()
            held = (ids[:0], None)
            if len(ids) >= WORTH_KEEPING:
                held = (ids, prefill(backbone, [backbone.embed(ids)], [None]))
            self._openings = {backbone.fingerprint: held}  # one, since a process asks in one way or two
        return held

    def _packed(self, cache: RaggedCache, row: int, count: int) -> np.ndarray:
        """The tiles of a row's first ``count`` columns."""
        tiles = np.zeros((self.layers, self.tiles(count) * self.kv * self.tile_size if count else 0), np.float32)
        for layer in range(self.layers if count else 0):
            held = (states[layer][row, :, : up(count)].contiguous() for states in (cache.keys, cache.values))
            pack(*map(flat, held), self.kv, count, self.head_dim, tiles[layer])
        return tiles

    def step(
        self,
        embeds: Tensor,
        position: np.ndarray,
        prompts: tuple[np.ndarray, np.ndarray, np.ndarray],
        own: np.ndarray,
        slot: np.ndarray,
        column: np.ndarray,
        tiles: int,
    ) -> Tensor:
        """See ``Fused.step``."""
        rows, threads, eps = len(embeds), torch.get_num_threads(), np.full(1, self.eps, np.float32)
        x, more, normed = flat(embeds.clone()), NONE, torch.empty(rows, self.dim)
        mixed, active = torch.zeros(rows, self.heads * self.head_dim), torch.empty(rows, self.hidden)
        read = (position, slot, column, *prompts[1:], eps, *self.angles(int(position.max()) + 1), flat(mixed))
        table = np.zeros(NUMBERS, np.int64)
        table[1:6] = len(position), self.heads, self.kv, self.head_dim, tiles
        table[7:16] = [_place(held) for held in read]
        for number, (block, norms) in enumerate(zip(self.decoder.blocks, self.norms, strict=True)):
            add_and_norm(x, more, rows, self.dim, flat(block.attention_norm), self.eps, flat(normed))
            qkv = flat(block.qkv(normed))
            table[0], table[6] = 0, len(norms)
            table[16:] = [_place(held) for held in (norms, prompts[0][number], own[number], qkv)]
            shared(_attend, table, threads)
            more = flat(block.out(mixed))
            add_and_norm(x, more, rows, self.dim, flat(block.mlp_norm), self.eps, flat(normed))
            silu_mul(flat(block.gate_up(normed)), rows, self.hidden, flat(active))
            more = flat(block.down(active))
        add_and_norm(x, more, rows, self.dim, self.norm, self.eps, flat(normed))
        return self.decoder.head(normed)[: len(position)]


class WovenGroup(GroupPass):
    """Of a larger model, a product at a time."""

    passes: Woven

    def _forward(self, embeds: Tensor, kept: Floats) -> tuple[Tensor, Tensor]:
        woven, dim = self.passes, self.passes.dim
        tokens, prompt = len(embeds), self.prompt
        normed, mixed = torch.empty(tokens, dim), torch.empty(tokens, woven.heads * woven.head_dim)
        active, states = torch.empty(tokens, woven.hidden), torch.empty(self.own, dim)
        x, more = flat(embeds.clone()), NONE
        for layer, (block, norms) in enumerate(zip(woven.decoder.blocks, woven.norms, strict=True)):
            part, final = self._part(kept, layer), layer == woven.layers - 1
            add_and_norm(x, more, tokens, dim, flat(block.attention_norm), woven.eps, flat(normed))
            self._put(part, INPUT, x)
            self._put(part, PROJECTED, flat(block.qkv(normed)))
            attend_group(*self._attention(norms), part, final, flat(mixed))
            if final:  # of the last layer nobody asks for what the prompt sees
                tokens, x = self.own, x[prompt * dim :]
            more = flat(block.out(mixed[:tokens]))
            add_and_norm(x, more, tokens, dim, flat(block.mlp_norm), woven.eps, flat(normed))
            self._put(part, MIDDLE, x)
            gated = flat(block.gate_up(normed[:tokens]))
            self._put(part, GATED, gated)
            silu_mul(gated, tokens, woven.hidden, flat(active))
            more = flat(block.down(active[:tokens]))
        add_and_norm(x, more, tokens, dim, woven.norm, woven.eps, flat(states))
        return torch.from_numpy(x).view(-1, dim), states

    def _backward(self, kept: Floats, last: Tensor, slopes: Tensor, soft: int) -> Tensor:
        woven, dim, tokens = self.passes, self.passes.dim, self.prompt + self.own
        gradient, gated = torch.zeros(self.own, dim), torch.empty(tokens, 2 * woven.hidden)
        back = np.empty(self.keep[MIDDLE], np.float32)
        projected = torch.from_numpy(back[self.keep[PROJECTED] : self.keep[Q]]).view(tokens, -1)
        norm_rows_backward(flat(last), self.own, dim, woven.norm, woven.eps, flat(slopes), flat(gradient))
        for layer in reversed(range(woven.layers)):
            block, part, final = woven.decoder.blocks[layer], self._part(kept, layer), layer == woven.layers - 1
            count = len(gradient)
            active = flat(product(gradient, block.down.weight.t()))
            silu_mul_backward(part[self.keep[GATED] :], count, woven.hidden, active, flat(gated))
            normed = flat(product(gated[:count], block.gate_up.weight.t()))
            middle = part[self.keep[MIDDLE] :]
            norm_rows_backward(middle, count, dim, flat(block.mlp_norm), woven.eps, normed, flat(gradient))
            mixed = flat(product(gradient, block.out.weight.t()))
            attention_backward(*self._attention(woven.norms[layer]), part, final, layer == 0, mixed, back)
            if final:
                gradient = torch.cat([torch.zeros(self.prompt, dim), gradient])
            wanted = tokens if layer else soft
            normed = flat(product(projected[:wanted], block.qkv.weight.t()))
            norm_rows_backward(part, wanted, dim, flat(block.attention_norm), woven.eps, normed, flat(gradient))
        return gradient[:soft].clone()

    def _part(self, kept: Floats, layer: int) -> Floats:
        return kept[layer * self.keep[-1] : (layer + 1) * self.keep[-1]]

    def _put(self, part: Floats, which: int, values: Floats) -> None:
        part[self.keep[which] : self.keep[which] + len(values)] = values

    def _attention(self, norms: Floats) -> tuple[Any, ...]:
        woven = self.passes
        return blas(), woven.shape(), norms, len(norms) > 0, woven.eps, *self._angles, *self._group


def _place(array: np.ndarray) -> int:
    """Where in memory an array lies."""
    return int(array.__array_interface__["data"][0])
