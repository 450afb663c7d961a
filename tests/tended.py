"""Banks to tend, how they are compared, and a command that is killed while it tends; for tests and the drill.

Builds on banks and commands.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from banks import make
from commands import Command
from tacit.bank import Bank, open_bank
from tacit.memory import State

DIM = 8
TABLES = ("memories", "keys", "payloads", "counters")
RULE = ("--keep", 20, "--idle", 100, "--namespace", "home")


def unit(*values: float) -> np.ndarray:
    key = np.zeros(DIM)
    key[: len(values)] = values
    return (key / np.linalg.norm(key)).astype(np.float32)


def spread(bank: Bank, count: int = 8) -> None:
    """Memories of as many kinds, far from each other, of average use: what tending has no reason to touch."""
    for number in range(count):
        bank.add(make(f"s{number}", key=np.eye(DIM, dtype=np.float32)[number], uses=4, agreed=3, helped=1))


def crowd(path: Path | str, count: int = 300) -> None:
    rng = np.random.default_rng(1)
    with open_bank(str(path)) as bank, bank.transaction():
        for number in range(count):
            state = State.CANDIDATE if number % 7 == 0 else State.ACTIVE
            uses = int(rng.integers(0, 30))
            key = unit(*rng.standard_normal(DIM))
            bank.add(make(f"m{number}", key=key, state=state, uses=uses, helped=int(rng.integers(0, uses + 1))))


def states(path: Path) -> dict[str, tuple[str, int]]:
    """State and number of changes, by id, of a bank that is whole."""
    with open_bank(str(path), create=False) as bank:
        bank.check()
    with closing(sqlite3.connect(path)) as raw:
        changes = "(SELECT count(*) FROM history h WHERE h.position = m.position)"
        return {id: (state, steps) for id, state, steps in raw.execute(f"SELECT id, state, {changes} FROM memories m")}


def killed(path: Path, wait: float, *arguments: object, begun: bool = False) -> None:
    """A command that tends, killed ``wait`` seconds after its claim, or (``begun``) after its first change, if it has
    not ended by then."""
    with open_bank(str(path)) as bank:
        claim, counts, until = bank.marked("home", "tending"), bank.counts("home"), time.monotonic() + 60
        command = Command("bank", "tend", path, *arguments)
        try:
            while command.poll() is None and time.monotonic() < until:
                if (bank.counts("home") != counts) if begun else (bank.marked("home", "tending") != claim):
                    break
                time.sleep(0.002)
            time.sleep(wait)
        finally:
            command.kill()
            command.wait()


def stored(path: Path) -> dict[str, list[Any]]:
    """All that the bank keeps of memories, byte for byte, but for the number of their last change, and histories."""
    with closing(sqlite3.connect(path)) as raw:
        rows = {name: raw.execute(f"SELECT * FROM {name} ORDER BY position").fetchall() for name in TABLES}
    rows["memories"] = [row[:-1] for row in rows["memories"]]
    return rows
