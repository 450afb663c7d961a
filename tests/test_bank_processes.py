"""Several processes on one bank, and processes that die: nothing acknowledged is lost, nothing is half there."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from banks import make, same, search
from tacit.bank import open_bank
from tacit.bank.schema import MIGRATIONS
from tacit.bank.sqlite import connect, version_of
from tacit.errors import BankError
from tacit.memory import State

HERE = Path(__file__).parent
PRELUDE = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom banks import make, search, open_bank, State\n"


def start(code, *arguments):
    """A real Python process running ``code``; its lines of output come unbuffered."""
    command = [sys.executable, "-u", "-c", PRELUDE + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


WRITER = """
bank, who = open_bank(sys.argv[1]), sys.argv[2]
bank.add(make("shared"))
print("ready")
for i in range(40):
    assert bank.add(make(f"{who}-{i}"))
    assert not bank.add(make("shared", seed=1))
    bank.count("shared", "home", uses=1, helped=2)
"""


def test_processes_writing_at_once_lose_nothing(tmp_path):
    """All of them also create the bank at the same moment."""
    path = tmp_path / "bank.db"
    writers = [start(WRITER, path, f"w{i}") for i in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.stdout.close()
    with open_bank(str(path), create=False) as bank:
        ids = {row.id: row for row in bank.find("home")}
        assert set(ids) == {"shared", *(f"w{w}-{i}" for w in range(3) for i in range(40))}
        assert (ids["shared"].uses, ids["shared"].helped) == (120, 240)
        bank.check()


def test_a_bank_that_another_makes_while_it_is_looked_at_is_a_bank(tmp_path):
    """All that a file says of itself is read at one moment: no file of no mark, and then of a version."""
    path = tmp_path / "bank.db"
    path.touch()
    maker = threading.Thread(target=lambda: open_bank(str(path)).close())

    def meanwhile(statement):
        if "user_version" in statement and not maker.ident:
            maker.start()
            maker.join(0.5)  # it may have to wait for the reader, and then comes after it

    with contextlib.closing(connect(path, 5.0)) as connection:
        connection.set_trace_callback(meanwhile)
        assert version_of(connection, path, create=True) == 0
        maker.join()
        assert version_of(connection, path, create=True) == len(MIGRATIONS)


KILLED = """
import itertools
bank, start = open_bank(sys.argv[1]), int(sys.argv[2])
for i in itertools.count(start):
    if i % 3 == 2:
        bank.add(make(f"{i}-single"))
    else:
        with bank.transaction():  # two memories, a counter and a mark, or none of them
            bank.add(make(f"{i}-left"))
            bank.add(make(f"{i}-right"))
            bank.count(f"{i}-left", "home", uses=1)
            bank.mark("home", "window", str(i))
    print(i)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Invariant 4, ten times on the same bank."""
    path, chance, acknowledged = tmp_path / "bank.db", random.Random(0), []
    for _ in range(10):
        writer = start(KILLED, path, len(acknowledged) and acknowledged[-1] + 2)
        acknowledged.append(int(writer.stdout.readline()))
        time.sleep(chance.uniform(0.0, 0.08))
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        assert writer.wait(10) == -signal.SIGKILL
        writer.stdout.close()
        with open_bank(str(path), create=False) as bank:
            bank.check()
            rows = {row.id: row for row in bank.find("home")}
            for i in acknowledged:
                expected = [f"{i}-single"] if i % 3 == 2 else [f"{i}-left", f"{i}-right"]
                assert all(name in rows for name in expected)
            lefts = {name.split("-")[0] for name in rows if name.endswith("left")}
            assert lefts == {name.split("-")[0] for name in rows if name.endswith("right")}
            assert all(rows[f"{i}-left"].uses == 1 for i in lefts)
            assert bank.marked("home", "window") == str(max(map(int, lefts)))
            sample = f"{acknowledged[0]}-left" if acknowledged[0] % 3 != 2 else f"{acknowledged[0]}-single"
            assert same(bank.get(sample, "home"), make(sample, uses=rows[sample].uses))
    assert len(acknowledged) >= 20


OTHER = """
bank = open_bank(sys.argv[1])
for line in sys.stdin:
    exec(line)
    print("done")
"""


def test_search_sees_another_process_at_once(tmp_path):
    """Additions, quarantine and deletion elsewhere show in the very next search."""
    path = tmp_path / "bank.db"
    with open_bank(str(path)) as bank:
        bank.add(make("a"))
        assert search(bank, make("a")) == ["a"]
        command = [sys.executable, "-u", "-c", PRELUDE + OTHER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

            def tell(line):
                other.stdin.write(line + "\n")
                other.stdin.flush()
                assert other.stdout.readline() == "done\n"

            tell("bank.add(make('b'))")
            assert sorted(search(bank, make("a"))) == ["a", "b"]
            tell("bank.set_state('a', 'home', State.QUARANTINED, 'hurt')")
            assert search(bank, make("a")) == ["b"]
            assert bank.get("a", "home").state is State.QUARANTINED
            tell("bank.delete('b', 'home')")
            assert search(bank, make("a")) == []
            tell("bank.set_state('a', 'home', State.ACTIVE, 'fine')")
            assert search(bank, make("a")) == ["a"]


def test_forked_child_must_open_the_bank_itself(tmp_path):
    with open_bank(str(tmp_path / "bank.db")) as bank:
        bank.add(make("a"))
        read, write = os.pipe()
        child = os.fork()
        if not child:  # the child: report what happens and leave at once, without the parent's clean-up
            signal.alarm(10)  # a lock that the parent held would never be released here
            try:
                bank.find("home")
            except BankError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as told:
            assert "open it again in the child" in told.read()
        assert len(bank.find("home")) == 1


def test_commits_are_flushed_to_the_disk(tmp_path):
    """synchronous=FULL in WAL mode is what makes a commit survive a power cut; kill -9 alone would not show it."""
    with open_bank(str(tmp_path / "bank.db")) as bank, bank._fresh_reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_opening_a_bank_does_not_load_torch(tmp_path):
    """A tool that only lists memories should not wait for it."""
    code = "import sys, tacit.bank; tacit.bank.open_bank(sys.argv[1]).close(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "b.db"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
