"""A task in a TOML file, ``--task FILE.toml``: a task of one's own without Python.

    instruction = "Name the capital, after the word Capital and a colon."
    pattern = "Capital: (.+)"
    comparison = "text"

Builds on the registry, regex, and the tasks whose comparison it names. ``docs/tasks.md`` says what each key means.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

from tacit import registry
from tacit.config import require
from tacit.errors import ConfigError
from tacit.registry import register
from tacit.tasks.base import Task
from tacit.tasks.regex import Around
from tacit.tasks.stated import Stated

COMPARISONS = ("exact", "text", "number", "maths", "set", "list", "json", "choice")
KEYS = ("instruction", "system", "pattern", "comparison", "stop", "examples")


class Exact(Stated):
    """The stated answer, sign by sign."""

    def read(self, phrase: str) -> str | None:
        return phrase.strip() or None


@register("task", "toml")
class Described(Around):
    """A task of your own without Python.

    Args:
        contents: what the file says, as JSON, see ``inline``.

    Raises:
        ConfigError: it says what a task has not; one sentence with the nearest known.
    """

    form = "FILE.toml"

    def __init__(self, contents: str) -> None:
        try:
            values: dict[str, Any] = {**json.loads(contents)}
        except (ValueError, TypeError):
            raise ConfigError("a task of your own is made from a file, as in --task FILE.toml") from None
        for name in values:
            _known(name, KEYS, "key")
        comparison = _known(_text(values, "comparison") or "text", COMPARISONS, "comparison")
        inner: Task = Exact() if comparison == "exact" else registry.get("task", comparison)()
        super().__init__(inner, _text(values, "pattern"))
        # What is found by a pattern of one's own is not asked for as the other task asks.
        self.instruction = _text(values, "instruction") or ("" if self.pattern else inner.instruction)
        self.system = _text(values, "system") or inner.system
        self.stop = inner.stop
        if "stop" in values:
            require(_texts(values["stop"]) and all(values["stop"]), 'stop is a list of texts, as in ["\\n\\n"]')
            self.stop = tuple(values["stop"])
        examples = values.get("examples", [])
        require(isinstance(examples, list), "examples are tables, each under [[examples]]")
        self.examples = tuple(map(_example, examples))

    @classmethod
    def inline(cls, file: str) -> str:
        """A file as the name of a task, so that what it says goes wherever the name goes.

        Raises:
            ConfigError: it cannot be read, or is no task; the message names it.
        """
        path = Path(file).expanduser()
        try:
            contents = json.dumps(tomllib.loads(path.read_text(encoding="utf-8")), sort_keys=True, ensure_ascii=False)
            cls(contents)
        except OSError as error:
            raise ConfigError(f"the task {file} cannot be read ({error.strerror}); give a TOML file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"the task {file} is no TOML: {' '.join(str(error).split())}") from None
        except TypeError as error:  # a date
            raise ConfigError(f"the task {file} holds what is neither text nor list: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"the task {file}: {error}") from None
        return f"toml:{contents}"


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    require(value is None or isinstance(value, str), f"{name} is a text, not {value!r:.60}")
    return value


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _example(value: Any) -> tuple[str, str]:
    right = isinstance(value, dict) and value.keys() == {"problem", "solution"} and _texts(list(value.values()))
    require(right, "each of [[examples]] has two texts, problem and solution")
    return value["problem"], value["solution"]


def _known(name: str, known: tuple[str, ...], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    require(name in known, f"there is no {what} {name!r}{meant}; there are: {', '.join(known)}")
    return name
