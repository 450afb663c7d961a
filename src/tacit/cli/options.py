"""Options made of settings: each field of a settings class is a flag, a key of a TOML file and an environment variable.

Builds on config and the registry. A field's help is the first sentence of what its class says of it. Its default is the
class's, its choices are the registry's names: nothing is said twice. What is given counts in this order: flag,
``TACIT_`` variable, ``--config`` file, default.

    @taking(RunConfig, leave_out=("out",))
    def run(given: Given, out: ...) -> None:
        config = given.settings(RunConfig())
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, TypeVar

import typer

from tacit import registry
from tacit.errors import ConfigError
from tacit.experiments.run_folder import PARTS, changed, read_toml

S = TypeVar("S")

PANELS = {"sampling": "Sampling", "learn": "Learning", "recall": "Recall and routing"}
SCALE = "Past one machine"
METAVARS = {int: "N", float: "X", str: "TEXT", bool: None}
NAMED = {
    **dict.fromkeys(("model", "reward_model"), "testbed|PATH|HUBID"),
    **dict.fromkeys(("device", "dtype", "namespace", "name"), "NAME"),
    **dict.fromkeys(("methods", "orders", "baselines"), "A,B"),
    "data": "testbed|PATH|hub:NAME",
    "out": "DIR",
    "bank": "URL",
    "engine": "URL",
    "ray": "local|ADDRESS",
    "plugins": "FILE.py",
    "fields": "ROLE=NAME",
    "host": "ADDRESS",
    "allow_origin": "ORIGIN",
    "seeds": "0,1,2",
}
"""What a value looks like, by type, and by name where that says more."""
FLAGS = {"plugins": ("--plugin", "--method-file"), "fields": ("--field",)}
"""Flags that are not called as their field is."""


@dataclass(frozen=True)
class Setting:
    """One field of a settings class, or of a table of it.

    Attributes:
        name: of the field, and, with dashes, of the flag.
        table: "" or the table it stands in: sampling, learn, recall.
        kind: type of a value, or of each where there are several.
        several: whether it is a list.
        default: the class's.
        choices: kind of the registry whose names it takes; "" for none.
        help: the first sentence of what its class says of it.
    """

    name: str
    table: str
    kind: type[Any]
    several: bool
    default: Any
    choices: str
    help: str

    def parameter(self) -> inspect.Parameter:
        """As a keyword of a command; None stands for "not given", so that other places may say it."""
        flags = FLAGS.get(self.name, ("--" + self.name.replace("_", "-"),))
        if self.kind is bool:
            flags = (f"{flags[0]}/--no-{flags[0][2:]}",)
        shown = ",".join(map(str, self.default)) if self.several else str(self.default)
        looks = "|".join(_names(self.choices)) if self.choices else NAMED.get(self.name, METAVARS[self.kind])
        option = typer.Option(
            *flags,
            metavar=looks,
            help=self.help if self.default in (None, (), "") else rf"{self.help} \[default: {shown}]",
            envvar=f"TACIT_{self.name.upper()}" if self.name != "plugins" else None,
            show_envvar=False,
            show_default=False,
            rich_help_panel=SCALE if self.name in ("ray", "learners", "engines") else PANELS.get(self.table),
        )
        # Numbers of a list are read from text, so that "0,1,2" may be one value.
        hint: Any = list[str] | None if self.several else self.kind | None
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, kind, default=None, annotation=Annotated[hint, option])

    def value(self, given: Any) -> Any:
        """What a flag or a variable gave, as the field has it; None for nothing.

        Raises:
            ConfigError: a list of something else than the field holds.
        """
        if not self.several or not given:
            return None if self.several else given
        words = [part.strip() for text in given for part in text.split(",") if part.strip()]
        if "none" in words and len(words) > 1:
            raise ConfigError(f"--{self.name} is either none or a list of names")
        try:
            return tuple(dict.fromkeys(self.kind(word) for word in words if word != "none"))
        except ValueError:
            raise ConfigError(f"--{self.name} is {','.join(words)!r}; give whole numbers, as in 0,1,2") from None


@dataclass(frozen=True)
class Given:
    """What a user gave.

    Attributes:
        cls: the class of the settings.
        flags: values by name, of flags and variables, as far as there are any.
        file: the tables of ``--config``.
        where: the file's name, for messages.
    """

    cls: type[Any]
    flags: Mapping[str, Any] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    where: str = "the settings"

    def settings(self, base: S, **more: Any) -> S:
        """``base`` with what was given, and ``more`` in place of either.

        Raises:
            ConfigError: a key of the file that means nothing, or a value that a setting cannot have.
        """
        values: dict[str, Any] = dict(self.file)
        for name, value in {**self.flags, **more}.items():
            table = settings_of(self.cls)[name].table
            values |= {table: {**values.get(table, {}), name: value}} if table else {name: value}
        if self.flags.get("plugins") and isinstance(more_of := self.file.get("plugins", []), list):
            values["plugins"] = [*more_of, *self.flags["plugins"]]  # the one place takes nothing from the other
        return changed(base, values, self.where)


def _names(kind: str) -> list[str]:
    """The registry's names of a kind; of those built in where a plug-in fails, which is told once a command runs."""
    try:
        return registry.names(kind)
    except ConfigError:
        return list(registry.BUILT_IN[kind])


def settings_of(cls: type[Any]) -> dict[str, Setting]:
    """Every setting of a class that a flag can give, tables flattened. Only a file can give tables of free names."""
    return {setting.name: setting for setting in _settings(cls, "")}


def _settings(cls: type[Any], table: str) -> Iterator[Setting]:
    hints, texts = typing.get_type_hints(cls), described(cls)
    for part in dataclasses.fields(cls):
        hint = hints[part.name]
        if part.name in PARTS:
            yield from _settings(PARTS[part.name], part.name)
            continue
        if isinstance(hint, UnionType):
            [hint] = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        several = typing.get_origin(hint) is tuple
        kind = typing.get_args(hint)[0] if several else hint
        if kind in METAVARS:
            choices = part.metadata.get("kind", "")
            yield Setting(part.name, table, kind, several, part.default, choices, texts[part.name])


def described(cls: type[Any]) -> dict[str, str]:
    """The first sentence of what a class and its bases say of each attribute; of some attributes' common text, all."""
    texts: dict[str, str] = {}
    for known in reversed(cls.__mro__):
        block = inspect.cleandoc(known.__doc__ or "").partition("Attributes:\n")[2]
        for names, text in re.findall(r"^    ([a-z_0-9, ]+): (.+(?:\n        .+)*)", block, re.MULTILINE):
            sentence = re.split(r"(?<=\.) ", " ".join(text.split()), maxsplit=1)[0]
            texts |= {name.strip(): sentence for name in names.split(",")}
    return texts


def taking(
    cls: type[Any],
    *,
    leave_out: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    read: Callable[[str], dict[str, Any]] = read_toml,
) -> Callable[[Any], Any]:
    """Decorator: a command takes the settings of ``cls`` as options, and ``--config``; its first argument is what was
    given.

    Args:
        cls: a settings class.
        leave_out: settings that the command gives another meaning, or none.
        only: if there are any, no others.
        read: gives the tables of ``--config``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        settings = [one for one in settings_of(cls).values() if one.name not in leave_out]
        settings = [one for one in settings if not only or one.name in only]
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def run(config: str | None = None, **values: Any) -> None:
            flags = {one.name: one.value(values.pop(one.name)) for one in settings}
            flags = {name: value for name, value in flags.items() if value is not None}
            given = Given(cls, flags, read(config), config) if config else Given(cls, flags)
            command(given, **values)

        parameters = [*own, _CONFIG, *(one.parameter() for one in settings)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        run.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in parameters])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None, typer.Option("--config", metavar="FILE.toml", help="Settings by their names; flags come first.")
    ],
)
