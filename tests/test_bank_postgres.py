"""The PostgreSQL bank's own matters: addresses, what is refused at opening, several processes, a server that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from banks import make, same, search
from conftest import Tacit
from postgres import OwnServer, shared
from tacit.bank import open_bank, restore, shown_address
from tacit.bank.postgres.bank import PostgresBank
from tacit.bank.schema import MIGRATIONS
from tacit.config import RunConfig
from tacit.errors import BankError, ConfigError, MemoryNotFound
from test_bank_processes import KILLED, WRITER, start
from test_bank_sqlite import one_sentence

pytestmark = pytest.mark.scale


@pytest.fixture
def url() -> str:
    """The address of an empty database."""
    return shared().database()


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    """A statement past the bank."""
    return shared().execute(statement, make_url(url).database)


def tables(url: str) -> list[tuple[object, ...]]:
    return run(url, "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'")


# Addresses and opening.


def test_addresses(url: str) -> None:
    with open_bank(url) as bank:
        bank.add(make())
        assert isinstance(bank, PostgresBank) and bank.url == url
    for same_bank in (url.replace("+psycopg", ""), url + "&schema=tacit", url + "&connect_timeout=3"):
        with open_bank(same_bank, create=False) as bank:
            assert len(bank.find("home")) == 1
    for name in ("other", 'q"uo te%d', "ünder_Ärger"):
        with open_bank(str(make_url(url).update_query_dict({"schema": name}))) as bank:
            assert bank.find("home") == [] and bank.add(make("m2"))
            again = bank.url
        with open_bank(again, create=False) as bank:
            assert same(bank.get("m2", "home"), make("m2"))
    assert {row[0] for row in tables(url)} == {"tacit", "other", 'q"uo te%d', "ünder_Ärger"}


def test_a_password_is_never_shown(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    for secret in (str(make_url(url).set(password="pa55")), url + "&password=pa55"):
        with pytest.raises(BankError) as error:
            open_bank(secret.replace("tacit_test", "no_such_database"), create=False)
        assert one_sentence(error) and "pa55" not in str(error.value) and "***" in str(error.value)
        assert "createdb" in str(error.value)
        assert "pa55" not in shown_address(secret)
        with open_bank(make_url(secret).render_as_string(False)) as bank:
            assert "pa55" in bank.url or "***" in secret  # it opens the bank again
            with pytest.raises(BankError) as error:
                bank.add(make(fingerprint="fp-1")), bank.add(make(fingerprint="fp-2"))
            assert "pa55" not in str(error.value)
            with bank.connection(write=True) as connection:
                connection.exec_driver_sql("DROP TABLE marks CASCADE")
            with pytest.raises(BankError, match="lacks a table") as error:
                bank.mark("home", "a", "b")
            assert one_sentence(error) and "pa55" not in str(error.value)
        run(url, "DROP SCHEMA tacit CASCADE")
    assert "pa55" not in "".join(capfd.readouterr())


def test_no_bank_there_makes_nothing(url: str) -> None:
    with pytest.raises(BankError, match="there is no bank postgresql") as error:
        open_bank(url, create=False)
    assert one_sentence(error) and tables(url) == []


def test_tables_of_another_application_are_left_alone(url: str) -> None:
    run(url, "CREATE TABLE public.jobs (n INTEGER)")
    with open_bank(url) as bank:  # in its own schema it is not in the way
        assert bank.add(make())
    public = url + "&schema=public"
    for create in (True, False):
        with pytest.raises(BankError, match="'jobs' of another application") as error:
            open_bank(public, create=create)
        assert one_sentence(error)
    assert [row for row in tables(url) if row[0] == "public"] == [("public", "jobs")]
    run(url, "DROP TABLE public.jobs")
    with open_bank(public) as bank:
        assert bank.add(make("m2"))


def test_a_newer_bank_is_refused_and_an_older_one_migrated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.bank.postgres.schema.MIGRATIONS", MIGRATIONS[:1])
    open_bank(url).close()
    assert "history" not in {row[1] for row in tables(url)}
    monkeypatch.undo()
    with open_bank(url, create=False) as bank:
        bank.add(make())
        assert len(bank.history("m1", "home")) == 1
    run(url, f"UPDATE tacit.tacit_version SET version = {len(MIGRATIONS) + 1}")
    with pytest.raises(BankError, match="newer Tacit") as error:
        open_bank(url)
    assert one_sentence(error)


def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = type(MIGRATIONS[0])("broken", ("CREATE TABLE fine (n INTEGER)", "CREATE TABLE fine (n INTEGER)"))
    monkeypatch.setattr("tacit.bank.postgres.schema.MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(BankError, match="already exists"):
        open_bank(url)
    assert tables(url) == []


def test_a_user_without_rights_is_told(url: str) -> None:
    with open_bank(url) as bank:
        bank.add(make())
    run(url, "DROP ROLE IF EXISTS tacit_stranger")
    run(url, "CREATE ROLE tacit_stranger LOGIN")
    stranger = make_url(url).set(username="tacit_stranger").render_as_string(False)
    with pytest.raises(BankError, match="rights") as error:
        open_bank(stranger)
    assert one_sentence(error)
    with pytest.raises(BankError, match="rights"):
        open_bank(stranger + "&schema=mine")


def test_the_server_keeps_what_it_acknowledges(url: str) -> None:
    run(url, f'ALTER DATABASE "{make_url(url).database}" SET synchronous_commit = off')
    run(url, f'ALTER DATABASE "{make_url(url).database}" SET default_transaction_isolation = serializable')
    with open_bank(url) as bank:
        with bank.connection() as reading:
            assert reading.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
            assert reading.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
        with bank.connection(write=True) as writing:
            assert writing.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
            assert writing.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def test_names_with_nul_are_nobodys(url: str) -> None:
    with open_bank(url) as bank:
        bank.add(make("a", problem="a\uffffb"))
        for call in (bank.get, bank.info, bank.history, bank.delete, bank.count):
            with pytest.raises(MemoryNotFound):
                call("a\x00", "home")
        assert bank.find("ho\x00me") == [] and bank.marked("home", "\x00") is None
        assert bank.page("home", containing="\x00zz") == (0, [])
        with bank.transaction(), pytest.raises(MemoryNotFound):
            bank.count("a\x00", "home", uses=1)
        bank.add(make("odd", provenance={"label": "a\x00b"}))
        assert bank.find("home")[1].label == "ab" and bank.get("odd", "home").provenance == {"label": "a\x00b"}


def test_the_settings_of_a_run_hold_no_password() -> None:
    for bank, held in {
        "postgresql://u:pa55@h:5432/db?password=pa55&schema=x": "postgresql://u:***@h:5432/db?password=***&schema=x",
        "postgresql+psycopg://u@h/db": "postgresql+psycopg://u@h/db",
        "sqlite:////a:b@c.db": "sqlite:////a:b@c.db",
    }.items():
        assert RunConfig(bank=bank).settings()["bank"] == held


def test_restore_says_how_to_copy(url: str, tmp_path: Path) -> None:
    with open_bank(url) as bank:
        bank.add(make())
        bank.snapshot(tmp_path / "snap.db")
    with pytest.raises(ConfigError, match="tacit bank copy"):
        restore(tmp_path / "snap.db", url, force=True)


def test_commands(url: str, cli: Tacit, tmp_path: Path) -> None:
    with open_bank(url) as bank:
        bank.add(make())
    secret = make_url(url).set(password="pa55").render_as_string(False)
    code, out, err = cli("memories", "list", "--namespace", "home", "--bank", secret)
    assert (code, err) == (0, "") and "m1" in out
    for command in (
        ("memories", "snapshot", tmp_path / "s.db"),
        ("memories", "show", "m1"),
        ("doctor",),
        ("keys", "list"),
        ("memories", "restore", tmp_path / "s.db"),
        ("memories", "quarantine", "nobody"),
    ):
        code, out, err = cli(*command, "--bank", secret)
        assert code in (0, 2) and "pa55" not in out + err, command
    code, out, err = cli("bank", "copy", secret, tmp_path / "copy.db")
    assert (code, err) == (0, "") and "pa55" not in out
    code, out, err = cli("bank", "copy", tmp_path / "s.db", f"{secret}&schema=second")
    assert (code, err) == (0, "") and "pa55" not in out and "schema=second" in out


# Several processes.


def test_four_processes_writing_at_once_lose_nothing(url: str) -> None:
    """All of them also create the bank at the same moment."""
    writers = [start(WRITER, url, f"w{i}") for i in range(4)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    with open_bank(url, create=False) as bank:
        ids = {row.id: row for row in bank.find("home")}
        assert set(ids) == {"shared", *(f"w{w}-{i}" for w in range(4) for i in range(40))}
        assert (ids["shared"].uses, ids["shared"].helped) == (160, 320)
        positions = [row.position for row in bank.find("home")]
        assert positions == sorted(positions)
        bank.check()


def test_a_process_that_is_killed_leaves_no_lock_and_no_half(url: str) -> None:
    acknowledged: list[int] = []
    for round_ in range(4):
        writer = start(KILLED, url, acknowledged[-1] + 2 if acknowledged else 0)
        assert writer.stdout is not None
        acknowledged.append(int(writer.stdout.readline()))
        time.sleep(0.02 * round_)
        writer.kill()
        acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait(10)
        writer.stdout.close()
        with open_bank(url, create=False) as bank:
            bank.mark("other", "lock", "free")
            names = {row.id for row in bank.find("home")}
            for i in acknowledged:
                assert {f"{i}-single"} <= names if i % 3 == 2 else {f"{i}-left", f"{i}-right"} <= names
            halves = [{name.split("-")[0] for name in names if name.endswith(end)} for end in ("left", "right")]
            assert halves[0] == halves[1]
            bank.check()


def test_a_lock_is_waited_for_and_then_said(url: str) -> None:
    with open_bank(url) as bank, open_bank(url, busy_timeout=0.3) as other:
        bank.add(make())
        with bank.transaction():
            bank.count("m1", "home", uses=1)
            start = time.monotonic()
            with pytest.raises(BankError, match=r"locked by another process for more than 0\.3 s") as error:
                other.count("m1", "home", uses=1)
            assert one_sentence(error) and 0.2 < time.monotonic() - start < 3
            assert other.find("home")[0].uses == 0 and search(other, make()) == ["m1"]  # readers do not wait
        other.count("m1", "home", uses=1)
        assert bank.find("home")[0].uses == 2


# A server that dies.


@pytest.fixture(scope="module")
def mortal() -> Iterator[OwnServer]:
    """A server that may be killed."""
    server = OwnServer()
    yield server
    server.stop()


def test_a_restarted_server_is_found_again(mortal: OwnServer) -> None:
    with open_bank(mortal.database(), busy_timeout=30) as bank:
        bank.add(make("a"))
        assert search(bank, make("a")) == ["a"]
        mortal.kill()
        revival = threading.Timer(1.0, mortal.start)
        revival.start()
        assert bank.add(make("b"))  # waits for the server
        revival.join()
        assert sorted(search(bank, make("a"))) == ["a", "b"]
        mortal.kill()
        mortal.start()
        with pytest.raises(BankError, match="cannot be reached"), bank.transaction():
            bank.add(make("c"))
            mortal.kill()
            mortal.start()
            bank.count("a", "home", uses=1)  # must not go on in another transaction
        assert [row.id for row in bank.find("home")] == ["a", "b"] and bank.find("home")[0].uses == 0


def test_a_server_that_stays_away_is_said(mortal: OwnServer) -> None:
    url = mortal.database()
    with open_bank(url, busy_timeout=0.5) as bank:
        bank.add(make("a"))
        mortal.kill()
        try:
            for call in (
                lambda: bank.find("home"),
                lambda: bank.add(make("b")),
                lambda: search(bank, make("a")),
                lambda: open_bank(url, busy_timeout=0.5),
            ):
                with pytest.raises(BankError, match="cannot be reached") as error:
                    call()
                assert one_sentence(error)
        finally:
            mortal.start()
        assert [row.id for row in bank.find("home")] == ["a"]


def test_kill_9_of_the_server_loses_and_doubles_nothing(mortal: OwnServer) -> None:
    """Memories that were acknowledged are there once; counts lie between those acknowledged and those in doubt."""
    with open_bank(mortal.database(), busy_timeout=30) as bank:
        bank.add(make("shared"))
        added: list[str] = []
        counted, doubts, failures = [0], [0], []
        stop = threading.Event()

        def write(who: int) -> None:
            try:
                for i in range(10_000):
                    if stop.is_set():
                        return
                    while True:
                        try:
                            bank.add(make(f"{who}-{i}"))
                            break
                        except BankError as error:
                            assert "not known" in str(error)
                    added.append(f"{who}-{i}")
                    try:
                        bank.count("shared", "home", uses=1)
                        counted[0] += 1  # under the interpreter's lock
                    except BankError as error:
                        assert "not known" in str(error)
                        doubts[0] += 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(4):
            time.sleep(1.0)
            mortal.kill()
            mortal.start()
        time.sleep(1.0)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        names = [row.id for row in bank.find("home")]
        assert len(names) == len(set(names)) and set(names) == {"shared", *added} and len(added) > 50
        uses = bank.find("home", problem_id="p-shared")[0].uses
        assert counted[0] <= uses <= counted[0] + doubts[0]
        bank.check()


def test_a_commit_whose_answer_is_lost_is_not_repeated(mortal: OwnServer) -> None:
    """The server dies between storing and answering, here because it waits for a standby that there is not."""
    with open_bank(mortal.database(), busy_timeout=30) as bank:
        bank.add(make("a"))
        mortal.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        mortal.execute("SELECT pg_reload_conf()")
        time.sleep(1)  # commits wait from when the checkpointer has read it, which nothing tells
        death = threading.Timer(2.0, mortal.kill)
        death.start()
        with pytest.raises(BankError, match="whether it was stored is not known") as error:
            bank.count("a", "home", uses=1)
        assert one_sentence(error)
        death.join()
        mortal.start()
        mortal.execute("ALTER SYSTEM RESET synchronous_standby_names")
        mortal.execute("SELECT pg_reload_conf()")
        assert bank.find("home")[0].uses == 1


# The program on it.


def test_a_run_gives_the_same_memories_as_in_sqlite(url: str, cli: Tacit, tmp_path: Path) -> None:
    """To the bit, also when it is interrupted and continued."""
    plain = str(tmp_path / "plain.db")
    run_options = ("run", "--model", "testbed", "--data", "testbed", "--window", "4", "--seed", "3")
    assert cli(*run_options, "--limit", "12", "--bank", plain, "--out", tmp_path / "a")[0] == 0
    for limit in ("8", "12"):
        code, _, err = cli(*run_options, "--limit", limit, "--bank", url, "--out", tmp_path / "b")
        assert code == 0, err
    with open_bank(plain) as one, open_bank(url) as two:
        (space,) = {row[0] for row in run(url, "SELECT namespace FROM tacit.namespaces")}
        rows = [[(i.id, i.sha256, i.state, i.uses, i.helped) for i in bank.find(str(space))] for bank in (one, two)]
        assert rows[0] == rows[1] and rows[0]
