"""Files of settings, as a user or an earlier version wrote them.

Builds on config.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from tacit.config import GONE, LATER, PARTS, require
from tacit.errors import ConfigError


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
