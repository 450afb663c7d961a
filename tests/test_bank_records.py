"""What comes in can be read back: odd records are refused, or come back from every bank as they were given."""

import contextlib
import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from banks import make, same
from server import InProcess
from tacit.bank import open_bank
from tacit.bank.portable import from_safetensors, to_safetensors
from tacit.checks.values import MAX_DEPTH, MAX_LABEL, MAX_PROVENANCE, MAX_TEXT
from tacit.errors import BankError, MemoryFormatError
from tacit.memory import State, record
from test_server_memories_api import FILE, code, made


def file_with(memory, text=None, **changes):
    """A portable file whose record says what no ``Memory`` of ours could."""
    whole = {"format": "tacit-memory-1", "record": {**record(memory), **changes}}
    tensors = {"prompt": np.ascontiguousarray(memory.prompt), "key": np.ascontiguousarray(memory.key)}
    return safetensors.numpy.save(tensors, metadata={"tacit": text or json.dumps(whole)})


def nested(depth, kind=list):
    value = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def test_negative_zero_is_zero_everywhere(factory):
    with factory.open() as bank:
        assert bank.add(from_safetensors(file_with(make("m1"), created=-0.0), trusted=True))
        assert str(bank.get("m1", "home").created) == "0.0" == str(bank.info("m1", "home").created)
        assert bank.history("m1", "home")[0].time == 0.0
        bank.check()
        bank.add(make("m2", created=0))
        bank.check()
    assert make("m1", created=-0.0).created.hex() == make("m1", created=0.0).created.hex()


@pytest.mark.parametrize(
    "changes",
    [
        {"created": float("nan")},
        {"created": -1e-300},
        {"created": True},
        {"created": None},
        {"created": "0"},
        {"provenance": {"x": nested(MAX_DEPTH)}},
        {"provenance": {"x": nested(MAX_DEPTH, dict)}},
        {"provenance": {"x": nested(300)}},
        {"provenance": {"x": nested(900)}},
        {"provenance": {"x": "y" * MAX_PROVENANCE}},
        {"provenance": {"label": "y" * (MAX_LABEL + 1)}},
        {"provenance": {"label": ["y" * MAX_LABEL]}},
        {"problem": "y" * (MAX_TEXT + 1)},
        {"reason": "y" * (MAX_TEXT + 1)},
    ],
    ids=str,
)
def test_what_could_not_be_read_back_is_refused(changes):
    with pytest.raises(MemoryFormatError):
        from_safetensors(file_with(make("m1"), **changes), trusted=True)


def test_what_is_nested_as_deep_as_may_be_is_read_by_everybody(tmp_path):
    served = InProcess(tmp_path / "bank.db")
    try:
        admin, service = served.client("home", "admin"), served.service
        deep = {"x": nested(MAX_DEPTH - 1), "y": nested(MAX_DEPTH - 1, dict)}
        data = to_safetensors(made(service, "m1", provenance=deep))
        assert admin.post("/tacit/v1/memories/import", content=data, headers=FILE).status_code == 201
        assert admin.get("/tacit/v1/memories/m1").json()["provenance"] == deep
        assert admin.get("/tacit/v1/memories/m1/export").status_code == 200
        service.bank.check()
        long = to_safetensors(replace(made(service, "m2"), problem="1 " * 60_000))
        told = code(admin.post("/tacit/v1/memories/import", content=long, headers=FILE), 400)
        assert told == "problem_too_long"
    finally:
        served.service.close()


def test_a_damaged_memory_is_told_without_asking_to_try_again(tmp_path):
    served = InProcess(tmp_path / "bank.db")
    try:
        admin = served.client("home", "admin", "ask")
        served.service.bank.add(made(served.service, "m1"))
        with contextlib.closing(sqlite3.connect(tmp_path / "bank.db")) as raw:
            raw.execute("UPDATE payloads SET provenance = '{'")
            raw.commit()
        for path in ("/tacit/v1/memories/m1", "/tacit/v1/memories/m1/export"):
            answer = admin.get(path)
            assert code(answer, 409) == "memory_damaged" and "retry-after" not in answer.headers
        assert admin.get("/tacit/v1/memories").json()["total"] == 1
        asked = {"model": "testbed:tacit", "messages": [{"role": "user", "content": "3 + 4"}], "max_tokens": 4}
        told = admin.post("/v1/chat/completions", json=asked)
        assert told.status_code == 200 and told.json()["tacit"]["memory"] is None
        assert admin.get("/tacit/v1/memories").json()["memories"][0]["state"] == "quarantined"
        assert admin.delete("/tacit/v1/memories/m1").status_code == 200
    finally:
        served.service.close()


def test_what_the_database_changes_is_not_acknowledged(factory, monkeypatch):
    """The last line of defence: a value that no check thought of."""
    with factory.open() as bank:
        bank.add(make("before"))
        changes = "memories SET problem = 'another'", "counters SET uses = 7", "keys SET key = prompt FROM payloads"
        for change in changes:
            with monkeypatch.context() as patch:
                patch.setattr(bank, "_remember", lambda there, *_, sql=change: there.exec_driver_sql(f"UPDATE {sql}"))
                with pytest.raises(BankError, match="'m1'"):
                    bank.add(make("m1"))
        assert [row.id for row in bank.find("home")] == ["before"]
        bank.check()


def test_counters_at_their_end_stay_readable(factory):
    with factory.open() as bank:
        bank.add(make("m1", uses=2**63 - 1, hurt=2**62 - 1))
        for _ in range(3):
            bank.count("m1", "home", uses=1, hurt=2**31 - 1)
        assert bank.get("m1", "home").uses == 2**63 - 1 and bank.get("m1", "home").hurt >= 2**62
        bank.check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    created=st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([-0.0, 5e-324, 2.0**63, 2.0**63 - 1024]),
    provenance=st.dictionaries(st.sampled_from(["label", "share", "margin", "x"]) | st.text(), JSON, max_size=4),
    problem=st.text(max_size=20),
    uses=st.integers(-1, 2**64) | st.sampled_from([2**63 - 1]),
)
@example(created=2.0**63 - 1024, provenance={}, problem="", uses=0)
@example(created=0, provenance={"share": 1.7e308, "margin": -(10**300)}, problem="", uses=0)
@settings(max_examples=150, deadline=None)
def test_any_record_is_refused_or_comes_back(tmp_path_factory, created, provenance, problem, uses):
    try:
        text = json.dumps({"format": "tacit-memory-1", "record": {
            **record(make("m1")), "created": created, "provenance": provenance, "problem": problem, "uses": uses,
        }})  # fmt: skip
        memory = from_safetensors(file_with(make("m1"), text), trusted=True)
    except (MemoryFormatError, UnicodeEncodeError):
        return
    with open_bank(str(tmp_path_factory.mktemp("odd") / "bank.db")) as bank:
        assert bank.add(memory)
        found = bank.get("m1", "home")
        assert same(found, memory) and same(from_safetensors(to_safetensors(found), trusted=True), memory)
        assert bank.info("m1", "home").uses == uses
        bank.count("m1", "home", uses=1)
        bank.set_state("m1", "home", State.RETIRED, "old")
        bank.check()
