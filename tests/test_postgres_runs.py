"""Whole runs with their bank in PostgreSQL: the memories of a run on a file, also where the server is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Command
from postgres import OwnServer, shared
from tacit.bank import open_bank
from tacit.errors import BankError
from test_runs import contents, refused, results, tacit

pytestmark = pytest.mark.scale

RUN = ["run", "--data", "testbed", "--limit", 24, "--window", 4, "--samples", 4, "--steps", 4, "--max-tokens", 40]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on a file that the others have to equal."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    tacit(*RUN, "--out", out)
    return out


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[OwnServer]:
    """A server that may be killed."""
    server = OwnServer()
    yield server
    server.stop()


def test_a_run_makes_the_same_memories(whole: Path, tmp_path: Path) -> None:
    url = shared().database()
    tacit(*RUN, "--bank", url, "--out", tmp_path / "out")
    assert results(tmp_path / "out") == results(whole)
    assert contents(url) == contents(whole)


def test_a_server_killed_in_the_midst_of_a_run_loses_and_doubles_nothing(
    mortal: OwnServer, whole: Path, tmp_path: Path
) -> None:
    url, out = mortal.database(), tmp_path / "out"
    process = Command(*RUN, "--bank", url, "--out", out)
    until = time.monotonic() + 120
    while not stored(url):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    mortal.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in errors and "cannot be reached" in errors
    before = len(results(out))
    assert "cannot be reached" in refused(*RUN, "--bank", url, "--out", out)
    mortal.start()
    assert 0 < before < 24 and stored(url) > 0
    tacit(*RUN, "--bank", url, "--out", out)
    assert results(out) == results(whole)
    assert contents(url) == contents(whole)


def test_four_runs_on_one_bank_lose_no_memory_and_no_count(tmp_path: Path) -> None:
    """Learners that know nothing of each other, of one namespace: everybody recalls everybody's memories."""
    url = shared().database()
    outs = [tmp_path / f"out-{seed}" for seed in range(4)]
    processes = [
        Command(*RUN, "--limit", 12, "--seed", seed, "--bank", url, "--out", out) for seed, out in enumerate(outs)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    rows = [row for out in outs for row in results(out)]
    learned = {row["learned"]["memory_id"] for row in rows if row["learned"] is not None}
    with open_bank(url) as bank:
        bank.check()
        infos = bank.find("default")
    assert len(rows) == 48 and len(learned) > 12
    assert {info.id for info in infos} == learned and len(infos) == len(learned)
    served = [row["memory"]["memory_id"] for row in rows if row["memory"] is not None]
    assert served
    assert {info.id: info.uses for info in infos if info.uses} == {id: served.count(id) for id in set(served)}


def stored(url: str) -> int:
    """Memories there so far."""
    try:
        with open_bank(url, create=False) as bank:
            return len(bank.find("default"))
    except BankError:
        return 0  # it is not there yet
