"""Tokens one by one, as lists of log-probabilities name them; each is decoded once in a server's life.

Builds on the tokenizer. A list may hold hundreds of thousands of tokens, of which a vocabulary has only so many.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Vocabulary:
    """The tokens of a Hugging Face tokenizer. Thread-safe: what two threads find is the same."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}
        self._bytes: dict[int, tuple[int, ...]] = {}

    def text(self, token_id: int) -> str:
        """A token, decoded alone."""
        found = self._texts.get(token_id)
        if found is None:
            found = self._texts[token_id] = str(self._tokenizer.decode([token_id]))
        return found

    def bytes(self, token_id: int) -> tuple[int, ...]:
        """The bytes of a token, which may be a part of a character."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = tuple(bytes_of(self._tokenizer, token_id, self.text(token_id)))
        return found


def bytes_of(tokenizer: Any, token_id: int, text: str) -> bytes:
    """The bytes of a token whose text, decoded alone, is ``text``: of one that is a part of a character its own."""
    if UNFINISHED not in text:
        return text.encode()
    token = str(tokenizer.convert_ids_to_tokens(token_id))
    one = re.fullmatch(r"<0x([0-9A-F]{2})>", token)  # as SentencePiece falls back to bytes
    if one is not None:
        return bytes.fromhex(one[1])
    found = [_byte_level().get(character) for character in token]
    return text.encode() if None in found else bytes(byte for byte in found if byte is not None)


@cache
def _byte_level() -> dict[str, int]:
    """What each character of a byte-level vocabulary stands for."""
    return {character: byte for byte, character in bytes_to_unicode().items()}
