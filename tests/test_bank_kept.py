"""The files that keep a large group's codes: a bank that has them finds what one without finds, whatever happened.

Large is what a test says it is, as in test_bank_compressed, whose tests are of the codes themselves.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banks import DIM, make
from tacit.bank import copy_bank, open_bank, restore
from tacit.bank.search import compressed, matrices
from tacit.bank.sql import SQLBank
from tacit.errors import MemoryNotFound, install_hint
from tacit.memory import State

pytestmark = pytest.mark.skipif(not compressed.available(), reason=f"needs numba: {install_hint('fast')}")

ROWS = 60
QUERIES = np.random.default_rng(0).standard_normal((6, DIM)).astype(np.float32)


def opened(path: Path, exact_rows: int | None = 20) -> SQLBank:
    return open_bank(str(path), exact_rows=exact_rows)


def found(bank: SQLBank, namespace: str = "home", k: int = 10, **asked: Any) -> list[Any]:
    return bank.search_many(QUERIES, namespace=namespace, fingerprint="fp-1", key_kind="input", k=k, **asked)


def everything(bank: SQLBank, namespace: str = "home") -> list[Any]:
    return found(bank, namespace, k=1000, states=tuple(State))


def fresh(path: Path, namespace: str = "home") -> list[Any]:
    """What a bank finds that has no codes at all."""
    with opened(path, None) as bank:
        return everything(bank, namespace)


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.index-*"))


def fill(path: Path, count: int = ROWS, **changes: Any) -> None:
    with opened(path) as bank, bank.transaction():
        for number in range(count):
            bank.add(make(f"m{number}", seed=number, **changes))


def reused(path: Path) -> bool:
    """Whether a bank that is opened now takes its codes from the file; and it finds what it should."""
    began: list[int] = []
    with opened(path) as bank:
        begun = bank._matrices._begun

        def noted(*asked: Any) -> Any:
            group = begun(*asked)
            began.append(group.matrix.rows)
            return group

        bank._matrices._begun = noted  # type: ignore[method-assign]
        assert everything(bank) == fresh(path)
    return began[0] > 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bank whose codes are kept."""
    fill(tmp_path / "bank.db")
    assert not reused(tmp_path / "bank.db") and len(files(tmp_path / "bank.db")) == 1
    return tmp_path / "bank.db"


def test_a_restart_takes_the_codes_from_the_file_and_reads_only_what_is_new(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reused(path)
    with opened(path) as bank:
        bank.add(make("new", seed=999))
        bank.set_state("m3", "home", State.RETIRED, "no use")
        bank.delete("m4", "home")
    rows: list[int] = []
    read = matrices._read
    monkeypatch.setattr(matrices, "_read", lambda blobs, dim: rows.append(len(blobs)) or read(blobs, dim))
    with opened(path) as bank:
        first = found(bank, k=3)
    assert rows[0] == 1 and sum(rows[1:]) <= 6 * ROWS  # the rest are candidates of the queries
    with opened(path, None) as bank:
        assert found(bank, k=3) == first


def test_the_file_says_nothing_to_whom_the_bank_says_nothing(path: Path) -> None:
    assert files(path)[0].stat().st_mode & 0o777 == path.stat().st_mode & 0o777
    files(path)[0].unlink()
    path.chmod(0o600)
    reused(path)
    assert files(path)[0].stat().st_mode & 0o777 == 0o600


def flip(place: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        raw = bytearray(file.read_bytes())
        raw[min(len(raw) - 1, int(place * len(raw)))] ^= 1
        file.write_bytes(raw)

    return change


SPOILT: dict[str, Callable[[Path], Any]] = {
    "its first byte": flip(0),
    "its arrays": flip(0.999),
    "its checksum": flip(1),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "cut within its head": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "empty": lambda file: file.write_bytes(b""),
    "no JSON": lambda file: file.write_bytes(b"\xff" * 50_000),
    "a list": lambda file: file.write_bytes(b"[1]".ljust(50_000)),
    "another version": lambda file: file.write_bytes(file.read_bytes().replace(b"tacit index 1", b"tacit index 2")),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_damaged_is_made_anew(path: Path, how: str) -> None:
    SPOILT[how](files(path)[0])
    assert not reused(path)
    assert reused(path) or how == "a folder"


@given(place=st.floats(0, 1))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bit_of_it_may_be_another(path: Path, place: float) -> None:
    whole = files(path)[0].read_bytes()
    flip(place)(files(path)[0])
    assert not reused(path)
    assert len(files(path)[0].read_bytes()) == len(whole) and reused(path)


def test_another_banks_file_is_not_used_and_a_banks_own_goes_with_it(path: Path, tmp_path: Path) -> None:
    index = files(path)[0]
    other, moved, copied = tmp_path / "other.db", tmp_path / "moved" / "new.db", tmp_path / "copied.db"
    with opened(other) as bank, bank.transaction():  # of as many rows, of the same names
        for number in range(ROWS):
            bank.add(make(f"m{number}", seed=1000 + number))
    assert not reused(other)
    shutil.copy(index, files(other)[0])
    assert not reused(other) and reused(other)
    copy_bank(str(path), str(copied))  # with all its marks
    shutil.copy(index, copied.with_name(index.name.replace("bank.db", "copied.db")))
    assert not reused(copied)
    moved.parent.mkdir()
    with opened(path) as bank:
        bank.snapshot(moved)
    shutil.copy(index, moved.with_name(index.name.replace("bank.db", "new.db")))
    assert reused(moved)
    moved.with_name("link.db").symlink_to(moved)
    assert reused(moved.with_name("link.db")) and len(list(moved.parent.glob("*index*"))) == 1


def test_after_a_restore_or_an_older_copy_of_the_file_nothing_old_is_found(path: Path, tmp_path: Path) -> None:
    with opened(path) as bank:
        bank.snapshot(tmp_path / "snapshot.db")
    shutil.copy(path, tmp_path / "older.db")
    with opened(path) as bank:
        for number in range(ROWS, 2 * ROWS):
            bank.add(make(f"m{number}", seed=number))
        bank.delete("m1", "home")
        everything(bank)
    assert reused(path)  # the one that was put in the place of the first
    # Back to before, and from there another way, to a revision that the file's is not beyond.
    shutil.copy(tmp_path / "older.db", path)
    with opened(path) as bank:
        for number in range(ROWS, 3 * ROWS):
            bank.add(make(f"m{number}", seed=5000 + number))
            bank.set_state(f"m{number}", "home", State.RETIRED, "no use")
    assert not reused(path) and reused(path)
    restore(tmp_path / "snapshot.db", str(path), force=True)
    assert not reused(path) and reused(path)


changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 99), st.sampled_from(["home", "away"])),
        st.tuples(st.just("delete"), st.integers(0, 99), st.sampled_from(["home", "away"])),
        st.tuples(st.just("state"), st.integers(0, 99), st.sampled_from(list(State))),
        st.tuples(st.just("reopen"), st.just(0), st.just("")),
        st.tuples(st.just("search"), st.just(0), st.sampled_from(["home", "away"])),
        st.tuples(st.just("keep this file"), st.just(0), st.just("")),
        st.tuples(st.just("put that file back"), st.just(0), st.just("")),
        st.tuples(st.just("keep this bank"), st.just(0), st.just("")),
        st.tuples(st.just("put that bank back"), st.just(0), st.just("")),
        st.tuples(st.just("remove the files"), st.just(0), st.just("")),
    ),
    max_size=40,
)


def meanwhile(path: Path, aside: Path, what: str) -> None:
    if what == "remove the files":
        for file in files(path):
            file.unlink()
    elif what.startswith("keep"):
        for file in files(path) if "file" in what else [path]:
            shutil.copy(file, aside)
    elif what.startswith("put"):
        for file in aside.iterdir():
            if ("index" in file.name) == ("file" in what):
                shutil.copy(file, path.parent)


@given(steps=changes)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_a_bank_finds_what_one_without_codes_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    path, aside = tmp_path_factory.mktemp("kept") / "bank.db", tmp_path_factory.mktemp("aside")
    fill(path, 25)
    fill(path, 25, namespace="away")
    bank = opened(path)
    for what, number, other in [*steps, ("search", 0, "home"), ("search", 0, "away")]:
        name = f"m{number}"
        with suppress(MemoryNotFound):
            if what == "add":
                bank.add(make(name, other, seed=number + 7))
            elif what == "delete":
                bank.delete(name, other)
            elif what == "state":
                bank.set_state(name, "home", other, "so")
            elif what == "search":
                assert everything(bank, other) == fresh(path, other)
            else:
                bank.close()
                meanwhile(path, aside, what)
                bank = opened(path)
    bank.close()


def test_it_is_put_anew_when_many_rows_are(path: Path) -> None:
    def changed(count: int) -> bool:
        before = files(path)[0].stat().st_ino
        with opened(path) as bank:
            for _ in range(count):
                bank.set_state("m1", "home", State.ACTIVE, "again")
                everything(bank)
        return files(path)[0].stat().st_ino != before

    assert not changed(3) and changed(4)
    assert not changed(2) and reused(path)


def test_it_holds_rows_after_the_first_segments_and_damaged_ones(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE keys SET key = zeroblob(32) WHERE position = 5")
        raw.commit()
    with opened(path) as bank:
        names = {hit.memory_id for hits in everything(bank) for hit in hits}
        assert len(names) == ROWS - 1 and "m4" not in names and "key of memory 'm4'" in caplog.text
        bank.set_state("m4", "home", State.RETIRED, "damaged")
    for round_ in range(1, 4):  # each begins with the file and makes one of more segments
        fill(path, (round_ + 1) * ROWS)
        with opened(path) as bank:
            names = {hit.memory_id for hits in everything(bank) for hit in hits}
            assert len(names) == (round_ + 1) * ROWS - 1 and "m4" not in names
    assert reused(path)
