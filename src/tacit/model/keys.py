"""Kinds of keys: what a problem looks like to the model, as a vector, so that like problems have like ones.

Builds on backbone, errors and the registry. ``recall`` makes keys of these and looks them up (method.md, "Retrieval"):

- ``input`` and ``kv`` are the paper's, ``hidden`` or ``hidden:L`` is like them (default: the middle layer);
- ``last`` or ``last:L``: the hidden state of a layer (default: the middle one) where the model is about to answer. It
  says what the model makes of a problem rather than which words it has. It found a memory of the same kind where the
  others fell for a likeness of words (docs/log/);
- ``relative`` or ``relative:L``: the mean hidden state of an early layer (default: a third of the way up), relative to
  those of ``background.txt``, questions about everything: their mean is taken away, and directions in which they differ
  much count for less. What is left is what sets the problem apart. So unlike problems have similarities near 0, and a
  floor means the same on every model. The default of pretrained models.

All but ``last`` are made of the problem text alone: a chat template's fixed words would make everything look alike. The
input key is taken relative to the vocabulary's mean for the same reason: embeddings share a large common direction,
and a similarity floor means something only without it. Hidden states share such directions too: of ``hidden`` and
``last``, all cosines between questions to a pretrained model are above .9, like or unlike (docs/log/).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tacit.errors import ModelError
from tacit.model.backbone import Backbone
from tacit.registry import register


@register("key", "input")
def input_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean input embedding of a problem's tokens, relative to the vocabulary's."""
    return backbone.embed(tokens_of(backbone, text)).float().mean(0) - backbone.embedding_mean


@register("key", "hidden")
def hidden_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean hidden state of a problem's tokens."""
    return _layer(backbone, tokens_of(backbone, text), layer).mean(0)


@register("key", "last")
def last_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The hidden state at the last position of the whole prompt."""
    return _layer(backbone, backbone.encode(text), layer)[-1]


@register("key", "kv")
def kv_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """Mean keys and values of every layer over a problem's tokens, each of unit norm, lest one drown the others."""
    keys, values = backbone.key_values(tokens_of(backbone, text))
    parts = [states.float().mean(1).flatten() for states in [*keys, *values]]
    return torch.cat([part / part.norm().clamp(min=1e-12) for part in parts])


def tokens_of(backbone: Backbone, text: str) -> Tensor:
    """Token ids [T] of the problem alone, without its prompt."""
    return torch.tensor(backbone.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)


def _layer(backbone: Backbone, ids: Tensor, name: str) -> Tensor:
    """Hidden states [T, d] of a layer; the middle one for ""."""
    return backbone.layer_states(ids, _number(backbone, name, 1, 2)).float()


def _number(backbone: Backbone, name: str, part: int, of: int) -> int:
    """The layer that a key names; for "" the one that is ``part / of`` of the way up."""
    last = int(backbone.model.config.num_hidden_layers)
    layer = int(name) if name else (part * last + of - 1) // of
    if layer > last:
        raise ModelError(f"there is no layer {layer} to make a key of: {backbone.name} has layers 0 to {last}")
    return layer


SHRINKAGE = 0.2
"""Share of the background's covariance that is replaced by the same variance in all directions: there are fewer
questions than dimensions."""


class Background:
    """How a layer's states differ over questions about everything: their mean, and how much along which directions.

    Attributes:
        mean: float64 [d].
    """

    def __init__(self, states: np.ndarray) -> None:
        wide = states.astype(np.float64)
        self.mean = wide.mean(0)
        off = wide - self.mean
        # The covariance [d, d] is never made: its directions are mixes of the n states, found from their products.
        variances, mixes = np.linalg.eigh(off @ off.T / len(off))
        known = variances > 1e-9 * variances[-1]
        variances = variances[known]
        self._directions = mixes[:, known].T @ off / np.sqrt(len(off) * variances)[:, None]
        rest = SHRINKAGE * variances.sum() / off.shape[1]
        self._gains = np.sqrt(rest / ((1 - SHRINKAGE) * variances + rest)) - 1

    def relative(self, state: np.ndarray) -> np.ndarray:
        """A state [d] in which every direction counts by how little the background differs along it."""
        off = state.astype(np.float64) - self.mean
        return np.asarray(off + (self._directions @ off * self._gains) @ self._directions)


@register("key", "relative")
def relative_key(backbone: Backbone, text: str, layer: str) -> Tensor:
    """The mean hidden state of a problem's tokens, relative to those of questions about everything."""
    number = _number(backbone, layer, 1, 3)
    held = _BACKGROUNDS.setdefault(backbone, {})
    if number not in held:
        held[number] = Background(np.stack([_apart(backbone, one, number) for one in questions()]))
    return torch.from_numpy(held[number].relative(_apart(backbone, text, number)))


_BACKGROUNDS: WeakKeyDictionary[Backbone, dict[int, Background]] = WeakKeyDictionary()
"""Made once in a process; the text alone decides, so any prompt's is the same, but that is not worth a rule."""


@cache
def questions() -> tuple[str, ...]:
    """The background. It belongs to every key that is relative to it: another list is another kind of key."""
    return tuple(Path(__file__).with_name("background.txt").read_text(encoding="utf-8").splitlines())


def _apart(backbone: Backbone, text: str, layer: int) -> np.ndarray:
    """The mean state [d] of a problem's tokens behind one that begins a text: what is at the first place takes in what
    models put aside there, and says nothing of the problem."""
    tokenizer = backbone.tokenizer
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = torch.cat([torch.tensor([first]), tokens_of(backbone, text)])
    return backbone.layer_states(ids, layer)[1:].float().mean(0).cpu().numpy()
