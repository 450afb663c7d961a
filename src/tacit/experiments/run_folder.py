"""The run folder: settings, results, and what makes an interrupted run continue exactly.

Builds on errors and the bank. A window of problems is committed in three steps: its rows are written to
``pending.jsonl``; one bank transaction stores its memories, counters and the mark "window w of run r"; the rows are
appended to ``results.jsonl``. Killed before the transaction, the window is done again, with the same seeds and so the
same results; killed after it, its rows are taken from ``pending.jsonl``. Nothing is learned twice or lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import secrets
import tomllib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from tacit import registry
from tacit.config import GONE, UNSAID, LearnConfig, RecallConfig, RunConfig, S, Sampling, filled, require
from tacit.config import LATER as ADDED
from tacit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tacit.bank.base import Bank

Row = dict[str, Any]

PARTS: dict[str, Any] = {"sampling": Sampling, "learn": LearnConfig, "recall": RecallConfig}
"""The tables of settings."""

FREE = {"limit", "out", "version", "threads", "ray", "learners", "engines", "engine", "plugins", "allow_code"}
"""Settings that may differ when a run is continued: how much is done, and where."""

LATER: dict[str, Any] = {
    "task": "maths",
    "instruction": None,
    "system": None,
    "stop": [],
    "fields": [],
    "strict": False,
    "carrier": None,
}
"""Settings that older runs do not name, with what held for them."""

SETTLED = {"draws": "tacit"}
"""Settings that the engine decides, with what they were before there was a choice."""


def begun(config: RunConfig) -> RunConfig:
    """A run's settings, where its folder holds a run with those that it was begun with: a default that has changed
    since then ends no run. What may differ, but for plug-ins, and a bank's address without its password, are not taken
    from there."""
    try:
        held = {**LATER, **completed(json.loads((Path(config.out) / "run.json").read_text()))}
    except (OSError, ValueError, AttributeError, RecursionError):
        return config  # there is none, or opening the folder will say what is wrong with it
    # Plug-ins are where they were, unless somebody says where they are now.
    known = {part.name for part in dataclasses.fields(config)} - FREE | ({"plugins"} if not config.plugins else set())
    taken = {name: value for name, value in held.items() if name in known and "***" not in str(value)}
    return changed(config, taken, str(Path(config.out) / "run.json"))


def as_begun(config: RunConfig) -> RunConfig:
    """A run's settings; what nobody says and the model decides is what it was begun with, if its folder is there."""
    try:
        held = completed(json.loads((Path(config.out) / "run.json").read_text()))
        parts = {name: filled(getattr(config, name), held[name]) for name in ("sampling", "learn", "recall")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return config  # there is none, or opening the folder will say what is wrong with it
    return dataclasses.replace(config, **parts)


def not_ours(folder: Path, mark: str, *names: str) -> None:
    """ConfigError if a folder without ``mark`` has a file of a name that would be written over."""
    there = next((name for name in names if (folder / name).exists()), None)
    if there and not (folder / mark).exists():
        raise ConfigError(f"{folder} has a {there} but no {mark}, so it is of something else; choose another --out")


class RunFolder:
    """One run's folder; made or reopened.

    Args:
        path: the folder.
        settings: the run's settings; a folder of a run with other settings is refused, but for those in
            ``FREE``.

    Raises:
        ConfigError: the folder holds another run, something else than a run, or cannot be written.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run folder {self.path} cannot be made ({error.strerror}); choose another --out"
            ) from None
        self._lock = self._locked()
        self.results = self.path / "results.jsonl"
        self.pending = self.path / "pending.jsonl"
        self.settings = settings
        self._settled: dict[str, Any] = {}
        self.run_id = self._checked_settings()

    def _locked(self) -> int:
        try:
            lock = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise ConfigError(
                f"run folder {self.path} cannot be written ({error.strerror}); choose another --out"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ConfigError(
                f"another process is running in {self.path}; wait for it or choose another --out"
            ) from None
        return lock

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def _checked_settings(self) -> str:
        """The id of the run that is here, or a new one; nothing is written before the model and the bank are open."""
        file = self.path / "run.json"
        if not file.exists():
            not_ours(self.path, "run.json", "results.jsonl", "summary.json", "report.html")
            return secrets.token_hex(8)
        try:
            held = json.loads(file.read_text())
            run_id = str(held.pop("run_id"))
            held = {**{name: value for name, value in LATER.items() if name in self.settings}, **completed(held)}
        except (OSError, ValueError, KeyError, AttributeError, RecursionError):
            raise ConfigError(f"{file} is damaged; choose another --out") from None
        self._settled = {name: held.pop(name) for name in SETTLED if name in held}
        changed = sorted(name for name in {*held, *self.settings} - FREE if held.get(name) != self.settings.get(name))
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with another {', '.join(changed)}; continue it with its own "
                "settings (run.json) or choose another --out"
            )
        return run_id

    def settle(self, name: str, value: str) -> None:
        """Record a setting that is known only once the engine is there, before ``resume``.

        Raises:
            ConfigError: the run that is here has another value.
        """
        held = self._settled.get(name, SETTLED[name] if (self.path / "run.json").exists() else value)
        if held != value:
            raise ConfigError(
                f"{self.path} holds a run with {name} {held!r}, and this engine has {value!r}; continue it with an "
                "engine of its kind (docs/scale.md) or choose another --out"
            )
        self.settings = {**self.settings, name: value}

    def fit(self, settings: dict[str, Any]) -> None:
        """Record what nobody had said and the model decides, before ``resume``."""
        self.settings = {**self.settings, **settings}

    # -- windows ------------------------------------------------------------------------------------------------

    def resume(self, bank: Bank, namespace: str) -> list[Row]:
        """Rows of all committed windows, in order; what was torn by a crash is repaired first.

        Raises:
            ConfigError: the results know more than the bank, so the bank is not the one this run wrote to.
        """
        rows = list(_complete_lines(self.results))
        committed = int(bank.marked(namespace, self._mark) or 0)
        pending = list(_complete_lines(self.pending))
        if len(rows) < committed and pending and pending[-1]["position"] == committed - 1:
            rows = [row for row in rows if row["position"] < pending[0]["position"]] + pending
        for place, row in enumerate(rows):
            if row["position"] != place:
                raise ConfigError(
                    f"{self.results} lacks or repeats a problem at position {place}; choose another --out"
                )
        if len(rows) != committed:
            from tacit.bank import shown_address  # which reports do without

            raise ConfigError(
                f"{self.path} has {len(rows)} finished problems but the bank {shown_address(bank.url)} knows of "
                f"{committed}; continue with the bank that this run wrote to, or choose another --out"
            )
        settings = json.dumps({"run_id": self.run_id, **self.settings}, indent=2) + "\n"
        for path, text in ((self.path / "run.json", settings), (self.results, _lines(rows))):
            with _clear(path):
                write_atomically(path, text)
        return rows

    @property
    def _mark(self) -> str:
        return f"run:{self.run_id}"

    @contextlib.contextmanager
    def commit(self, bank: Bank, namespace: str, rows: Sequence[Row]) -> Iterator[None]:
        """Commit a window; the body writes its memories, in the same transaction."""
        with _clear(self.pending):
            write_atomically(self.pending, _lines(rows))
        with bank.transaction():
            yield
            bank.mark(namespace, self._mark, str(rows[-1]["position"] + 1))
        with _clear(self.results), self.results.open("ab") as handle:
            handle.write(_lines(rows))
            handle.flush()
            os.fsync(handle.fileno())


def _lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    """A full disk is a clear error."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}); nothing that was finished is lost: free space "
            "or mend the folder, and run the same command again"
        ) from error


def _complete_lines(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    with path.open("rb") as handle:
        for line in handle:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(row, dict) or not isinstance(row.get("position"), int):
                raise ConfigError(f"{path} holds a line that is no result of a run; choose another --out")
            yield row


# -- files that appear whole or not at all ---------------------------------------------------------------------------


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


# -- settings as a user or an earlier version wrote them ---------------------------------------------------------------


def toml_value(value: Any) -> str:
    """JSON's strings, numbers and lists are TOML's too, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a settings file; ConfigError if there is none or it is malformed."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no settings at {path} ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from None


def completed(held: dict[str, Any]) -> dict[str, Any]:
    """Settings read from a file as if they were of today: of those that are newer than it, what held before they were
    there. Those that are gone are left out.

    Raises:
        ConfigError: one that is gone was in use.
    """
    values = dict(held)
    for part, kind in PARTS.items():
        if not isinstance(value := values.get(part), dict):
            continue
        gone = GONE.get(part, {})
        used = [f"{name} = {value[name]!r}" for name in gone if name in value and value[name] != gone[name]]
        used += [f"init = {value['init']!r}"] if part == "learn" and value.get("init") in ("text", "nearest") else []
        require(
            not used,
            f"this run used {', '.join(used)}, which this version no longer has; continue it with tacit 0.1 or start "
            "another",
        )
        defaults = dataclasses.asdict(kind())
        if part == "learn":
            defaults |= {name: before for name, before in ADDED.items() if name in defaults}
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
