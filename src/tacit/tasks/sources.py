"""Where problems come from: the testbed's endless stream, files and folders, data sets on the Hub, and sources of
plug-ins.

Builds on the registry, problem, hub and fields, and, for the stream, testbed. A source is a function (rest of the
address, seed, limit) -> problems, or rows (``fields.Row``) that problems are made of here; one that never ends says so
by an attribute ``endless``.

Files are JSONL, a JSON array, CSV, TSV and parquet, each also as .gz. Text is UTF-8, UTF-16 or UTF-32, told apart by
its first bytes. What does not look like a table or parquet is read as JSON, whatever it is called.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from tacit import registry
from tacit.errors import ConfigError, DataError, needed
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks import hub
from tacit.tasks.fields import TEXTS, Read, Row, mapping, read
from tacit.tasks.options import letters, split
from tacit.testbed import check_set, families

MOSTLY = 0.9
"""Data is multiple choice if so large a share of its problems has options: a few without do not change what it is."""

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LAYOUTS = "JSONL, JSON, CSV, TSV or parquet"
SPLITS = ("train", "test", "validation", "valid", "val", "dev")
OF_DATA_SETS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that say something of a data set, and are none of its rows."""
WRAPPERS = ("data", "problems", "questions", "examples", "items", "rows")

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED = re.compile("[\udc80-\udcff]")
_BETWEEN = re.compile(r"[\s,]*")


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


def _task(tasks: Sequence[str]) -> str:
    """The task that data speaks for: "choice" where nine in ten problems have options; "number" where every reference
    answer is a plain number; "python" where each is tests of a function; else "maths"."""
    if tasks and tasks.count("choice") >= MOSTLY * len(tasks):
        return "choice"
    known = {task for task in tasks if task}
    return known.pop() if len(known) == 1 and known != {"choice"} else "maths"


def _read(item: Problem | Read | Row, named: dict[str, str], seed: int) -> tuple[Read, str]:
    if isinstance(item, Row):
        return read(item, named, seed), item.where
    if isinstance(item, Read):
        return item, ""
    return Read(item, "choice" if split(item.text)[1] else ""), ""


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
        raise DataError(f"no data at {path}; give the path of a file ({LAYOUTS}), or a source: {others}")
    return _data(path)


@register("source", "hub")
def hub_set(address: str, seed: int, limit: int | None) -> Iterator[Row]:
    """A data set of the Hub, or a local data-set folder."""
    return hub.rows(address)


# -- files ------------------------------------------------------------------------------------------------------------


def _data(path: Path) -> Iterator[Row]:
    """Rows of a file, or of all data files in a folder, in the order of their names.

    Raises:
        DataError: there is none, or it is damaged; the message says where.
    """
    if not path.is_dir():
        yield from _file(path, path.name.removesuffix(".gz").removesuffix(_kind(path)))
        return
    for file in _members(path):
        place = file.relative_to(path).as_posix()
        yield from _file(file, place.removesuffix(".gz").removesuffix(_kind(file)))


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _members(folder: Path) -> list[Path]:
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if _kind(file).lower() in KINDS and file.name not in OF_DATA_SETS and file.is_file()
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder} is a folder without data files; give one with {LAYOUTS} files in it, or a file")
    splits = {split for file in found if (split := _split(file.relative_to(folder).as_posix()))}
    if len(splits) > 1:
        names = ", ".join(sorted(splits))
        raise DataError(f"{folder} has the splits {names}; say which, as in hub:{folder}:{min(splits)}, or give a file")
    return found


def _split(name: str) -> str | None:
    return next((word for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS), None)


def _file(path: Path, name: str) -> Iterator[Row]:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited at for ever
            raise DataError(f"{path} is no file; save the problems as one")
        with path.open("rb") as raw:
            head = raw.read(2)
            raw.seek(0)
            handle: Any = gzip.GzipFile(fileobj=raw) if head == b"\x1f\x8b" else raw
            yield from _rows(handle, path, name)
    except UnicodeError:
        raise DataError(f"{path} is not text in one encoding all through; save it as UTF-8") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged .gz file: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _rows(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    head = handle.read(4)
    handle.seek(0)
    kind = _kind(path).lower()
    if head == b"PAR1" or kind == ".parquet":
        yield from _parquet(handle, path, name)
        return
    encoding = next((known for mark, known in _MARKS if head.startswith(mark)), json.detect_encoding(head))
    table = kind in (".csv", ".tsv")
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    # JSONL is split at line feeds alone; the csv module wants line ends as they are.
    with io.TextIOWrapper(handle, encoding, errors=errors, newline="" if table else "\n") as text:
        lines = _lines(text, path)
        yield from _table(lines, path, name, kind) if table else _json(lines, path, name)


def _lines(text: IO[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        if not line.isascii() and _ESCAPED.search(line):
            raise DataError(f"{path} line {number} is not UTF-8; save the file as UTF-8 or UTF-16")
        yield line


def _json(lines: Iterator[str], path: Path, name: str) -> Iterator[Row]:
    """One object per line; or one array of objects, or one object over several lines."""
    head: list[str] = []
    while not (head and head[-1].strip()):
        if (line := next(lines, None)) is None:
            return
        head.append(line)
    first = _value(head[-1])
    if not isinstance(first, dict) or _inside(first):
        text = "".join(chain(head, lines))
        try:
            yield from _document(json.loads(text), text, path, name)
            return
        except RecursionError:
            raise DataError(f"{path} is nested too deeply; give one JSON object per line") from None
        except ValueError as error:
            if first is None and head[-1].strip()[:2] in ("{", "[") and isinstance(error, json.JSONDecodeError):
                raise DataError(f"{path} line {error.lineno} is not JSON: {error.msg}") from None
        lines = iter(text.split("\n")[len(head) :])
    for number, line in enumerate(chain(head, lines), start=1):
        if not line.strip():
            continue
        value = _value(line)
        if value is None:
            raise DataError(f"{path} line {number} is not JSON; give one JSON object per line")
        yield Row(value, f"{path} line {number}", f"{name}/{number - 1}")


def _value(line: str) -> Any:
    """What a line holds; None if it is no JSON, or null."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _document(value: Any, text: str, path: Path, name: str) -> Iterator[Row]:
    """Rows of a file that is one JSON value."""
    if isinstance(value, list):
        decoder, at, line = json.JSONDecoder(), text.index("[") + 1, 1
        for index in range(len(value)):
            start = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches anything
            line += text.count("\n", 0 if index == 0 else at, start)
            item, at = decoder.raw_decode(text, start)
            yield Row(item, f"{path} line {line}", f"{name}/{index}")
            line += text.count("\n", start, at)
    elif isinstance(value, dict) and (items := _inside(value)):
        for index, item in enumerate(items):
            yield Row(item, f"{path} item {index + 1}", f"{name}/{index}")
    else:
        yield Row(value, f"{path} line 1", f"{name}/0")


def _inside(value: dict[str, Any]) -> list[Any]:
    """The rows of an object that is no row itself but holds them under a usual name."""
    held = [one for name, one in value.items() if name.lower() in WRAPPERS and isinstance(one, list)]
    rows = held[0] if len(held) == 1 and all(isinstance(one, dict) for one in held[0]) else []
    return [] if any(isinstance(one, str) and name.lower() in TEXTS for name, one in value.items()) else rows


def _table(lines: Iterator[str], path: Path, name: str, kind: str) -> Iterator[Row]:
    """Lines of cells; an empty cell is nothing."""
    first = next(lines, "")
    delimiter = "\t" if kind == ".tsv" else next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    index, line = 0, 1
    try:
        for cells in reader:
            where, line = f"{path} line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _headless(cells)
                if not names:
                    names = cells
                    if twice := next((name for name in names if name and names.count(name) > 1), None):
                        raise DataError(f"{where} names two columns {twice!r}; give each a name of its own")
                    continue
            if len(cells) != len(names):
                raise DataError(
                    f"{where} has {len(cells)} cells, not {len(names)} as the first line; put cells with "
                    f"{delimiter!r}, line ends or quotes in them in quotes"
                )
            yield Row({head: cell or None for head, cell in zip(names, cells, strict=True)}, where, f"{name}/{index}")
            index += 1
    except csv.Error as error:
        raise DataError(f"{path} line {line} is no row of a table: {error}") from None


def _headless(cells: list[str]) -> list[str]:
    """Names for the files of MMLU and MGSM, which have none: a first line that ends in an answer is no heading."""
    if {"A", "B"} <= {*cells[:-1]} or any(cell.strip().lower() in TEXTS for cell in cells):
        return []
    if 4 <= len(cells) <= 12 and cells[-1] in [*letters(len(cells) - 2)]:
        return ["question", *letters(len(cells) - 2), "answer"]
    number = cells[-1].strip().lstrip("+-").replace(",", "").replace(".", "", 1).isdigit()
    return ["question", "answer"] if len(cells) == 2 and number else []


def _parquet(handle: IO[bytes], path: Path, name: str) -> Iterator[Row]:
    parquet = needed("hub", "a parquet file", "pyarrow.parquet")
    index = 0
    try:
        whole = io.BytesIO(handle.read()) if isinstance(handle, gzip.GzipFile) else handle  # it is read from its end
        for batch in parquet.ParquetFile(whole).iter_batches(batch_size=1024):
            for value in batch.to_pylist():
                yield Row(value, f"{path} row {index + 1}", f"{name}/{index}")
                index += 1
    except (ValueError, OSError) as error:  # what pyarrow raises of damaged bytes derives from these
        raise DataError(f"{path} is no parquet file that can be read: {' '.join(str(error).split())[:200]}") from error
