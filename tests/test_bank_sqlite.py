"""The SQLite bank's own matters: addresses, what is refused at opening, failures of the disk, damage, migrations."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from banks import make, same, search
from tacit.bank import open_bank
from tacit.bank.schema import MIGRATIONS
from tacit.bank.sqlite import APPLICATION_ID, migrate
from tacit.errors import BankError, ConfigError
from tacit.memory import State
from test_bank_processes import PRELUDE


def filled(path, count=3):
    """A closed bank at ``path`` with memories m0 ..."""
    with open_bank(str(path)) as bank:
        for i in range(count):
            bank.add(make(f"m{i}"))
    return path


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and 20 < len(text) < 420


# Addresses.


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, path in {
        "sqlite:///relative.db": tmp_path / "relative.db",
        f"sqlite:///{tmp_path}/absolute.db": tmp_path / "absolute.db",
        "plain.db": tmp_path / "plain.db",
        "new folder/ä?%20#.db": tmp_path / "new folder" / "ä?%20#.db",
        "./odd:name.db": tmp_path / "odd:name.db",
    }.items():
        with open_bank(url) as bank:
            bank.add(make())
            assert path.is_file()
            again = bank.url
        with open_bank(again if "?" not in again else url, create=False) as bank:
            assert len(bank.find("home")) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "unsupported scheme 'mysql'; supported: sqlite"),
        ("postgresql+psycopg://localhost", "names no database"),
        ("postgresql://localhost/x?schema=pg_temp", "one name of 1 to 63 bytes"),
        ("postgresql://u:secret@localhost:port/x", "cannot be read"),
        ("http://x", "unsupported scheme"),
        ("file:bank.db", "unsupported scheme"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://host/x.db", "names no file"),
        ("", "empty"),
        ("a\x00b", "no text"),
    ],
)
def test_wrong_addresses(url, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words) as error:
        open_bank(url)
    assert one_sentence(error) and list(tmp_path.iterdir()) == []


def test_wrong_settings(tmp_path):
    for settings in ({"busy_timeout": -1}, {"search_threads": 0}):
        with pytest.raises(ConfigError):
            open_bank(str(tmp_path / "x.db"), **settings)


# What is refused at opening, and left as it was.


def refused(path, words, **settings):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(BankError, match=words) as error:
        open_bank(str(path), **settings)
    assert one_sentence(error) and str(path) in str(error.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_folder(tmp_path):
    refused(tmp_path, "is a folder, not a bank")


def test_no_bank_there(tmp_path):
    refused(tmp_path / "missing.db", "no bank at", create=False)
    (tmp_path / "empty.db").touch()
    refused(tmp_path / "empty.db", "empty file", create=False)
    assert not (tmp_path / "missing.db").exists()
    with open_bank(str(tmp_path / "empty.db")) as bank:  # what a kill at the very first moment leaves
        assert bank.add(make())


@pytest.mark.parametrize("content", [b"hello", b"{}\n" * 1000, b"SQLite format 2\x00" + bytes(100), bytes(4096)])
def test_not_an_sqlite_file(tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    refused(path, r"not a memory bank \(not an SQLite file\)")


def test_sqlite_file_of_another_application(tmp_path):
    for name, pragma in {
        "a.db": "application_id = 42",
        "b.db": "user_version = 0",
        "c.db": "journal_mode = wal",
    }.items():
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as other:
            other.execute("CREATE TABLE cookies (x)")
            other.execute(f"PRAGMA {pragma}")
            other.commit()
        refused(tmp_path / name, "of another application")


def test_marked_database_of_another_application_is_not_even_opened(tmp_path):
    """Opening it would already fold its write-ahead log into it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "live.db")) as other:
        other.execute("PRAGMA application_id = 42")
        other.execute("PRAGMA journal_mode = wal")
        other.execute("CREATE TABLE cookies (x)")
        other.execute("PRAGMA wal_checkpoint")
        other.execute("INSERT INTO cookies VALUES (1)")
        other.commit()
        for suffix in ("", "-wal"):  # as a crash would leave them
            shutil.copy(tmp_path / f"live.db{suffix}", tmp_path / f"app.db{suffix}")
    refused(tmp_path / "app.db", "of another application")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.db", "app.db-wal", "live.db"]


def test_newer_schema(tmp_path):
    path = filled(tmp_path / "bank.db")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    refused(path, f"newer Tacit \\(schema {len(MIGRATIONS) + 1}, this one knows {len(MIGRATIONS)}\\)")


def test_truncated_bank(tmp_path):
    path = filled(tmp_path / "bank.db", 30)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BankError) as error, open_bank(str(path)) as bank:
        bank.check()
    assert one_sentence(error) and "damaged" in str(error.value)


NOBODY = 65534
ALONE = """
import os
from tacit.errors import BankError
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    bank = open_bank(sys.argv[1])
    bank.add(make("new"))
except BankError as error:
    print(error)
"""


def as_nobody(path):
    """What a process without special rights is told when it writes to the bank at ``path``."""
    command = [sys.executable, "-c", PRELUDE + ALONE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.fixture
def shared_folder():
    """A folder that other users can reach, unlike pytest's own."""
    folder = Path(os.path.realpath("/var/tmp")) / f"tacit-test-{os.getpid()}-{time.time_ns()}"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_places_that_cannot_be_written(shared_folder):
    path = filled(shared_folder / "bank.db")
    before = path.read_bytes()
    path.chmod(0o444)
    shared_folder.chmod(0o555)
    for place in (path, shared_folder / "new.db", shared_folder / "deeper" / "new.db"):
        told = as_nobody(place)
        assert "permission" in told.lower() and str(place) in told and told.count("\n") == 1
    assert path.read_bytes() == before
    path.chmod(0o000)
    assert "permission" in as_nobody(path).lower()
    assert stat.S_IMODE(path.stat().st_mode) == 0


# A lock, a full disk.


def test_locked_bank_waits_and_then_says_so(tmp_path):
    path = filled(tmp_path / "bank.db")
    with open_bank(str(path), busy_timeout=0.3) as bank, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(BankError, match=r"locked by another process for more than 0\.3 s") as error:
            bank.add(make("late"))
        assert one_sentence(error) and 0.25 < time.monotonic() - start < 3
        assert search(bank, make("m1"), k=1) == ["m1"] and bank.get("m1", "home")  # reading goes on
        with open_bank(str(path), busy_timeout=0.1) as second:  # and so does opening
            assert len(second.find("home")) == 3
        other.execute("ROLLBACK")
        assert bank.add(make("late"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BankError, match="locked"):
            open_bank(str(path), busy_timeout=0.1)
        other.execute("ROLLBACK")


FILLS_UP = """
import resource
from tacit.errors import BankError
bank, limit = open_bank(sys.argv[1]), int(sys.argv[2])
bank.add(make("first"))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
stored = ["first"]
try:
    for i in range(10_000):
        if i % 2:
            bank.add(make(f"m{i}", problem="x" * 10_000))
            stored.append(f"m{i}")
        else:
            with bank.transaction():
                bank.add(make(f"left{i}", problem="x" * 10_000))
                bank.add(make(f"right{i}", problem="x" * 10_000))
            stored += [f"left{i}", f"right{i}"]
except BankError as error:
    print(error)
# Whoever swallows the error inside a transaction must not have the rest acknowledged.
try:
    with bank.transaction():
        for i in range(10_000):
            try:
                bank.add(make(f"swallowed{i}", problem="x" * 10_000_000))
            except BankError:
                bank.mark("home", "after", "the error")
                break
    print("committed", bank.marked("home", "after"))
except BankError as error:
    print("refused", bank.marked("home", "after"))
print(len(bank.find("home")), len(search(bank, make("first"), k=10_000)))
print(*stored)
"""


def fill_up(path, limit):
    """Write until the disk is full; then what the bank says, and what it holds, are checked."""
    command = [sys.executable, "-c", PRELUDE + FILLS_UP, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    error, swallowed, counts, stored = done.stdout.splitlines()
    assert "disk" in error and "full" in error and str(path) in error
    return swallowed, counts, stored.split()


def test_file_size_limit_loses_nothing(tmp_path):
    path = tmp_path / "bank.db"
    swallowed, counts, stored = fill_up(path, 2_000_000)
    assert len(stored) > 20 and counts == f"{len(stored)} {len(stored)}"
    with open_bank(str(path), create=False) as bank:
        bank.check()
        assert [row.id for row in bank.find("home")] == stored
        # Either the mark was undone with its transaction, or it was truly committed; never one without the other.
        assert (
            swallowed == f"{'committed' if bank.marked('home', 'after') else 'refused'} {bank.marked('home', 'after')}"
        )
        assert bank.add(make("room again"))


def test_full_disk_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(500_000))
        swallowed, counts, stored = fill_up(disk / "bank.db", 0)
        assert len(stored) > 20 and counts == f"{len(stored)} {len(stored)}"
        assert (disk / "bank.db").stat().st_size > 2_000_000  # it is the bank that has the room, not its log
        with open_bank(str(disk / "bank.db"), create=False) as bank:
            bank.check()
            assert [row.id for row in bank.find("home")] == stored
            marked = bank.marked("home", "after")
            assert swallowed == f"{'committed' if marked else 'refused'} {marked}"
            with pytest.raises(BankError, match="full") as error:
                bank.snapshot(disk / "snapshot.db")
            assert one_sentence(error)
            (disk / "ballast").unlink()
            assert bank.add(make("room again"))
        assert not [path for path in disk.iterdir() if "snap" in path.name or "partial" in path.name]
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        with pytest.raises(BankError, match="full"):
            open_bank(str(disk / "another.db"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("room", [0, 2**62])
def test_the_log_is_kept_short_where_there_is_little_room(tmp_path, monkeypatch, room):
    monkeypatch.setattr("tacit.bank.sqlite.ROOM", room)
    with open_bank(str(tmp_path / "bank.db")) as bank:
        for i in range(40):
            bank.add(make(f"m{i}"))
        assert ((tmp_path / "bank.db-wal").stat().st_size < 200_000) == (room > 0)


def test_error_that_ends_the_transaction_leaves_nothing_half_done(tmp_path):
    """SQLite may undo a transaction by itself; what follows inside it must not be committed piece by piece."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        bank.add(make("before"))
        with pytest.raises(BankError, match="undid this transaction"), bank.transaction():
            bank.add(make("lost"))
            bank._connection().connection.dbapi_connection.execute("ROLLBACK")  # as SQLite does when the disk is full
            with contextlib.suppress(BankError):
                bank.add(make("alone"))
            with pytest.raises(BankError, match="undid"):
                bank.find("home")
        assert [row.id for row in bank.find("home")] == ["before"]
        assert bank.add(make("after"))


# Damage.


def test_first_version_migrates_with_its_data(tmp_path):
    path = filled(tmp_path / "bank.db")
    # Back to what version 1 wrote: the same rows in tables that its own statements made.
    old = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as raw:
        migrate(raw, old, create=True, target=1)
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
        raw.execute("ATTACH ? AS latest", (str(path),))
        raw.execute("DELETE FROM bank")
        for table in ("bank", "namespaces", "memories", "keys", "payloads", "counters"):
            raw.execute(f"INSERT INTO main.{table} SELECT * FROM latest.{table}")
        tables = {row[0] for row in raw.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
        assert "history" not in tables and "marks" not in tables
    with open_bank(str(old), create=False) as bank:
        bank.check()
        assert all(same(bank.get(f"m{i}", "home"), make(f"m{i}")) for i in range(3))
        assert [(s.time, s.old, s.new, s.reason) for s in bank.history("m1", "home")] == [
            (1000.5, None, State.ACTIVE, "admitted")
        ]
        bank.set_state("m1", "home", State.RETIRED, "old")
        bank.mark("home", "x", "y")
        assert search(bank, make("m1")) != [] and bank.add(make("m9"))
    assert schema_of(old) == schema_of(path)


def schema_of(path):
    with contextlib.closing(sqlite3.connect(path)) as raw:
        version = raw.execute("PRAGMA user_version").fetchone()[0]
        assert raw.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        return version, sorted(raw.execute("SELECT name, sql FROM sqlite_master"))


def test_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "bank.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        migrate(raw, path, create=True, target=1)
    before = schema_of(path)
    broken = (*MIGRATIONS[:2], type(MIGRATIONS[2])("broken", ("CREATE TABLE half (x)", "CREATE NONSENSE")))
    monkeypatch.setattr("tacit.bank.sqlite.MIGRATIONS", broken)
    with pytest.raises(BankError):
        open_bank(str(path))
    assert schema_of(path) == before
