"""Where problems come from: the testbed's endless stream, JSONL files, data sets on the Hub, and sources of plug-ins.

Builds on the registry, problem and, for the stream, testbed. A source is a function (rest of the address, seed, limit)
-> problems; one that never ends says so by an attribute ``endless``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tacit import registry
from tacit.errors import ConfigError, DataError, needed
from tacit.problem import LONGEST, Problem
from tacit.registry import register
from tacit.testbed import check_set, families

TEXT_FIELDS = ("problem", "question", "prompt", "text")
GOLD_FIELDS = ("answer", "gold", "final_answer", "target")
ID_FIELDS = ("id", "unique_id")
FAMILY_FIELDS = ("family", "subject")


def load(source: str, *, seed: int = 0, limit: int | None = None, model: str = "") -> list[Problem]:
    """Problems of a source, in order.

    Args:
        source: the name of a registered source, with what it needs after a colon: "testbed" (sets A and B mixed),
            "testbed:A", "testbed:B", "testbed:C" (or its parts "testbed:C:text", "testbed:C:choice", "testbed:C:list");
            "hub:NAME" or "hub:NAME:SPLIT" (default: test), which may also name a local data-set folder. Anything else
            is the path of a JSONL file, absolute or from the working directory, with one object per line (``problem``,
            optionally ``id``, ``answer`` and ``family``; other usual names of these fields are known).
        seed: of the testbed's stream.
        model: who will be asked; one of the testbed is refused a set whose words it does not know.
        limit: at most so many; 0 or None for all, which the testbed cannot give, being endless.

    Raises:
        DataError: missing, empty or malformed data; the message names file and line.
        ConfigError: no limit for an endless source, limit < 0, or a set that the model does not know.
    """
    if limit is not None and limit < 0:
        raise ConfigError(f"limit is {limit}; it must be 0 (all) or more")
    limit = limit or None
    if endless(source) and limit is None:
        raise ConfigError(f"{source} is an endless stream; say how many problems with --limit (limit in a file)")
    check_set(model, source)
    name, rest = _parts(source)
    chosen = list(islice(_unique(registry.get("source", name)(rest, seed, limit), source), limit))
    if not chosen:
        raise DataError(f"{source} has no problems in it; give a file with one JSON object per line")
    return chosen


def endless(source: str) -> bool:
    """Whether a source makes problems without end."""
    return bool(getattr(registry.get("source", _parts(source)[0]), "endless", False))


def _parts(source: str) -> tuple[str, str]:
    """The registered source that an address names, and the rest of the address; a path is the source "file"."""
    name, _, rest = source.partition(":")
    return (name, rest) if name in registry.names("source") and name != "file" else ("file", source)


@register("source", "testbed")
def testbed(which: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """The testbed's stream: a set, or A and B mixed."""
    for item in families.problems(which or "AB", seed):
        yield Problem(item.id, item.text, item.gold, item.family)


testbed.endless = True  # type: ignore[attr-defined]


def _unique(problems: Iterable[Problem], source: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(f"{source}: the id {problem.id!r} occurs twice; ids must be unique")
        seen.add(problem.id)
        yield problem


@register("source", "file")
def file(name: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """A JSONL file."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the JSONL file in it")
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        others = ", ".join(one for one in registry.names("source") if one != "file")
        raise DataError(f"no data at {path}; give the path of a JSONL file, or a source: {others}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    with handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{path} line {number} is not JSON; give one JSON object per line") from None
            yield _from_object(value, f"{path} line {number}", f"{path.stem}/{number - 1}")


def _from_object(value: Any, where: str, fallback_id: str) -> Problem:
    if not isinstance(value, dict):
        raise DataError(f"{where} is not a JSON object; give one with a field problem")
    text = next((value[name] for name in TEXT_FIELDS if value.get(name) is not None), None)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} has no text in a field problem (or {', '.join(TEXT_FIELDS[1:])})")
    if len(text) > LONGEST:
        raise DataError(f"{where}: the problem has {len(text):,} characters; at most {LONGEST:,} are read")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: the problem holds a NUL or half a surrogate pair, which is no text; remove it")
    gold = next((value[name] for name in GOLD_FIELDS if value.get(name) is not None), None)
    if gold is not None and not isinstance(gold, str | int | float):
        raise DataError(f"{where}: the answer must be a string or a number, not {type(gold).__name__}")
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)  # whole numbers are written as such: some sets keep them as floats
    identifier = next((value[name] for name in ID_FIELDS if name in value), fallback_id)
    if not isinstance(identifier, str | int) or not str(identifier) or len(str(identifier)) > 500:
        raise DataError(f"{where}: the id must be a string of 1 to 500 characters or a number")
    family = next((value[name] for name in FAMILY_FIELDS if value.get(name) is not None), None)
    return Problem(str(identifier), text, None if gold is None else str(gold), None if family is None else str(family))


@register("source", "hub")
def hub(address: str, seed: int, limit: int | None) -> Iterator[Problem]:
    """A data set of the Hub, or a local data-set folder."""
    datasets = needed("hub", "a data set of the Hub", "datasets")
    name, *split = address.split(":")
    try:
        loaded = datasets.load_dataset(name, split=split[0] if split else "test")
    except Exception as error:  # the client raises many kinds, none of which a user should have to know
        raise DataError(f"data set {name} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    for index, value in enumerate(loaded):
        yield _from_object(dict(value), f"hub:{address} row {index}", f"{name}/{index}")
