"""Large groups in PostgreSQL: the server searches them with pgvector, and nearly nobody can tell the difference."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from sqlalchemy import make_url

from banks import make
from postgres import shared
from tacit.bank import open_bank
from tacit.bank.base import Hit
from tacit.bank.postgres.bank import PostgresBank
from tacit.bank.search import vectors
from tacit.errors import BankError, FingerprintError
from tacit.memory import State
from test_bank_processes import start

pytestmark = pytest.mark.scale

WHERE = {"namespace": "home", "fingerprint": "fp-1", "key_kind": "input"}


def keys_of(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit keys about 40 centres."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((40, dim))[rng.integers(40, size=count)] + 0.6 * rng.standard_normal((count, dim))
    return (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)


def filled(url: str, keys: np.ndarray, **settings: object) -> PostgresBank:
    bank = open_bank(url, **settings)  # type: ignore[arg-type]
    assert isinstance(bank, PostgresBank)
    with bank.transaction():
        for i, key in enumerate(keys):
            bank.add(make(f"m{i}", key=key, state=State.QUARANTINED if i % 50 == 7 else State.ACTIVE))
    return bank


def asked_server(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts searches by the server from now on."""
    calls: list[int] = []
    plain = vectors.search

    def watched(*arguments: object, **named: object) -> list[list[Hit]]:
        calls.append(1)
        return plain(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("tacit.bank.search.vectors.search", watched)
    return calls


@pytest.mark.parametrize(("dim", "count"), [(48, 3000), (4500, 400)])
def test_the_server_finds_what_an_exact_search_finds(dim: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also above the 4,000 dimensions that pgvector indexes; with additions, states and deletions afterwards."""
    monkeypatch.setattr(vectors, "CANDIDATES", 200)
    monkeypatch.setattr(vectors, "_FILLED", 500)
    url, keys = shared().database(), keys_of(count, dim)
    calls = asked_server(monkeypatch)
    with filled(url, keys[:-20], exact_rows=100) as bank, open_bank(url, exact_rows=None) as exact:
        assert bank.build_index("home", "input", dim)
        for i in range(count - 20, count):  # these go into the index as they come
            bank.add(make(f"m{i}", key=keys[i]))
        bank.set_state("m3", "home", State.RETIRED, "old")
        bank.delete("m4", "home")
        queries = keys[:25] + 0.5 * keys_of(25, dim, 1)
        right = total = 0
        for states in ([State.ACTIVE], [State.QUARANTINED], list(State), [State.CANDIDATE]):
            found = bank.search_many(queries, **WHERE, k=8, states=states)
            for mine, best in zip(found, exact.search_many(queries, **WHERE, k=8, states=states), strict=True):
                cosines = {hit.memory_id: hit.similarity for hit in best}
                for hit in mine:
                    assert hit.similarity == pytest.approx(cosines.get(hit.memory_id, hit.similarity), abs=1e-12)
                assert [hit.similarity for hit in mine] == sorted((h.similarity for h in mine), reverse=True)
                right += len({hit.memory_id for hit in mine} & set(cosines))
                total += len(best)
        assert len(calls) == 4 and right / total >= 0.98
        floor = exact.search(queries[0], **WHERE, k=3)[2].similarity
        assert [hit.memory_id for hit in bank.search(queries[0], **WHERE, k=50, floor=floor)] == [
            hit.memory_id for hit in exact.search(queries[0], **WHERE, k=3)
        ]
        assert bank.search(keys[count - 1], **WHERE)[0].memory_id == f"m{count - 1}"
        assert "m4" not in [hit.memory_id for hit in bank.search(keys[4], **WHERE, k=20, states=list(State))]
        with pytest.raises(FingerprintError):
            bank.search(keys[0], **{**WHERE, "fingerprint": "fp-2"})
        with pytest.raises(BankError, match="dimensions"):
            bank.search(keys[0][:-1], **WHERE)
        bank.check()


def test_ties_come_in_the_order_of_storing() -> None:
    url, keys = shared().database(), keys_of(300, 16)
    keys[[250, 30, 170]] = keys[5]
    with filled(url, keys, exact_rows=100) as bank:
        assert bank.build_index("home", "input", 16)
        assert [hit.memory_id for hit in bank.search(keys[5], **WHERE, k=4)][:4] == ["m5", "m30", "m170", "m250"]


def test_a_large_group_is_indexed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are exact until it is ready; then this process and others use it."""
    monkeypatch.setattr("tacit.bank.search.large_groups._LOOK_AGAIN", 0.1)
    url, keys = shared().database(), keys_of(600, 24)
    calls = asked_server(monkeypatch)
    with filled(url, keys, exact_rows=500) as bank, open_bank(url, exact_rows=500) as other:
        assert [hit.memory_id for hit in other.search(keys[9], **WHERE)] == ["m9"] and not calls
        deadline = time.monotonic() + 60
        while not calls and time.monotonic() < deadline:
            assert bank.search(keys[9], **WHERE)[0].memory_id == "m9"
            time.sleep(0.05)
        assert calls
        calls.clear()
        assert other.search(keys[11], **WHERE)[0].memory_id == "m11"
        with open_bank(url, exact_rows=None) as exact:
            assert exact.search(keys[11], **WHERE)[0].memory_id == "m11" and len(calls) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "tacit-index"]


def test_small_groups_and_servers_without_pgvector_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    url, keys = shared().database(), keys_of(60, 8)
    calls = asked_server(monkeypatch)
    with filled(url, keys, exact_rows=100) as bank:
        assert bank.search(keys[1], **WHERE)[0].memory_id == "m1" and not calls
    shared().execute("DROP EXTENSION vector", make_url(url).database)
    with filled(url, keys, exact_rows=10) as bank:
        shared().execute("DROP EXTENSION IF EXISTS vector", make_url(url).database)
        assert not bank.build_index("home", "input", 8)
        assert bank.search(keys[1], **WHERE)[0].memory_id == "m1" and not calls


BUILDER = """
bank = open_bank(sys.argv[1], exact_rows=None)
print("ready")
bank.build_index("home", "input", 64, lambda done: print(done))
"""


def test_a_builder_that_is_killed_is_taken_over_and_writers_go_on() -> None:
    url, keys = shared().database(), keys_of(2500, 64)
    with filled(url, keys, exact_rows=None) as bank:
        for lines in (2, 5):
            builder = start(BUILDER, url)
            assert builder.stdout is not None
            for _ in range(lines):
                builder.stdout.readline()
            builder.kill()
            builder.wait(10)
            builder.stdout.close()
            assert bank.add(make(f"late{lines}", key=keys_of(1, 64, lines)[0]))
        deadline = time.monotonic() + 60
        while not bank.build_index("home", "input", 64):  # the dead one's lock goes when the server notices
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with bank.connection() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM vectors").scalar_one() == 2502
    with open_bank(url, exact_rows=100) as again:
        assert again.search(keys_of(1, 64, 5)[0], **WHERE)[0].memory_id == "late5"
        assert again.search(keys[77], **WHERE)[0].memory_id == "m77"
