"""The memory bank: where latent memories are kept, found again, and judged.

``open_bank`` is the door. Builds on memory and errors; what a bank promises is in ``base.Bank``, how it keeps the
promises in ``sql``, ``search``, ``sqlite`` and ``postgres``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tacit import registry
from tacit.bank.base import Bank, Hit, MemoryInfo, StateChange
from tacit.bank.control_vector import export_gguf
from tacit.bank.copying import Copied, Progress, copy_between
from tacit.bank.peft_adapter import export_peft, import_peft
from tacit.bank.postgres.address import is_postgres, parse
from tacit.bank.restoring import restore_file
from tacit.bank.search.compressed import EXACT_ROWS
from tacit.bank.sql import SQLBank
from tacit.bank.sqlite import BUSY_TIMEOUT, SQLiteBank
from tacit.errors import BankMissing, ConfigError
from tacit.registry import register

__all__ = [
    "EXACT_ROWS",
    "Bank",
    "Copied",
    "Hit",
    "MemoryInfo",
    "SQLiteBank",
    "StateChange",
    "bank_there",
    "copy_bank",
    "export_gguf",
    "export_peft",
    "import_peft",
    "open_bank",
    "restore",
    "shown_address",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: "C:" is a drive


def open_bank(
    url: str,
    create: bool = True,
    *,
    busy_timeout: float = BUSY_TIMEOUT,
    search_threads: int | None = None,
    exact_rows: int | None = EXACT_ROWS,
) -> SQLBank:
    """Open the bank at ``url``, making it if there is none and ``create`` is true.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or the path of the file; or
            ``postgresql+psycopg://user@host/database``, see ``postgres.address``.
        create: False refuses to make a new bank.
        busy_timeout: seconds to wait for another process's write, or for a database server, before giving up.
        search_threads: threads that a search uses, at least 1; None for at most two.
        exact_rows: up to how many keys of a kind a namespace is searched exactly; above that a search of compressed
            keys may miss a few, see ``Bank.search``. None searches exactly at any size.

    Raises:
        ConfigError: a scheme that is not supported, or no path.
        BankMissing: there is none, and ``create`` is false.
        BankError: the bank cannot be opened; the message says why and what to do.
    """
    settings: dict[str, Any] = {
        "create": create,
        "busy_timeout": busy_timeout,
        "search_threads": search_threads,
        "exact_rows": exact_rows,
    }
    scheme = _SCHEME.match(url)
    name = scheme[1].lower().partition("+")[0] if scheme else "sqlite"
    try:
        registry.known("bank", name)
    except ConfigError:
        raise _unsupported(url, name) from None
    bank: SQLBank = registry.get("bank", name)(url, **settings)
    return bank


def bank_there(url: str, *, busy_timeout: float = BUSY_TIMEOUT) -> SQLBank | None:
    """The bank at this address, opened; None where there is none yet. What may still fail should come before a new one
    is made."""
    try:
        return open_bank(url, create=False, busy_timeout=busy_timeout)
    except BankMissing:
        return None


@register("bank", "sqlite")
def _sqlite(url: str, **settings: Any) -> SQLiteBank:
    return SQLiteBank(sqlite_path(url), **settings)


@register("bank", "postgresql")
def _postgresql(url: str, **settings: Any) -> SQLBank:
    from tacit.bank.postgres.bank import PostgresBank

    return PostgresBank(url, **settings)


def restore(
    path: str | Path,
    url: str,
    *,
    force: bool = False,
    busy_timeout: float = BUSY_TIMEOUT,
    left_out: list[str] | None = None,
) -> Path | None:
    """Make the bank at ``url`` hold what the snapshot at ``path`` holds.

    The snapshot is verified first, whole, and never written to. With ``force`` an existing bank is replaced, and what
    was there is kept beside it under the path returned (None where there was nothing); other processes that have it
    open go on with the restored content. An existing bank's API keys stay as they are: a key revoked after the snapshot
    was made does not come back. Keys never come from a snapshot: where that bank cannot be read, has no key, or was not
    there, those of the snapshot are kept. They are all revoked, so that what was closed stays closed.

    Args:
        left_out: where a list is given, damaged memories are left out, and one sentence on each is added to the list;
            otherwise a damaged snapshot is refused.

    Raises:
        BankError: the snapshot is missing, damaged or no bank; or there is a bank at ``url`` and ``force`` is false.
        ConfigError: a scheme that is not supported, or no path; a bank in PostgreSQL, into which snapshots are copied.
    """
    if is_postgres(url):
        raise ConfigError(
            f"a bank in PostgreSQL is not restored in place; copy the snapshot into an empty one: tacit bank copy "
            f"{path} 'postgresql+psycopg://user@host/database?schema=NAME'"
        )
    return restore_file(
        Path(path).absolute(), sqlite_path(url).absolute(), force=force, busy_timeout=busy_timeout, left_out=left_out
    )


def copy_bank(
    source: str, target: str, *, progress: Progress | None = None, busy_timeout: float = BUSY_TIMEOUT
) -> Copied:
    """Copy everything in the bank at ``source`` into the one at ``target``, whichever databases they are in.

    Memories with states, histories and counters, in the order of storing; namespaces and their backbones, marks; and
    what a server keeps there, API keys, the day's budgets and jobs. All is compared at the end. The source may stay in
    use: the copy is of the moment of the call. Killed at any moment, it goes on when called again, and stores nothing
    twice. On a finished copy it only compares.

    Args:
        source, target: see ``open_bank``. The source must exist; the target must be empty, or is made.
        progress: called with "copying" or "verifying", how many memories are done, and how many there are.
        busy_timeout: as for ``open_bank``.

    Raises:
        BankError: the target holds something else, or what is there in the end is not what the source holds.
        ConfigError: an address that is none.
    """
    with (
        open_bank(source, create=False, busy_timeout=busy_timeout) as ours,
        open_bank(target, busy_timeout=busy_timeout) as theirs,
    ):
        if ours.url == theirs.url:
            raise ConfigError("a bank cannot be copied to itself; give the address of another one")
        return copy_between(ours, theirs, progress)


def shown_address(url: str) -> str:
    """A bank's address as it may be printed: without a password."""
    return parse(url).shown if is_postgres(url) else url


def sqlite_path(url: str) -> Path:
    """The file that ``url`` names; ConfigError for anything but an SQLite file."""
    if not url.strip() or "\x00" in url:
        raise ConfigError("the bank's address is empty or no text; give a file path or sqlite:///path")
    scheme = _SCHEME.match(url)
    if scheme is None:
        return Path(url).expanduser()
    if scheme[1].lower() == "sqlite" and url[scheme.end() :].startswith("///"):
        path = url[scheme.end() + 3 :]
        if path and not path.startswith(":memory:") and "?" not in path:
            return Path(path).expanduser()
    if scheme[1].lower() == "sqlite":
        raise ConfigError(f"{url!r} names no file; write sqlite:///relative.db or sqlite:////absolute/path.db")
    raise _unsupported(url, scheme[1])


def _unsupported(url: str, scheme: str) -> ConfigError:
    others = "".join(f", {name}:..." for name in registry.names("bank") if name not in ("sqlite", "postgresql"))
    return ConfigError(
        f"bank address {url!r} has the unsupported scheme {scheme!r}; supported: sqlite:///path, a plain file "
        f"path (write ./ before one with a colon), or postgresql+psycopg://user@host/database{others}"
    )
