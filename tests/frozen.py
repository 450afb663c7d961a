"""Golden values: what must stay the same, in JSON files under ``tests/golden``.

``TACIT_GOLDEN=write pytest tests/test_identity.py`` writes the files anew instead of comparing. Do that only together
with a numbered migration, and read the difference line by line before committing it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
SWITCH = "TACIT_GOLDEN"


def same(name: str, value: Any) -> None:
    """Assert that ``value`` is what ``golden/NAME.json`` says; or write it there, if the switch says so."""
    file = GOLDEN / f"{name}.json"
    found = json.loads(json.dumps(value))
    if os.environ.get(SWITCH) == "write":
        file.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    assert found == json.loads(file.read_text(encoding="utf-8"))


def shape(value: Any) -> Any:
    """Keys and types of JSON: an object by key, a list by what its elements may be, a leaf by its type's name."""
    if isinstance(value, Mapping):
        return {str(key): shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [merged(shape(item) for item in value)]
    return "null" if value is None else type(value).__name__


def merged(shapes: Iterable[Any]) -> Any:
    """One shape for several: objects key by key, lists as lists, and leaves as "float|null"."""
    found = list(shapes)
    objects = [one for one in found if isinstance(one, dict)]
    lists = [one[0] for one in found if isinstance(one, list)]
    leaves = sorted({part for one in found if isinstance(one, str) for part in one.split("|")} - {"nothing"})
    parts: list[Any] = []
    if objects:
        keys = sorted({key for one in objects for key in one})
        parts.append({key: merged(one.get(key, "absent") for one in objects) for key in keys})
    if lists:
        parts.append([merged(lists)])
    if leaves:
        parts.append("|".join(leaves))
    return "nothing" if not parts else parts[0] if len(parts) == 1 else {"any of": parts}
