"""Tacit's random numbers inside a vLLM server: same seed, same tokens, whatever else the server is doing.

Builds on the engine protocol and vLLM, in whose process it runs:

    vllm serve MODEL --enable-prompt-embeds --logits-processors tacit.engines.vllm.draw:TacitDraws

The server needs Tacit's files only: the wheel or a checkout, installed with ``--no-deps``. A request that carries
``vllm_xargs: {"tacit": ...}`` gets, at each position, the token that the in-process engine would draw for its seed from
the same logits: the logits of all other tokens become minus infinity. Other requests are left alone. The log-probs that
vLLM reports by default (``--logprobs-mode raw_logprobs``) are those from before.

This is the interface of vLLM's first model runner; where the second is the default, start the server with
``VLLM_USE_V2_MODEL_RUNNER=0``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tacit.engines.base import Request, draw, greeting, uniforms

if TYPE_CHECKING:
    # vLLM has its own environment; what is checked here without it is checked against a stand-in.
    class LogitsProcessor:
        """vLLM's base class."""
else:
    from vllm.v1.sample.logits_processor import LogitsProcessor

KEY = "tacit"
"""Of what a request brings in ``vllm_xargs``: JSON of seed, temperature and top_p, or of {"hello": true}. It asks for
temperature 0 itself: vLLM then takes the one possible token and makes no random numbers of its own."""

AHEAD = 8


@dataclass
class _Row:
    """One rollout in the server's batch; ``drawn`` is vLLM's own list of its tokens so far, and grows."""

    spec: Request
    draws: np.ndarray | None
    drawn: Sequence[int]


class TacitDraws(LogitsProcessor):
    """Draws the tokens of the requests that ask for it. For vLLM's ``--logits-processors``."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """ValueError, which the server answers with a 400, for a request that cannot be understood."""
        try:
            _row(sampling_params, ())
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"vllm_xargs[{KEY!r}] is not what this version of Tacit sends: {error!r}") from None

    def is_argmax_invariant(self) -> bool:
        """It changes what is most likely."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the server's batch: who left, who came, who moved."""
        if batch_update is None:
            return
        rows = self._rows
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, _, drawn in batch_update.added:
            rows.pop(index, None)
            row = _row(params, drawn)
            if row is not None:
                rows[index] = row
        for source, target, direction in batch_update.moved:
            moved, there = rows.pop(source, None), rows.pop(target, None)
            if moved is not None:
                rows[target] = moved
            if there is not None and direction.name == "SWAP":
                rows[source] = there

    def apply(self, logits: Tensor) -> Tensor:
        """Leave each row's token alone possible."""
        if not self._rows:
            return logits
        indices = sorted(self._rows)
        rows = [self._rows[index] for index in indices]
        at = torch.tensor(indices, device=logits.device)
        numbers = [0.5 if row.draws is None else float(row.draws[len(row.drawn)]) for row in rows]
        tokens, _, _ = draw(logits[at].float(), [row.spec for row in rows], numbers)
        for place, row in enumerate(rows):
            if row.draws is None:
                tokens[place] = greeting(len(row.drawn), logits.shape[1])
        logits[at] = -torch.inf
        logits[at, torch.tensor(tokens, device=logits.device)] = 0.0
        return logits


def _row(params: Any, drawn: Sequence[int]) -> _Row | None:
    held = (params.extra_args or {}).get(KEY)
    if held is None:
        return None
    asked = json.loads(held)
    nothing = torch.zeros(0, dtype=torch.int64)
    if asked.get("hello"):
        return _Row(Request(nothing), None, drawn)
    spec = Request(nothing, temperature=float(asked["temperature"]), top_p=float(asked["top_p"]))
    # A few numbers more than tokens: the server may compute a step ahead before it sees that a rollout is over.
    return _Row(spec, uniforms(int(asked["seed"]), int(params.max_tokens or 0) + AHEAD), drawn)
