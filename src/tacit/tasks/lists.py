"""Answers of several parts: ``list`` (in order), ``set`` (in any order) and ``json`` (any value).

Builds on stated, and on text for when two elements are the same. A list is kept as "[a, b]", whatever it was written
as: "a, b and c", "[a, b, c]", "{a, b}", "a -> b", "a b c" of single signs; lines that begin with a dash or a number.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any

from tacit.errors import DataError
from tacit.registry import register
from tacit.tasks import number
from tacit.tasks.stated import TAIL, Stated, ending, sentence, statement
from tacit.tasks.text import key

ELEMENTS = 1000
"""What has more elements, or is longer than ``stated.TAIL``, is no answer."""
DEPTH = 20
"""Lists in lists; what is nested deeper is no answer."""
WORDS = 4
"""Where no answer is stated, a last line is a list if none of its elements has more words."""
TRIES = 200
"""So many brackets that begin no JSON value are passed over."""

_ITEM = r"[ \t]*(?:[-*•+]|\(?\d{1,3}[.)])[ \t]+(\S.*)"
_BLOCK = re.compile(rf"(?:^{_ITEM}\n?){{2,}}", re.MULTILINE)
_TOKEN = re.compile(r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)|[\[({]|[\])}]|->|→|[;,|<>]")
_SEPARATORS = (";", ",", "->", "→", "|", ">", "<")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_AND = re.compile(r",?\s{1,9}(?:and|or|&)\s{1,9}|^(?:and|or)\s{1,9}", re.IGNORECASE)
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_LINES = re.compile(r"[ \t\r]{0,99}\n\s*")
_OPENS = re.compile(r"[\[{]")
_EMPTY = frozenset(("[]", "{}", "()", "∅", "\\emptyset", "\\varnothing"))

List = list[Any]


def elements(text: str) -> List | None:
    """The elements of a list: texts or, where they are in brackets, lists. None if the text is no list."""
    if len(text) > TAIL:
        return None
    said = text.replace("\\{", "{").replace("\\}", "}").replace("\\,", " ").strip(" \t\n$`*").removesuffix(".").strip()
    if said in _EMPTY:
        return []
    if "\n" not in said and (item := re.fullmatch(_ITEM, said)):
        said = item[1]
    depths = accumulate((char in "[({") - (char in "])}") for char in said)
    if max(depths, default=0) > DEPTH:
        return None
    found = _from_json(said) or _elements(said)
    return found if found and len(found) <= ELEMENTS else None


def _from_json(text: str) -> List | None:
    try:
        found = json.loads(text, parse_int=str, parse_float=str) if text.startswith("[") else None
    except ValueError:
        return None
    return _texts(found) if found else None


def _texts(found: List) -> List:
    return [_texts(one) if isinstance(one, list) else one if isinstance(one, str) else json.dumps(one) for one in found]


def _elements(text: str) -> List | None:
    inner = _inside(text)
    parts = _parts(text if inner is None else inner)
    found: List = []
    for part in parts:
        nested = _elements(part) if len(parts) > 1 and _inside(part) is not None else part.strip(" \t\"'`*")
        if nested is None or nested == "":
            return None
        found.append(nested)
    return found


def _inside(text: str) -> str | None:
    """What stands between the brackets of a text that is in brackets as a whole."""
    if len(text) < 2 or _CLOSES.get(text[0]) != text[-1]:
        return None
    depth = 0
    for place, char in enumerate(text):
        depth += (char in "[({") - (char in "])}")
        if not depth:
            return text[1:-1].strip() if place == len(text) - 1 else None
    return None


def _parts(text: str) -> list[str]:
    """The elements of a list without its brackets."""
    lines = [line.strip(" \t,") for line in text.splitlines() if line.strip(" \t,")]
    if len(lines) > 1:
        return [item[1] if (item := re.fullmatch(_ITEM, line)) else line for line in lines]
    parts = _split(text)
    if len(parts) > 1:
        return [*parts[:-1], *(part for part in _AND.split(parts[-1]) if part)]
    parts = [part for part in _AND.split(text.strip()) if part]
    single = text.split()
    if len(parts) == 1 and all(len(one) == 1 or number.value(one) is not None for one in single):
        return single
    return parts


def _split(text: str) -> list[str]:
    """Parts between separators that stand outside of brackets and quotes, of the first kind that does."""
    grouped = {match.start() for match in _THOUSANDS.finditer(text)} if ", " in text else set()
    marks: dict[str, list[re.Match[str]]] = {}
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in "[({") - (token[0] in "])}")
        if token[0] in _SEPARATORS and depth <= 0 and token.start() not in grouped:
            marks.setdefault(token[0], []).append(token)
    kind = next((kind for kind in _SEPARATORS if kind in marks), None)
    if kind is None:
        return [text.strip()]
    starts = [0, *(mark.end() for mark in marks[kind])]
    ends = [*(mark.start() for mark in marks[kind]), len(text)]
    return [part for start, end in zip(starts, ends, strict=True) if (part := text[start:end].strip())]


def shown(found: List) -> str:
    """One way of writing a list: "[a, b]"; as JSON if that would be read otherwise."""
    plain = f"[{', '.join(shown(one) if isinstance(one, list) else one for one in found)}]"
    return plain if elements(plain) == found else json.dumps(found, ensure_ascii=False)


def _key(found: Any) -> Hashable:
    return tuple(map(_key, found)) if isinstance(found, list) else key(found)


@register("task", "list")
class Ordered(Stated):
    """Several things in order.

    Those that are stated, else the last list of the response; elements are compared as in text.
    """

    instruction = 'End with "The answer is" and the list alone, its elements separated by commas.'
    wanted = "a list such as [a, b]"

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        said = ending(text)
        found = None if phrase is None else elements(sentence(said, phrase))
        if found is None or len(found) == 1:  # it may be the first of several lines
            blocks = [block[0] for block in _BLOCK.finditer(said)]
            if blocks and (not found or str(found[0]) in blocks[-1]):
                found = elements(blocks[-1])
            elif found is None:
                found = _last(said)
        return None if found is None else shown(found)

    def read(self, phrase: str) -> str | None:
        found = elements(phrase)
        return None if found is None else shown(found)

    def same(self, one: str, other: str) -> bool:
        return one == other or ((found := self._key(one)) is not None and found == self._key(other))

    def _key(self, answer: str) -> Hashable:
        found = elements(answer)
        return None if found is None else self._whole([_key(one) for one in found])

    def _whole(self, keys: Sequence[Hashable]) -> Hashable:
        return tuple(keys)


@register("task", "set")
class Unordered(Ordered):
    """Several things in any order, each counted once."""

    def _whole(self, keys: Sequence[Hashable]) -> Hashable:
        return frozenset(keys)


def _last(said: str) -> List | None:
    """The elements of a last line that is a list of short things, or has one (in brackets, after a colon)."""
    line = said.rsplit("\n", 1)[-1]
    first, last = _OPENS.search(line), max(map(line.rfind, "]}"))
    bracketed = _inside(line[first.start() : last + 1]) if first else None
    found = elements(line.rpartition(": ")[2] if bracketed is None else bracketed)
    short = found is not None and len(found) > 1 and all(len(str(one).split()) <= WORDS for one in found)
    return found if bracketed is not None or short else None


@register("task", "json")
class Json(Stated):
    """Any JSON value.

    The one that is stated, else the last object or array of the response; compared by value.
    """

    instruction = "End with the answer as JSON."

    def extract(self, text: str) -> str | None:
        phrase = statement(text)
        stated = None if phrase is None else self.read(phrase)
        if stated is not None and stated[:1] in "[{":
            return stated
        last = deque(_values(ending(text)), maxlen=1)
        return last[0] if last else stated

    def read(self, phrase: str) -> str | None:
        said = phrase.strip(" \t\n`$").removesuffix(".")
        return None if _value(said) is None else _LINES.sub(" ", said)

    def same(self, one: str, other: str) -> bool:
        return one == other or ((found := _value(one)) is not None and found == _value(other))

    def gold(self, written: str) -> str:
        found = self.read(written)
        if found is None:
            raise DataError(f"{written[:80]!r} is no JSON")
        return found


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_constant)


def _values(text: str) -> Iterator[str]:
    """The objects and arrays of a text that are in no other one."""
    place, failed = 0, 0
    while failed < TRIES and (begin := _OPENS.search(text, place)) is not None:
        try:
            _, place = _DECODER.raw_decode(text, begin.start())
        except (ValueError, ArithmeticError, RecursionError):
            place, failed = begin.end(), failed + 1
        else:
            if _value(text[begin.start() : place]) is not None:
                yield _LINES.sub(" ", text[begin.start() : place])


@lru_cache(maxsize=1024)
def _value(text: str) -> Hashable:
    """A JSON text as something that equals another one if the values do: 1 is 1.0, but neither "1" nor true."""
    try:
        return _hashable(_DECODER.decode(text)) if len(text) <= TAIL else None
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return "object", frozenset((name, _hashable(one)) for name, one in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_hashable, value))
    return type(value).__name__.replace("Decimal", "int"), value
