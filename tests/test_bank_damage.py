"""Damage to an SQLite bank is found and named; snapshots and restores lose nothing, whatever state the bank is in."""

import contextlib
import sqlite3
import subprocess
import sys

import pytest

from banks import make, same, search
from tacit.bank import open_bank, restore
from tacit.bank.damage import DAMAGED, undamaged
from tacit.errors import BankError
from tacit.memory import State
from test_bank_processes import PRELUDE
from test_bank_sqlite import filled, one_sentence


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            "UPDATE payloads SET prompt = (SELECT prompt FROM payloads WHERE position = 1) WHERE position = 2",
            "'m1'.*soft",
        ),
        ("UPDATE payloads SET prompt = 'text' WHERE position = 2", "'m1'.*safetensors"),
        ("UPDATE keys SET key = 'text' WHERE position = 2", "'m1'.*tensors"),
        ("UPDATE memories SET problem = CAST(x'ff' AS TEXT) WHERE position = 2", "'m1'.*record or key"),
        ("UPDATE payloads SET prompt = x'00' WHERE position = 2", "'m1'.*safetensors"),
        ("UPDATE keys SET key = zeroblob(32) WHERE position = 2", "'m1'.*norm"),
        ("UPDATE keys SET key = (SELECT key FROM keys WHERE position = 1) WHERE position = 2", "'m1'.*record or key"),
        ('UPDATE payloads SET provenance = \'{"label": "43"}\' WHERE position = 2', "'m1'.*record or key"),
        ("UPDATE payloads SET provenance = '{' WHERE position = 2", "'m1'.*JSON"),
        ("UPDATE memories SET problem = 'another' WHERE position = 2", "'m1'.*record or key"),
        ("UPDATE memories SET namespace = 'other' WHERE position = 2", "'m1'.*record or key"),
        ("UPDATE memories SET state = 'asleep' WHERE position = 2", "'m1'.*asleep"),
        ("DELETE FROM keys WHERE position = 2", "'m1': a part of it is missing"),
        ("DELETE FROM memories WHERE position = 2", "rows .* belong to memories that are gone"),
    ],
)
def test_check_names_what_is_damaged(tmp_path, damage, words):
    path = filled(tmp_path / "bank.db")
    with contextlib.closing(sqlite3.connect(path)) as raw:  # foreign keys are off here
        raw.execute("INSERT INTO namespaces VALUES ('other', 'fp-1', '')")
        raw.execute(damage)
        raw.commit()
    with open_bank(str(path)) as bank:
        with pytest.raises(BankError, match=words) as error:
            bank.check()
        assert one_sentence(error)
        assert same(bank.get("m2", "home"), make("m2"))  # the others can still be had
        with pytest.raises(BankError):
            bank.get("m1", "home")


def test_flipped_bytes_in_the_file_are_found(tmp_path):
    path = filled(tmp_path / "bank.db", 20)
    whole = path.read_bytes()
    place = whole.index(make("m7").prompt.tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with open_bank(str(path)) as bank, pytest.raises(BankError, match=r"'m7'.*SHA-256"):
        bank.check()


def test_a_damaged_key_is_left_out_of_every_search_by_name(tmp_path, caplog):
    path = filled(tmp_path / "bank.db")
    for damage in ("x'0000c07f' || substr(key, 5)", "x'00'", "zeroblob(32)"):  # a NaN, a stump, nothing
        with contextlib.closing(sqlite3.connect(path)) as raw:
            raw.execute(f"UPDATE keys SET key = CAST({damage} AS BLOB) WHERE position = 2")
            raw.commit()
        caplog.clear()
        with open_bank(str(path)) as bank:
            assert sorted(search(bank, make("m0"))) == ["m0", "m2"]
            assert "key of memory 'm1'" in caplog.text and "left out" in caplog.text
            bank.set_state("m1", "home", State.RETIRED, "old")  # which the matrix in memory hears of
            bank.set_state("m1", "home", State.ACTIVE, "new")
            assert sorted(search(bank, make("m0"))) == sorted(search(bank, make("m1"))) == ["m0", "m2"]
            with pytest.raises(BankError, match="'m1'"):
                bank.check()
    with open_bank(str(path)) as bank:
        bank.delete("m1", "home")
        assert sorted(search(bank, make("m0"))) == ["m0", "m2"]


def test_a_state_that_is_none_keeps_one_memory_out_of_use_and_no_other(tmp_path):
    path = filled(tmp_path / "bank.db")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE memories SET state = 'asleep' WHERE position = 2")
        raw.execute("UPDATE history SET new = 'asleep' WHERE position = 2")
        raw.commit()
    with open_bank(str(path)) as bank:
        assert sorted(search(bank, make("m0"))) == ["m0", "m2"]
        assert [row.state for row in bank.find("home")] == [State.ACTIVE, State.QUARANTINED, State.ACTIVE]
        assert bank.counts("home")[State.QUARANTINED] == 1 and bank.page("home")[0] == 3
        assert bank.history("m1", "home")[0].new is State.QUARANTINED
        bank.set_state("m1", "home", State.ACTIVE, "mended")
        assert sorted(search(bank, make("m0"))) == ["m0", "m1", "m2"]
        bank.check()


def test_who_comes_across_a_damaged_memory_takes_it_out_of_use(tmp_path, caplog):
    path = filled(tmp_path / "bank.db")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE payloads SET prompt = x'00' WHERE position = 2")
        raw.execute("DELETE FROM counters WHERE position = 3")
        raw.commit()
    with open_bank(str(path)) as bank:
        assert same(undamaged(bank, "m0", "home"), make("m0")) and undamaged(bank, "none", "home") is None
        for id in ("m1", "m2"):
            assert undamaged(bank, id, "home") is None
            assert f"memory {id!r}" in caplog.text and "out of use" in caplog.text
            assert bank.history(id, "home")[-1].reason == DAMAGED
        assert search(bank, make("m1")) == ["m0"]
        with contextlib.closing(sqlite3.connect(path)) as other:  # no reason to fail where it cannot be written
            other.execute("UPDATE payloads SET prompt = x'00'")
            other.commit()
            other.execute("BEGIN IMMEDIATE")
            bank._lock_timeout = 0.1
            assert undamaged(bank, "m0", "home") is None


# Migrations.


WRITES_ON = """
bank = open_bank(sys.argv[1])
print("ready")
i = 0
while True:
    with bank.transaction():
        bank.add(make(f"left{i}"))
        bank.add(make(f"right{i}"))
    i += 1
"""


def test_snapshot_while_another_process_writes_is_consistent(tmp_path):
    path = filled(tmp_path / "bank.db")
    command = [sys.executable, "-u", "-c", PRELUDE + WRITES_ON, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer, open_bank(str(path)) as bank:
        try:
            assert writer.stdout.readline() == "ready\n"
            sizes = []
            for i in range(5):
                bank.snapshot(tmp_path / f"snap{i}.db")
                with open_bank(str(tmp_path / f"snap{i}.db"), create=False) as copy:
                    copy.check()
                    ids = [row.id for row in copy.find("home")]
                    assert len([x for x in ids if "left" in x]) == len([x for x in ids if "right" in x])
                    sizes.append(len(ids))
        finally:
            writer.kill()
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]


def test_restore(tmp_path):
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    before = snap.read_bytes()
    assert restore(snap, f"sqlite:///{tmp_path}/new/copy.db") is None
    with open_bank(str(tmp_path / "new" / "copy.db"), create=False) as bank:
        assert same(bank.get("m1", "home"), make("m1"))
        assert search(bank, make("m1"), k=1) == ["m1"]
    with pytest.raises(BankError, match="already"):
        restore(snap, str(path))
    assert snap.read_bytes() == before and sorted(p.name for p in (tmp_path / "new").iterdir()) == ["copy.db"]


def test_forced_restore_keeps_the_old_bank_and_reaches_who_has_it_open(tmp_path):
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
        bank.delete("m0", "home")
        bank.add(make("later"))
        bank.add(make("elsewhere", namespace="second", fingerprint="fp-2"))
        assert sorted(search(bank, make("m1"))) == ["later", "m1", "m2"]
        with pytest.raises(BankError, match="snapshot itself"):
            restore(path, str(path), force=True)
        kept = restore(snap, str(path), force=True)
        assert sorted(search(bank, make("m1"))) == ["m0", "m1", "m2"]
        assert bank.add(make("elsewhere", namespace="second")) is True  # its binding went back as well
        bank.check()
    with open_bank(str(kept), create=False) as old:
        assert [row.id for row in old.find("home")] == ["m1", "m2", "later"]
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["bank.db", kept.name, "snap.db"]


def test_forced_restore_over_a_damaged_bank(tmp_path):
    path, snap = filled(tmp_path / "bank.db", 30), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    for wreck in (b"\x00" * 8192, path.read_bytes()[:9000]):
        path.write_bytes(wreck)
        kept = restore(snap, str(path), force=True)
        assert kept.read_bytes()[:4096] == wreck[:4096]
        with open_bank(str(path), create=False) as bank:
            bank.check()
            assert len(bank.find("home")) == 30


def test_forced_restore_of_a_locked_bank_leaves_it_alone(tmp_path):
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
        bank.add(make("later"))
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BankError, match="locked") as error:
                restore(snap, str(path), force=True, busy_timeout=0.2)
            assert one_sentence(error)
            other.execute("ROLLBACK")
        assert [row.id for row in bank.find("home")] == ["m0", "m1", "m2", "later"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.db", "snap.db"]


def test_snapshot_of_a_damaged_bank_is_refused(tmp_path):
    path = filled(tmp_path / "bank.db", 60)
    with contextlib.closing(sqlite3.connect(path)) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'memories_by_problem'").fetchone()[0]
    whole = bytearray(path.read_bytes())
    whole[(page - 1) * 4096 + 40 : page * 4096] = bytes(4096 - 40)  # an index page, wiped
    path.write_bytes(whole)
    with open_bank(str(path)) as bank:
        for call in (lambda: bank.snapshot(tmp_path / "snap.db"), bank.check):
            with pytest.raises(BankError, match="damaged") as error:
                call()
            assert one_sentence(error)
    assert [p.name for p in tmp_path.iterdir()] == ["bank.db"]


def test_restore_verifies_the_snapshot_first(tmp_path):
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    whole = snap.read_bytes()
    place = whole.index(make("m1").prompt.tobytes())
    snap.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    (tmp_path / "text").write_text("hello")
    before = path.read_bytes()
    for source, words in {
        snap: "'m1'",
        tmp_path / "text": "not a memory bank",
        tmp_path / "none": "no snapshot",
    }.items():
        with pytest.raises(BankError, match=words) as error:
            restore(source, str(path), force=True)
        assert one_sentence(error)
        with pytest.raises(BankError):
            restore(source, str(tmp_path / "new.db"))
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.db", "snap.db", "text"]
