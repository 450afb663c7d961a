"""Tasks by name, with what they are made from after a colon: "maths", "regex:PATTERN".

Builds on the registry and base.
"""

from __future__ import annotations

import inspect
import json
import textwrap

from tacit import registry
from tacit.errors import ConfigError
from tacit.tasks.base import Task


def task_named(name: str, *, code: bool = False) -> Task:
    """The task of that name; ``code`` says whether the operator allows it to run programs that a model writes.

    Raises:
        ConfigError: there is none, it cannot be made from what follows the name, or it may not do what it does.
    """
    kind, colon, given = name.partition(":")
    part = registry.get("task", kind)
    wants = list(inspect.signature(part).parameters.values()) if isinstance(part, type) else []
    if colon and not wants:
        raise ConfigError(f"the task {kind} takes nothing after its name, and {given!r} is given")
    if not colon and any(one.default is one.empty for one in wants):
        raise ConfigError(f"the task {kind} needs more; give {kind}:{wants[0].name.upper()}")
    task: Task = part if not isinstance(part, type) else part(given) if colon else part()
    if colon:
        task.name = name
    task.permit(code)
    return task


def called(name: str) -> str:
    """A task's name as people read it: of a TOML file, which is kept as what it says, no more than its instruction."""
    kind, _, given = name.partition(":")
    if kind != "toml" or not given.startswith("{"):
        return name
    said = textwrap.shorten(str(json.loads(given).get("instruction", "")), 50, placeholder="...")
    return f"FILE.toml ({said!r})" if said else "FILE.toml"
