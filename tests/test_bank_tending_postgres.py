"""Tending of a bank that several processes share on a PostgreSQL server: each thing is done once, whoever is killed.

Builds on test_bank_tending, which holds what tending does and that it can be killed, for banks in a file.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, NullPool, create_engine

from banks import make
from commands import Command, ran
from postgres import OwnServer, shared
from tacit.bank import open_bank
from tacit.bank.tending import work
from tacit.bank.tending.plan import Rule
from tacit.bank.tending.work import ledger_of, tend, undo
from tacit.errors import BankUnavailable
from tacit.memory import State
from tended import RULE, crowd, spread, unit

pytestmark = pytest.mark.scale

COUNT = 600
KILLS = 30
CHANGES = """SELECT (SELECT count(*) FROM history h WHERE h.position = m.position)
    FROM memories m WHERE namespace = 'home'"""
KNOWN = {0, 2, -9}
"""How a command may end here: well, with another one at it or a server that is away, killed."""


@pytest.fixture
def url() -> str:
    """The address of a bank of many memories."""
    made = shared().database()
    crowd(made, COUNT)
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The states of these memories once one process has tended them, alone and in a file."""
    path = tmp_path_factory.mktemp("alone") / "bank.db"
    crowd(path, COUNT)
    assert ran("bank", "tend", path, *RULE).returncode == 0
    with open_bank(str(path)) as bank:
        return {one.id: str(one.state) for one in bank.find("home")}


def looked_at(url: str) -> tuple[dict[str, str], Counter[int], int]:
    """States by id, how many memories changed how often, and how many changes the ledger tells of."""
    with open_bank(url, create=False) as bank:
        bank.check()
        states = {one.id: str(one.state) for one in bank.find("home")}
        with bank.connection() as connection:
            changes = Counter(count - 1 for (count,) in connection.exec_driver_sql(CHANGES))
        told = sum(sum(one["retired"].values()) for one in ledger_of(bank, "home")["entries"])
    return states, changes, told


def done_once(url: str, expected: dict[str, str]) -> bool:
    states, changes, told = looked_at(url)
    assert states == expected and set(changes) == {0, 1}
    return changes[1] == told


def tending(url: str) -> Command:
    return Command("bank", "tend", url, *RULE)


def begun(url: str, commands: list[Command], claim: str | None) -> None:
    """Wait until one of the commands has claimed the namespace, or all have ended."""
    end = time.monotonic() + 60
    with open_bank(url, create=False) as bank:
        while bank.marked("home", "tending") == claim and time.monotonic() < end:
            if all(command.poll() is not None for command in commands):
                return
            time.sleep(0.01)  # looking takes from the commands' time


def claimed(url: str) -> str | None:
    with open_bank(url, create=False) as bank:
        return bank.marked("home", "tending")


def held(url: str) -> Connection:
    """Hold what tending has to change: however quick the machine is, it cannot come to its end meanwhile."""
    connection = create_engine(url, poolclass=NullPool).connect()
    connection.exec_driver_sql("SELECT 1 FROM tacit.memories FOR UPDATE")
    return connection


def test_of_several_that_tend_each_thing_is_done_once(url: str, expected: dict[str, str]) -> None:
    commands = [tending(url) for _ in range(4)]
    ends = [(command.wait(), command.written()[1]) for command in commands]
    assert 0 in [code for code, _ in ends]
    assert all(code == 0 or "another process is tending namespace 'home'" in said for code, said in ends), ends
    assert done_once(url, expected)


def test_killed_at_any_moment_each_thing_is_done_once(url: str, expected: dict[str, str]) -> None:
    """Of two at a time one or both are killed, some moment after one has begun."""
    rng, cut, before = random.Random(0), 0, looked_at(url)[0]
    for number in range(KILLS):
        claim = claimed(url)
        rows = None if number else held(url)
        commands = [tending(url) for _ in range(2)]
        begun(url, commands, claim)
        time.sleep(rng.uniform(0, 0.15) if number else 0)
        for command in rng.sample(commands, rng.choice([1, 2]) if number else 2):
            command.kill()
        if rows is not None:
            rows.close()
        assert {command.wait() for command in commands} <= KNOWN
        states, changes, told = looked_at(url)
        assert all(one in (before[id], expected[id]) for id, one in states.items()) and set(changes) <= {0, 1}
        assert told == changes[1]  # a batch and what the ledger says of it are one
        cut += states != expected
    assert cut
    done = ran("bank", "tend", url, *RULE)
    assert done.returncode == 0, done.stderr  # a claim of one that was killed holds nobody up
    assert done_once(url, expected)
    with open_bank(url) as bank:
        undo(bank, "home")
    assert looked_at(url)[0] == before


def test_who_lost_the_claim_does_nothing_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines: the first stalls for longer than its claim holds, and goes on once the second has done it all."""
    stalled, go = threading.Event(), threading.Event()
    told: list[str] = []

    def first() -> None:
        with open_bank(url, create=False) as bank:
            moved, count = bank.mark, 0

            def mark(namespace: str, name: str, value: str) -> None:
                nonlocal count
                moved(namespace, name, value)
                count += name == "tendings"

            def planned(*asked: object) -> object:
                plan = real(*asked)  # type: ignore[arg-type]
                if threading.current_thread() is thread:
                    stalled.set()
                    assert go.wait(120)
                return plan

            monkeypatch.setattr(bank, "mark", mark)
            monkeypatch.setattr(work, "planned_now", planned)
            try:
                tend(bank, "home", Rule(keep=20, idle=100))
            except BankUnavailable as error:
                told.append(f"{count} {error}")

    real = work.planned_now
    thread = threading.Thread(target=first)
    with monkeypatch.context() as patched:
        patched.setattr(work, "LEASE", 0.05)
        thread.start()
        assert stalled.wait(120)
        time.sleep(0.1)
        with open_bank(url, create=False) as bank:
            tend(bank, "home", Rule(keep=20, idle=100))
            go.set()
            thread.join()
    states, changes, ledger = looked_at(url)
    assert told == ["0 another process has begun to tend namespace 'home'; nothing is done twice"]
    assert changes[1] == ledger and set(changes) == {0, 1} and list(states.values()).count(State.ACTIVE) == 20


@pytest.fixture(scope="module")
def mortal() -> Iterator[OwnServer]:
    """A server that may be killed, and keeps what it acknowledges."""
    server = OwnServer("shared_buffers = 32MB")
    yield server
    server.stop()


def test_a_server_that_dies_over_it_loses_and_doubles_nothing(mortal: OwnServer, expected: dict[str, str]) -> None:
    url, rng = mortal.database(), random.Random(1)
    crowd(url, COUNT)
    before = looked_at(url)[0]
    for number in range(5):
        claim = claimed(url)
        rows = None if number else held(url)
        command = tending(url)
        begun(url, [command], claim)
        time.sleep(rng.uniform(0, 0.1) if number else 0)
        assert number or command.poll() is None  # in the midst of it
        mortal.kill()
        if rows is not None:
            rows.invalidate()
        mortal.start()
        code = command.wait()
        assert code in KNOWN, command.written()
        states, changes, told = looked_at(url)
        assert all(one in (before[id], expected[id]) for id, one in states.items()) and told == changes[1]
    assert ran("bank", "tend", url, *RULE).returncode == 0
    assert done_once(url, expected)


def test_after_the_time_for_undoing_two_that_free_delete_each_once(url: str) -> None:
    assert ran("bank", "tend", url, *RULE).returncode == 0
    states = looked_at(url)[0]
    gone = [id for id, state in states.items() if state == State.RETIRED]
    with open_bank(url) as bank:
        spread(bank)
        bank.add(make("double", key=unit(1, 0.01), namespace="away"))
    commands = [Command("bank", "tend", url, *RULE, "--undo-days", 0) for _ in range(3)]
    ends = [(command.wait(), command.written()[1]) for command in commands]
    assert 0 in [code for code, _ in ends]
    with open_bank(url) as bank:
        assert not {one.id for one in bank.find("home")} & set(gone)
        assert sum(one.get("freed", 0) for one in ledger_of(bank, "home")["entries"]) == len(gone)
        assert [one.id for one in bank.find("away")] == ["double"]
