"""The in-process engine: ragged prompts in one batch, one prefill per request, rows that come and go.

Builds on backbone, cache and the engine protocol. A request's prompt is prefilled once, all but its last token; its
``n`` rows then share those keys and values, and start by feeding that last token, so that logits are computed only
where a token is drawn. Finished rows leave the batch and waiting requests take their place. A row's arithmetic and
its random numbers depend on nothing but itself (cache.py, seeds.py), so batching changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tacit.backbone import Backbone
from tacit.cache import RaggedCache, round_up
from tacit.engines.base import KeyValues, Request, Rollout
from tacit.engines.meter import METER
from tacit.errors import EngineError

MIN_ROWS = 16  # matrix libraries take other code paths for a few rows, whose sums differ in the last bit


@dataclass(eq=False)
class _Row:
    """One rollout in flight."""

    request: int
    index: int
    spec: Request
    draws: np.ndarray
    feed: int
    position: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str | None = None
    finish: str = ""


class LocalEngine:
    """Generates with a ``Backbone`` in this process.

    Args:
        backbone: the frozen model.
        max_rows: most rollouts decoded at once; bounds the memory of the key/value cache.
        prefill_tokens: most prompt tokens (padding included) in one prefill pass.
    """

    def __init__(self, backbone: Backbone, *, max_rows: int = 256, prefill_tokens: int = 16384) -> None:
        self.backbone = backbone
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """Serve all requests; see ``Engine.generate``.

        Raises:
            EngineError: a request is malformed (no prompt, n < 1, wrong soft-prompt width, too few seeds, ...).
        """
        for number, request in enumerate(requests):
            self._check(number, request)
        done: list[list[Rollout | None]] = [[None] * request.n for request in requests]
        # Longest prompts first: neighbours in a prefill are then of similar length and little of it is padding.
        waiting = deque(sorted(range(len(requests)), key=lambda r: -_length(requests[r])))
        rows: list[_Row] = []
        cache: RaggedCache | None = None
        while rows or waiting:
            while waiting and len(rows) <= self.max_rows // 2:
                chosen = self._choose(requests, waiting, self.max_rows - len(rows))
                new_rows, new_cache = self._prefill(requests, chosen)
                if cache is not None and rows:
                    new_cache = cache.join(new_cache)
                rows, cache = rows + new_rows, new_cache
            assert cache is not None
            rows, cache = self._decode(rows, cache, done, refill_at=self.max_rows // 2 if waiting else 0)
        groups = [[rollout for rollout in group if rollout is not None] for group in done]
        METER.tokens += sum(len(rollout.token_ids) for group in groups for rollout in group)
        return groups

    def _check(self, number: int, request: Request) -> None:
        if request.past is not None and not self._fits(request.past):
            raise EngineError(
                f"request {number} has a past that is not {self.backbone.name}'s: it takes keys and values of one "
                f"length for each of its {len(self._layers)} layers, [heads, P, head_dim] with P >= 1"
            )
        problems = (
            (request.ids.ndim != 1 or len(request.ids) == 0, "needs prompt token ids of shape [T] with T >= 1"),
            (request.n < 1, f"asks for n = {request.n} rollouts; n must be at least 1"),
            (
                _length(request) + request.max_tokens > self.backbone.context,
                f"needs {_length(request)} prompt and up to {request.max_tokens} new tokens, but {self.backbone.name} "
                f"has room for {self.backbone.context}; shorten the problem or lower max_tokens (--max-tokens)",
            ),
            (request.max_tokens < 1, f"asks for max_tokens = {request.max_tokens}; it must be at least 1"),
            (not request.temperature >= 0, f"has temperature {request.temperature}; it must be 0 or more"),
            (not 0 < request.top_p <= 1, f"has top_p {request.top_p}; it must be in (0, 1]"),
            (
                request.temperature > 0 and len(request.seeds) != request.n,
                f"brings {len(request.seeds)} seeds for {request.n} rollouts; give one seed per rollout",
            ),
            (
                request.soft_prompt is not None
                and (request.soft_prompt.ndim != 2 or request.soft_prompt.shape[1] != self.backbone.hidden_size),
                f"has a soft prompt that is not [K, {self.backbone.hidden_size}]",
            ),
        )
        for wrong, what in problems:
            if wrong:
                raise EngineError(f"request {number} {what}")

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

    def _choose(self, requests: Sequence[Request], waiting: deque[int], room: int) -> list[int]:
        chosen: list[int] = []
        longest = 0
        while waiting:
            request = requests[waiting[0]]
            longest = max(longest, _length(request))
            if chosen and (request.n > room or longest * (len(chosen) + 1) > self.prefill_tokens):
                break
            room -= request.n
            chosen.append(waiting.popleft())
        return chosen

    def _prefill(self, requests: Sequence[Request], chosen: list[int]) -> tuple[list[_Row], RaggedCache]:
        backbone = self.backbone
        prompts = [prompt_embeddings(backbone, requests[r].ids[:-1], requests[r].soft_prompt) for r in chosen]
        cache = prefill(backbone, prompts, [requests[r].past for r in chosen])
        rows: list[_Row] = []
        source: list[int] = []
        for place, r in enumerate(chosen):
            request = requests[r]
            position = _past(request) + len(prompts[place])
            for index in range(request.n):
                seed = request.seeds[index] if request.temperature > 0 else 0
                draws = np.random.Generator(np.random.Philox(key=seed)).random(request.max_tokens)
                rows.append(_Row(r, index, request, draws, int(request.ids[-1]), position))
                source.append(place)
        cache.reserve(max(row.position + row.spec.max_tokens for row in rows))  # while it has a row per request only
        return rows, cache.take(self._index(source))

    def _decode(
        self,
        rows: list[_Row],
        cache: RaggedCache,
        done: list[list[Rollout | None]],
        refill_at: int,
    ) -> tuple[list[_Row], RaggedCache]:
        """Draw tokens until few enough rows are left, dropping finished rows as they pile up."""
        slots: list[_Row | None] = list(rows)
        while True:
            live = [slot for slot, row in enumerate(slots) if row is not None]
            if len(live) <= refill_at or not live:
                break
            # Moving rows costs about as much as a few tokens: compact when a quarter of the rows is idle.
            if len(slots) < MIN_ROWS:
                cache = cache.take(self._index(live + [live[0]] * (MIN_ROWS - len(live))))
                slots = [slots[slot] for slot in live] + [None] * (MIN_ROWS - len(live))
                live = list(range(len(live)))
            elif len(live) <= 0.75 * len(slots) and len(slots) > MIN_ROWS:
                kept = max(MIN_ROWS, len(live))
                sources = [slot for slot in live if slot >= kept]
                targets = [slot for slot in range(kept) if slots[slot] is None][: len(sources)]
                cache.move(self._index(sources), self._index(targets), kept)
                for source, target in zip(sources, targets, strict=True):
                    slots[target] = slots[source]
                slots = slots[:kept]
                live = [slot for slot in range(kept) if slots[slot] is not None]
            self._step(slots, live, cache, done)
        return [slots[s] for s in live if slots[s] is not None], cache.take(self._index(live))  # type: ignore[misc]

    def _step(
        self, slots: list[_Row | None], live: list[int], cache: RaggedCache, done: list[list[Rollout | None]]
    ) -> None:
        backbone, device = self.backbone, self.backbone.device
        first = slots[live[0]]
        assert first is not None
        # Idle slots repeat a live row's token at column 0: harmless, since nobody reads them.
        feed = torch.tensor([[row.feed if row else first.feed] for row in slots], device=device)
        positions = torch.tensor([[row.position if row else 0] for row in slots], device=device)
        logits = backbone.forward(backbone.embed(feed), positions, cache)[:, 0].float()
        specs = [(row or first).spec for row in slots]
        draws = [row.draws[len(row.ids)] if row else 0.5 for row in slots]
        tokens, logprobs = draw(logits, specs, draws)
        for slot in live:
            row = slots[slot]
            assert row is not None
            row.ids.append(tokens[slot])
            row.logprobs.append(logprobs[slot])
            row.feed, row.position = tokens[slot], row.position + 1
            if self._ended(row):
                text = backbone.decode(row.ids) if row.text is None else row.text
                done[row.request][row.index] = Rollout(tuple(row.ids), tuple(row.logprobs), text, row.finish)
                slots[slot] = None

    def _ended(self, row: _Row) -> bool:
        if row.ids[-1] in self.backbone.end_ids:
            row.finish = "stop"
        elif len(row.ids) >= row.spec.max_tokens:
            row.finish = "length"
        if row.spec.stop:
            text = self.backbone.decode(row.ids)
            cuts = [at for at in (text.find(stop) for stop in row.spec.stop) if at >= 0]
            if cuts:
                row.text, row.finish = text[: min(cuts)], "stop"
        return bool(row.finish)

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), dtype=torch.int64, device=self.backbone.device)


def _length(request: Request) -> int:
    return _past(request) + len(request.ids) + (0 if request.soft_prompt is None else len(request.soft_prompt))


def _past(request: Request) -> int:
    return 0 if request.past is None else len(request.past)


def prompt_embeddings(backbone: Backbone, ids: Tensor, soft_prompt: Tensor | None) -> Tensor:
    """[K + T, d] embeddings of a soft prompt followed by token ids, in the model's dtype; gradients flow."""
    embedded = backbone.embed(ids)
    if soft_prompt is None:
        return embedded
    return torch.cat([soft_prompt.to(embedded.device, embedded.dtype), embedded])


def prefill(
    backbone: Backbone, prompts: Sequence[Tensor], pasts: Sequence[KeyValues | None] | None = None
) -> RaggedCache:
    """The cache of ragged prompts [T_i, d], each behind its past if it has one, padded on the right (padding is
    overwritten or never read)."""
    width = max(1, *(len(prompt) for prompt in prompts)) if len(prompts) > 1 else max(1, len(prompts[0]))
    width = max(width, -(-MIN_ROWS // len(prompts)))
    padded = torch.stack([torch.nn.functional.pad(prompt, (0, 0, 0, width - len(prompt))) for prompt in prompts])
    positions = torch.arange(width, device=padded.device).expand(len(prompts), -1)
    if pasts is None or all(past is None for past in pasts):
        cache = backbone.new_cache()
    else:
        starts = torch.tensor([0 if past is None else len(past) for past in pasts], device=padded.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=padded.device)
        # All padding goes to the one column that the row's next token overwrites: no position beyond the context.
        positions = starts[:, None] + positions.minimum(lengths[:, None])
        cache = _begun(backbone, pasts, int(positions.max()) + 1)
    backbone.forward(padded, positions, cache, all_logits=False)
    return cache


def _begun(backbone: Backbone, pasts: Sequence[KeyValues | None], columns: int) -> RaggedCache:
    """A cache with room for ``columns`` columns that holds each row's past from column 0 on."""
    cache = backbone.new_cache()
    cache.capacity = round_up(columns)
    for layer, part in enumerate(cache.parts):
        part.keys = _rows([None if past is None else past.keys[layer] for past in pasts], cache.capacity, backbone)
        part.values = _rows([None if past is None else past.values[layer] for past in pasts], cache.capacity, backbone)
    return cache


def _rows(held: Sequence[Tensor | None], capacity: int, backbone: Backbone) -> Tensor:
    heads, _, width = next(states.shape for states in held if states is not None)
    rows = torch.zeros(len(held), heads, capacity, width, dtype=backbone.dtype, device=backbone.device)
    for row, states in zip(rows, held, strict=True):
        if states is not None:
            row[:, : states.shape[1]] = states
    return rows


def draw(logits: Tensor, specs: Sequence[Request], draws: Sequence[float]) -> tuple[list[int], list[float]]:
    """Draw one token per row by inverting the cumulative distribution at the row's own uniform number.

    Args:
        logits: float32 [R, V].
        specs: each row's request (temperature, top_p).
        draws: each row's uniform number in [0, 1).

    Returns:
        Token ids and their natural-log probabilities under the distribution drawn from (greedy: at T = 1).
    """
    temperature = torch.tensor([spec.temperature or 1.0 for spec in specs], device=logits.device)
    logprobs = torch.log_softmax(logits / temperature[:, None], dim=-1)
    greedy = torch.tensor([spec.temperature == 0 for spec in specs], device=logits.device)
    if bool(greedy.all()):
        tokens = logits.argmax(-1)
    else:
        if any(spec.top_p < 1 for spec in specs):
            top_p = torch.tensor([spec.top_p for spec in specs], device=logits.device)
            logprobs = torch.where((greedy | (top_p >= 1))[:, None], logprobs, _nucleus(logprobs, top_p))
        cumulative = logprobs.exp().cumsum(-1)
        target = torch.tensor(draws, dtype=cumulative.dtype, device=logits.device) * cumulative[:, -1]
        sampled = (cumulative <= target[:, None]).sum(-1).clamp(max=logits.shape[1] - 1)
        tokens = torch.where(greedy, logits.argmax(-1), sampled)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), chosen.tolist()


def _nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of most likely tokens whose mass reaches ``top_p``."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.empty_like(before, dtype=torch.bool).scatter(1, order, before < top_p[:, None])
    return torch.log_softmax(logprobs.masked_fill(~kept, -torch.inf), dim=-1)
