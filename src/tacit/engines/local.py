"""The in-process engine: generates with a model in this process.

Builds on backbone, the session (ragged prompts in one batch that come and go) and the engine protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from tacit.config import Settings
from tacit.engines.base import Alternatives, KeyValues, Request, Rollout
from tacit.engines.batches import Row
from tacit.engines.checks import check, length_of
from tacit.engines.draw import most_likely
from tacit.engines.prefill import prompt_embeddings
from tacit.engines.session import LocalSession
from tacit.errors import EngineError
from tacit.model.backbone import Backbone
from tacit.model.threads import available, run
from tacit.registry import register

SCORED_AT_ONCE = 512  # prompt tokens; their logits take as many times the vocabulary floats


class LocalEngine:
    """Generates with a ``Backbone`` in this process.

    Args:
        backbone: the frozen model.
        max_rows: most rollouts decoded at once; bounds the memory of the key/value cache.
        prefill_tokens: most prompt tokens (padding included) in one prefill pass.
    """

    draws = "tacit"
    """Whose random numbers rollouts are drawn with; see ``VLLMEngine.draws``."""

    def __init__(self, backbone: Backbone, *, max_rows: int = 256, prefill_tokens: int = 16384) -> None:
        self.backbone = backbone
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens

    @property
    def context(self) -> int:
        """See ``Engine.context``."""
        return self.backbone.context

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """Serve all requests; see ``Engine.generate``.

        Raises:
            EngineError: a request is malformed (no prompt, n < 1, wrong soft-prompt width, too few seeds, ...).
        """
        self.check(requests)
        # Longest prompts first: neighbours in a prefill are then of similar length and little of it is padding.
        order = sorted(range(len(requests)), key=lambda number: -length_of(requests[number]))
        threads = max(1, min(available(), len(order))) if self.backbone.fused is not None else 1
        served = run([partial(self._serve, requests, order[start::threads], threads) for start in range(threads)])
        done = {number: rollouts for part in served for number, rollouts in part.items()}
        return [done[number] for number in range(len(requests))]

    def _serve(self, requests: Sequence[Request], order: Sequence[int], threads: int) -> dict[int, list[Rollout]]:
        """Rollouts of the requests numbered in ``order``, which fall to one of ``threads``."""
        # Everything is here already: joining rows to a batch costs a copy of it, so half a batch comes at a time.
        session = self._session(self.max_rows // threads, refill_at=self.max_rows // threads // 2)
        tickets = {session.queue(requests[number]): number for number in order}
        done: dict[int, list[Row]] = {number: [] for number in order}
        while session.waiting or session.running:
            for row in session.advance():
                if row.rollout is not None:
                    done[tickets[row.ticket]].append(row)
        return {
            number: [row.rollout for row in sorted(rows, key=lambda row: row.index) if row.rollout is not None]
            for number, rows in done.items()
        }

    def check(self, requests: Sequence[Request]) -> None:
        """EngineError if one of them cannot be served."""
        for number, request in enumerate(requests):
            self._check(f"request {number}", request)

    def close(self) -> None:
        """Nothing to do: the model is the backbone's."""

    def session(self) -> LocalSession:
        """A batch of its own for requests that come and go; see ``Session``."""
        return self._session(self.max_rows, refill_at=self.max_rows - 1)

    def _session(self, max_rows: int, refill_at: int) -> LocalSession:
        return LocalSession(
            self.backbone,
            lambda request: self._check("the request", request),
            max_rows=max_rows,
            prefill_tokens=self.prefill_tokens,
            refill_at=refill_at,
        )

    @torch.inference_mode()
    def score(
        self, ids: Tensor, soft_prompt: Tensor | None = None, top: int = 0
    ) -> list[tuple[float, Alternatives] | None]:
        """How likely a text is under the model.

        Args:
            ids: token ids [T].
            soft_prompt: float32 [K, d] in front of them, or None.
            top: most likely tokens to report at each position.

        Returns:
            Per token its natural-log probability given all before it (at temperature 1), and the most likely ones in
            its place; None for a token with nothing before it.

        Raises:
            EngineError: there is no token, or more than the model has room for.
        """
        self._check("the text", Request(ids, soft_prompt, temperature=0.0, max_tokens=0), least=0)
        backbone = self.backbone
        embeds = prompt_embeddings(backbone, ids, soft_prompt)
        rows = len(embeds) - len(ids)
        cache = backbone.new_cache()
        scores: list[tuple[float, Alternatives] | None] = [] if rows else [None]
        for start in range(0, len(embeds), SCORED_AT_ONCE):
            part = embeds[start : start + SCORED_AT_ONCE]
            cache.reserve(start + len(part))
            positions = torch.arange(start, start + len(part), device=embeds.device)[None]
            logits = backbone.forward(part[None], positions, cache)[0].float()
            # Position p tells of the token at p + 1, which is ids[p + 1 - rows].
            first = max(start, rows - 1)
            last = min(start + len(part), len(embeds) - 1)
            if first >= last:
                continue
            logprobs = torch.log_softmax(logits[first - start : last - start], dim=-1)
            targets = ids[first + 1 - rows : last + 1 - rows].to(logprobs.device)
            chosen = logprobs.gather(1, targets[:, None])[:, 0].tolist()
            scores += zip(chosen, most_likely(logprobs, top), strict=True)
        return scores

    def _check(self, what: str, request: Request, least: int = 1) -> None:
        if request.past is not None and not self._fits(request.past):
            raise EngineError(
                f"{what} has a past that is not {self.backbone.name}'s: it takes keys and values of one "
                f"length for each of its {len(self._layers)} layers, [heads, P, head_dim] with P >= 1"
            )
        check(self.backbone, what, request, least=least)

    @cached_property
    def _layers(self) -> list[tuple[int, int, int, int]]:
        """Heads and head_dim of the keys and of the values of every layer."""
        keys, values = self.backbone.key_values(torch.zeros(1, dtype=torch.int64))
        return [(len(k), k.shape[2], len(v), v.shape[2]) for k, v in zip(keys, values, strict=True)]

    def _fits(self, past: KeyValues) -> bool:
        if not len(past.keys) == len(past.values) == len(self._layers):
            return False
        length = past.keys[0].shape[1] if past.keys[0].ndim == 3 else 0
        return length > 0 and all(
            keys.shape == (shape[0], length, shape[1]) and values.shape == (shape[2], length, shape[3])
            for keys, values, shape in zip(past.keys, past.values, self._layers, strict=True)
        )


@register("engine", "local")
def open_local(backbone: Backbone, settings: Settings) -> LocalEngine:
    """The engine of this process."""
    return LocalEngine(backbone)
