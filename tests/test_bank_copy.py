"""Copying between banks: everything, in order, verified; killed, it goes on; and it never overwrites anything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from banks import FACTORIES, make, same, search
from conftest import Tacit
from tacit.bank import Bank, copy_bank, open_bank
from tacit.errors import BankError, ConfigError
from tacit.memory import State
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from test_bank_processes import start

PAIRS = [
    ("sqlite", "sqlite"),
    pytest.param("sqlite", "postgres", marks=pytest.mark.scale),
    pytest.param("postgres", "sqlite", marks=pytest.mark.scale),
    pytest.param("postgres", "postgres", marks=pytest.mark.scale),
]

Places = Callable[[str], str]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Addresses of new banks of a kind."""

    def place(kind: str) -> str:
        folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        url: str = FACTORIES[kind](folder).url
        return url

    return place


def fill(url: str, count: int = 230) -> None:
    """Memories in an order that is not that of their names, of two namespaces, with lives behind them."""
    with open_bank(url) as bank, bank.transaction():
        bank.bind("empty", "fp-3", "a model")
        for i in range(count):
            bank.add(
                make(f"m{(i * 7) % count}", "away" if i % 5 == 0 else "home", problem=f"∑ {i} '\n", created=i + 0.1)
            )
        bank.add(make("gone"))
        bank.delete("gone", "home")
        bank.set_state("m1", "home", State.QUARANTINED, "hurt")
        bank.set_state("m1", "home", State.ACTIVE, "better")
        bank.count("m2", "home", uses=3, helped=1)
        bank.mark("home", "run", "window 3")
        key, _ = KeyStore(bank).create("phone", "home", ["ask", "learn"], 13)
        queue = JobQueue(bank)
        for i in range(12):
            queue.submit("home", f"problem {i}", key)
        queue.claim("worker", 60, 3)


def everything(bank: Bank) -> list[object]:
    """All that a caller can see of a bank."""
    seen: list[object] = []
    for space in ("home", "away", "empty"):
        for info in bank.find(space):
            memory = bank.get(info.id, space)
            seen.append([info.id, info.uses, info.helped, info.state, info.reason, info.created, memory.sha256])
            seen.append([memory.key.tobytes(), memory.provenance, bank.history(info.id, space)])
        seen.append([bank.marked(space, "run"), JobQueue(bank).counts(space)])
    seen.append([[(job.id, job.problem, job.worker) for job in JobQueue(bank).list("home")], KeyStore(bank).all()])
    return seen


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_copy_holds_everything_in_order(one: str, two: str, places: Places) -> None:
    source, target = places(one), places(two)
    fill(source)
    told: list[tuple[str, int, int]] = []
    copied = copy_bank(source, target, progress=lambda *step: told.append(step))
    assert (copied.memories, copied.stored, copied.already) == (230, 230, False)
    assert told == [(doing, n, 230) for doing in ("copying", "verifying") for n in (100, 200, 230)]
    with open_bank(source) as old, open_bank(target) as new:
        assert everything(old) == everything(new)
        new.check()
        assert new.marked("tacit:copy", "from") is None
        assert search(new, make("m3")) == search(old, make("m3"))
        with pytest.raises(BankError, match="belongs to the backbone fp-3"):
            new.bind("empty", "fp-1", "another")
        assert new.add(make("later")) and same(new.get("later", "home"), make("later"))
        assert JobQueue(new).submit("home", "problem 13", KeyStore(new).all()[0]).why == "queued"  # the last of the day


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_finished_copy_is_compared_and_nothing_foreign_is_touched(one: str, two: str, places: Places) -> None:
    source, target, other = places(one), places(two), places(two)
    fill(source, 10)
    copy_bank(source, target)
    with open_bank(target) as bank:
        revision = bank.revision()
    assert copy_bank(source, target).already
    with open_bank(target) as bank:
        assert bank.revision() == revision
        bank.count("m1", "home", uses=1)
    with open_bank(other) as bank:
        bank.mark("home", "run", "mine")
    for held in (target, other):
        with pytest.raises(BankError, match="holds something else"):
            copy_bank(source, held)
    with pytest.raises(ConfigError, match="to itself"):
        copy_bank(source, source)
    with open_bank(target) as bank:
        assert bank.find("home", problem_id="p-m1")[0].uses == 1
    with pytest.raises(BankError, match="there is no"):
        copy_bank(places(one), places(two))


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_an_unfinished_copy_goes_on_and_follows_the_source(one: str, two: str, places: Places) -> None:
    source, target = places(one), places(two)
    fill(source)

    def stop(doing: str, done: int, of: int) -> None:
        if done == 200:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        copy_bank(source, target, progress=stop)
    with open_bank(target) as bank:
        assert len(bank.find("home")) + len(bank.find("away")) == 200
    with open_bank(source) as bank:  # meanwhile
        bank.delete("m14", "home")
        bank.delete("m21", "home")
        bank.add(make("m21", seed=4))
        bank.set_state("m28", "home", State.RETIRED, "old")
        bank.count("m7", "home", uses=9)
        bank.mark("home", "run", "window 4")
    assert copy_bank(source, target).stored == 31  # m21 as well
    with open_bank(source) as old, open_bank(target) as new:
        assert everything(old) == everything(new)
    elsewhere = places(one)
    fill(elsewhere, 3)
    half = places(two)
    with pytest.raises(ZeroDivisionError):
        copy_bank(source, half, progress=stop)
    with pytest.raises(BankError, match="unfinished copy of another bank"):
        copy_bank(elsewhere, half)


def test_what_differs_in_the_end_is_told(places: Places) -> None:
    source, target = places("sqlite"), places("sqlite")
    fill(source, 120)

    def meddle(doing: str, done: int, of: int) -> None:
        if doing == "copying" and done == of:
            with open_bank(target) as bank:
                bank.count("m7", "home", uses=1)

    with pytest.raises(BankError, match=r"is not the same .*memory 'm7'"):
        copy_bank(source, target, progress=meddle)
    assert copy_bank(source, target).stored == 0
    with open_bank(source) as old, open_bank(target) as new:
        assert everything(old) == everything(new)


def test_damage_in_the_source_is_named_and_not_copied(places: Places) -> None:
    source, target = places("sqlite"), places("sqlite")
    fill(source, 3)
    with open_bank(source) as bank, bank.connection(write=True) as connection:
        connection.exec_driver_sql("UPDATE memories SET problem = 'another' WHERE id = 'm1'")
    with pytest.raises(BankError, match=r"'m1' .* is damaged"):
        copy_bank(source, target)


COPIER = """
from tacit.bank import copy_bank
print("ready")
copy_bank(sys.argv[1], sys.argv[2], progress=lambda doing, done, of: print(doing, done))
"""


@pytest.mark.scale
@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_copy_that_is_killed_again_and_again_ends_complete(one: str, two: str, places: Places) -> None:
    source, target = places(one), places(two)
    fill(source, 900)
    for step in range(3):
        copier = start(COPIER, source, target)
        assert copier.stdout is not None
        for _ in range(2 + 3 * step):
            copier.stdout.readline()
        time.sleep(0.01 * step)
        os.kill(copier.pid, signal.SIGKILL)
        copier.wait(10)
        copier.stdout.close()
    copied = copy_bank(source, target)
    assert copied.memories == 900 and copied.stored < 900
    with open_bank(source) as old, open_bank(target) as new:
        assert everything(old) == everything(new)


def test_the_command(cli: Tacit, places: Places) -> None:
    source, target = places("sqlite"), places("sqlite")
    fill(source, 5)
    code, out, err = cli("bank", "copy", source, target)
    assert (code, err) == (0, "") and "holds the 5 memories" in out and "5 of them copied now" in out
    assert "already" in cli("bank", "copy", source, target)[1]
    with open_bank(target) as bank:
        bank.delete("m1", "home")
    code, out, err = cli("bank", "copy", source, target)
    assert code == 2 and "holds something else" in err and out == ""


def test_labels_with_nul_of_older_banks_lose_it(places: Places) -> None:
    source, target = places("sqlite"), places("sqlite")
    fill(source, 3)
    with open_bank(source) as bank, bank.connection(write=True) as connection:
        connection.exec_driver_sql("UPDATE memories SET label = 'a' || char(0) || 'b' WHERE id = 'm1'")
    copy_bank(source, target)
    with open_bank(target) as bank:
        assert bank.find("home", problem_id="p-m1")[0].label == "ab"
