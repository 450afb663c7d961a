"""A snapshot with the right tables whose rows are not as Tacit writes them is not restored, or without those rows."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from banks import make
from server import InProcess
from tacit.bank import open_bank, restore
from tacit.bank.rows import odd
from tacit.errors import BankError
from test_server_memories_api import made

ASKED = {"model": "testbed:tacit", "messages": [{"role": "user", "content": "3 + 4"}], "max_tokens": 64}


@pytest.fixture(scope="module")
def snap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a bank with memories, jobs, keys and every kind of note that a server makes."""
    folder = tmp_path_factory.mktemp("rows")
    server = InProcess(folder / "bank.db")
    client, bank = server.client("home", "ask", "learn", "trust", "admin"), server.service.bank
    for id, problem in (("m", "3 + 4"), ("n", "9 - 2")):
        bank.add(made(server.service, id, problem))
    assert client.post("/v1/chat/completions", json=ASKED).json()["tacit"]["job"]
    bank.mark("home", "quarantine:m", json.dumps({"uses": 3, "helped": 1, "hurt": 0}))
    bank.mark("home", "promotion:n", json.dumps({"tries": 1, "memories": 2}))
    before = {"usual": 0.5, "behind": 0.0, "won": 0.0, "problems": 0, "last": 2, "reach": 0.1}
    bank.mark("home", "drift:m", json.dumps(before))  # of a version that did not know more
    bank.mark("home", "drift:n", json.dumps({**before, "told": 3, "back": 0}))
    bank.mark("home", "tending", json.dumps({"by": "host 1 x", "until": 0.0}))
    bank.mark("home", "tendings", json.dumps({"entries": [{"name": "t", "position": 1, "problems": 2}], "past": 0}))
    assert bank.marked("home", "evidence:m") and bank.marked("home", "binding")
    bank.snapshot(folder / "snap.db")
    server.service.close()
    return folder / "snap.db"


def changed(snap: Path, folder: Path, *statements: str) -> Path:
    path = folder / "changed.db"
    path.write_bytes(snap.read_bytes())
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


DEEP = "[" * 3000 + "]" * 3000
ODD = {
    "a time that is a text": "UPDATE jobs SET created = 'abc'",
    "an infinite time": "UPDATE jobs SET created = 9e999",
    "bytes for a problem": "UPDATE jobs SET problem = x'ff'",
    "a text for a count": "UPDATE jobs SET attempts = 'x'",
    "bytes for rights": "UPDATE api_keys SET rights = x'ff'",
    "a text for what a key may learn": "UPDATE api_keys SET learn_per_day = 'x'",
    "a time of history that never comes": "UPDATE history SET time = 9e999",
    "no history": "DELETE FROM history",
    "an infinite share": "UPDATE memories SET share = 9e999",
    "bytes for a label": "UPDATE memories SET label = x'ff'",
    "another dimension than the key's": "UPDATE keys SET dim = 5",
    "a revision that is no number": "UPDATE bank SET revision = 'x'",
    "a revision after which there is none": "UPDATE bank SET revision = 9223372036854775807",
    "no revision": "DELETE FROM bank",
    "no number left": "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "a note that is no JSON": "UPDATE marks SET value = 'x' WHERE name = 'binding'",
    "a note that is null": "UPDATE marks SET value = 'null' WHERE name = 'tendings'",
    "a deep note": f"UPDATE marks SET value = '{DEEP}' WHERE name = 'evidence:m'",
    "a note of another kind": """UPDATE marks SET value = '{"problems": 5, "keys": {}}' WHERE name = 'evidence:m'""",
    "a count that is a text": """UPDATE marks SET value = '{"uses": "x"}' WHERE name = 'quarantine:m'""",
    "another such count": """UPDATE marks SET value = replace(value, ': 3', ': "3"') WHERE name = 'drift:n'""",
    "half a note": """UPDATE marks SET value = '{"entries": []}' WHERE name = 'tendings'""",
}
NOT_LEFT_OUT = {
    "a revision that is no number", "a revision after which there is none", "no revision", "bytes for rights",
    "a text for what a key may learn",
}  # fmt: skip


def test_what_tacit_writes_is_not_odd(snap: Path, tmp_path: Path) -> None:
    restore(snap, str(tmp_path / "new.db"))
    with open_bank(str(tmp_path / "new.db"), create=False) as bank:
        assert bank.add(make("more", "elsewhere"))
        with bank.connection() as connection:
            assert list(odd(connection)) == []


@pytest.mark.parametrize("what", ODD)
def test_a_row_that_tacit_would_not_write_is_refused_or_left_out(snap: Path, tmp_path: Path, what: str) -> None:
    bad, new = changed(snap, tmp_path, ODD[what]), tmp_path / "new.db"
    with pytest.raises(BankError, match="is not as Tacit writes it"):
        restore(bad, str(new))
    left: list[str] = []
    if what in NOT_LEFT_OUT:
        with pytest.raises(BankError):
            restore(bad, str(new), left_out=left)
        assert not new.exists()
        return
    restore(bad, str(new), left_out=left)
    assert left and all("not as Tacit writes it" in one or "missing" in one for one in left)
    running = InProcess(new)
    client = running.client("home", "ask", "learn", "trust", "admin")
    assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
    for path in ("memories", "jobs", "status"):
        assert client.get(f"/tacit/v1/{path}").status_code == 200
    running.service.close()


@pytest.mark.parametrize("held", ["{", "[]", '{"problems": 5}', '{"keys": []}'])
def test_an_answer_is_given_whatever_a_note_says(tmp_path: Path, held: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is there before it is counted."""
    running = InProcess(tmp_path / "bank.db")
    running.service.bank.add(made(running.service, "m", "3 + 4"))
    running.service.bank.mark("home", "evidence:m", held)
    response = running.client("home", "ask", "learn", "trust").post("/v1/chat/completions", json=ASKED)
    assert response.status_code == 200 and "could not be queued" in response.json()["tacit"]["learning"]
    assert "could not be counted" in caplog.text
    running.service.close()
