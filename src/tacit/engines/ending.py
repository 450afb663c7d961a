"""When a rollout is over, and what its text is.

Builds on backbone and the engine protocol. Every engine asks here, so that the same tokens end in the same way wherever
they were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.engines.base import Request
from tacit.model.backbone import Backbone


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
