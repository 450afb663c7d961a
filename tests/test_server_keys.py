"""API keys on real bank files: what a secret opens, what it does not, and what a revocation survives."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from conftest import Tacit
from tacit.bank import open_bank, restore
from tacit.errors import ConfigError, KeyNotFound, MemoryFormatError
from tacit.server.keys import KeyStore
from test_cli import one_error


def test_a_secret_opens_its_own_key_and_only_while_it_is_not_revoked(factory: Any) -> None:
    with factory.open() as bank:
        store = KeyStore(bank)
        assert not store.ever()
        key, secret = store.create("phone", "home", ["ask", "learn"], 5)
        other, other_secret = store.create("laptop", "work", ["ask"], 0)
        assert secret.startswith("tacit-") and len(secret) == 49 and secret != other_secret
        assert store.lookup(secret) == key and store.lookup(other_secret) == other
        assert (key.namespace, key.learn_per_day) == ("home", 5)
        assert key.may("learn") and not key.may("admin") and not other.may("learn")
        for wrong in ("", secret[:-1], secret + " ", secret.upper(), "tacit-", key.id, "\ud800", "x" * 10**6):
            assert store.lookup(wrong) is None
        with factory.open() as elsewhere:  # as another process would
            revoked = KeyStore(elsewhere).revoke(key.id)
        assert revoked.revoked is not None and not revoked.may("ask")
        assert store.lookup(secret) is None and store.lookup(other_secret) == other
        assert store.revoke(key.id) == revoked  # a second time changes nothing
        assert [held.id for held in store.all()] == [key.id, other.id]
        store.revoke(other.id)
        assert store.ever()  # a bank that was closed once stays closed


def test_a_bank_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    with open_bank(str(path)) as bank:
        _, secret = KeyStore(bank).create("phone", "home")
        bank.snapshot(tmp_path / "copy.db")
    for file in tmp_path.iterdir():
        assert secret[6:].encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rights": []}, ConfigError),
        ({"rights": ["ask", "root"]}, ConfigError),
        ({"learn_per_day": -1}, ConfigError),
        ({"namespace": ""}, MemoryFormatError),
        ({"namespace": "a\nb"}, MemoryFormatError),
        ({"name": "\x00"}, MemoryFormatError),
    ],
)
def test_bad_keys_are_refused(tmp_path: Path, changes: dict[str, object], error: type[Exception]) -> None:
    with open_bank(str(tmp_path / "bank.db")) as bank:
        store = KeyStore(bank)
        with pytest.raises(error):
            store.create(**{"name": "n", "namespace": "home", **changes})  # type: ignore[arg-type]
        assert store.all() == []
        with pytest.raises(KeyNotFound, match="no API key 'nobody'"):
            store.revoke("nobody")


def test_a_restored_snapshot_brings_no_revoked_key_back(tmp_path: Path) -> None:
    path, snapshot = str(tmp_path / "bank.db"), tmp_path / "snapshot.db"
    with open_bank(path) as bank:
        store = KeyStore(bank)
        lost, lost_secret = store.create("lost phone", "home")
        kept, kept_secret = store.create("laptop", "home")
        bank.mark("home", "when", "before")
        bank.snapshot(snapshot)
        store.revoke(lost.id)
        new, new_secret = store.create("new phone", "home")
        bank.mark("home", "when", "after")
        aside = restore(snapshot, path, force=True)
        assert bank.marked("home", "when") == "before"
        assert store.lookup(lost_secret) is None
        assert store.lookup(kept_secret) == kept and store.lookup(new_secret) == new
        assert aside is not None
    # In a new place there is nothing to keep; a snapshot lets nobody in, and what was closed stays closed.
    restore(snapshot, str(tmp_path / "elsewhere.db"))
    with open_bank(str(tmp_path / "elsewhere.db")) as bank:
        assert KeyStore(bank).lookup(lost_secret) is None and KeyStore(bank).lookup(kept_secret) is None
        assert KeyStore(bank).ever() and {key.id for key in KeyStore(bank).all()} >= {lost.id, kept.id}


def test_restoring_over_a_bank_without_keys_closes_it_and_lets_nobody_in(tmp_path: Path) -> None:
    with open_bank(str(tmp_path / "bank.db")) as bank:
        key, secret = KeyStore(bank).create("phone", "home")
        bank.snapshot(tmp_path / "snapshot.db")
    open_bank(str(tmp_path / "empty.db")).close()
    restore(tmp_path / "snapshot.db", str(tmp_path / "empty.db"), force=True)
    with open_bank(str(tmp_path / "empty.db")) as bank:
        assert KeyStore(bank).lookup(secret) is None and KeyStore(bank).get(key.id).revoked is not None
        assert KeyStore(bank).ever()


def test_writes_beside_memories_commit_with_them_or_not_at_all(factory: Any) -> None:
    with factory.open() as bank:
        store = KeyStore(bank)
        with pytest.raises(RuntimeError), bank.transaction():
            bank.mark("home", "a", "b")
            store.create("phone", "home")
            assert len(store.all()) == 1  # the transaction sees its own
            raise RuntimeError
        assert store.all() == [] and bank.marked("home", "a") is None


def test_keys_from_the_command_line(cli: Tacit, tmp_path: Path) -> None:
    bank = str(tmp_path / "bank.db")
    code, out, err = cli("keys", "create", "--bank", bank, "--name", "phone", "--namespace", "home", "--json")
    made = json.loads(out)
    assert (code, err) == (0, "") and made["rights"] == ["ask", "learn"] and made["learn_per_day"] == 100
    code, out, _ = cli("keys", "create", "--bank", bank, "--name", "[red]x", "--rights", "ask, admin")
    assert code == 0
    secret = out.splitlines()[-1]
    with open_bank(bank) as opened:
        assert KeyStore(opened).lookup(made["secret"]).id == made["id"]  # type: ignore[union-attr]
        admin = KeyStore(opened).lookup(secret)
        assert admin is not None and admin.may("admin") and not admin.may("learn") and admin.namespace == "default"
    assert cli("keys", "allow", admin.id, "trust, admin", "--bank", bank)[:2] == (0, f"{admin.id} may admin, trust\n")
    with open_bank(bank) as opened:
        changed = KeyStore(opened).lookup(secret)  # the same secret
        assert changed is not None and changed.rights == {"trust", "admin"}
    assert cli("keys", "revoke", made["id"], "--bank", bank)[:2] == (0, f"revoked {made['id']}\n")
    listed = json.loads(cli("keys", "list", "--bank", bank, "--json")[1])
    assert [key["revoked"] is None for key in listed] == [False, True]
    assert all("secret" not in key and "digest" not in key for key in listed)
    code, out, _ = cli("keys", "list", "--bank", bank)
    assert code == 0 and "[red]x" in out and "2 keys" in out and made["secret"] not in out


def test_errors_of_the_command_line(cli: Tacit, tmp_path: Path) -> None:
    bank = str(tmp_path / "bank.db")
    one_error(cli("keys", "list", "--bank", bank), "no bank at")
    one_error(
        cli("keys", "create", "--bank", bank, "--name", "x", "--rights", "ask,fly"), "ask, learn, trust, admin", "fly"
    )
    one_error(cli("keys", "create", "--bank", bank, "--name", "x", "--learn-per-day", "-1"), "learn_per_day")
    one_error(cli("keys", "allow", "nobody", "ask", "--bank", bank), "no API key 'nobody'", "tacit keys list")
    one_error(cli("keys", "revoke", "nobody", "--bank", bank), "no API key 'nobody'", "tacit keys list")
    with sqlite3.connect(bank) as raw:
        assert raw.execute("SELECT count(*) FROM api_keys").fetchone() == (0,)
