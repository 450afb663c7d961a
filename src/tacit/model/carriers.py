"""Carriers: how the numbers of a memory enter the frozen model, where they are no soft prompt (model/prompts.py).

Builds on errors, prompts and the registry. *Layers* are vectors that are added to the residual stream after every layer
but the first, at every position (steering, as in arXiv 2505.18706; llama.cpp calls it a control vector). They take no
positions, and answering reads nothing more. They are float32 [rows, d] as a soft prompt is, so records, banks and files
hold either.

A backbone has one carrier (``Backbone.carrying``), which is part of its fingerprint: memories of different carriers
never meet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from tacit.errors import ModelError
from tacit.model.prompts import Prompt
from tacit.registry import register

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone
    from tacit.model.presets import Preset

DISTIL = 6
"""Steps on the response that gave the label, for models whose soft prompts start from it."""


@register("carrier", "layers")
class Layers(Prompt):
    """Vectors [layers - 1, d], added after every layer but the first. They begin as zeros: the model as it is."""

    name = "layers"
    called = "layer vectors that are"
    among = "the residual stream"

    def __init__(self, backbone: Backbone) -> None:
        layers_of(backbone)
        # A few dimensions and positions of a residual stream are hundreds of times the rest: medians pass them over.
        ids = torch.arange(min(64, backbone.vocab_size))
        states = torch.stack(backbone.hidden_states(ids)[2:])[:, 1:].float()
        self.rows = len(states)
        # Two digits, as in presets: the last bits differ between machines, and ids of memories may not.
        self.scale = float(f"{float(states.abs().median()) / 0.6745:.2g}")
        self.norm = float(f"{float(states.norm(dim=-1).median()):.2g}")

    def fits(self, preset: Preset) -> dict[str, Any]:
        # They begin with nothing, so the response that gave the label is where they learn most of it.
        return {"lr": preset.layers_lr * self.scale, "distil": preset.distil or DISTIL}

    def start(self, name: str, start: Any) -> Tensor:
        assert self.rows is not None
        return torch.zeros(self.rows, start.backbone.hidden_size)

    def columns(self, memory: Any) -> int:
        return 0

    def read(self, embeds: Tensor, memory: Tensor | None) -> Tensor:
        return embeds

    def added(self, backbone: Backbone, memories: Sequence[Tensor | None]) -> Tensor | None:
        assert self.rows is not None
        none = torch.zeros(self.rows, backbone.hidden_size)
        held = [(none if memory is None else memory).to(backbone.device, backbone.dtype) for memory in memories]
        return pad(torch.stack(held), (0, 0, 1, 0))

    def adding(self, backbone: Backbone, added: Tensor | None) -> AbstractContextManager[None]:
        return super().adding(backbone, added) if added is None else _hooked(backbone, added)


def layers_of(backbone: Backbone) -> Sequence[torch.nn.Module]:
    """The model's layers.

    Raises:
        ModelError: it does not say which they are.
    """
    found = getattr(backbone.model.get_decoder(), "layers", None)
    if found is None:
        raise ModelError(f"{backbone.name} does not name its layers; memories of it can only be prompts")
    layers: Sequence[torch.nn.Module] = found
    return layers


@contextmanager
def _hooked(backbone: Backbone, shift: Tensor) -> Iterator[None]:
    """Passes of this thread through transformers' own layers, with ``shift`` [R, layers, d] added after them."""
    thread = threading.get_ident()

    def add(number: int) -> Any:
        def hook(module: Any, given: Any, made: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            states, *rest = made if isinstance(made, tuple) else (made,)
            moved = states + shift[:, number, None]
            return (moved, *rest) if isinstance(made, tuple) else moved

        return hook

    with ExitStack() as hooks:
        for number, layer in enumerate(layers_of(backbone)):
            hooks.callback(layer.register_forward_hook(add(number)).remove)
        yield
