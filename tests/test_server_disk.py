"""A full disk, a bank that is moved or replaced, restores without end: nothing wrong is said, and nothing fills up."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banks import make
from server import InProcess
from tacit.bank import open_bank, restore
from tacit.bank.search.kept import UNFINISHED
from tacit.errors import BankError, BankUnavailable
from tacit.server.api.asking import UNSTORED
from tacit.server.api.snapshots import MOST_ASIDE
from test_bank_sqlite import filled, one_sentence
from test_server_memories_api import code, made

CHAT = "/v1/chat/completions"


def asking(text: str, **more: object) -> dict[str, object]:
    return {"model": "testbed:tacit", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()


def test_with_a_full_disk_answers_are_given_and_it_is_said(disk: Path) -> None:
    served = InProcess(disk / "bank.db", verifier="vote")
    try:
        client = served.client("home", "ask", "learn", "admin")
        served.service.bank.add(made(served.service, "m1"))
        first = client.post(CHAT, json=asking("3 + 4")).json()
        assert first["tacit"]["learning"] == "queued" and first["tacit"]["memory"] == "m1"
        fill(disk)
        queued = 1  # the bank's log has some room of its own, which is used up first
        while client.post(CHAT, json=asking(f"5 + {queued} + 1")).json()["tacit"]["learning"] == "queued":
            queued += 1
            assert queued < 200
        for number in range(4):
            told = client.post(CHAT, json=asking(f"3 + {number} + {number}", temperature=0))
            assert told.status_code == 200 and told.json()["choices"][0]["message"]["content"] is not None
            assert told.json()["tacit"]["learning"] == UNSTORED and told.json()["tacit"]["job"] is None
        streamed = client.post(CHAT, json=asking("4 + 9", stream=True)).text
        assert UNSTORED in streamed and streamed.endswith("data: [DONE]\n\n")
        assert client.get("/health/ready").json()["storing"] is False
        assert 'tacit:learning_requests_total{outcome="unstored"} 6.0' in client.get("/metrics").text
        assert len(client.get("/tacit/v1/jobs", params={"limit": 100}).json()["jobs"]) == queued
        (disk / "ballast").unlink()
        assert client.post(CHAT, json=asking("3 + 1 + 1")).json()["tacit"]["learning"] == "queued"
        assert client.get("/health/ready").json()["storing"] is True
        served.service.bank.check()
    finally:
        served.service.close()


def swapped(path: Path) -> None:
    other = filled(path.with_name("other.db"), 1)
    other.replace(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("how", [swapped, moved, deleted])
def test_a_bank_that_is_no_longer_the_one_that_was_opened_is_refused(tmp_path: Path, how: object) -> None:
    path = filled(tmp_path / "bank.db")
    with open_bank(str(path)) as bank:
        with bank._fresh_reading():  # so that two connections are there, of which one is used again
            assert len(bank.find("home")) == 3
        how(path)  # type: ignore[operator]
        calls = (
            lambda: bank.add(make("new")),
            lambda: bank.find("home"),
            lambda: bank.get("m0", "home"),
            lambda: bank.snapshot(tmp_path / "snap.db"),
            bank.revision,
        )
        for call in calls:
            with pytest.raises(BankUnavailable, match=r"is gone|is another file") as error:
                call()
            assert one_sentence(error)
        assert bank.fault() is not None
    if how is not deleted:
        place = tmp_path / ("elsewhere.db" if how is moved else "bank.db")
        with open_bank(str(place), create=False) as bank:
            bank.check()
            assert "new" not in [row.id for row in bank.find("home")]


def test_what_is_begun_before_the_move_is_not_acknowledged_after_it(tmp_path: Path) -> None:
    path = filled(tmp_path / "bank.db")
    with open_bank(str(path)) as bank, pytest.raises(BankError, match="is another file"), bank.transaction():
        bank.add(make("new"))
        shutil.copy(path, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(path)
    with open_bank(str(path)) as bank:
        assert "new" not in [row.id for row in bank.find("home")]


def test_put_back_it_is_used_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "bank.db")
    with open_bank(str(path)) as bank:
        moved(path)
        with pytest.raises(BankUnavailable):
            bank.find("home")
        (tmp_path / "elsewhere.db").rename(path)
        assert bank.fault() is None and bank.add(make("new")) and len(bank.find("home")) == 4


def test_a_server_whose_bank_is_replaced_says_so(tmp_path: Path) -> None:
    served = InProcess(tmp_path / "bank.db")
    try:
        client = served.client("home", "ask", "learn", "admin")
        assert client.post(CHAT, json=asking("3 + 4")).status_code == 200
        filled(tmp_path / "other.db", 1)
        (tmp_path / "other.db").replace(tmp_path / "bank.db")
        ready = served.anyone().get("/health/ready")
        assert ready.status_code == 503 and ready.json() == {"status": "bank_replaced"}
        assert code(client.post(CHAT, json=asking("3 + 4")), 503) == "bank_unavailable"
        assert code(client.get("/tacit/v1/status"), 503) == "bank_unavailable"
        assert served.anyone().get("/health/live").status_code == 200
    finally:
        served.service.close()
    with open_bank(str(tmp_path / "bank.db"), create=False) as bank:
        bank.check()
        assert [row.id for row in bank.find("home")] == ["m0"]


def test_restores_over_http_leave_a_few_copies(tmp_path: Path) -> None:
    served = InProcess(tmp_path / "bank.db")
    try:
        client = served.client("home", "admin", "ask")
        name = client.post("/tacit/v1/snapshot").json()["name"]
        kept = [client.post("/tacit/v1/restore", json={"name": name}).json()["kept"] for _ in range(MOST_ASIDE + 3)]
        there = sorted(path.name for path in tmp_path.iterdir() if "before-restore" in path.name)
        assert len(there) == MOST_ASIDE and kept[-1] in there and set(there) <= set(kept)
        assert client.get("/tacit/v1/snapshots").json() == {"snapshots": [name]}
    finally:
        served.service.close()


def test_what_a_killed_restore_left_is_swept_up(tmp_path: Path) -> None:
    path, snap = filled(tmp_path / "bank.db"), tmp_path / "snap.db"
    with open_bank(str(path)) as bank:
        bank.snapshot(snap)
    names = [".bank.db.0123abcd.restoring", ".bank.db.0123abcd.restoring-wal", ".bank.db.x.y.partial"]
    others = [".other.db.0123abcd.partial", "bank.db.partial", ".bank.db.fresh.partial"]
    for name in [*names, *others]:
        (tmp_path / name).write_bytes(b"half")
        if name != others[-1]:
            os.utime(tmp_path / name, (time.time() - 2 * UNFINISHED,) * 2)
    restore(snap, str(path), force=True)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & set(names) and set(others) <= left
