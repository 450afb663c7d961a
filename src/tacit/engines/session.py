"""Continuous batching in this process: ragged prompts in one batch, one prefill per request, rows that come and go.

Builds on backbone, cache, prefill and the engine protocol. A request's prompt is prefilled once, all but its last
token; its ``n`` rows then share those keys and values, and start by feeding that last token, so that logits are
computed only where a token is drawn. Finished rows leave the batch and waiting requests take their place. A row's
arithmetic and its random numbers depend on nothing but itself (cache.py, seeds.py), so batching changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tacit.backbone import Backbone
from tacit.cache import RaggedCache
from tacit.engines.base import Alternatives, Progress, Request, Rollout
from tacit.engines.checks import length_of, past_of
from tacit.engines.draw import draw, uniforms
from tacit.engines.ending import ended
from tacit.engines.meter import METER
from tacit.engines.prefill import MIN_ROWS, prefill, prompt_embeddings


@dataclass(eq=False)
class Row:
    """One rollout in flight; ``rollout`` once it is over."""

    ticket: int
    index: int
    spec: Request
    draws: np.ndarray
    feed: int
    position: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    rollout: Rollout | None = None


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
        self._slots: list[Row | None] = []
        self._cache: RaggedCache | None = None

    @property
    def waiting(self) -> int:
        """See ``Session.waiting``."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """See ``Session.running``."""
        return sum(row is not None for row in self._slots)

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
        self._slots = [None if row is not None and row.ticket == ticket else row for row in self._slots]

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
        live = self._live()
        while self._waiting and len(live) <= self._refill_at:
            chosen = self._choose(self._max_rows - len(live))
            if not chosen:
                break
            self._start(live, chosen)
            live = self._live()
        if not live:
            self._slots, self._cache = [], None
            return []
        return self._draw(self._compact(live))

    def _live(self) -> list[int]:
        return [slot for slot, row in enumerate(self._slots) if row is not None]

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

    def _start(self, live: list[int], chosen: list[tuple[int, Request]]) -> None:
        """Prefill requests and join their rows to the live ones."""
        backbone = self.backbone
        prompts = [prompt_embeddings(backbone, request.ids[:-1], request.soft_prompt) for _, request in chosen]
        cache = prefill(backbone, prompts, [request.past for _, request in chosen])
        rows: list[Row | None] = []
        source: list[int] = []
        columns = 0
        for place, (ticket, request) in enumerate(chosen):
            position = past_of(request) + len(prompts[place])
            columns = max(columns, position + request.max_tokens)
            for index in range(request.n):
                seed = request.seeds[index] if request.temperature > 0 else 0
                draws = uniforms(seed, request.max_tokens)
                rows.append(Row(ticket, index, request, draws, int(request.ids[-1]), position))
                source.append(place)
        cache.reserve(columns)  # while it has a row per request only
        cache = cache.take(self._index(source))
        if live:
            assert self._cache is not None
            held = self._cache if len(live) == len(self._slots) else self._cache.take(self._index(live))
            cache = held.join(cache)
        self._slots = [self._slots[slot] for slot in live] + rows
        self._cache = cache

    def _compact(self, live: list[int]) -> list[int]:
        """Bring the batch to the size that its live rows need; their slots."""
        slots, cache = self._slots, self._cache
        assert cache is not None
        if len(slots) < MIN_ROWS:
            idle = MIN_ROWS - len(live)
            self._cache = cache.take(self._index(live + [live[0]] * idle))
            self._slots = [slots[slot] for slot in live] + [None] * idle
        # Moving rows costs about as much as a few tokens: compact when a quarter of the rows is idle.
        elif len(live) <= 0.75 * len(slots) and len(slots) > MIN_ROWS:
            kept = max(MIN_ROWS, len(live))
            sources = [slot for slot in live if slot >= kept]
            targets = [slot for slot in range(kept) if slots[slot] is None][: len(sources)]
            cache.move(self._index(sources), self._index(targets), kept)
            for source, target in zip(sources, targets, strict=True):
                slots[target] = slots[source]
            self._slots = slots[:kept]
        else:
            return live
        return self._live()

    def _draw(self, live: list[int]) -> list[Row]:
        """One token for every live row."""
        backbone, device, slots, cache = self.backbone, self.backbone.device, self._slots, self._cache
        first = slots[live[0]]
        assert first is not None and cache is not None
        # Idle slots repeat a live row's token at column 0: harmless, since nobody reads them.
        feed = torch.tensor([[row.feed if row else first.feed] for row in slots], device=device)
        positions = torch.tensor([[row.position if row else 0] for row in slots], device=device)
        logits = backbone.forward(backbone.embed(feed), positions, cache)[:, 0].float()
        specs = [(row or first).spec for row in slots]
        draws = [row.draws[len(row.ids)] if row else 0.5 for row in slots]
        tokens, logprobs, alternatives = draw(logits, specs, draws)
        moved: list[Row] = []
        for slot in live:
            row = slots[slot]
            assert row is not None
            row.ids.append(tokens[slot])
            row.logprobs.append(logprobs[slot])
            if row.spec.top:
                row.alternatives.append(alternatives[slot][: row.spec.top])
            row.feed, row.position = tokens[slot], row.position + 1
            row.rollout = self._ended(row)
            if row.rollout is not None:
                slots[slot] = None
                METER.tokens += len(row.ids)
            moved.append(row)
        return moved

    def _ended(self, row: Row) -> Rollout | None:
        """The rollout, if its last token was its last."""
        over = ended(self.backbone, row.spec, row.ids)
        if over is None:
            return None
        return Rollout(tuple(row.ids), tuple(row.logprobs), *over, tuple(row.alternatives))

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), dtype=torch.int64, device=self.backbone.device)
