"""The codes of a large group of keys in a file beside the bank, so that a restart need not make them again.

Builds on compressed (what is kept) and schema. The file of a group is BANK.index-DIGEST. It may be removed at any time,
belongs in no backup, and is used only if it is certain to be of this bank:

- Its last bytes are a checksum of all others. Its head names the format, the group, the bank's epoch, and the revision
  that the codes are of.
- Its head has a random token, and so has the bank: as a mark, stored in the very transaction in which the file took its
  place. So a bank with that token holds all that the codes were made of, and what has changed since is what its
  revisions say. A bank that was set back to a copy from before has another one, or none.

Whatever a search then takes from the codes is compared with the database (see matrices). All else is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from tacit.bank import schema
from tacit.bank.search.compressed import Codes, CompressedMatrix, CompressedView, Rotation, numbered
from tacit.bank.search.index import Group
from tacit.errors import BankError

LOG = logging.getLogger("tacit.bank")

UNFINISHED = 3600.0
"""Seconds since the last write after which a part of a file belongs to nobody who still works on it."""


_FORMAT = f"tacit index 1 {sys.byteorder}"  # counted up whenever codes get another meaning
_HEAD, _SUM = 1 << 14, 16  # bytes of the head, which is filled up with blanks, and of the checksum
_FREE = 1 << 30  # bytes that stay free: the room is the bank's first


class Kept:
    """The files of one bank. Thread-safe."""

    def __init__(
        self, bank: Path, transaction: Callable[[], AbstractContextManager[None]], mark: Callable[[str, str, str], None]
    ) -> None:
        """``bank`` is the bank's file, the others are its methods."""
        self._bank = bank.resolve()  # the same files, whichever link leads to it
        self._transaction, self._mark = transaction, mark

    def path(self, group: Group) -> Path:
        """Of the file of a group, if there is one."""
        digest = hashlib.sha256(json.dumps(group).encode()).hexdigest()[:12]
        return self._bank.with_name(f"{self._bank.name}.index-{digest}")

    def discard(self, group: Group) -> None:
        """Remove a file that is wrong."""
        with suppress(OSError):
            self.path(group).unlink(missing_ok=True)

    def load(self, connection: Connection, group: Group, epoch: str) -> tuple[CompressedMatrix, int, set[int]] | None:
        """The codes of a group, the revision that they are of, and the positions of damaged keys.

        None where there is no file, or it is not certain to be of the bank that ``connection`` sees.
        """
        marks = schema.marks.c
        mark = select(marks.value).where(marks.namespace == group[0], marks.name == _mark(group))
        token = connection.execute(mark).scalar_one_or_none()
        path = self.path(group)
        if token is None or not path.exists():
            return None
        try:
            from xxhash import xxh3_128

            whole = np.memmap(path, dtype=np.uint8, mode="c")  # nobody writes to it, but kernels are made for such
            head = json.loads(whole[:_HEAD].tobytes())
            revision, rows, damaged = (int(head.pop(name)) for name in ("revision", "rows", "damaged"))
            right = head == _head(group, epoch, token)
            if right and xxh3_128(whole[:-_SUM].data).digest() == whole[-_SUM:].tobytes():
                parts, place = [], _HEAD
                for kind, shape in _layout(group[2], rows, damaged):
                    size = math.prod(shape) * np.dtype(kind).itemsize
                    parts.append(np.asarray(whole[place : place + size]).view(kind).reshape(shape))
                    place += size
                bits, positions, out, centre, *numbers, small, states = parts
                codes = Codes(bits, small, *numbers)
                matrix = CompressedMatrix.of(Rotation.about(centre), codes, positions, states)
                return matrix, revision, set(out.tolist())
        except ImportError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            right = True
        LOG.warning("%s %s; it is made anew", path, "is damaged" if right else "is not of this bank as it is now")
        return None

    def save(self, group: Group, epoch: str, revision: int, view: CompressedView, damaged: set[int]) -> None:
        """Put the file of a group in its place, whole or not at all; what prevents that is told in the log."""
        sweep(self._bank)
        token, path = uuid.uuid4().hex, self.path(group)
        partial = path.with_name(f".{self._bank.name}.{token}.partial")
        head = {**_head(group, epoch, token), "revision": revision, "rows": view.rows, "damaged": len(damaged)}
        try:
            from xxhash import xxh3_128

            layout = _layout(group[2], view.rows, len(damaged))
            size = sum(math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout)
            if shutil.disk_usage(path.parent).free < size + _FREE:
                raise OSError(f"it takes {size:,} bytes, and {_FREE:,} are to stay free")
            with partial.open("xb") as file:
                partial.chmod(self._bank.stat().st_mode & 0o666)  # who may not read the bank may not read this
                checksum = xxh3_128()
                for part in (json.dumps(head).encode().ljust(_HEAD), *_parts(view, damaged)):
                    checksum.update(part)
                    file.write(part)
                file.write(checksum.digest())
                file.flush()
                os.fsync(file.fileno())
            with self._transaction():
                self._mark(group[0], _mark(group), token)
                partial.replace(path)
        except (OSError, ImportError, BankError) as error:
            LOG.warning("%s is not kept, so the next start makes it anew: %s", path, error)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _mark(group: Group) -> str:
    return f"index:{group[1]}:{group[2]}"


def _head(group: Group, epoch: str, token: str) -> dict[str, Any]:
    """What says that a file is of a bank and of the codes that this version makes."""
    signs = zlib.crc32(Rotation.about(np.zeros(group[2])).signs.tobytes())
    return {"format": _FORMAT, "group": list(group), "epoch": epoch, "token": token, "signs": signs}


def _layout(dim: int, rows: int, damaged: int) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of the arrays of a file, those first that have to lie at a multiple of 8 or 4 bytes."""
    words, numbers = (rows, -(-dim // 64)), [("f4", (rows,))] * 4
    return [("u8", words), ("i8", (rows,)), ("i8", (damaged,)), ("f4", (dim,)), *numbers, ("i1", (rows, dim)),
            ("u1", (rows,))]  # fmt: skip


def _parts(view: CompressedView, damaged: set[int]) -> Iterator[Any]:
    """The arrays in that order, in pieces."""
    used = [codes.part(0, max(0, view.rows - first)) for first, codes in numbered(view.codes)]
    yield from (codes.bits for codes in used)
    yield np.array(view.positions[: view.rows], dtype=np.int64)
    yield np.array(sorted(damaged), dtype=np.int64)
    yield view.rotation.centre
    for name in ("offset", "factor", "doubt", "scale", "small"):
        yield from (getattr(codes, name) for codes in used)
    yield view.states[: view.rows]


def sweep(bank: Path) -> None:
    """Remove what a killed restore, snapshot or search has left unfinished beside a bank."""
    form = re.compile(re.escape(f".{bank.name}.") + r".*\.(partial|restoring)(-wal|-shm|-journal)?")
    with suppress(OSError):
        for path in bank.parent.iterdir():
            if form.fullmatch(path.name) and time.time() - path.stat().st_mtime > UNFINISHED:
                path.unlink(missing_ok=True)
