"""The common decoder on a CPU, near what its matrix products cost: compiled loops between them, and no autograd.

Builds on forward (numba) and the decoder's joined weights. Through PyTorch alone, a pass over a small model is mostly
calls. Attention of single tokens reads a prompt again for each of its rollouts. Here a pass is one call: four products
a layer, with compiled loops between them. Weights are laid out so that a product of eight rows runs near the speed of
one of a thousand; a prompt's keys and values lie once in memory for all rollouts of it (forward.py).

For small float32 models that ``Decoder`` supports, with head sizes that are multiples of 32. In larger ones the loops
stand between PyTorch's products (woven.py). Others take PyTorch's way, with the same results up to rounding. Every row,
and every prompt, is computed in the same way whatever else is computed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tacit.model.decoder import Decoder, Product
from tacit.model.fused import forward
from tacit.model.fused.forward import TILE
from tacit.model.fused.lanes import blas

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone
    from tacit.model.fused.gradient import GroupPass

LARGEST = 1 << 22
"""Weights of the joined projections at most: a call costs less than the better products of a larger model bring (log,
2026-12-01-compiled-gradients)."""

Floats = np.ndarray
"""Flat, contiguous float32."""


Asked = tuple[Tensor, Tensor | None]
"""Token ids [T] of a prompt, and the soft prompt before them."""

NONE: Floats = np.zeros(0, np.float32)


def up(count: int) -> int:
    """The least multiple of a tile's columns that is >= count (and > 0)."""
    return -(-max(count, 1) // TILE) * TILE


def flat(tensor: Tensor) -> Floats:
    """A contiguous CPU tensor's values, flat, in place."""
    values: Floats = tensor.view(-1).numpy()
    return values


class Passes:
    """What compiled passes know of a model.

    Args:
        decoder: of a float32 model on the CPU for which ``supports`` is true.
        dim: width of the model.

    Attributes:
        least_rows: rows of a product at least. For fewer, the library takes other paths, whose sums differ in the last
            bit; for weights as they lie here, four are enough.
        tile_size: values of a tile: keys and values of 16 tokens, one head's.
    """

    least_rows = 4

    def __init__(self, decoder: Decoder, dim: int) -> None:
        self.heads, self.kv, self.head_dim = decoder.heads, decoder.kv_heads, decoder.head_dim
        self.dim, self.hidden, self.eps = dim, int(decoder.blocks[0].down.weight.shape[1]), decoder.eps
        self.layers = len(decoder.blocks)
        self.norm, self.vocabulary = flat(decoder.norm), len(decoder.head.weight)
        self.scores = decoder.head
        self.tile_size = 2 * TILE * self.head_dim
        self._rotary = decoder.rotary
        self._cos, self._sin = np.empty(0, np.float32), np.empty(0, np.float32)

    @staticmethod
    def supports(decoder: Decoder, dim: int) -> bool:
        """Whether widths fit registers, and angles depend on positions alone."""
        fixed = getattr(decoder.rotary, "rope_type", "default") in ("default", "linear", "llama3", "yarn")
        widths = (dim, decoder.blocks[0].down.weight.shape[1])
        return (
            fixed
            and decoder.norm.dtype == torch.float32
            and decoder.norm.device.type == "cpu"
            and decoder.head_dim % (2 * TILE) == 0
            and decoder.head.bias is None
            and all(width % TILE == 0 for width in widths)
        )

    def angles(self, count: int) -> tuple[Floats, Floats]:
        """Cosines and sines of the first ``count`` positions (at least), half a head's width each."""
        half = self.head_dim // 2
        held = self._cos, self._sin
        if len(held[0]) < count * half:
            cos, sin = self._rotary(torch.zeros(1), torch.arange(2 * count)[None])
            held = flat(cos[0, :, :half].contiguous()), flat(sin[0, :, :half].contiguous())
            self._cos, self._sin = held
        return held

    def shape(self) -> tuple[int, ...]:
        """See forward.py."""
        return self.layers, self.dim, self.heads, self.kv, self.head_dim, self.hidden, self.vocabulary

    def group(self, prompt: int, lengths: list[int]) -> GroupPass:
        """A pass over a prompt of so many tokens and rollouts of so many."""
        raise NotImplementedError

    @staticmethod
    def tiles(count: int) -> int:
        """Tiles that so many tokens fill."""
        return up(count) // TILE


class Fused(Passes):
    """See the module's docstring."""

    def __init__(self, decoder: Decoder, dim: int) -> None:
        super().__init__(decoder, dim)
        address = blas()
        assert address is not None
        first = decoder.blocks[0]
        head = decoder.head.weight.detach()
        self.scores = Product(head, None, arrange=False)
        normed, biased = first.head_norms is not None, (first.qkv.bias is not None, first.out.bias is not None)
        packed = [_in_order(block) for block in decoder.blocks]
        places = tuple(int(place) for place in np.cumsum([0, *(len(part) for part in packed[0])]))
        weights: Floats = np.concatenate([part for parts in packed for part in parts])
        self.model = (address, self.shape(), places, weights, self.eps, normed, biased)
        self.head = flat(head.t().contiguous())

    @staticmethod
    def supports(decoder: Decoder, dim: int) -> bool:
        """Whether the model is small, besides."""
        weights = sum(one.weight.numel() for block in decoder.blocks for one in (block.qkv, block.gate_up))
        return Passes.supports(decoder, dim) and weights <= LARGEST

    def group(self, prompt: int, lengths: list[int]) -> GroupPass:
        """See ``Passes.group``."""
        from tacit.model.fused.gradient import FusedGroup

        return FusedGroup(self, prompt, lengths)

    def prefill(self, backbone: Backbone, prompts: Sequence[Asked]) -> list[tuple[int, np.ndarray]]:
        """Of each prompt its columns, and their keys and values as tiles [layers, ...]."""
        embedded = [backbone.carrier.read(backbone.embed(ids), soft_prompt) for ids, soft_prompt in prompts]
        return [(len(embeds), self._prefill(embeds)) for embeds in embedded]

    def _prefill(self, embeds: Tensor) -> np.ndarray:
        count = len(embeds)
        if not count:
            return np.zeros((self.layers, 0), np.float32)
        x = torch.zeros(max(count, self.least_rows), self.dim)
        x[:count] = embeds
        packed = np.zeros((self.layers, self.tiles(count) * self.kv * self.tile_size), np.float32)
        forward.prompt(*self.model, *self.angles(count), flat(x), len(x), count, packed)
        return packed

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
        """Logits [R, V] of one new token a row.

        Args:
            embeds: float32 [R, d], R at least ``least_rows``; of rows beyond ``position`` nothing is asked.
            position: int64, of each row's token.
            prompts: tiles [layers, ...]; where each row's prompt begins in them; its columns.
            own: tiles [layers, ...] of what rows have drawn, [slots, kv heads, ``tiles``] of them in every layer.
            slot, column: int64, where each row's token is written, and read with all of the row before it.
        """
        rows = len(embeds)
        logits = torch.empty(rows, self.vocabulary)
        forward.step(
            *self.model[:4], self.norm, self.head, *self.model[4:], *self.angles(int(position.max()) + 1),
            flat(embeds.clone()), rows, len(position), position, *prompts, own, slot, column, tiles, flat(logits),
        )  # fmt: skip
        return logits[: len(position)]


def _in_order(block: Any) -> list[Floats]:
    """The weights of a layer in the order of forward.py's ``places``, products as [inputs, outputs]."""

    def whole(weight: Tensor | None) -> Floats:
        return flat(weight.detach().contiguous()) if weight is not None else NONE

    def turned(product: Product) -> Floats:
        return flat(product.weight.detach().t().contiguous())

    return [
        whole(block.attention_norm), turned(block.qkv), whole(block.qkv.bias), whole(block.head_norms),
        turned(block.out), whole(block.out.bias), whole(block.mlp_norm), turned(block.gate_up), turned(block.down),
    ]  # fmt: skip
