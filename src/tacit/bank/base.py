"""The Bank protocol: what the rest of Tacit may ask of a store of memories, whichever database stands behind it.

Builds on memory and errors. The contract in words, held by one test suite for every implementation:

- An acknowledged write (the call, or the outermost ``transaction``, has returned) survives kill -9 and power loss.
- ``add`` never overwrites. Ids are unique within their namespace, and an id of another namespace looks missing.
- ``search`` is exact: the top k by cosine computed in float64, ties in the order in which memories were stored. One
  exception: a namespace may have more keys of a kind than the bank's ``exact_rows`` (250,000 unless told otherwise),
  where numba is there (the extra ``fast``). Then one of the best k may now and then be missing, and the next best be
  there instead. What is returned has its exact cosine and an allowed state, lies above the floor, in that order;
  deletions and other processes' writes are seen as ever. With ``open_bank(url, exact_rows=None)`` every search is
  exact. In PostgreSQL with pgvector the same holds, from when the server has built its index. It sees every *committed*
  write of every process as of the moment of the call. It sees nothing uncommitted, not even the calling thread's own
  open transaction.
- All methods may be called from several threads, and several processes may have the same bank open. After a fork
  the child has to open the bank again.

Any method may raise BankError when the database cannot be read or written; nothing is half-written then.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, Unpack

import numpy as np
from sqlalchemy import Connection

from tacit.memory import Memory, State


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        memory_id: id of the memory within the namespace searched.
        problem_id: the problem that it was learned on.
        similarity: cosine in [-1, 1], computed in float64.
    """

    memory_id: str
    problem_id: str
    similarity: float


@dataclass(frozen=True)
class MemoryInfo:
    """A memory without its tensors and provenance, cheap to list by the ten thousand.

    ``position`` is the order of storing, across the bank. ``label``, ``share`` and ``margin`` are taken from the
    provenance where it has them. The other fields are those of ``Memory``.
    """

    id: str
    namespace: str
    problem_id: str
    problem: str
    key_kind: str
    fingerprint: str
    state: State
    reason: str
    sha256: str
    label: str | None
    share: float | None
    margin: float | None
    created: float
    position: int
    uses: int
    agreed: int
    helped: int
    hurt: int


class Query(TypedDict):
    """Where and what ``search`` looks for; unless it is said, one active memory, however unlike."""

    namespace: str
    fingerprint: str
    key_kind: str
    k: NotRequired[int]
    floor: NotRequired[float]
    states: NotRequired[Collection[State]]


MARKS_OF_MEMORIES = ("evidence", "promotion", "quarantine", "drift")
"""Kinds of marks that go with their memory; such a mark is called KIND:ID."""

SORTS = ("created", "uses", "helped", "hurt", "share")
"""What a page of memories can be sorted by."""


@dataclass(frozen=True)
class StateChange:
    """One step of a memory's life; ``old`` is None for the first. ``time`` is unix seconds."""

    time: float
    old: State | None
    new: State
    reason: str


class Bank(Protocol):
    """A store of memories. See the module's docstring for the promises common to all methods."""

    @property
    def url(self) -> str:
        """The address that ``open_bank`` opens this bank by."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All writes of this thread inside commit as one or not at all.

        A nested transaction joins the outer one: its writes become final with the outer one's. If it fails, its own
        writes are undone, even when the caller catches the exception. A call outside is its own transaction.
        """
        ...

    def connection(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """A connection for tables that belong to rooms above the bank (keys, jobs), within its transactions.

        Inside ``transaction`` it is that transaction's, so that what is written commits together with memories.
        Outside, reading sees one committed state, and writing is a transaction of its own. Memories are not to be
        written through it: ``revision`` counts only the bank's own writes.
        """
        ...

    def add(self, memory: Memory) -> bool:
        """Store ``memory``; True if stored, False if its namespace already has that id (nothing is overwritten).

        Raises:
            FingerprintError: the namespace belongs to another backbone.
            BankError: its key's dimension differs from that of the namespace's other keys of that kind.
        """
        ...

    def bind(self, namespace: str, fingerprint: str, model: str) -> None:
        """Tie ``namespace`` to a backbone; the first ``add`` does so too. FingerprintError if tied to another one."""
        ...

    def get(self, id: str, namespace: str) -> Memory:
        """The whole memory. MemoryNotFound where the namespace has none of that id; BankError if it is damaged."""
        ...

    def find(
        self, namespace: str, *, states: Collection[State] | None = None, problem_id: str | None = None
    ) -> list[MemoryInfo]:
        """Light rows of a namespace in the order of storing; ``states=None`` means all states."""
        ...

    def info(self, id: str, namespace: str) -> MemoryInfo:
        """The light row of one memory. MemoryNotFound where the namespace has none of that id."""
        ...

    def counts(self, namespace: str) -> dict[State, int]:
        """How many memories of a namespace are in each state; every state is there."""
        ...

    def page(
        self,
        namespace: str,
        *,
        states: Collection[State] | None = None,
        containing: str = "",
        sort: str = "created",
        falling: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[MemoryInfo]]:
        """Some light rows, and how many there are in all.

        Args:
            states: None for all.
            containing: a part of the problem; ASCII letters match in upper and lower case alike.
            sort: one of ``SORTS``; equal ones by the order of storing, those without a value last either way.
            falling: largest first.
            limit, offset: which of them.

        Raises:
            ConfigError: an unknown ``sort``, ``limit`` < 1 or ``offset`` < 0.
        """
        ...

    def search(self, key: np.ndarray, **query: Unpack[Query]) -> list[Hit]:
        """The ``k`` memories most similar to ``key`` (float [D], any non-zero norm) with similarity >= ``floor``.

        Sorted by similarity, falling; equal ones in the order of storing. Empty when nothing qualifies. Exact up to
        the bank's ``exact_rows``, nearly always the same above: see the module's docstring.

        Raises:
            FingerprintError: the namespace belongs to another backbone.
            BankError: the key has another dimension than the stored ones, is not finite, or is zero.
            ConfigError: ``k`` < 1 or ``floor`` is not a number.
        """
        ...

    def search_many(self, keys: np.ndarray, **query: Unpack[Query]) -> list[list[Hit]]:
        """``search`` for each row of ``keys`` [N, D], all against the same state of the bank."""
        ...

    def set_state(self, id: str, namespace: str, state: State, reason: str, note: str = "") -> None:
        """Move a memory to ``state`` and record when and why. MemoryNotFound where there is none.

        ``note`` comes before the reason in the history alone.
        """
        ...

    def history(self, id: str, namespace: str) -> list[StateChange]:
        """All states of a memory, oldest first. MemoryNotFound where there is none."""
        ...

    def count(self, id: str, namespace: str, *, uses: int = 0, agreed: int = 0, helped: int = 0, hurt: int = 0) -> None:
        """Add to a memory's counters, never losing another writer's. MemoryNotFound where there is none."""
        ...

    def delete(self, id: str, namespace: str) -> None:
        """Remove a memory with history, counters and ``MARKS_OF_MEMORIES``. MemoryNotFound where there is none."""
        ...

    def mark(self, namespace: str, name: str, value: str) -> None:
        """Write ``value`` under ``name`` in the namespace's ledger, in the same transaction as everything else."""
        ...

    def marked(self, namespace: str, name: str) -> str | None:
        """What ``mark`` last wrote there, or None."""
        ...

    def revision(self) -> int:
        """A number that every committed write of memories and marks raises, by whichever process.

        Equal numbers mean that nothing of these has changed.
        """
        ...

    def snapshot(self, path: str | Path) -> None:
        """A consistent, verified copy at ``path`` while the bank stays in use. BankError if ``path`` exists."""
        ...

    def shrink(self) -> int:
        """Give room that deleted memories have left back to the disk, where that is worth it; bytes given back.

        Not within a transaction. Where the database sees to it by itself, nothing is done.
        """
        ...

    def check(self) -> None:
        """Read everything and verify it; BankError names what is damaged."""
        ...

    def close(self) -> None:
        """Release files and connections. Any later call raises BankError; closing twice does nothing."""
        ...
