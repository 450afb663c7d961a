"""The codes of a large group of keys in a file beside the bank: a restart need not make them again.

Builds on compressed (what is kept) and schema. The file of a group is BANK.index-DIGEST. It may be removed at any time
and belongs in no backup. It is used only if it is certain to be of this bank:

- Its last bytes are a checksum of all others. Its head names the format, the group, the bank's epoch, and the revision
  that the codes are of.
- Its head has a random token, and so has the bank: as a mark, stored in the transaction in which the file took its
  place. So a bank with that token holds all that the codes were made of. Its revisions say what has changed since. A
  bank that was set back to a copy from before has another one, or none.

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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from tacit.bank import schema
from tacit.bank.base import Bank
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

    def __init__(self, bank: Bank, file: Path) -> None:
        """``file`` is the bank's."""
        self._bank, self._file = bank, file.resolve()  # the same one, whichever link leads to it

    def path(self, group: Group) -> Path:
        """Of the file of a group, if there is one."""
        digest = hashlib.sha256(json.dumps(group).encode()).hexdigest()[:12]
        return self._file.with_name(f"{self._file.name}.index-{digest}")

    def load(self, connection: Connection, group: Group, epoch: str) -> tuple[CompressedMatrix, int] | None:
        """The codes of a group and the revision that they are of.

        None where there is no file, or it is not certain to be of the bank that ``connection`` sees.
        """
        marks, path, dim = schema.marks.c, self.path(group), group[2]
        mark = select(marks.value).where(marks.namespace == group[0], marks.name == _mark(group))
        token = connection.execute(mark).scalar_one_or_none()
        if token is None or not path.exists():
            return None
        try:
            from xxhash import xxh3_128

            whole = np.memmap(path, dtype=np.uint8, mode="c")  # nobody writes to it, but kernels are made for such
            head = json.loads(whole[:_HEAD].tobytes())
            revision, rows = int(head.pop("revision")), int(head.pop("rows"))
            if head != _head(group, epoch, token):
                raise ValueError("it is not of this bank as it is now")
            if xxh3_128(whole[:-_SUM].data).digest() != whole[-_SUM:].tobytes():
                raise ValueError("it is damaged")
            parts, place, words, numbers = [], _HEAD, (rows, -(-dim // 64)), [("f4", (rows,))] * 4
            kinds = [("u8", words), ("i8", (rows,)), ("f4", (dim,)), *numbers, ("i1", (rows, dim)), ("u1", (rows,))]
            for kind, shape in kinds:
                size = math.prod(shape) * np.dtype(kind).itemsize
                parts.append(np.asarray(whole[place : place + size]).view(kind).reshape(shape))
                place += size
            bits, positions, centre, *columns, small, states = parts
            codes = Codes(bits, small, *columns)
            return CompressedMatrix.of(Rotation.about(centre), codes, positions, states), revision
        except (OSError, ImportError, ValueError, TypeError, KeyError, AttributeError) as error:
            LOG.warning("%s is not used, and made anew: %s", path, error)
            return None

    def save(self, group: Group, epoch: str, revision: int, view: CompressedView) -> None:
        """Put the file of a group in its place, whole or not at all; what prevents that is told in the log."""
        sweep(self._file)
        token, path = uuid.uuid4().hex, self.path(group)
        partial = path.with_name(f".{self._file.name}.{token}.partial")
        head = {**_head(group, epoch, token), "revision": revision, "rows": view.rows}
        try:
            from xxhash import xxh3_128

            if shutil.disk_usage(path.parent).free < view.rows * (group[2] * 9 // 8 + 25) + _FREE:
                raise OSError(f"{_FREE:,} bytes are to stay free on the disk")
            with partial.open("xb") as file:
                partial.chmod(self._file.stat().st_mode & 0o666)  # who may not read the bank may not read this
                checksum = xxh3_128()
                for part in (json.dumps(head).encode().ljust(_HEAD), *_parts(view)):
                    checksum.update(part)
                    file.write(part)
                file.write(checksum.digest())
                file.flush()
                os.fsync(file.fileno())
            with self._bank.transaction():
                self._bank.mark(group[0], _mark(group), token)
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


def _parts(view: CompressedView) -> Iterator[Any]:
    """The arrays in the order of a file, in pieces; those first that have to lie at a multiple of 8 or 4 bytes."""
    used = [codes.part(0, max(0, view.rows - first)) for first, codes in numbered(view.codes)]
    yield from (codes.bits for codes in used)
    yield np.array(view.positions[: view.rows], dtype=np.int64)
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
