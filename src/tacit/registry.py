"""The registry: every part that can be exchanged, by kind and name. A new part is one file that touches no list.

    from tacit import register

    @register("reward", "short")
    def short(attempts): ...

Builds on errors. Three ways in: what is built in (``BUILT_IN``, imported when first asked for); installed packages, by
the entry-point group ``tacit.plugins``, whose entries name a module that registers; and files, by ``--plugin FILE`` or
``TACIT_PLUGINS``. Every process that works for another one (a learner, a comparison's jobs, Ray's actors) is told its
plug-ins. What each kind has to be is said in ``KINDS``; ``docs/extend.md`` has an example of each.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from tacit.errors import ConfigError

GROUP = "tacit.plugins"
ENVIRONMENT = "TACIT_PLUGINS"
"""Files to load in every process, separated as in PATH."""

KINDS = {
    "task": "a tasks.base.Task: how problems are asked, where an answer is found, when two are the same",
    "source": "(rest of the address, seed, limit) -> problems; with an attribute endless",
    "reward": "(rewards.Attempts) -> a reward per rollout",
    "verifier": "(settings) -> a judges.verifiers.Verifier, or None",
    "key": "(backbone, text, argument) -> a vector [D]; text is the problem's",
    "label": "(labels.Evidence) -> a labels.Label, or None where the plain vote is to decide",
    "start": "(model.prompts.Start) -> the soft prompt [K, d] that learning begins with",
    "carrier": "(backbone) -> a model.prompts.Prompt: how the numbers of a memory enter the model",
    "engine": "(backbone, settings) -> an engines.base.Engine",
    "bank": "(address, **settings) -> a bank.base.Bank; the name is the address's scheme",
    "method": "a methods.base.Method",
    "admission": "(settings, steps) -> whether a learned memory is admitted, and why",
}

BUILT_IN: dict[str, dict[str, str]] = {
    "task": {
        **{name: f"tasks.{name}" for name in ("maths", "number", "choice", "text", "regex", "toml")},
        **dict.fromkeys(("list", "set", "json"), "tasks.lists"),
        **{"reasoning-gym": "tasks.reasoning_gym", "python": "tasks.code"},
    },
    "source": dict.fromkeys(("testbed", "file", "hub"), "tasks.sources")
    | {"reasoning-gym": "tasks.reasoning_gym", "families": "tasks.families.source"},
    "reward": dict.fromkeys(("majority", "random", "format"), "rewards"),
    "verifier": {
        "reward-model": "judges.reward_models",
        **dict.fromkeys(("vote", "logprob", "none"), "judges.verifiers"),
    },
    "key": dict.fromkeys(("last", "input", "hidden", "kv", "relative"), "model.keys"),
    "label": dict.fromkeys(("verified", "confident", "zero-shot", "routed", "all"), "labels"),
    "start": dict.fromkeys(("gaussian", "vocabulary", "trace"), "model.prompts"),
    "carrier": {"prompt": "model.prompts", "layers": "model.carriers"},
    "engine": {"local": "engines.local", "vllm": "engines.vllm.engine", "ray": "cluster.remote"},
    "bank": dict.fromkeys(("sqlite", "postgresql"), "bank"),
    "method": {
        **{name: f"methods.{name.replace('-', '_')}" for name in ("zero-shot", "majority")},
        **dict.fromkeys(("best-of-2", "best-of-8", "likeliest"), "methods.best_of"),
        **{"icl": "methods.icl", "icl-routed": "methods.icl", "icl-reflect": "methods.reflection"},
        **dict.fromkeys(("reasoning-bank", "reasoning-bank-obeyed"), "methods.reasoning_bank"),
        **{"lag": "methods.lag", "slot": "methods.slot", "best-first-line": "methods.first_line"},
        **dict.fromkeys(("instance-full", "instance-lora"), "methods.instance"),
        **dict.fromkeys(("sequential-full", "sequential-lora"), "methods.sequential"),
        **dict.fromkeys(("ttrl-full", "ttrl-lora", "ttrl-soft"), "methods.ttrl"),
        **dict.fromkeys(("grpo-full", "grpo-lora", "grpo-soft"), "methods.grpo_labels"),
        **dict.fromkeys(("elm", "elm-offline", "elm-unrouted", "elm-vote", "elm-paper"), "methods.elm"),
        **dict.fromkeys(
            ("elm-random", "elm-unlike", "elm-random-reward", "elm-format-reward", "elm-oracle"), "methods.elm"
        ),
        "truth": "methods.truth",
    },
    "admission": {"reward": "learning"},
}
"""Per kind, the module of each part that comes with Tacit; once imported, it registers the part as a plug-in does."""

LEFT = {
    **dict.fromkeys(
        ("elm-consolidated", "renewed", "nearest", "likeliest"),
        "did not pay and has left (docs/log/); take it out, or use tacit 0.1",
    ),
    "elm-strict": "is what elm does in any window now; take elm",
    "elm-confident": "is what elm-vote does now; take elm-vote",
}
"""Parts that are no longer there, and what is said of them."""

T = TypeVar("T")

_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_LOADED: set[str] = set()
"""Files and entry points that were loaded, or are being loaded; an entry point has a " = " in it."""


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator: make a part selectable by name.

    Args:
        kind: one of ``KINDS``, where it says what the part has to be.
        name: free for that kind; what settings and flags call it.

    Raises:
        ConfigError: there is no such kind, or the name is taken by another part.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no kind {kind!r} of parts; there are: {', '.join(KINDS)}")

    def decorate(part: T) -> T:
        home = f"tacit.{BUILT_IN[kind][name]}" if name in BUILT_IN[kind] else part.__module__
        if part.__module__ != home or _REGISTERED[kind].get(name, part) is not part:
            raise ConfigError(f"there is already a {kind} named {name!r}; register yours under another name")
        _REGISTERED[kind][name] = part
        if isinstance(part, type) and "name" not in vars(part):
            part.name = name  # type: ignore[attr-defined]
        return part

    return decorate


def get(kind: str, name: str) -> Any:
    """The part of that kind and name, imported now if it is built in.

    Raises:
        ConfigError: there is none; the message has the nearest names.
    """
    known(kind, name)
    if name not in _REGISTERED[kind]:
        importlib.import_module(f"tacit.{BUILT_IN[kind][name]}")
    return _REGISTERED[kind][name]


def names(kind: str) -> list[str]:
    """Names of all parts of a kind: those built in, in their order, then those of plug-ins."""
    load()
    return [*BUILT_IN[kind], *sorted(set(_REGISTERED[kind]) - set(BUILT_IN[kind]))]


def known(kind: str, name: str, what: str | None = None) -> str:
    """``name``, if there is a part of that kind and name; imports no built-in.

    Args:
        what: what the message calls it, if not the kind.

    Raises:
        ConfigError: there is none; the message has the nearest names.
    """
    if name in BUILT_IN[kind] or name in _REGISTERED[kind]:
        return name
    there = names(kind)
    if name in there:
        return name
    if name in LEFT:
        raise ConfigError(f"the {what or kind} {name!r} {LEFT[name]}")
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? There" if near else "there"
    raise ConfigError(f"there is no {what or kind} {name!r}; {meant} are: {', '.join(there)}")


def load(files: Sequence[str | Path] = ()) -> None:
    """Load plug-ins, each once in a process: installed ones, those of ``TACIT_PLUGINS``, and ``files``.

    Raises:
        ConfigError: one cannot be loaded; the message says which, and where in it.
    """
    for entry in _installed(tuple(sys.path)):
        if _new(f"{entry.name} = {entry.value}"):
            what = f"the installed plug-in {entry.name} ({entry.value})"
            _run(entry.load, what, None, forget=f"{entry.name} = {entry.value}")
    named = [part for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    for file in (Path(os.path.realpath(Path(part).expanduser())) for part in (*named, *files)):
        if _new(str(file)):
            _load_file(file)


@cache
def _installed(where: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Plug-ins of the packages in these places; looking through them takes milliseconds, and every option asks."""
    return tuple(entry_points(group=GROUP))


def files() -> tuple[str, ...]:
    """Files that were loaded here: what a process that works for this one has to load, wherever they were named."""
    return tuple(sorted(name for name in _LOADED if " = " not in name))


def _new(name: str) -> bool:
    fresh = name not in _LOADED
    _LOADED.add(name)
    return fresh


def _load_file(file: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"tacit_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        _LOADED.discard(str(file))
        raise ConfigError(f"{file} is no Python file; give one that registers parts (docs/extend.md)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up
    loader = spec.loader
    _run(lambda: loader.exec_module(module), f"the plug-in {file}", file, forget=str(file))


def _run(work: Callable[[], object], what: str, file: Path | None, *, forget: str) -> None:
    """Run a plug-in's code; whatever it raises becomes one sentence with the place, and nothing of it stays."""
    before = {kind: {*parts} for kind, parts in _REGISTERED.items()}
    try:
        work()
    except (Exception, SystemExit) as error:  # a user's code: any kind
        _LOADED.discard(forget)
        for kind, parts in _REGISTERED.items():
            for name in {*parts} - before[kind] - {*BUILT_IN[kind]}:
                del parts[name]
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
        if isinstance(error, SyntaxError):
            where = f"{error.filename} line {error.lineno}"
        elif places:  # the innermost line of the plug-in's own file, or of its package
            home = str(file or Path(places[0].filename).parent)
            place = [frame for frame in places if frame.filename.startswith(home)][-1:] or places[-1:]
            where = (
                f"line {place[0].lineno}"
                if place[0].filename == home
                else f"{place[0].filename} line {place[0].lineno}"
            )
        else:
            where = "on import"
        text = " ".join(str(error).split())
        raise ConfigError(f"{what} cannot be loaded: {where}: {type(error).__name__}: {text}") from error


def _ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen") or "importlib" in Path(filename).parts
