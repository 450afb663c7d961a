"""The memory bank: where latent memories are kept, found again, and judged.

``open_bank`` is the door. Builds on memory and errors; what a bank promises is in ``base.Bank``, how it keeps the
promises in ``sql``, ``index``, ``compressed`` and ``sqlite``.
"""

from __future__ import annotations

import re
from pathlib import Path

from tacit.bank.base import Bank, Hit, MemoryInfo, StateChange
from tacit.bank.compressed import EXACT_ROWS
from tacit.bank.peft_adapter import export_peft, import_peft
from tacit.bank.sqlite import BUSY_TIMEOUT, SQLiteBank, restore_file
from tacit.errors import ConfigError

__all__ = [
    "EXACT_ROWS",
    "Bank",
    "Hit",
    "MemoryInfo",
    "SQLiteBank",
    "StateChange",
    "export_peft",
    "import_peft",
    "open_bank",
    "restore",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: "C:" is a drive


def open_bank(
    url: str,
    create: bool = True,
    *,
    busy_timeout: float = BUSY_TIMEOUT,
    search_threads: int | None = None,
    exact_rows: int | None = EXACT_ROWS,
) -> Bank:
    """Open the bank at ``url``, making it if there is none and ``create`` is true.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or the path of the file.
        create: False refuses to make a new bank.
        busy_timeout: seconds to wait for another process's write before giving up.
        search_threads: threads that a search uses; None for at most two.
        exact_rows: up to how many keys of a kind a namespace is searched exactly; above that a search of compressed
            keys may miss a few, see ``Bank.search``. None searches exactly at any size.

    Raises:
        ConfigError: a scheme that is not supported, or no path.
        BankError: the bank cannot be opened; the message says why and what to do.
    """
    path = sqlite_path(url)
    return SQLiteBank(
        path, create=create, busy_timeout=busy_timeout, search_threads=search_threads, exact_rows=exact_rows
    )


def restore(path: str | Path, url: str, *, force: bool = False, busy_timeout: float = BUSY_TIMEOUT) -> Path | None:
    """Make the bank at ``url`` hold what the snapshot at ``path`` holds.

    The snapshot is verified first, whole, and never written to. With ``force`` an existing bank is replaced, and what
    was there is kept beside it under the path returned (None where there was nothing); other processes that have it
    open go on with the restored content. An existing bank's API keys stay as they are, so that a key revoked after
    the snapshot was made does not come back; only where that bank cannot be read, or has no key, or there was none,
    are the keys those of the snapshot.

    Raises:
        BankError: the snapshot is missing, damaged or no bank; or there is a bank at ``url`` and ``force`` is false.
        ConfigError: a scheme that is not supported, or no path.
    """
    return restore_file(Path(path).absolute(), sqlite_path(url).absolute(), force=force, busy_timeout=busy_timeout)


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
    raise ConfigError(
        f"bank address {url!r} has the unsupported scheme {scheme[1]!r}; supported: sqlite:///path, or a plain file "
        "path (write ./ before one with a colon)"
    )
