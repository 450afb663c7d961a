"""The files that keep a large group's codes, where something goes wrong while they are written or read."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banks import make
from tacit.bank import open_bank
from tacit.bank.search import compressed, kept
from tacit.errors import install_hint
from tacit.memory import State
from test_bank_kept import ROWS, everything, files, fill, found, fresh, opened, path, reused
from test_bank_processes import start

__all__ = ["path"]  # a fixture

pytestmark = pytest.mark.skipif(not compressed.available(), reason=f"needs numba: {install_hint('fast')}")


@pytest.fixture
def unkept(tmp_path: Path) -> Iterator[Path]:
    fill(tmp_path / "bank.db")
    yield tmp_path / "bank.db"
    assert not list(tmp_path.glob(".*partial"))


def test_a_full_disk_and_a_folder_without_rights_change_no_search(
    unkept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fresh(unkept)
    monkeypatch.setattr(kept, "_FREE", 2**60)
    with opened(unkept) as bank:
        assert everything(bank) == expected
    assert files(unkept) == [] and "are to stay free" in caplog.text
    monkeypatch.undo()
    for error in (OSError(28, "No space left on device"), PermissionError(13, "Permission denied")):
        for place in ("fsync", "replace"):
            with monkeypatch.context() as patched:

                def fails(*_: Any, error: OSError = error) -> None:
                    raise error

                patched.setattr(*((kept.os, "fsync") if place == "fsync" else (Path, "replace")), fails)
                with opened(unkept) as bank:
                    assert everything(bank) == expected
            assert files(unkept) == [] and str(error.strerror) in caplog.text
    assert not reused(unkept) and reused(unkept)


def test_a_bank_that_another_holds_is_searched_and_its_codes_kept_later(
    unkept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fresh(unkept)
    with open_bank(str(unkept), exact_rows=20, busy_timeout=0.1) as bank:
        with closing(sqlite3.connect(unkept, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert everything(bank) == expected
            assert bank._matrices._keeper is not None
            bank._matrices._keeper.join()
        assert "locked by another process" in caplog.text and files(unkept) == []
    assert not reused(unkept) and reused(unkept)


def test_a_search_within_a_transaction_waits_for_nobody(unkept: Path) -> None:
    with open_bank(str(unkept), exact_rows=20, busy_timeout=0.1) as bank, bank.transaction():
        bank.add(make("later", seed=77))
        assert len(everything(bank)[0]) == ROWS
        assert len(everything(bank)[0]) == ROWS
    assert fresh(unkept)


WRITER = """
import itertools, numpy as np
from pathlib import Path
bank = open_bank(sys.argv[1], exact_rows=20)
key, first = make("m1").key, int(sys.argv[2])
print("ready")
for number in itertools.count(first):
    bank.add(make(f"w{number}", seed=number))
    bank.search(key, namespace="home", fingerprint="fp-1", key_kind="input", k=5)
"""


def test_killed_at_any_moment_and_two_at_once(path: Path) -> None:
    """Two processes add, search and keep codes; both are killed, again and again."""
    rng = np.random.default_rng(0)
    for round_ in range(5):
        writers = [start(WRITER, path, 10_000 * (2 * round_ + number)) for number in range(2)]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.1, 0.6))
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            writer.stdout.close()  # type: ignore[union-attr]
        reused(path)
        assert reused(path)
        with opened(path) as bank:
            bank.check()


def test_what_a_killed_one_left_is_swept(path: Path) -> None:
    for age, name in ((2 * kept.UNFINISHED, "old"), (0, "young")):
        left = path.with_name(f".bank.db.{name}.partial")
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    files(path)[0].unlink()
    assert not reused(path)
    assert [left.name for left in path.parent.glob(".*partial")] == [".bank.db.young.partial"]


def test_codes_that_are_wrong_all_the_same_are_found_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A forged file that names rows of another namespace, or says that a memory is in use: nothing of it is found."""
    fill(path, namespace="away")
    with opened(path) as bank:
        bank.set_state("m2", "home", State.QUARANTINED, "hurt")
        everything(bank)
        expected = found(bank, k=ROWS)
        load = bank._matrices.kept.load  # type: ignore[union-attr]

    def others(matrix: Any) -> None:
        for row in range(ROWS):
            matrix._positions[row] += ROWS

    def revived(matrix: Any) -> None:
        matrix._states[:] = matrix._states[0]

    for forge in (others, revived):
        caplog.clear()
        assert reused(path)

        def forged(*asked: Any, forge: Callable[[Any], None] = forge) -> Any:
            made = load(*asked)
            if made is not None:
                forge(made[0])
            return made and (made[0], 10**6)  # the database says nothing of what changed since

        with caplog.at_level(logging.WARNING), opened(path) as bank:
            bank._matrices.kept.load = forged  # type: ignore[union-attr, method-assign]
            assert found(bank, k=ROWS) == expected and "made anew" in caplog.text
        reused(path)  # what was forged is gone, and the file is put anew where it has to be
