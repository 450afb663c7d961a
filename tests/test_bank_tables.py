"""A bank's file has exactly a bank's tables; snapshots let nobody in; what is damaged can be left out of a restore."""

import contextlib
import sqlite3

import pytest

from banks import make, same, search
from tacit.bank import open_bank, restore
from tacit.bank.schema import MIGRATIONS
from tacit.bank.sqlite import migrate
from tacit.errors import BankError
from tacit.server.keys import KeyStore, digest
from test_bank_sqlite import filled, one_sentence


def changed(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


PLANTED = f"'{digest('tacit-planted')}'"
VIEW = (
    "ALTER TABLE api_keys RENAME TO real_keys",
    f"""CREATE VIEW api_keys AS SELECT * FROM real_keys UNION ALL SELECT
        'planted', 'x', {PLANTED}, 'home', 'ask,admin', 9, 1.0, NULL""",
)
EVIL = {
    "a trigger": ("CREATE TRIGGER t AFTER UPDATE ON api_keys BEGIN UPDATE api_keys SET revoked = NULL; END",),
    "a trigger on memories": (
        "CREATE TRIGGER t AFTER INSERT ON memories BEGIN UPDATE memories SET state = 'active'; END",
    ),
    "a view in place of a table": VIEW,
    "one more view": ("CREATE VIEW v AS SELECT 1",),
    "one more table": ("CREATE TABLE more (x)",),
    "one more index": ("CREATE INDEX more ON api_keys (name)",),
    "one more column": ("ALTER TABLE api_keys ADD COLUMN more TEXT",),
    "no unique ids": ("DROP TABLE jobs", "CREATE TABLE jobs (number INTEGER PRIMARY KEY, id TEXT)"),
    "an index gone": ("DROP INDEX memories_by_kind",),
    "a table gone": ("DROP TABLE learned_days",),
    "a table that looks like statistics": (
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_master VALUES ('table', 'sqlite_stat1', 'sqlite_stat1', 0, 'CREATE TABLE x (y)')",
    ),
}


@pytest.mark.parametrize("what", EVIL)
def test_a_file_with_other_tables_is_neither_opened_nor_restored(tmp_path, what):
    path, snap, target = filled(tmp_path / "bank.db"), tmp_path / "snap.db", filled(tmp_path / "target.db", 1)
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    for file in (path, snap):
        changed(file, *EVIL[what])
    calls = (
        lambda: open_bank(str(path)),
        lambda: restore(snap, str(target), force=True),
        lambda: restore(snap, str(tmp_path / "new.db")),
        lambda: restore(snap, str(tmp_path / "new.db"), left_out=[]),
    )
    for call in calls:
        with pytest.raises(BankError) as error:
            call()
        assert one_sentence(error)
    assert not (tmp_path / "new.db").exists()
    with open_bank(str(target)) as bank:
        assert [row.id for row in bank.find("home")] == ["m0"]


def test_a_bank_that_was_analysed_is_one(tmp_path):
    path = filled(tmp_path / "bank.db")
    changed(path, "ANALYZE")
    with open_bank(str(path)) as bank:
        bank.snapshot(tmp_path / "snap.db")
    restore(tmp_path / "snap.db", str(tmp_path / "new.db"))


def test_every_older_version_is_known_and_no_version_may_have_more(tmp_path):
    for version in range(1, len(MIGRATIONS)):
        for evil in ((), ("CREATE VIEW v AS SELECT 1",)):
            path = tmp_path / f"{version}{len(evil)}.db"
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
                migrate(raw, path, create=True, target=version)
            changed(path, *evil)
            if evil:
                with pytest.raises(BankError, match="view 'v'"):
                    open_bank(str(path))
            else:
                open_bank(str(path)).close()


def test_restoring_over_a_bank_that_was_tampered_with_keeps_none_of_it_in_use(tmp_path):
    """Its keys cannot be believed, so nobody is let in until new ones are made; the file itself is kept."""
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        KeyStore(bank).create("mine", "home")
        bank.snapshot(snap)
    changed(path, *VIEW)
    kept = restore(snap, str(path), force=True)
    assert kept is not None and b"planted" in kept.read_bytes()
    with open_bank(str(path)) as bank:
        store = KeyStore(bank)
        assert store.lookup("tacit-planted") is None and store.ever()
        assert all(key.revoked is not None for key in store.all())
        assert len(bank.find("home")) == 3


def test_a_key_planted_in_a_snapshot_opens_nothing(tmp_path):
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    changed(snap, f"INSERT INTO api_keys VALUES ('planted', 'x', {PLANTED}, 'home', 'ask,admin', 9, 1.0, NULL)")
    for target in (path, tmp_path / "new.db"):
        restore(snap, str(target), force=True)
        with open_bank(str(target)) as bank:
            assert KeyStore(bank).lookup("tacit-planted") is None


def test_a_change_of_rights_that_the_bank_does_not_take_is_told(tmp_path):
    path = filled(tmp_path / "bank.db")
    with open_bank(str(path)) as bank:
        store = KeyStore(bank)
        key, secret = store.create("mine", "home", ["ask"])
        changed(path, "CREATE TRIGGER t AFTER UPDATE ON api_keys BEGIN "
                "UPDATE api_keys SET revoked = NULL, rights = 'ask,admin' WHERE id = old.id; END")  # fmt: skip
        for change in (lambda: store.revoke(key.id), lambda: store.allow(key.id, ["learn"])):
            with pytest.raises(BankError, match="did not take"):
                change()
        changed(path, "DROP TRIGGER t", "CREATE TRIGGER t AFTER INSERT ON api_keys BEGIN "
                "UPDATE api_keys SET rights = 'admin' WHERE id = new.id; END")  # fmt: skip
        with pytest.raises(BankError, match="did not take"):
            store.create("other", "home", ["ask"])
        changed(path, "DROP TRIGGER t")
        assert store.revoke(key.id) == store.revoke(key.id) and store.lookup(secret) is None


# Salvage.


def test_damaged_memories_can_be_left_out_of_a_restore(tmp_path, cli):
    path, snap = filled(tmp_path / "bank.db", 6), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    changed(
        snap,
        "UPDATE memories SET created = 1.0 WHERE position = 2",
        "UPDATE payloads SET prompt = x'00' WHERE position = 3",
        "DELETE FROM keys WHERE position = 4",
        "DELETE FROM memories WHERE position = 5",  # and its parts are left over
    )
    with pytest.raises(BankError, match="damaged"):
        restore(snap, str(tmp_path / "new.db"))
    code, out, _ = cli("memories", "restore", snap, "--bank", tmp_path / "new.db", "--salvage")
    assert code == 0 and [line.split(":")[0] for line in out.splitlines()[:-1]] == [
        "left out memory 'm1'", "left out memory 'm2'", "left out memory 'm3'"
    ]  # fmt: skip
    with open_bank(str(tmp_path / "new.db"), create=False) as bank:
        bank.check()
        assert [row.id for row in bank.find("home")] == ["m0", "m5"] == sorted(search(bank, make("m0")))
        assert same(bank.get("m5", "home"), make("m5")) and bank.add(make("m1"))
    left: list[str] = []
    assert restore(snap, str(path), force=True, left_out=left) is not None and len(left) == 3
    whole: list[str] = []
    with open_bank(str(path)) as bank:
        bank.snapshot(tmp_path / "whole.db")
    restore(tmp_path / "whole.db", str(tmp_path / "again.db"), left_out=whole)
    assert whole == []
