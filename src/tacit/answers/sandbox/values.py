"""Values as they cross the sandbox's walls: plain JSON with tags, read back into plain values and nothing else.

Builds on nothing of this package, since the sandboxed processes import it too. What no tag describes (an object of the
candidate's own class) becomes its type's name and attributes. So an ``__eq__`` that always says yes has no say.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import re
from collections.abc import Iterator
from typing import Any

LONGEST = 100_000
"""Characters of one value's text; a longer one has no text."""
NODES = 20_000
DEPTH = 40

_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Unsayable(Exception):
    """A value too large, too deep, or of a kind that cannot cross."""


class Opaque:
    """An object that only a sandbox knows; equal to nothing but what looks the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def encode(value: Any) -> str:
    """A value as JSON text; a set in the order of its elements' texts.

    Raises:
        Unsayable: it is too large or too deep.
    """
    text = json.dumps(_tagged(value, DEPTH, [NODES]))
    if len(text) > LONGEST:
        raise Unsayable("a value is too large")
    return text


def _tagged(value: Any, depth: int, left: list[int]) -> Any:  # noqa: PLR0911, PLR0912 - one kind of value each
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise Unsayable("a value is too large or too deep")
    kind: Any = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -(2**53) < number < 2**53 else ["int", hex(number)]
    if isinstance(value, float):
        return ["float", float.__repr__(value)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    if kind is complex:
        return ["complex", repr(value.real), repr(value.imag)]
    if isinstance(value, dict):
        return ["dict", *([_tagged(k, depth - 1, left), _tagged(v, depth - 1, left)] for k, v in dict.items(value))]
    for name, base in _SEQUENCES.items():
        if isinstance(value, base):
            items = [_tagged(item, depth - 1, left) for item in base.__iter__(value)]  # type: ignore[attr-defined]
            return [name, *(sorted(items, key=json.dumps) if "set" in name else items)]
    if isinstance(value, Iterator):
        return ["iterator", *(_tagged(item, depth - 1, left) for item in value)]
    bare = (kind.__str__, kind.__repr__) == (object.__str__, object.__repr__)
    inside = getattr(value, "__dict__", None)
    if callable(value) or hasattr(value, "__await__") or (bare and not inside):
        raise Unsayable("nothing says what it is")  # functions and empty objects look alike and are not
    if type(inside) is not dict or not inside:  # fractions, dates: as they write themselves, without an address
        inside = {"": re.sub(" at 0x[0-9a-f]+", "", str(value))}
    return ["object", kind.__name__, *([str(key), _tagged(held, depth - 1, left)] for key, held in inside.items())]


def decode(text: str) -> Any:
    """The value of a text, whoever wrote it: plain values and ``Opaque`` ones.

    Raises:
        Unsayable: it is no text of a value.
    """
    try:
        return _plain(json.loads(text[: LONGEST + 1]))
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, MemoryError, OverflowError):
        raise Unsayable("that is no value") from None


def _plain(tagged: Any) -> Any:  # noqa: PLR0911 - one tag each
    if not isinstance(tagged, list):
        if isinstance(tagged, dict | float):
            raise ValueError
        return tagged
    tag, *items = tagged
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](_plain(item) for item in items)
    if tag == "iterator":
        return iter([_plain(item) for item in items])
    if tag == "dict":
        return {_plain(key): _plain(value) for key, value in items}
    if tag == "int":
        return int(items[0], 16)
    if tag == "float":
        return float(items[0])
    if tag == "complex":
        return complex(float(items[0]), float(items[1]))
    if tag == "bytes":
        return bytes.fromhex(items[0])
    if tag == "object":
        return Opaque(json.dumps(items))
    raise ValueError


def canonical(text: str) -> str:
    """One text, or the digest of a long one, for values that Python's ``==`` calls equal (1, 1.0 and True; a set and a
    frozenset; dicts in any order); floats count to ten digits.

    Raises:
        Unsayable: it is no text of a value.
    """
    try:
        found = _canonical(json.loads(text[: LONGEST + 1]))
        return found if len(found) < 200 else hashlib.sha256(found.encode()).hexdigest()
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, MemoryError, OverflowError):
        raise Unsayable("that is no value") from None


def _canonical(tagged: Any) -> str:  # noqa: PLR0911 - one tag each
    if isinstance(tagged, bool | int):
        return str(int(tagged))
    if not isinstance(tagged, list):
        return json.dumps(tagged)
    tag, *items = tagged
    if tag == "float":
        number = float(items[0])
        whole = math.isfinite(number) and number.is_integer() and abs(number) < 2**53
        return str(int(number)) if whole else f"{number:.10g}"
    if tag in ("set", "frozenset"):
        return f"set({','.join(sorted(map(_canonical, items)))})"
    if tag == "dict":
        return f"dict({','.join(sorted(f'{_canonical(key)}:{_canonical(value)}' for key, value in items))})"
    if tag in ("list", "tuple", "iterator"):
        return f"{tag}({','.join(map(_canonical, items))})"
    return json.dumps(tagged)


def exception(name: str) -> BaseException:
    """A built-in exception of that name, or a RuntimeError that says it."""
    kind = getattr(builtins, name, None)
    try:
        if isinstance(kind, type) and issubclass(kind, Exception) and "Iteration" not in name:  # that ends loops
            return kind("raised by the candidate")
    except TypeError:  # UnicodeDecodeError and the like want more
        pass
    return RuntimeError(name)
