"""What a memory's values have to be: bounded, of one form, and such that every database gives back what it was given.

Builds on errors. The same checks are made of what comes in and of what is read back. So nothing is kept that cannot be
read. Bounds are far above what learning makes; they are for what comes from elsewhere.
"""

from __future__ import annotations

import json
from typing import Any

from tacit.errors import MemoryFormatError

MAX_NAME = 400
"""Longest id, namespace, problem id, fingerprint or key kind, in characters."""

MAX_TEXT = 1_000_000
"""Longest problem or reason, in characters."""

MAX_LABEL = 100_000
"""Longest label of a provenance, in characters."""

MAX_PROVENANCE = 4_000_000
"""Longest provenance, in characters of its JSON."""

MAX_DEPTH = 64
"""Most objects and lists within each other in a provenance. Ours have 3; a few hundred are what JSON libraries bear."""


def parse_json(text: str | bytes, what: str) -> Any:
    """JSON text as a value; MemoryFormatError naming ``what`` when it is not JSON or nested beyond reason."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MemoryFormatError(f"{what} is not JSON: {error}") from None


def check_name(what: str, value: object, most: int = MAX_NAME) -> None:
    """MemoryFormatError unless ``value`` can serve as an identifier: 1 to ``most`` printable characters."""
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise MemoryFormatError(f"{what} must be 1 to {most} printable characters, not {str(value)[:60]!r}")
    check_text(what, value)


def check_text(what: str, value: object, most: int | None = MAX_TEXT) -> None:
    """MemoryFormatError unless ``value`` is text that every database can keep, of at most ``most`` characters."""
    # NUL and lone surrogates are what databases cannot keep; better refused here than mangled there.
    if not isinstance(value, str):
        raise MemoryFormatError(f"{what} must be text, not {type(value).__name__}")
    if most is not None and len(value) > most:
        raise MemoryFormatError(f"{what} has {len(value):,} characters; a bank keeps at most {most:,}")
    if "\x00" in value:
        raise MemoryFormatError(f"{what} contains a NUL character, which a bank cannot keep")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MemoryFormatError(f"{what} contains half a surrogate pair, which is no valid text") from None


def checked_provenance(provenance: object) -> dict[str, Any]:
    """``provenance`` exactly as a bank or a file returns it, if it is a JSON object within the bounds."""
    if not isinstance(provenance, dict):
        raise MemoryFormatError(f"provenance must be a JSON object, not {type(provenance).__name__}")
    if not _is_shallow(provenance):
        raise MemoryFormatError(f"provenance is nested more than {MAX_DEPTH} deep")
    try:
        text = json.dumps(provenance, allow_nan=False, ensure_ascii=False)
        text.encode()
        clean: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError) as error:
        raise MemoryFormatError(f"provenance is not plain finite JSON: {error}") from None
    if len(text) > MAX_PROVENANCE:
        raise MemoryFormatError(f"provenance has {len(text):,} characters; a bank keeps at most {MAX_PROVENANCE:,}")
    if len(str(clean.get("label", ""))) > MAX_LABEL:
        raise MemoryFormatError(f"the label in the provenance has more than {MAX_LABEL:,} characters")
    return clean


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def checked_time(created: object) -> float:
    """Unix seconds as a float that has one form only."""
    # The upper bound is for whole numbers from a file, which may be beyond what a float can hold.
    if not isinstance(created, int | float) or isinstance(created, bool) or not 0 <= created < 2**63:
        raise MemoryFormatError(f"created must be unix seconds, not {str(created)[:60]}")
    return float(created) + 0.0  # -0.0 is written as 0.0 by some databases
