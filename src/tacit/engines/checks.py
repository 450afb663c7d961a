"""What a request must be, whichever engine serves it.

Builds on backbone and the engine protocol.
"""

from __future__ import annotations

from tacit.engines.base import Request
from tacit.errors import EngineError
from tacit.model.backbone import Backbone


def length_of(request: Request) -> int:
    """Positions that a request's prompt takes: its past, its soft prompt and its tokens."""
    return past_of(request) + len(request.ids) + (0 if request.soft_prompt is None else len(request.soft_prompt))


def past_of(request: Request) -> int:
    """Positions of a request's past."""
    return 0 if request.past is None else len(request.past)


def check(backbone: Backbone, what: str, request: Request, *, least: int = 1, context: int | None = None) -> None:
    """EngineError, in one sentence that begins with ``what``, unless the request is well formed.

    Args:
        backbone: the model it is for.
        what: the request, as the user knows it.
        request: its ``past`` counts here, but what is in it is the engine's to check.
        least: fewest new tokens it may ask for.
        context: most tokens of a sequence; the backbone's by default.
    """
    room = backbone.context if context is None else context
    problems = (
        (request.ids.ndim != 1 or len(request.ids) == 0, "needs prompt token ids of shape [T] with T >= 1"),
        (request.n < 1, f"asks for n = {request.n} rollouts; n must be at least 1"),
        (
            length_of(request) + request.max_tokens > room,
            f"needs {length_of(request)} prompt and up to {request.max_tokens} new tokens, but "
            f"{backbone.name} has room for {room}; shorten the problem or lower max_tokens (--max-tokens)",
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
