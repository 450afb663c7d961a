"""Files that appear whole or not at all.

Builds on nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace ``path`` by ``data``: a reader, or a crash, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            # Text from models may hold half a surrogate pair.
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, indent: int = 1) -> None:
    """Replace ``path`` by ``value`` as JSON; a value that is no number is an error."""
    write_atomically(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")
