"""What every bank promises (see ``tacit.bank.base``), whichever database stands behind it: ``banks.FACTORIES``."""

import threading
import time
from contextlib import suppress

import pytest

from banks import make, same, search
from tacit.bank import open_bank
from tacit.errors import BankError, FingerprintError, MemoryFormatError, MemoryNotFound
from tacit.memory import State


def test_stored_memory_comes_back_bit_for_bit_also_after_reopening(factory):
    one = make(problem="∑ 𝄞 \n 'quoted'", uses=3, agreed=2, helped=1, hurt=1)
    with factory.open() as bank:
        assert bank.add(one) is True
        assert same(bank.get("m1", "home"), one)
    with factory.open() as bank:
        assert same(bank.get("m1", "home"), one)
        bank.check()


def test_add_is_idempotent_and_never_overwrites(bank):
    first = make()
    assert bank.add(first) is True
    revision = bank.revision()
    assert bank.add(first) is False
    assert bank.add(make(seed=99, problem="another")) is False
    assert same(bank.get("m1", "home"), first) and bank.revision() == revision


def test_find_lists_light_rows_in_the_order_of_storing(bank):
    for name in ("z", "a", "m"):
        bank.add(make(name))
    bank.set_state("a", "home", State.QUARANTINED, "hurt twice")
    rows = bank.find("home")
    assert [row.id for row in rows] == ["z", "a", "m"]
    assert sorted(row.position for row in rows) == [row.position for row in rows]
    row = rows[1]
    assert (row.state, row.reason, row.label, row.share, row.margin) == (
        State.QUARANTINED, "hurt twice", "42", 0.75, 0.5)  # fmt: skip
    assert (row.problem_id, row.problem, row.created, row.sha256) == ("p-a", "Problem a?", 1000.5, make("a").sha256)
    assert [row.id for row in bank.find("home", states=[State.ACTIVE])] == ["z", "m"]
    assert bank.find("home", states=[]) == []
    assert [row.id for row in bank.find("home", problem_id="p-m")] == ["m"]


def test_label_share_and_margin_may_be_missing_or_odd(bank):
    bank.add(make("none", provenance={}))
    bank.add(make("odd", provenance={"label": 3, "share": "much", "margin": True}))
    none, odd = bank.find("home")
    assert (none.label, none.share, none.margin) == (None, None, None)
    assert (odd.label, odd.share, odd.margin) == ("3", None, None)


def test_missing_memory(bank):
    bank.add(make())
    calls = [
        lambda: bank.get("x", "home"),
        lambda: bank.set_state("x", "home", State.ACTIVE, "why"),
        lambda: bank.history("x", "home"),
        lambda: bank.count("x", "home", uses=1),
        lambda: bank.delete("x", "home"),
    ]
    for call in calls:
        with pytest.raises(MemoryNotFound, match="'home' has no memory 'x'"):
            call()


def test_delete_removes_everything_of_one_memory(bank):
    for name in ("a", "b"):
        bank.add(make(name))
    assert search(bank, make("a"), k=1) == ["a"]
    bank.delete("a", "home")
    assert search(bank, make("a")) == ["b"] and [row.id for row in bank.find("home")] == ["b"]
    for call in (bank.get, bank.history, bank.delete):
        with pytest.raises(MemoryNotFound):
            call("a", "home")
    bank.check()
    again = make("a", seed=5)
    assert bank.add(again) is True
    assert same(bank.get("a", "home"), again) and len(bank.history("a", "home")) == 1
    assert search(bank, again, k=1) == ["a"] and sorted(search(bank, again)) == ["a", "b"]


# States, counters, ledger, revision.


def test_states_are_reversible_and_recorded(bank):
    bank.add(make())
    start = time.time()
    bank.set_state("m1", "home", State.QUARANTINED, "hurt twice")
    assert search(bank, make()) == [] and search(bank, make(), states=[State.QUARANTINED]) == ["m1"]
    bank.set_state("m1", "home", State.ACTIVE, "looked at: fine")
    assert search(bank, make()) == ["m1"]
    assert bank.get("m1", "home").reason == "looked at: fine"
    steps = bank.history("m1", "home")
    assert [(s.old, s.new, s.reason) for s in steps] == [
        (None, State.ACTIVE, "admitted"),
        (State.ACTIVE, State.QUARANTINED, "hurt twice"),
        (State.QUARANTINED, State.ACTIVE, "looked at: fine"),
    ]
    assert steps[0].time == 1000.5 and start - 1 <= steps[1].time <= steps[2].time <= time.time() + 1


def test_counters_add_up(bank):
    bank.add(make(uses=1))
    bank.count("m1", "home", uses=2, agreed=1)
    bank.count("m1", "home", helped=1, hurt=5)
    row = bank.find("home")[0]
    assert (row.uses, row.agreed, row.helped, row.hurt) == (3, 1, 1, 5)
    with pytest.raises(BankError, match="only grow"):
        bank.count("m1", "home", uses=-1)


def test_ledger_keeps_the_last_value_per_namespace(bank):
    assert bank.marked("home", "run") is None
    bank.mark("home", "run", "window 1")
    bank.mark("home", "run", "window 2")
    bank.mark("other", "run", "window 9")
    assert bank.marked("home", "run") == "window 2" and bank.marked("other", "run") == "window 9"


def test_every_write_raises_the_revision_and_reads_do_not(bank):
    seen = [bank.revision()]
    for write in (
        lambda: bank.bind("home", "fp-1", "model"),
        lambda: bank.add(make()),
        lambda: bank.set_state("m1", "home", State.RETIRED, "old"),
        lambda: bank.count("m1", "home", uses=1),
        lambda: bank.mark("home", "a", "b"),
        lambda: bank.delete("m1", "home"),
    ):
        write()
        seen.append(bank.revision())
    assert seen == sorted(set(seen))
    bank.find("home"), bank.marked("home", "a"), search(bank, make()), bank.check()
    assert bank.revision() == seen[-1]


def test_text_that_a_database_cannot_keep_is_refused(bank):
    bank.add(make())
    for call in (
        lambda: bank.set_state("m1", "home", State.ACTIVE, "nul \x00"),
        lambda: bank.mark("home", "a", "half \ud800"),
        lambda: bank.mark("home", "", "x"),
        lambda: bank.bind("", "fp-1", "m"),
    ):
        with pytest.raises(MemoryFormatError):
            call()


# Backbones and namespaces.


def test_another_backbone_is_refused_naming_both(bank):
    bank.add(make())
    bank.bind("home", "fp-1", "model-one")  # the same one again is fine
    for call in (
        lambda: bank.add(make("m2", fingerprint="fp-2")),
        lambda: bank.add(make("m1", fingerprint="fp-2")),
        lambda: bank.bind("home", "fp-2", "model-two"),
        lambda: search(bank, make(), fingerprint="fp-2"),
    ):
        with pytest.raises(FingerprintError, match=r"'home' .*fp-1( [(]model model-one[)])?, not to fp-2"):
            call()
    assert [row.id for row in bank.find("home")] == ["m1"]
    assert bank.add(make("m2", namespace="second", fingerprint="fp-2")) is True
    bank.delete("m1", "home")
    with pytest.raises(FingerprintError):
        bank.add(make("m3", fingerprint="fp-2"))


def test_bind_comes_before_the_first_memory(bank):
    bank.bind("home", "fp-9", "model")
    with pytest.raises(FingerprintError):
        bank.add(make())


def test_nothing_crosses_a_namespace(bank):
    mine, theirs = make("same", namespace="mine"), make("same", namespace="theirs", seed=7)
    assert bank.add(mine) and bank.add(theirs) and bank.add(make("secret", namespace="theirs"))
    assert same(bank.get("same", "mine"), mine) and same(bank.get("same", "theirs"), theirs)
    bank.count("same", "mine", uses=5)
    bank.set_state("same", "mine", State.RETIRED, "mine alone")
    assert same(bank.get("same", "theirs"), theirs) and len(bank.history("same", "theirs")) == 1
    assert search(bank, theirs, namespace="mine", states=list(State)) == ["same"]
    assert search(bank, theirs, k=1) == ["same"] and search(bank, theirs, namespace="nobody") == []
    # A foreign id answers exactly like one that nobody has.
    for call in (bank.get, bank.history, bank.delete):
        with pytest.raises(MemoryNotFound) as foreign:
            call("secret", "mine")
        with pytest.raises(MemoryNotFound) as missing:
            call("absent", "mine")
        assert str(foreign.value).replace("secret", "absent") == str(missing.value)
    bank.delete("same", "mine")
    assert same(bank.get("same", "theirs"), theirs)
    assert search(bank, theirs) and not search(bank, mine, states=list(State))


def test_one_memory_changes_no_other(bank):
    """Invariant 6: whatever happens to one memory, every bit of the others stays."""
    others = [make(f"o{i}") for i in range(5)]
    for other in others:
        bank.add(other)
    bank.add(make("subject"))
    bank.count("subject", "home", uses=1, hurt=1)
    bank.set_state("subject", "home", State.QUARANTINED, "hurt")
    bank.delete("subject", "home")
    assert all(same(bank.get(other.id, "home"), other) for other in others)


# Search.


def test_transaction_commits_whole_or_not_at_all(bank):
    bank.add(make("before"))
    revision = bank.revision()
    with pytest.raises(ZeroDivisionError), bank.transaction():
        bank.add(make("a"))
        bank.count("before", "home", uses=1)
        bank.mark("home", "window", "1")
        assert [row.id for row in bank.find("home")] == ["before", "a"]  # it sees its own writes
        raise ZeroDivisionError
    assert [(row.id, row.uses) for row in bank.find("home")] == [("before", 0)]
    assert bank.marked("home", "window") is None and bank.revision() == revision
    with bank.transaction():
        bank.add(make("a"))
        bank.mark("home", "window", "1")
    assert bank.marked("home", "window") == "1" and len(bank.find("home")) == 2


def test_nested_transaction_joins_the_outer_one(bank):
    with pytest.raises(ZeroDivisionError), bank.transaction():
        with bank.transaction():
            bank.add(make("inner"))
        raise ZeroDivisionError
    assert bank.find("home") == []
    with bank.transaction():
        bank.add(make("outer"))
        with suppress(ZeroDivisionError), bank.transaction():
            bank.add(make("inner"))
            raise ZeroDivisionError
        with suppress(FingerprintError):
            bank.add(make("foreign", fingerprint="fp-2"))
    assert [row.id for row in bank.find("home")] == ["outer"]


def test_search_sees_what_is_committed_and_nothing_else(factory, bank):
    bank.add(make("a"))
    with factory.open() as other:
        assert search(other, make("a")) == ["a"]
        with bank.transaction():
            bank.add(make("b"))
            bank.set_state("a", "home", State.RETIRED, "old")
            assert search(bank, make("a")) == search(other, make("a")) == ["a"]
            assert [row.id for row in other.find("home")] == ["a"]
        assert search(bank, make("a")) == search(other, make("a")) == ["b"]
        other.delete("b", "home")
        assert search(bank, make("a")) == []


# Threads, and the end.


def test_threads_share_one_bank(bank):
    failures = []
    bank.add(make("shared"))

    def work(thread):
        try:
            for i in range(12):
                with bank.transaction():
                    bank.add(make(f"t{thread}-{i}"))
                    bank.count("shared", "home", uses=1)
                assert f"t{thread}-{i}" in search(bank, make(f"t{thread}-{i}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(bank.find("home")) == 73 and bank.find("home", problem_id="p-shared")[0].uses == 72
    bank.check()


def test_closed_bank_says_so(factory):
    bank = factory.open()
    bank.add(make())
    bank.close()
    bank.close()
    for call in (lambda: bank.find("home"), lambda: bank.add(make("x")), lambda: search(bank, make()), bank.check):
        with pytest.raises(BankError, match="closed"):
            call()


def test_snapshot_is_a_bank_and_overwrites_nothing(bank, tmp_path):
    bank.add(make())
    with bank.transaction():
        bank.add(make("uncommitted"))
        bank.snapshot(tmp_path / "deep" / "snap.db")
    with open_bank(str(tmp_path / "deep" / "snap.db"), create=False) as copy:
        assert same(copy.get("m1", "home"), make()) and len(copy.find("home")) == 1
    with pytest.raises(BankError, match="exists already"):
        bank.snapshot(tmp_path / "deep" / "snap.db")
    assert [path.name for path in (tmp_path / "deep").iterdir() if "partial" in path.name] == []
