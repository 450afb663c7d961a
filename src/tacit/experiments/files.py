"""Files: settings as a user or an earlier version wrote them, and files that appear whole or not at all.

Builds on config.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import tomllib
from pathlib import Path
from typing import Any

from tacit.config import GONE, LATER, PARTS, require
from tacit.errors import ConfigError


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


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a settings file; ConfigError if there is none or it is malformed."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no settings at {path} ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None


def completed(held: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file as if they were of today: of those that are newer than it, what held before they were
    there, and those that are gone are left out.

    Raises:
        ConfigError: one that is gone was in use.
    """
    values = dict(held)
    for part, kind in PARTS.items():
        if not isinstance(value := values.get(part), dict):
            continue
        gone = GONE.get(part, {})
        used = [f"{name} = {value[name]!r}" for name in gone if name in value and value[name] != gone[name]]
        used += ["init = 'text'"] if part == "learn" and value.get("init") == "text" else []
        require(
            not used,
            f"this run used {', '.join(used)}, which this version no longer has; continue it with tacit 0.1 or start "
            "another",
        )
        defaults = dataclasses.asdict(kind())
        if part == "learn":
            defaults |= {name: before for name, before in LATER.items() if name in defaults}
        values[part] = {**defaults, **{name: held for name, held in value.items() if name not in gone}}
    return values
