"""Search, as every bank promises it: exactly what brute force finds, whatever has happened before."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from banks import DIM, FACTORIES, KINDS, make, search
from tacit.errors import BankError, ConfigError, MemoryNotFound
from tacit.memory import State


def test_search_refuses_what_makes_no_sense(bank):
    bank.add(make())
    where = {"namespace": "home", "fingerprint": "fp-1", "key_kind": "input"}
    key = make().key
    for bad in (key[:4], np.append(key, key[:1])):
        with pytest.raises(BankError, match="dimensions"):
            bank.search(bad, **where)
    for bad in (key * np.float32(np.nan), key * 0, key.astype(int), key[:0]):
        with pytest.raises(BankError, match=r"key"):
            bank.search(bad, **where)
    for changes in ({"k": 0}, {"floor": float("nan")}):
        with pytest.raises(ConfigError):
            bank.search(key, **where, **changes)
    with pytest.raises(BankError, match="dimensions"):
        bank.add(make("wide", dim=9))
    assert bank.add(make("wide", dim=9, key_kind="hidden:2")) is True
    assert search(bank, make("wide", dim=9), key_kind="hidden:2") == ["wide"]
    assert search(bank, make(), key_kind="kv") == [] and search(bank, make(), states=[]) == []
    assert bank.search_many(np.empty((0, DIM), np.float32), **where) == []


def test_ties_come_in_the_order_of_storing_wherever_they_lie(bank):
    key = make("x", dim=33).key
    with bank.transaction():
        for i in range(700):  # several segments of the matrix
            tied = i % 7 == 3
            bank.add(
                make(f"{1000 - i}", seed=0 if tied else i + 1, dim=33, key=key if tied else make(f"{i}", dim=33).key)
            )
    expected = [f"{1000 - i}" for i in range(700) if i % 7 == 3]
    hits = bank.search(key, namespace="home", fingerprint="fp-1", key_kind="input", k=50)
    assert [hit.memory_id for hit in hits] == expected[:50]
    assert len({hit.similarity for hit in hits}) == 1


def test_floor_is_inclusive_and_similarity_is_the_cosine(bank):
    bank.add(make(dim=2, key=np.array([0.6, 0.8], np.float32)))
    query = np.array([3.0, 0.0], np.float32)  # any norm will do
    where = {"namespace": "home", "fingerprint": "fp-1", "key_kind": "input"}
    (hit,) = bank.search(query, **where)
    assert hit.similarity == pytest.approx(0.6, abs=1e-7) and hit.problem_id == "p-m1"
    assert bank.search(query, **where, floor=hit.similarity) == [hit]
    assert bank.search(query, **where, floor=np.nextafter(hit.similarity, 1)) == []
    assert bank.search(-query, **where)[0].similarity == pytest.approx(-0.6, abs=1e-7)


def are_the_best(hits, stored, query, k, floor, states):
    """Whether ``hits`` are the best k by cosines computed here the plain way, equal ones in the order of ``stored``.

    Cosines that differ by less than ``close`` may come in either order, but in that of what the search itself says.
    """
    close = 1e-14
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    cosines, order = {}, {}
    for place, (memory, state) in enumerate(stored):
        key = memory.key.astype(np.float64)
        cosine = float(np.clip(key @ query / np.linalg.norm(key), -1, 1))
        if state in states and cosine >= floor:
            cosines[memory.id], order[memory.id] = cosine, place
    found = [hit.memory_id for hit in hits]
    assert len(set(found)) == len(found) == min(k, len(cosines)) and set(found) <= set(cosines)
    assert np.allclose([hit.similarity for hit in hits], [cosines[name] for name in found], rtol=0, atol=close)
    assert hits == sorted(hits, key=lambda hit: (-hit.similarity, order[hit.memory_id]))
    assert all(cosines[name] <= hits[-1].similarity + close for name in set(cosines) - set(found))


class SearchMachine(RuleBasedStateMachine):
    """Random writes through two openings of one bank; search must equal brute force on both, at every step."""

    factory = None
    tmp_path = None
    names = st.sampled_from([f"n{i}" for i in range(12)])
    spaces = st.sampled_from(["home", "away"])
    states = st.sets(st.sampled_from(list(State)), min_size=1)
    # Coordinates of few values make exact ties and near-ties frequent.
    vectors = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.0 + 1e-6]), min_size=3, max_size=3).filter(any)

    @initialize()
    def start(self):
        SearchMachine.count = getattr(SearchMachine, "count", 0) + 1
        folder = self.tmp_path / str(SearchMachine.count)
        folder.mkdir()
        made = self.factory(folder)
        self.banks = [made.open(), made.open()]
        self.stored = {"home": {}, "away": {}}

    def teardown(self):
        for bank in getattr(self, "banks", []):
            bank.check()
            bank.close()

    @rule(name=names, space=spaces, vector=vectors, state=st.sampled_from(list(State)), which=st.integers(0, 1))
    def add(self, name, space, vector, state, which):
        key = np.array(vector) / np.linalg.norm(vector)
        memory = make(name, space, state=state, key=key.astype(np.float32))
        assert self.banks[which].add(memory) == (name not in self.stored[space])
        self.stored[space].setdefault(name, (memory, state))

    @rule(
        names=st.sets(names),
        space=spaces,
        state=st.sampled_from(list(State)),
        which=st.integers(0, 1),
        fail=st.booleans(),
    )
    def change_together(self, names, space, state, which, fail):
        bank = self.banks[which]
        known = sorted(names & set(self.stored[space]))
        with suppress(ZeroDivisionError), bank.transaction():
            for name in known:
                bank.set_state(name, space, state, "together")
            if fail:
                raise ZeroDivisionError
        if not fail:
            for name in known:
                self.stored[space][name] = (self.stored[space][name][0], state)

    @rule(name=names, space=spaces, which=st.integers(0, 1))
    def delete(self, name, space, which):
        if name in self.stored[space]:
            self.banks[which].delete(name, space)
            del self.stored[space][name]
        else:
            with pytest.raises(MemoryNotFound):
                self.banks[which].delete(name, space)

    @precondition(lambda self: hasattr(self, "banks"))
    @rule(vectors=st.lists(vectors, min_size=1, max_size=4), space=spaces, k=st.integers(1, 14),
          floor=st.sampled_from([-1.0, 0.0, 0.5, 0.9999, 1.0]), states=states)  # fmt: skip
    def compare(self, vectors, space, k, floor, states):
        queries = np.array(vectors, dtype=np.float32)
        where = {"namespace": space, "fingerprint": "fp-1", "key_kind": "input", "k": k, "states": states}
        # Floors that a rounding error could cross are moved off the lattice of possible cosines.
        floor -= 1e-9
        stored = list(self.stored[space].values())
        for bank in self.banks:
            found = bank.search_many(queries, **where, floor=floor)
            for query, hits in zip(queries, found, strict=True):
                are_the_best(hits, stored, query, k, floor, states)
                assert bank.search(query, **where, floor=floor) == hits

    @invariant()
    def lists_agree(self):
        for space, stored in getattr(self, "stored", {}).items():
            for bank in self.banks:
                assert [(row.id, row.state) for row in bank.find(space)] == [(n, s) for n, (_, s) in stored.items()]


@pytest.mark.parametrize("name", KINDS)
def test_search_equals_brute_force_whatever_happens(name, tmp_path):
    machine = type("Machine", (SearchMachine,), {"factory": FACTORIES[name], "tmp_path": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


# Transactions.
