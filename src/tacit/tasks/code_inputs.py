"""Further inputs for a function, like those that are known, or as its annotations say: seeded, small and harmless.

Builds on answers' values. An input that no problem would give is worse than none: right programs differ on it. So
numbers stay within the range of those that are known, texts within their words and letters. Nothing is empty that never
was.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from tacit.answers.sandbox import call, values

COUNT = 8
_ROUNDS = 4 * COUNT
_LETTERS = "abcde"
_KINDS = ("int", "list[int]", "str", "list[str]", "list[list[int]]")


def like(known: Sequence[str]) -> list[str]:
    """Calls like the known ones: each argument is varied among those seen at its place."""
    drawn = random.Random(json.dumps(sorted(known)))
    shapes: dict[tuple[int, tuple[str, ...]], list[list[Any]]] = {}
    for text in sorted(known):
        _, arguments, named = values.decode(text)
        shapes.setdefault((len(arguments), tuple(sorted(named))), []).append(
            [*arguments, *(named[name] for name in sorted(named))]
        )
    if not shapes:
        return []
    (count, names), rows = max(shapes.items(), key=lambda item: (len(item[1]), item[0]))
    columns = list(zip(*rows, strict=True))
    made = []
    for _ in range(_ROUNDS):
        row = [_vary(drawn, column) for column in columns]
        made.append((row[:count], dict(zip(names, row[count:], strict=True))))
    return _distinct(made, known)


def annotated(header: str) -> list[str]:
    """Calls with the types of a signature; none where an argument without a default has no known type."""
    places = _places(header)
    drawn = random.Random(header)
    made: list[tuple[list[Any], dict[str, Any]]] = []
    for size in range(_ROUNDS):
        try:
            made.append(([_typed(drawn, place.annotation, 1 + size // 6) for place in places], {}))
        except KeyError:
            return []
    return _distinct(made, ()) if places else []


def kinds(header: str) -> list[list[str]]:
    """For a signature without types: calls with arguments of some kinds, the same kinds in each list."""
    count = len(_places(header))
    if not count:
        return []
    rows = product(_KINDS, repeat=count) if count < 3 else [(kind,) * count for kind in _KINDS]
    heads = [", ".join(f"a{place}: {kind}" for place, kind in enumerate(row)) for row in rows]
    return [annotated(f"def f({head}):") for head in heads]


def _places(header: str) -> list[ast.arg]:
    """The arguments of a signature that have no default."""
    try:
        arguments = ast.parse(f"{header}\n    pass").body[0].args  # type: ignore[attr-defined]
    except SyntaxError:
        return []
    places = [*arguments.posonlyargs, *arguments.args]
    return places[: len(places) - len(arguments.defaults)]


def _distinct(made: Iterable[tuple[list[Any], dict[str, Any]]], known: Sequence[str]) -> list[str]:
    texts: dict[str, None] = {}
    for arguments, named in made:
        try:
            texts.setdefault(call(arguments, named))
        except values.Unsayable:
            continue
    return [text for text in texts if text not in known][:COUNT]


def _vary(drawn: random.Random, seen: Sequence[Any]) -> Any:  # noqa: PLR0911 - one kind of value each
    """A value like those seen at one place."""
    value = drawn.choice(seen)
    same = [one for one in seen if type(one) is type(value)]
    if isinstance(value, bool):
        return drawn.random() < 0.5
    if isinstance(value, int):
        return drawn.randint(min(same), max(*same, min(same) + 5))
    if isinstance(value, float):
        return round(drawn.uniform(min(same), max(same) + 1), 2) if all(abs(one) < 1e9 for one in same) else value
    if isinstance(value, str):
        return _words(drawn, value, same)
    if isinstance(value, list | set | frozenset):
        items = [item for one in same for item in (one if isinstance(one, list) else sorted(one, key=repr))]
        if not items:
            return value
        size = drawn.randint(min(map(len, same)), max(map(len, same)) + 1)
        return type(value)(_vary(drawn, items) for _ in range(size))
    if isinstance(value, tuple):
        alike = [one for one in same if len(one) == len(value)]
        return tuple(_vary(drawn, column) for column in zip(*alike, strict=True))
    if isinstance(value, dict):
        held = [item for one in same for item in one.values()]
        return {key: _vary(drawn, held) for key in value}
    return value


def _words(drawn: random.Random, value: str, seen: Sequence[str]) -> str:
    """A text of seen words at their places; a single word of seen letters and digits, its other characters kept."""
    words = value.split(" ")
    rows = [one.split(" ") for one in seen]
    if len(words) > 1:
        alike = [row for row in rows if len(row) == len(words)]
        if len(alike) > 1:
            return " ".join(drawn.choice(column) for column in zip(*alike, strict=True))
        return " ".join(drawn.choice([word for row in rows for word in row]) for _ in words)
    text = "".join(seen)
    for pattern in ("[0-9]", "[a-z]", "[A-Z]"):
        known = re.findall(pattern, text)
        value = re.sub(pattern, lambda _, known=known: drawn.choice(known), value)
    return value


def _typed(drawn: random.Random, annotation: ast.expr | None, size: int) -> Any:
    """A value of a type, as annotated; KeyError for a type that is not known."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):  # int | None
        return _typed(drawn, annotation.left, size)
    inner: list[ast.expr] = []
    if isinstance(annotation, ast.Subscript):
        inside = annotation.slice
        inner = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        annotation = annotation.value
    if annotation is None:
        raise KeyError("no annotation")
    name = ast.unparse(annotation).rpartition(".")[2].lower()
    number = ast.Name("int")
    if name in ("list", "sequence", "iterable", "set", "frozenset", "collection"):
        items = [_typed(drawn, inner[0] if inner else number, size) for _ in range(size + 1)]
        return {"set": set, "frozenset": frozenset}.get(name, list)(items)
    if name == "tuple":
        if len(inner) == 2 and isinstance(inner[1], ast.Constant):  # tuple[int, ...]
            inner = [inner[0]] * (size + 1)
        return tuple(_typed(drawn, kind, size) for kind in inner or [number] * 2)
    if name in ("dict", "mapping"):
        kinds = inner if len(inner) == 2 else [ast.Name("str"), number]
        return {_typed(drawn, kinds[0], size): _typed(drawn, kinds[1], size) for _ in range(size + 1)}
    if name in ("optional", "union") and inner:
        return _typed(drawn, inner[0], size)
    makers: dict[str, Any] = {
        "int": lambda: drawn.randint(0, 4 * size),
        "float": lambda: round(drawn.uniform(0, 4 * size), 1),
        "bool": lambda: drawn.random() < 0.5,
        "str": lambda: "".join(drawn.choices(_LETTERS, k=size + 1)),
        "any": lambda: drawn.randint(0, 4 * size),
    }
    return makers[name]()
