"""Continuous batching in this process: ragged prompts in one batch, one prefill per request, rows that come and go.

Builds on backbone, batches and the engine protocol. Finished rows leave the batch and waiting requests take their
place. A row's arithmetic and its random numbers depend on nothing but itself (cache.py, fused.py, seeds.py), so
batching changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from tacit.engines.base import Progress, Request, Rollout
from tacit.engines.batches import Batch, RaggedBatch, Row
from tacit.engines.checks import length_of
from tacit.engines.draw import draw, uniforms
from tacit.engines.ending import ended
from tacit.engines.meter import METER
from tacit.model.backbone import Backbone


class LocalSession:
    """Implements ``Session``; made by ``LocalEngine``.

    Args:
        backbone: the frozen model.
        check: raises EngineError for a malformed request.
        max_rows: most rollouts in flight.
        prefill_tokens: most prompt tokens (padding included) in one prefill pass.
        refill_at: waiting requests are started when no more rollouts than this are in flight.
    """

    def __init__(
        self,
        backbone: Backbone,
        check: Callable[[Request], None],
        *,
        max_rows: int,
        prefill_tokens: int,
        refill_at: int,
    ) -> None:
        self.backbone = backbone
        self._check = check
        self._max_rows = max_rows
        self._prefill_tokens = prefill_tokens
        self._refill_at = refill_at
        self._next = 0
        self._waiting: deque[tuple[int, Request]] = deque()
        self._rows: list[Row] = []
        self._batch = _batch_for(backbone)

    @property
    def waiting(self) -> int:
        """See ``Session.waiting``."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """See ``Session.running``."""
        return len(self._rows)

    def submit(self, request: Request) -> int:
        """See ``Session.submit``."""
        self._check(request)
        return self.queue(request)

    def queue(self, request: Request) -> int:
        """``submit`` without the check."""
        self._next += 1
        self._waiting.append((self._next, request))
        return self._next

    def cancel(self, ticket: int) -> None:
        """See ``Session.cancel``."""
        self._waiting = deque(pair for pair in self._waiting if pair[0] != ticket)
        self._drop([row for row in self._rows if row.ticket == ticket])

    def step(self) -> list[Progress]:
        """See ``Session.step``."""
        return [
            Progress(
                row.ticket,
                row.index,
                row.ids[-1],
                row.logprobs[-1],
                row.alternatives[-1] if row.alternatives else (),
                row.rollout,
            )
            for row in self.advance()
        ]

    @torch.inference_mode()
    def advance(self) -> list[Row]:
        """``step``, with the rows themselves: each has one token more, and its rollout if that was its last."""
        while self._waiting and len(self._rows) <= self._refill_at:
            chosen = self._choose(self._max_rows - len(self._rows))
            if not chosen:
                break
            self._start(chosen)
        return self._draw() if self._rows else []

    def _choose(self, room: int) -> list[tuple[int, Request]]:
        """Requests to start: in order, as many as fit; the first one in any case where nothing is in flight."""
        chosen: list[tuple[int, Request]] = []
        longest = 0
        while self._waiting:
            request = self._waiting[0][1]
            longest = max(longest, length_of(request))
            if request.n > room and (chosen or room < self._max_rows):
                break
            if chosen and longest * (len(chosen) + 1) > self._prefill_tokens:
                break
            room -= request.n
            chosen.append(self._waiting.popleft())
        return chosen

    def _start(self, chosen: list[tuple[int, Request]]) -> None:
        """Prefill requests and join their rows to those in flight."""
        groups = []
        for ticket, request in chosen:
            seeds = request.seeds if request.temperature > 0 else [0] * request.n
            draws = [uniforms(seed, request.max_tokens).tolist() for seed in seeds]
            feed, position = int(request.ids[-1]), length_of(request) - 1
            groups.append([Row(ticket, i, request, draws[i], feed, position) for i in range(request.n)])
        self._batch.start(groups)
        self._rows += [row for group in groups for row in group]

    def _drop(self, rows: list[Row]) -> None:
        self._batch.drop(rows)
        gone = set(map(id, rows))
        self._rows = [row for row in self._rows if id(row) not in gone]

    def _draw(self) -> list[Row]:
        """One token for every row in flight."""
        rows = self._rows
        logits = self._batch.logits(rows)
        tokens, logprobs, alternatives = draw(
            logits, [row.spec for row in rows], [row.draws[len(row.ids)] for row in rows]
        )
        over = []
        for row, token, logprob, likely in zip(rows, tokens, logprobs, alternatives, strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            if row.spec.top:
                row.alternatives.append(likely[: row.spec.top])
            row.feed, row.position = token, row.position + 1
            row.rollout = self._ended(row)
            if row.rollout is not None:
                METER.add(len(row.ids))
                over.append(row)
        if over:
            self._drop(over)
        return rows

    def _ended(self, row: Row) -> Rollout | None:
        """The rollout, if its last token was its last."""
        over = ended(self.backbone, row.spec, row.ids)
        if over is None:
            return None
        return Rollout(tuple(row.ids), tuple(row.logprobs), *over, tuple(row.alternatives))


def _batch_for(backbone: Backbone) -> Batch:
    """An empty batch, of the kind that suits the model."""
    if backbone.fused is None:
        return RaggedBatch(backbone)
    from tacit.engines.fused_batch import FusedBatch  # which needs numba

    return FusedBatch(backbone, backbone.fused)
