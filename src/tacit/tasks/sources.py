"""Where problems come from: the testbed's endless stream, files and folders, data sets on the Hub, and sources of
plug-ins.

Builds on the registry, problem, files, hub and fields, and, for the stream, testbed. A source is a function (rest of
the address, seed, limit) -> problems, or rows (``fields.Row``) that problems are made of here; one that never ends says
so by an attribute ``endless``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tacit import registry
from tacit.errors import ConfigError, DataError
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks import files, hub
from tacit.tasks.fields import Read, Row, mapping, read
from tacit.tasks.options import split
from tacit.testbed import check_set, families

MOSTLY = 0.9
"""Data is multiple choice if so large a share of its problems has options: a few without do not change what it is."""


class Problems(list[Problem]):
    """Problems of a source, in order.

    Attributes:
        task: the task that their data speaks for: choice, number or maths; for set C of the testbed its own.
        places: where a problem's row stands (file and line), by its id, as far as it comes from rows.
    """

    def __init__(self, found: Sequence[tuple[Read, str]]) -> None:
        super().__init__(one.problem for one, _ in found)
        self.task = _task([one.task for one, _ in found])
        self.places = {one.problem.id: where for one, where in found if where}


def load(
    source: str, *, seed: int = 0, limit: int | None = None, fields: Sequence[str] = (), model: str = ""
) -> Problems:
    """Problems of a source, in order.

    Args:
        source: the name of a registered source, with what it needs after a colon: "testbed" (sets A and B mixed),
            "testbed:A", "testbed:B", "testbed:C" (or its parts "testbed:C:text", "testbed:C:choice", "testbed:C:list");
            "hub:NAME", "hub:NAME:SPLIT" (default: test) or "hub:NAME:CONFIG:SPLIT", which may also name a local
            data-set folder. Anything else is the path of a file, or of a folder of files, absolute or
            from the working directory: JSONL with one object per line (``problem``, optionally ``id``, ``answer`` and
            ``family``), or another layout of ``docs/data.md``.
        seed: of the testbed's stream, and of the order of options where data has the right one apart.
        limit: at most so many; 0 or None for all, which the testbed cannot give, being endless.
        fields: which field is what, as in "problem=question", where that is not known by itself.
        model: who will be asked; one of the testbed is refused a set whose words it does not know.

    Raises:
        DataError: missing, empty or malformed data; the message names file and line.
        ConfigError: no limit for an endless source, limit < 0, or a set that the model does not know.
    """
    if limit is not None and limit < 0:
        raise ConfigError(f"limit is {limit}; it must be 0 (all) or more")
    limit = limit or None
    if endless(source) and limit is None:
        raise ConfigError(f"{source} is an endless stream; say how many problems with --limit (limit in a file)")
    name, rest = _parts(source)
    if name == "testbed":
        check_set(model, source)
    named = mapping(fields)
    items = registry.get("source", name)(rest, seed, limit)
    chosen = list(islice(_unique((_read(item, named, seed) for item in items), source), limit))
    if not chosen:
        raise DataError(f"{source} has no problems in it; give a file with one JSON object per line")
    return Problems(chosen)


def fitting(problems: Sequence[Problem]) -> str:
    """The task that data speaks for: "choice" where nine in ten problems have options, "number" where every reference
    answer is a plain number, "python" where each is tests of a function, else "maths". Without reference answers, and
    of problems that ``load`` did not give, the options alone are looked at."""
    if isinstance(problems, Problems):
        return problems.task
    return _task([_by_options(one) for one in problems])


def _task(tasks: Sequence[str]) -> str:
    if tasks and tasks.count("choice") >= MOSTLY * len(tasks):
        return "choice"
    known = {task for task in tasks if task}
    return known.pop() if len(known) == 1 and known != {"choice"} else "maths"


def _read(item: Problem | Read | Row, named: dict[str, str], seed: int) -> tuple[Read, str]:
    if isinstance(item, Row):
        return read(item, named, seed), item.where
    if isinstance(item, Read):
        return item, ""
    return Read(item, _by_options(item)), ""


def _by_options(problem: Problem) -> str:
    return "choice" if split(problem.text)[1] else ""


def endless(source: str) -> bool:
    """Whether a source makes problems without end."""
    return bool(getattr(registry.get("source", _parts(source)[0]), "endless", False))


def _parts(source: str) -> tuple[str, str]:
    """The registered source that an address names, and the rest of the address; a path is the source "file"."""
    name, _, rest = source.partition(":")
    return (name, rest) if name in registry.names("source") and name != "file" else ("file", source)


@register("source", "testbed")
def testbed(which: str, seed: int, limit: int | None) -> Iterator[Read]:
    """The testbed's stream: a set, or A and B mixed. All of C can be read as texts."""
    for item in families.problems(which or "AB", seed):
        task = families.BY_NAME[item.family].task if ":" in which else "text" if which == "C" else ""
        yield Read(Problem(item.id, item.text, item.gold, item.family), task)


testbed.endless = True  # type: ignore[attr-defined]


def _unique(found: Iterable[tuple[Read, str]], source: str) -> Iterator[tuple[Read, str]]:
    seen: set[str] = set()
    for one in found:
        name = one[0].problem.id
        if name in seen:
            raise DataError(f"{source}: the id {name!r} occurs twice; ids must be unique")
        seen.add(name)
        yield one


@register("source", "file")
def file(name: str, seed: int, limit: int | None) -> Iterator[Row]:
    """A file, or a folder of files."""
    path = Path(name).expanduser()
    if path.is_dir() and hub.saved(path):
        return hub.rows(name)
    if not path.exists():
        others = ", ".join(one for one in registry.names("source") if one != "file")
        raise DataError(f"no data at {path}; give the path of a file ({files.LAYOUTS}), or a source: {others}")
    return files.rows(path)


@register("source", "hub")
def hub_set(address: str, seed: int, limit: int | None) -> Iterator[Row]:
    """A data set of the Hub, or a local data-set folder."""
    return hub.rows(address)
