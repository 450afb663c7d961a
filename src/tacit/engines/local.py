"""The in-process engine: generates with a model in this process, by continuous batching; and the threads that
independent pieces of work of this process, learning's too, are divided over.

Builds on backbone, batches and the engine protocol. Ragged prompts share one batch, with one prefill per request;
finished rows leave it and waiting requests take their place. A row's arithmetic and its random numbers depend on
nothing but itself (model/cache.py, model/fused, base.py), so batching changes no result.

Splitting every product of a small model over two threads gains little; giving each thread problems of its own gains
nearly all. PyTorch's products and our compiled loops let other threads run, so plain Python threads do.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from tacit.config import Settings
from tacit.engines import grammar
from tacit.engines.base import (
    METER,
    Alternatives,
    Engine,
    Progress,
    Request,
    Rollout,
    Session,
    check,
    draw,
    ended,
    length_of,
    uniforms,
)
from tacit.engines.batches import Row, batch_for, scores
from tacit.engines.grammar import Follower
from tacit.model.backbone import Backbone, prompt_embeddings
from tacit.registry import register

T = TypeVar("T")


class LocalEngine(Engine):
    """Generates with a ``Backbone`` in this process.

    Args:
        backbone: the frozen model.
        max_rows: most rollouts decoded at once; bounds the memory of the key/value cache.
        prefill_tokens: most prompt tokens (padding included) in one prefill pass.
    """

    draws = "tacit"
    """See ``Engine.draws``."""

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
        order = sorted(range(len(requests)), key=lambda number: -length_of(self.backbone, requests[number]))
        parts = max(1, min(threads(), len(order))) if self.backbone.fused is not None else 1
        served = side_by_side([partial(self._serve, requests, order[start::parts], parts) for start in range(parts)])
        done = {number: rollouts for part in served for number, rollouts in part.items()}
        return [done[number] for number in range(len(requests))]

    def _serve(self, requests: Sequence[Request], order: Sequence[int], parts: int) -> dict[int, list[Rollout]]:
        """Rollouts of the requests numbered in ``order``, one of so many parts."""
        # Everything is here already: joining rows to a batch costs a copy of it, so half a batch comes at a time.
        session = self._session(self.max_rows // parts, refill_at=self.max_rows // parts // 2)
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
        request = Request(ids, soft_prompt, temperature=0.0, max_tokens=0, top=top)
        self._check("the text", request, least=0)
        embeds = prompt_embeddings(self.backbone, ids, soft_prompt)
        before = len(embeds) - len(ids)
        # Position p tells of the token at p + 1; the last one's successor is not known, and not asked for.
        targets = torch.nn.functional.pad(ids, (before, 1))[1:]
        found = scores(self.backbone, self.backbone.new_cache([soft_prompt]), 0, embeds, targets, request)[:-1]
        return [*found[before - 1 :]] if before else [None, *found]

    def _check(self, what: str, request: Request, least: int = 1) -> None:
        check(self.backbone, self.context, what, request, least=least)
        if request.grammar:
            grammar.check(self.backbone, request.grammar)


class LocalSession(Session):
    """Made by ``LocalEngine``.

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
        self._batch = batch_for(backbone)

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
            longest = max(longest, length_of(self.backbone, request))
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
            feed, position = int(request.ids[-1]), length_of(self.backbone, request) - 1
            groups.append([Row(ticket, i, request, draws[i], feed, position) for i in range(request.n)])
            for row in groups[-1] if request.grammar else ():
                row.follower = Follower(self.backbone, request.grammar)
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
        for place, row in enumerate(rows):
            if row.follower is not None:
                logits[place] = row.follower.narrow(logits[place])
        tokens, logprobs, alternatives = draw(
            logits, [row.spec for row in rows], [row.draws[len(row.ids)] for row in rows]
        )
        over = []
        for row, token, logprob, likely in zip(rows, tokens, logprobs, alternatives, strict=True):
            row.ids.append(token)
            if row.follower is not None:
                row.follower.take(token)
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


@register("engine", "local")
def open_local(backbone: Backbone, settings: Settings) -> LocalEngine:
    """The engine of this process."""
    return LocalEngine(backbone)


# -- threads -----------------------------------------------------------------------------------------------------------


@dataclass
class _Process:
    """What holds for all of it."""

    used: int | None = None
    pools: dict[int, ThreadPoolExecutor] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_PROCESS = _Process()
_PART = threading.local()


def use_threads(count: int | None) -> None:
    """Divide work over so many threads, however many a product may take; None: as many as a product may take.

    Threads with work of their own bear a busy machine well. Those that share a product wait for the slowest at every
    one of them.
    """
    _PROCESS.used = count


def cores() -> int:
    """Processors that this process may run on, or fewer where OMP_NUM_THREADS says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads that work is divided over, here: one within work that is a part already."""
    if getattr(_PART, "within", False):
        return 1
    return torch.get_num_threads() if _PROCESS.used is None else _PROCESS.used


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of ``tasks``, on as many threads as are available, each of which then takes one for its products.

    The first exception is raised once all have ended.
    """
    count = threads()
    if min(count, len(tasks)) < 2:
        return [task() for task in tasks]
    futures = [_pool(count).submit(task) for task in tasks]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _pool(count: int) -> ThreadPoolExecutor:
    with _PROCESS.lock:
        if count not in _PROCESS.pools:
            started = threading.Barrier(count + 1)
            before = torch.get_num_threads()

            def begin() -> None:
                _PART.within = True
                torch.get_num_threads()  # which would else take the process's number later on
                torch.set_num_threads(1)
                started.wait()

            _PROCESS.pools[count] = pool = ThreadPoolExecutor(count, "tacit-work", initializer=begin)
            for _ in range(count):
                pool.submit(lambda: None)
            started.wait()
            # What a thread sets is what threads that come later begin with.
            torch.set_num_threads(before)
        return _PROCESS.pools[count]
