"""From tokens to text, piece by piece: what of a rollout may be shown already.

Builds on the backbone's tokenizer. Streamed and whole answers go through the same ``Detokeniser``, so that their texts
are the same. Two things are held back: bytes that are not a whole character yet, and text that may be the beginning of
a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tacit.server.live.vocabulary import UNFINISHED

LOOK_BACK = 6
"""Tokens decoded again before each new one, since a token's text depends on those before it (leading blanks)."""


class Detokeniser:
    """The text of one rollout, token by token.

    Args:
        tokenizer: a Hugging Face tokenizer.
        stop: strings that end the text; neither they nor what follows is shown.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._start = 0  # tokens before this one are left out of the decoding
        self._before = ""  # what those after it that are in ``_text`` decode to
        self._text = ""
        self._shown = 0
        self.stopped = False

    def push(self, token_id: int, *, last: bool = False) -> str:
        """The text that can be shown now that this token is there; often one word, sometimes nothing; the rest with the
        last one."""
        self._ids.append(token_id)
        return self._more(final=last)

    def end(self) -> str:
        """The rest of the text."""
        return self._more(final=True)

    def whole(self, ids: Sequence[int]) -> str:
        """The text of a finished rollout, as streaming would have shown it."""
        self._text = self._plain(list(ids))
        if UNFINISHED not in self._text:
            return self._show(final=True)
        self._text = ""  # bytes that make no character may undo one before them, which a stream has shown by then
        return "".join([*map(self.push, ids), self.end()])

    def _more(self, *, final: bool) -> str:
        if self.stopped:
            return ""
        self._decode(final=final)
        return self._show(final=final)

    def _decode(self, *, final: bool) -> None:
        now = self._plain(self._ids[self._start :])
        if now.endswith(UNFINISHED) and not final:
            return
        self._text, self._before = self._text + now[len(self._before) :], now
        start = max(self._start, len(self._ids) - LOOK_BACK)
        if (less := self._plain(self._ids[start:])) and self._text.endswith(less):  # some tokens have no text alone
            self._start, self._before = start, less

    def _plain(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _show(self, *, final: bool) -> str:
        text, end = self._text, len(self._text)
        begins = ((text.find(stop, max(0, self._shown - len(stop))), stop) for stop in self._stop)
        if cuts := [(at + len(stop), at) for at, stop in begins if at >= 0]:
            end, self.stopped = min(cuts)[1], True  # the first that is complete, though another may have begun before
        elif not final:  # without what may be the beginning of a stop string
            end -= max((_begun(text, stop) for stop in self._stop), default=0)
        shown, self._shown = text[self._shown : end], max(end, self._shown)
        return shown


def _begun(text: str, stop: str) -> int:
    """Characters at the end of a text that are the beginning of a stop string."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
