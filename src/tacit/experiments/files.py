"""Files of settings, as a user or an earlier version wrote them.

Builds on config.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from pathlib import Path
from types import UnionType
from typing import Any

from tacit import registry
from tacit.config import GONE, LATER, UNSAID, LearnConfig, RecallConfig, S, Sampling, require
from tacit.errors import ConfigError

PARTS: dict[str, Any] = {"sampling": Sampling, "learn": LearnConfig, "recall": RecallConfig}
"""The tables of settings."""


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


def changed(settings: S, values: Any, where: str) -> S:
    """``settings`` with other values, as a TOML or JSON file has them: lists for tuples, tables for nested settings.

    Raises:
        ConfigError: a name or a type that is not there; the message begins with ``where``.
    """
    require(isinstance(values, dict), f"{where}: settings are a table, not {type(values).__name__}")
    hints = typing.get_type_hints(type(settings))
    if values.get("plugins") and "plugins" in hints:  # they register what other settings name
        registry.load(_typed(values["plugins"], hints["plugins"], f"{where}: plugins"))
    gone = next((GONE.get(part, {}) for part, kind in PARTS.items() if isinstance(settings, kind)), {})
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name in gone:
            raise ConfigError(f"{where}: {name} did not pay and has left (docs/log/); take it out, or use tacit 0.1")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{where}: there is no setting {name!r}{meant}; there are: {', '.join(hints)}")
        if name in PARTS:
            given[name] = changed(getattr(settings, name), value, f"{where} [{name}]")
        elif value is not UNSAID or getattr(type(settings), name, value) is not UNSAID:
            given[name] = _typed(value, hints[name], f"{where}: {name}")
    return dataclasses.replace(settings, **given)  # type: ignore[type-var]


def _typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as a field of that type holds it; ConfigError if it cannot."""
    if isinstance(hint, UnionType):
        if value is None:
            return None
        [hint] = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    plain = typing.get_origin(hint) or hint
    if plain is tuple and isinstance(value, list | tuple):
        return tuple(_typed(one, typing.get_args(hint)[0], where) for one in value)
    if plain is float and type(value) is int:
        return float(value)
    name = "a list" if plain is tuple else "a table" if plain is dict else f"of type {plain.__name__}"
    fits = isinstance(value, plain) and isinstance(value, bool) == (plain is bool)
    require(fits, f"{where} is {value!r}; it must be {name}")
    return value
