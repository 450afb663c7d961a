"""The search of large banks: it finds what the exact one finds, and keeps every promise but that one.

Large is what a test says it is: ``exact_rows`` is lowered, so that a few hundred memories take the way of a million.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banks import make, search
from tacit.bank import open_bank
from tacit.bank.search import compressed
from tacit.bank.search.compressed import CompressedMatrix, CompressedView, nearly_nearest
from tacit.bank.search.index import DELETED, Helpers, KeyMatrix, nearest
from tacit.bank.search.matrices import unit_queries
from tacit.errors import ConfigError, install_hint
from tacit.memory import State
from test_bank_processes import start

pytestmark = pytest.mark.skipif(not compressed.available(), reason=f"needs numba: {install_hint('fast')}")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact_matrix(keys, states=None):
    made = KeyMatrix(keys.shape[1])
    names = [f"m{i}" for i in range(len(keys))]
    made.append(range(1, len(keys) + 1), names, names, [1] * len(keys) if states is None else states, keys)
    return made


def both(keys, queries, states=None, helpers=None, **asked):
    """What the exact search and the cascade find."""
    exact = exact_matrix(keys, states)
    view = exact.view()
    asked = {"k": 8, "floor": -1.0, "codes": [1], **asked}
    true = nearest(view, unit_queries(queries), **asked, helpers=None)
    coded = CompressedMatrix(exact).view()
    found = nearly_nearest(coded, unit_queries(queries), **asked, helpers=helpers, read=lambda at: keys[at - 1])
    return true, found


def recall(true, found):
    wanted = [{row for row, _ in rows} for rows in true]
    return sum(len(a & {row for row, _ in b}) for a, b in zip(wanted, found, strict=True)) / sum(map(len, wanted))


def some_keys(kind, rows, dim, rng):
    keys = rng.standard_normal((rows, dim))
    if kind == "clustered":
        keys = 0.3 * keys + rng.standard_normal((7, dim))[rng.integers(7, size=rows)]
    elif kind == "one direction":  # as hidden states are: all cosines are high
        keys = 0.1 * keys + 3 * rng.standard_normal(dim) * np.linspace(0, 1, dim) ** 4
    elif kind == "few coordinates":  # what signs alone, not turned, could not tell apart
        keys[:, dim // 8 + 1 :] = 0
    return unit(keys)


@given(
    kind=st.sampled_from(["random", "clustered", "one direction", "few coordinates"]),
    dim=st.sampled_from([8, 65, 100, 256, 1024]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_finds_at_least_98_percent_of_the_exact_best(kind, dim, seed):
    """For random directions and for stored keys with noise."""
    rng = np.random.default_rng(seed)
    keys = some_keys(kind, 4000, dim, rng)
    noisy = keys[:50] + 0.5 * unit(rng.standard_normal((50, dim)))
    for queries in (noisy, rng.standard_normal((50, dim))):
        true, found = both(keys, queries)
        assert recall(true, found) >= 0.98
        for a, b in zip(true, found, strict=True):
            assert b == sorted(b, key=lambda hit: (-hit[1], hit[0]))
            assert set(a) & set(b) == {hit for hit in b if hit[0] in dict(a)}  # cosines are the exact ones, to the bit


def test_codes_are_only_a_part_of_the_keys_bytes_and_the_scan_spares_most_rows():
    """Without the first stage's cut everything would be found as well, slowly."""
    rng = np.random.default_rng(0)
    keys = unit(rng.standard_normal((30_000, 1024)))
    view = CompressedMatrix(exact_matrix(keys)).view()
    rows = sum(len(codes.bits) for codes in view.codes)
    held = sum(getattr(codes, name).nbytes for codes in view.codes for name in codes.__dataclass_fields__)
    assert held == rows * (1024 + 128 + 16) and rows < view.rows + compressed._ROWS
    read = []
    query = unit_queries(keys[:1] + 0.7 * unit(rng.standard_normal((1, 1024))))
    nearly_nearest(
        view, query, k=8, floor=-1.0, codes=[1], helpers=None, read=lambda at: (read.append(len(at)), keys[at - 1])[1]
    )
    assert 8 <= sum(read) <= 40


def test_states_floors_large_k_and_threads_are_as_in_the_exact_search(monkeypatch):
    rng = np.random.default_rng(1)
    keys = unit(rng.standard_normal((3000, 64)))
    states = [DELETED if i % 5 == 4 else i % 3 for i in range(3000)]
    queries = np.concatenate([keys[:5] + 0.1 * unit(rng.standard_normal((5, 64))), rng.standard_normal((5, 64))])
    monkeypatch.setattr(compressed, "_ROWS", 1000)
    monkeypatch.setattr(compressed, "_CHUNK", 128)
    helpers = Helpers(3)
    try:
        for asked in ({"codes": [0, 2]}, {"codes": []}, {"floor": 0.4, "k": 500}, {"k": 5000}, {"floor": 1.1}):
            alone = both(keys, queries, states, **asked)
            assert both(keys, queries, states, helpers, **asked) == alone
            true, found = alone
            if any(true):
                assert recall(true, found) >= 0.98
            for rows in found:
                assert all(states[row] in asked.get("codes", [1]) for row, _ in rows)
                assert all(cosine >= asked.get("floor", -1.0) for _, cosine in rows)
                assert len(rows) <= asked.get("k", 8)
            assert found != [[]] * 10 or true == found
    finally:
        helpers.stop()


def test_equal_keys_come_in_the_order_of_storing():
    rng = np.random.default_rng(2)
    keys = np.repeat(unit(rng.standard_normal((4, 128))), 1000, axis=0)[rng.permutation(4000)]
    true, found = both(keys, keys[:10], k=20)
    assert true == found
    same = np.repeat(keys[:1], 500, axis=0)  # every key is the mean key: codes of nothing
    assert both(same, keys[:3], k=5) == ([*both(same, keys[:3], k=5)[0]],) * 2


def view_of(bank):
    return bank._matrices._groups["home", "input", 8].view


def test_a_bank_grows_beyond_the_limit_and_keeps_its_promises(tmp_path):
    path = str(tmp_path / "bank.db")
    memories = [make(f"m{i}", seed=i) for i in range(300)]
    with open_bank(path, exact_rows=200) as bank, open_bank(path, exact_rows=None) as exact:
        for first in range(0, 300, 50):
            with bank.transaction():
                for memory in memories[first : first + 50]:
                    bank.add(memory)
            for memory in memories[:300:60]:
                assert search(bank, memory, k=5) == search(exact, memory, k=5)
        assert isinstance(view_of(bank), CompressedView) and not isinstance(view_of(exact), CompressedView)
        before = search(bank, memories[7], k=3)
        assert before[0] == "m7"
        bank.set_state("m7", "home", State.QUARANTINED, "hurt twice")
        bank.delete(before[1], "home")
        assert search(bank, memories[7], k=1) == before[2:]
        everything = {"states": tuple(State), "k": 400}
        assert search(bank, memories[7], **everything) == search(exact, memories[7], **everything)
        assert len(search(bank, memories[7], **everything)) == 299
        for floor in (0.5, 0.9):
            asked = {"namespace": "home", "fingerprint": "fp-1", "key_kind": "input", "k": 50, "floor": floor}
            keys = np.stack([memory.key for memory in memories[:20]])
            assert bank.search_many(keys, **asked) == exact.search_many(keys, **asked)
        with bank.transaction():  # nothing uncommitted is seen, not even by its writer
            bank.delete("m20", "home")
            assert search(bank, memories[20], k=1) == ["m20"]
        assert search(bank, memories[20], k=1) != ["m20"]
    with open_bank(path, exact_rows=200) as again:
        assert search(again, memories[33], k=1) == ["m33"] and isinstance(view_of(again), CompressedView)


def test_another_processes_writes_are_seen(tmp_path):
    path = tmp_path / "bank.db"
    with open_bank(str(path), exact_rows=20) as bank:
        for i in range(40):
            bank.add(make(f"m{i}", seed=i))
        assert search(bank, make("m3", seed=3), k=1) == ["m3"] and isinstance(view_of(bank), CompressedView)
        code = """
bank = open_bank(sys.argv[1], exact_rows=20)
bank.delete("m3", "home")
bank.set_state("m4", "home", State.RETIRED, "no use")
for i in range(40, 90):
    bank.add(make(f"m{i}", seed=i))
key = make("m3", seed=3).key
print([hit.memory_id for hit in bank.search(key, namespace="home", fingerprint="fp-1", key_kind="input", k=80)])
"""
        writer = start(code, path)
        theirs = writer.communicate(timeout=60)[0]
        assert writer.returncode == 0
        assert str(search(bank, make("m3", seed=3), k=80)) == theirs.strip()
        assert search(bank, make("m77", seed=77), k=1) == ["m77"]
        assert not {"m3", "m4"} & set(search(bank, make("m3", seed=3), k=80))


def test_a_damaged_key_is_named_and_left_out_and_a_limit_of_nothing_refused(tmp_path, caplog):
    import sqlite3

    path = tmp_path / "bank.db"
    with pytest.raises(ConfigError, match="exact_rows"):
        open_bank(str(path), exact_rows=0)
    with open_bank(str(path), exact_rows=20) as bank:
        for i in range(40):
            bank.add(make(f"m{i}", seed=i))
        assert search(bank, make("m3", seed=3), k=1) == ["m3"]
        connection = sqlite3.connect(path)
        connection.execute("UPDATE keys SET key = zeroblob(32) WHERE position = 4")
        connection.commit()
        connection.close()
        assert search(bank, make("m3", seed=3), k=1) != ["m3"]
        assert "key of memory 'm3'" in caplog.text and len(search(bank, make("m3", seed=3))) == 39
