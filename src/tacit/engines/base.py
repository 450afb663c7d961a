"""The engine protocol: generation requests with *embeddings* in, rollouts out; and what holds for every engine.

Builds on errors, torch and numpy alone: vLLM servers, whose environment has no more, load it. The policy is (frozen
backbone + soft prompt as input embeddings), so an engine never needs a weight sync: a memory is only another prompt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.errors import EngineError
from tacit.model import fused

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone


@dataclass(frozen=True)
class Request:
    """One prompt, sampled ``n`` times.

    Attributes:
        ids: token ids of the prompt, shape [T].
        soft_prompt: float32 [K, d] prepended to the embeddings of ``ids``, or None for the plain model.
        n: number of rollouts.
        temperature: 0 means greedy; log-probs are always of the distribution sampled from (greedy: T = 1).
        top_p: nucleus mass in (0, 1].
        max_tokens: most new tokens per rollout.
        seeds: one per rollout (ignored when greedy). A rollout's draws depend on its own seed alone, so whatever else
            shares the batch changes nothing.
        stop: strings that end a rollout; the text is cut before the first of them.
        top: most likely tokens to report beside each drawn one; 0 for none.
        top_k: how many of the most likely tokens may be drawn; 0 for all.
        min_p: how likely one must be, as a share of the likeliest, in [0, 1]. ``top_p`` chooses from what both leave.
        grammar: what the text has to follow (grammar.py), "" for nothing; the in-process engine alone can.
    """

    ids: torch.Tensor
    soft_prompt: torch.Tensor | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seeds: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    top: int = 0
    top_k: int = 0
    min_p: float = 0.0
    grammar: str = ""

    @property
    def narrow(self) -> bool:
        """Whether some tokens are not drawn because they are unlikely."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


Alternatives = tuple[tuple[int, float], ...]
"""The most likely tokens at one position with their log-probs, best first."""


@dataclass(frozen=True)
class Rollout:
    """One sampled continuation.

    Attributes:
        token_ids: generated ids, the end token included where one was drawn.
        logprobs: natural-log probability of each token under the distribution it was drawn from.
        text: decoded continuation without special tokens.
        finish: "stop" (end token or stop string) or "length".
        alternatives: per token, where the request asked for them (``top``).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: str
    alternatives: tuple[Alternatives, ...] = ()


@dataclass(frozen=True)
class Progress:
    """One token of one rollout, as it is drawn.

    Attributes:
        ticket: of the request.
        index: of the rollout within it, 0 .. n - 1.
        token_id, logprob, alternatives: as in ``Rollout``.
        rollout: the whole, with its last token.
        error: what ended the request, for engines that can fail at one; the rest then means nothing, and no more comes.
    """

    ticket: int
    index: int
    token_id: int
    logprob: float
    alternatives: Alternatives = ()
    rollout: Rollout | None = None
    error: EngineError | None = None


class Session(Protocol):
    """Continuous batching: requests come and go while others are being served. For one thread."""

    def submit(self, request: Request) -> int:
        """Queue a request; its ticket. EngineError if it is malformed, and then nothing is queued."""
        ...

    def cancel(self, ticket: int) -> None:
        """Drop a request with all its rollouts, started or not; one that is over or unknown is passed over."""
        ...

    def step(self) -> list[Progress]:
        """Start what there is room for and draw one token for every rollout in flight; nothing where none is."""
        ...

    @property
    def waiting(self) -> int:
        """Requests not started."""
        ...

    @property
    def running(self) -> int:
        """Rollouts in flight."""
        ...


class Engine(Protocol):
    """Anything that turns requests into rollouts, many at a time; all that the rest of Tacit asks of an engine. Those
    that come with Tacit name it as their base, so that the type checker says where one falls short.

    Attributes:
        backbone: the model, which is in this process too: for embeddings, keys and learning.
    """

    backbone: Backbone

    @property
    def context(self) -> int:
        """Most tokens of a sequence: soft prompt, prompt and answer. Whatever has to fit is measured by it."""
        ...

    @property
    def draws(self) -> str:
        """Whose random numbers rollouts are drawn with: "tacit" for those of ``uniforms``, with which any two
        engines draw the same tokens for the same seeds; else a name of its own. A run goes on with its own kind."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """Serve all requests, batched as the engine sees fit; rollouts in the order of the requests and seeds.

        Adds the tokens to ``METER``. EngineError if a request is malformed (``check``).
        """
        ...

    def session(self) -> Session:
        """A batch of its own for requests that come and go."""
        ...

    def close(self) -> None:
        """Let go of what it holds; it is not used afterwards."""
        ...


# -- what holds for every engine: what a request must be, when a rollout is over, and that its tokens are counted ------


def length_of(backbone: Backbone, request: Request) -> int:
    """Positions that a request's prompt takes: its memory's and its tokens."""
    return len(request.ids) + backbone.carrier.columns(request.soft_prompt)


def check(backbone: Backbone, context: int, what: str, request: Request, *, least: int = 1) -> None:
    """EngineError, in one sentence that begins with ``what``, unless the request is well formed.

    Args:
        backbone: the model it is for.
        context: the engine's (``Engine.context``).
        what: the request, as the user knows it.
        request: what is asked.
        least: fewest new tokens it may ask for.
    """
    length = length_of(backbone, request)
    problems = (
        (request.ids.ndim != 1 or len(request.ids) == 0, "needs prompt token ids of shape [T] with T >= 1"),
        (request.n < 1, f"asks for n = {request.n} rollouts; n must be at least 1"),
        (
            length + request.max_tokens > context,
            f"needs {length} prompt and up to {request.max_tokens} new tokens, but {backbone.name} has room for "
            f"{context}; shorten the problem or lower max_tokens (--max-tokens)",
        ),
        (request.max_tokens < least, f"asks for max_tokens = {request.max_tokens}; it must be at least 1"),
        (not request.temperature >= 0, f"has temperature {request.temperature}; it must be 0 or more"),
        (not 0 < request.top_p <= 1, f"has top_p {request.top_p}; it must be in (0, 1]"),
        (request.top_k < 0 or not 0 <= request.min_p <= 1, "has top_k below 0, or min_p outside of [0, 1]"),
        (
            request.temperature > 0 and len(request.seeds) != request.n,
            f"brings {len(request.seeds)} seeds for {request.n} rollouts; give one seed per rollout",
        ),
        (
            request.soft_prompt is not None and not backbone.carrier.fitting(backbone, request.soft_prompt),
            f"has {backbone.carrier.called} not [{backbone.carrier.rows or 'K'}, {backbone.hidden_size}]",
        ),
    )
    for wrong, why in problems:
        if wrong:
            raise EngineError(f"{what} {why}")


def ended(backbone: Backbone, spec: Request, ids: Sequence[int]) -> tuple[str, str] | None:
    """Text and finish ("stop" or "length") of a rollout, if the last of its tokens so far is its last.

    To be asked after every token: a stop string is looked for at the end of the text alone.
    """
    text, finish = None, ""
    if ids[-1] in backbone.end_ids:
        finish = "stop"
    elif len(ids) >= spec.max_tokens:
        finish = "length"
    if spec.stop and (cut := _cut(backbone, spec, ids)) is not None:
        text, finish = cut, "stop"
    return ((backbone.decode(ids) if text is None else text), finish) if finish else None


def _cut(backbone: Backbone, spec: Request, ids: Sequence[int]) -> str | None:
    """The text before the first stop string, if there is one."""
    # A new one ends with the last token. A token has at least one byte and a character at most four, so the end of
    # the text is enough to see it, with a few tokens more since decoding may drop a leading space.
    tail = 4 * max(map(len, spec.stop)) + 8
    last = set(backbone.decode(ids[-16:]))  # where the last character of a new one is; nearly always enough to see none
    end = backbone.decode(ids[-tail:]) if any(stop[-1] in last for stop in spec.stop) else ""
    if not any(stop in end for stop in spec.stop):
        return None
    text = backbone.decode(ids)
    cuts = [at for at in (text.find(stop) for stop in spec.stop) if at >= 0]
    return text[: min(cuts)] if cuts else None


@dataclass
class Meter:
    """A count that only grows. Thread-safe.

    Attributes:
        tokens: generated so far in this process, whoever asked.
    """

    tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, tokens: int) -> None:
        """Count so many more."""
        with self._lock:
            self.tokens += tokens


METER = Meter()
"""Every engine adds to it; a comparison reads it before and after."""


# -- drawing tokens from logits, each row by its own random numbers ---------------------------------------------------


def uniforms(seed: int, count: int) -> np.ndarray:
    """The random numbers in [0, 1) of a rollout's first ``count`` tokens, float64: functions of its seed alone."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def greeting(position: int, vocabulary: int) -> int:
    """What a server that draws like this one (vllm/draw.py) says at a position when it is greeted; other tokens with
    every version that draws differently."""
    return (11 + 7 * position + position * position) % vocabulary


def draw(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """Draw one token per row by inverting the cumulative distribution at the row's own uniform number.

    Args:
        logits: float32 [R, V].
        specs: each row's request (temperature, top_p, top_k, min_p).
        draws: each row's uniform number in [0, 1).

    Returns:
        Token ids, their natural-log probabilities under the distribution drawn from (greedy: at T = 1), and the most
        likely tokens of that distribution; as many for every row as any row's ``top`` asks for.
    """
    if logits.device.type != "cpu" or not fused.available():
        return _drawn(logits, specs, draws)
    # A row is drawn in the same way whatever else is asked for beside it.
    whole = [not spec.narrow for spec in specs]
    if all(whole):
        return _compiled(logits, specs, draws)
    tokens, logprobs = [0] * len(specs), [0.0] * len(specs)
    alternatives: list[Alternatives] = [()] * len(specs)
    for way, kind in ((_compiled, True), (_drawn, False)):
        rows = [row for row, is_whole in enumerate(whole) if is_whole is kind]
        if rows:
            found = way(logits[rows], [specs[row] for row in rows], [draws[row] for row in rows])
            for row, token, logprob, likely in zip(rows, *found, strict=True):
                tokens[row], logprobs[row], alternatives[row] = token, logprob, likely
    return tokens, logprobs, alternatives


def _drawn(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """``draw`` through PyTorch."""
    logprobs = distribution(logits, specs)
    greedy = torch.tensor([spec.temperature == 0 for spec in specs], device=logits.device)
    if bool(greedy.all()):
        tokens = logits.argmax(-1)
    else:
        cumulative = logprobs.exp().cumsum(-1)
        target = torch.tensor(draws, dtype=cumulative.dtype, device=logits.device) * cumulative[:, -1]
        sampled = (cumulative <= target[:, None]).sum(-1).clamp(max=logits.shape[1] - 1)
        tokens = torch.where(greedy, logits.argmax(-1), sampled)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), chosen.tolist(), most_likely(logprobs, max(spec.top for spec in specs))


def _compiled(
    logits: Tensor, specs: Sequence[Request], draws: Sequence[float]
) -> tuple[list[int], list[float], list[Alternatives]]:
    """``draw`` in one loop, for rows of which every token may be drawn."""
    from tacit.model.fused.forward import draw_rows

    rows, vocabulary = logits.shape
    drawn, logprobs = np.empty(rows, np.int64), np.empty(rows, np.float32)
    temperature = np.array([spec.temperature for spec in specs], np.float32)
    values = logits.contiguous().view(-1).numpy()
    draw_rows(values, rows, vocabulary, temperature, np.array(draws, np.float64), drawn, logprobs)
    tokens, chosen = drawn.tolist(), logprobs.tolist()
    top = max(spec.top for spec in specs)
    if not top:
        return tokens, chosen, [()] * rows
    # The token drawn has one log-prob, wherever it is told.
    likely = most_likely(distribution(logits, specs), top)
    told = [
        tuple((i, logprob if i == token else p) for i, p in some)
        for some, token, logprob in zip(likely, tokens, chosen, strict=True)
    ]
    return tokens, chosen, told


def distribution(logits: Tensor, specs: Sequence[Request]) -> Tensor:
    """Log-probs [R, V] of the distribution that each row is drawn from (greedy: at T = 1).

    Args:
        logits: float32 [R, V].
        specs: each row's request (temperature, top_p, top_k, min_p).
    """
    temperature = torch.tensor([spec.temperature or 1.0 for spec in specs], device=logits.device)
    logprobs = torch.log_softmax(logits / temperature[:, None], dim=-1)
    for row, spec in enumerate(specs):
        if spec.narrow and (spec.top_k or spec.min_p):
            logprobs[row] = _likeliest(logprobs[row], spec)
    narrow = [spec.temperature > 0 and spec.top_p < 1 for spec in specs]
    if any(narrow):
        top_p = torch.tensor([spec.top_p for spec in specs], device=logits.device)
        chosen = torch.tensor(narrow, device=logits.device)
        logprobs = torch.where(chosen[:, None], _nucleus(logprobs, top_p), logprobs)
    return logprobs


def most_likely(logprobs: Tensor, top: int) -> list[Alternatives]:
    """The ``top`` most likely tokens of each row of [R, V], best first, equal ones by id; none of probability 0."""
    if not top:
        return [()] * len(logprobs)
    best, ids = logprobs.topk(min(top, logprobs.shape[1]), dim=-1)
    return [
        tuple(sorted(((i, p) for i, p in zip(*pair, strict=True) if p > -torch.inf), key=lambda one: (-one[1], one[0])))
        for pair in zip(ids.tolist(), best.tolist(), strict=True)
    ]


def _likeliest(logprobs: Tensor, spec: Request) -> Tensor:
    """Log-probs [V] renormalised over what ``min_p`` and ``top_k`` leave; of equal tokens those of lower id."""
    kept = logprobs >= logprobs.max() + torch.tensor(spec.min_p).log()
    if 0 < spec.top_k < len(logprobs):
        last = logprobs.topk(spec.top_k).values[-1]
        above, equal = logprobs > last, logprobs == last
        kept &= above | (equal & (equal.cumsum(0) <= spec.top_k - above.sum()))
    return torch.log_softmax(logprobs.masked_fill(~kept, -torch.inf), dim=-1)


def _nucleus(logprobs: Tensor, top_p: Tensor) -> Tensor:
    """Log-probs renormalised over the smallest set of most likely tokens whose mass reaches ``top_p``."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.empty_like(before, dtype=torch.bool).scatter(1, order, before < top_p[:, None])
    return torch.log_softmax(logprobs.masked_fill(~kept, -torch.inf), dim=-1)
