"""The policy gradient of one group of rollouts on a CPU: forward and backward pass written out.

Builds on model and the compiled passes. What ``gradients.policy_loss`` and autograd compute (a loss of - A_i log pi
summed over a group's tokens, its gradient in the soft prompt), with nothing computed that the soft prompt has no use
for: prompt and rollouts are ragged rows of one matrix, the prompt once for all rollouts; of the last layer the prompt
has keys and values alone; in the first, only the soft prompt's rows go back through the projections. A group is a pass
of its own, so what is learned beside it changes no bit.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from tacit.model.fused import backward, loops, loops_backward
from tacit.model.fused.model import NONE, Floats, Fused, flat, up
from tacit.model.logprobs import logprobs_and_slopes

FLOATS_KEPT = 1 << 27
"""Most values (512 MB of float32) that a pass may keep for its way back; longer groups take autograd's way, which does
not hold attention's weights."""


FLOATS_HELD = 1 << 25
"""Room (128 MB) that a thread holds on to for its next pass: fresh pages take the system a tenth of one."""

_HELD = threading.local()


def _room(count: int) -> Floats:
    """So many values of anything, for this thread's pass."""
    if count > FLOATS_HELD:
        return np.empty(count, np.float32)
    held: Floats = getattr(_HELD, "room", NONE)
    if len(held) < count:
        _HELD.room = held = np.empty(count, np.float32)
    return held[:count]


class GroupPass:
    """One group's pass.

    Args:
        fused: the model.
        prompt: tokens of the prompt, soft prompt included, without its last where gradients are wanted.
        lengths: tokens of each rollout.
    """

    def __init__(self, fused: Fused, prompt: int, lengths: list[int]) -> None:
        self.fused, self.prompt = fused, prompt
        self.lengths, self.own = np.array(lengths), sum(lengths)
        self.width, self.wide = up(max(lengths)), up(prompt)
        rows, tokens = len(lengths) * self.width, prompt + self.own
        heads, kv, size, dim = fused.heads, fused.kv, fused.head_dim, fused.dim
        sizes = (
            tokens * dim, tokens * (heads + 2 * kv) * size,
            heads * self.wide * size, kv * self.wide * size, kv * self.wide * size, heads * self.wide**2,
            heads * rows * size, kv * rows * size, kv * rows * size,
            heads * rows * self.wide, heads * rows * self.width,
            tokens * dim, tokens * 2 * fused.hidden,
        )  # fmt: skip
        self.keep = tuple(int(place) for place in np.cumsum([0, *sizes]))
        self.kept = self.keep[-1] * fused.layers
        """Values that the pass keeps for its way back."""
        self.fits = self.kept <= FLOATS_KEPT
        """Whether that is not too much; a pass that does not fit is not to be made."""
        self._model = (fused.blas, fused.shape, fused.places, fused.weights, fused.eps, fused.normed)
        self._angles = fused.angles(prompt + max(lengths))
        self._group = (prompt, self.lengths, self.width, self.wide, self.keep)

    def gradient(self, embeds: Tensor, soft: int, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
        """The gradient [soft, d] of - sum weights * log pi(targets) in the first rows of ``embeds``.

        Args:
            embeds: float32 [prompt + tokens of the rollouts, d]: the prompt but its last token; then for each rollout
                the prompt's last token and all its own but the last.
            soft: rows of the soft prompt.
            targets: int64, each rollout's tokens.
            weights: float32, of each target.
            temperature: that they were sampled at.
        """
        fused, dim = self.fused, self.fused.dim
        kept = _room(self.kept)
        last, states = self._forward(embeds, kept)
        _, slopes = logprobs_and_slopes(states, fused.head_weight, targets, temperature)
        assert slopes is not None
        slopes *= -weights[:, None]
        gradient, found = torch.zeros(self.own, dim), torch.empty(soft, dim)
        loops_backward.norm_rows_backward(
            flat(last), self.own, dim, fused.norm, fused.eps, flat(slopes), flat(gradient)
        )
        backward.backward(*self._model, *self._angles, *self._group, kept, flat(gradient), soft, flat(found))
        return found

    def states(self, embeds: Tensor) -> Tensor:
        """The last hidden states [tokens of the rollouts, d], normalised, of rollouts that are read.

        Args:
            embeds: float32 [prompt + tokens of the rollouts, d]: the prompt, then each rollout.
        """
        return self._forward(embeds, _room(self.kept))[1]

    def inputs(self, embeds: Tensor, layer: int) -> Tensor:
        """What goes into a layer (0 is the first), [prompt + tokens of the rollouts, d]; see ``states``."""
        kept = _room(self.kept)
        self._forward(embeds, kept)
        begin = layer * self.keep[-1] + self.keep[backward.INPUT]
        return torch.from_numpy(kept[begin : begin + embeds.numel()]).clone().view_as(embeds)

    def _forward(self, embeds: Tensor, kept: Floats) -> tuple[Tensor, Tensor]:
        """The rollouts' last hidden states, and the same normalised."""
        fused, dim = self.fused, self.fused.dim
        last, states = torch.empty(self.own, dim), torch.empty(self.own, dim)
        backward.forward(*self._model, fused.biased, *self._angles, flat(embeds), *self._group, kept, flat(last))
        loops.norm_rows(flat(last), self.own, dim, fused.norm, fused.eps, flat(states))
        return last, states
