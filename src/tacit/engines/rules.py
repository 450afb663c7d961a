"""What holds for every engine: what a request must be, when a rollout is over, and that its tokens are counted.

Builds on backbone and the engine protocol. Every engine asks here, so that the same tokens end in the same way wherever
they were drawn, and no method can forget to report what it spent.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from tacit.engines.base import Request
from tacit.errors import EngineError
from tacit.model.backbone import Backbone


def length_of(request: Request) -> int:
    """Positions that a request's prompt takes: its soft prompt and its tokens."""
    return len(request.ids) + (0 if request.soft_prompt is None else len(request.soft_prompt))


def check(backbone: Backbone, context: int, what: str, request: Request, *, least: int = 1) -> None:
    """EngineError, in one sentence that begins with ``what``, unless the request is well formed.

    Args:
        backbone: the model it is for.
        context: the engine's (``Engine.context``).
        what: the request, as the user knows it.
        request: what is asked.
        least: fewest new tokens it may ask for.
    """
    length = length_of(request)
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
        (
            request.temperature > 0 and len(request.seeds) != request.n,
            f"brings {len(request.seeds)} seeds for {request.n} rollouts; give one seed per rollout",
        ),
        (
            request.soft_prompt is not None
            and (request.soft_prompt.ndim != 2 or request.soft_prompt.shape[1] != backbone.hidden_size),
            f"has a soft prompt that is not [K, {backbone.hidden_size}]",
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
    if not finish:
        return None
    return (backbone.decode(ids) if text is None else text), finish


def _cut(backbone: Backbone, spec: Request, ids: Sequence[int]) -> str | None:
    """The text before the first stop string, if there is one."""
    # A new one ends with the last token. A token has at least one byte and a character at most four, so the end of
    # the text is enough to see it, with a few tokens more since decoding may drop a leading space.
    tail = 4 * max(map(len, spec.stop)) + 8
    end = backbone.decode(ids[-tail:])
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
