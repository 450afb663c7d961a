"""The memory record: what it refuses, and that its portable file gives back exactly what went in."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.bank.portable import from_safetensors, to_safetensors
from tacit.errors import MemoryFormatError
from tacit.memory import Memory, State, memory_id, record

KEY = np.array([0.6, 0.8], dtype=np.float32)
PROMPT = np.arange(6, dtype=np.float32).reshape(2, 3)


def memory(**changes):
    values = {
        "id": "m1", "namespace": "home", "problem_id": "p1", "problem": "What is 1 + 1?", "prompt": PROMPT, "key": KEY,
        "key_kind": "input", "fingerprint": "abc", "state": State.ACTIVE, "reason": "its reward was 0.9",
        "provenance": {"label": "2", "share": 0.75, "steps": [{"reward": 0.5}]}, "created": 1.7e9,
        "uses": 4, "agreed": 3, "helped": 2, "hurt": 1,
    }  # fmt: skip
    return Memory(**{**values, **changes})


def same(a, b):
    return record(a) == record(b) and a.prompt.tobytes() == b.prompt.tobytes() and a.key.tobytes() == b.key.tobytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": PROMPT.astype(np.float64)}, "float32"),
        ({"prompt": PROMPT[0]}, "shape"),
        ({"prompt": PROMPT[:0]}, "empty"),
        ({"prompt": PROMPT * np.float32(np.nan)}, "not finite"),
        ({"prompt": PROMPT * np.float32(1e6)}, "norm"),
        ({"prompt": PROMPT.tolist()}, "list"),
        ({"key": KEY * np.float32(1.001)}, "norm 1"),
        ({"key": np.array([np.inf, 0], dtype=np.float32)}, "not finite"),
        ({"key": KEY.astype(np.float16)}, "float32"),
        ({"key": KEY[None]}, "shape"),
        ({"key": KEY[:0]}, "shape"),
        ({"state": "asleep"}, "asleep"),
        ({"id": ""}, "id"),
        ({"id": "a\nb"}, "printable"),
        ({"namespace": "x" * 500}, "namespace"),
        ({"problem": "nul \x00"}, "NUL"),
        ({"problem": "half \ud800"}, "surrogate"),
        ({"provenance": {"x": float("nan")}}, "JSON"),
        ({"provenance": {"x": object()}}, "JSON"),
        ({"provenance": {"x": "\ud800"}}, "JSON"),
        ({"provenance": []}, "object"),
        ({"created": float("inf")}, "seconds"),
        ({"uses": -1}, "uses"),
        ({"hurt": 1.5}, "hurt"),
    ],
)
def test_refuses_what_is_no_memory(changes, words):
    with pytest.raises(MemoryFormatError, match=words):
        memory(**changes)


def test_is_a_private_copy_that_nobody_can_change():
    prompt, provenance = PROMPT.copy(), {"steps": [1]}
    one = memory(prompt=prompt, provenance=provenance)
    before = one.sha256
    prompt += 1
    provenance["steps"].append(2)
    assert one.prompt[0, 0] == 0 and one.provenance == {"steps": [1]} and memory().sha256 == before
    with pytest.raises(ValueError, match="read-only"):
        one.prompt[0, 0] = 5


def test_sha256_is_of_the_float32_bytes():
    # Computed apart with sha256sum over the 24 little-endian bytes.
    import hashlib

    assert memory().sha256 == hashlib.sha256(struct.pack("<6f", 0, 1, 2, 3, 4, 5)).hexdigest()
    assert memory(prompt=PROMPT.astype(">f4")).sha256 == memory().sha256


def test_ids_are_deterministic_and_tell_apart_what_differs():
    one = memory_id("fp", "ns", "p", 0, "cfg")
    assert one == memory_id("fp", "ns", "p", 0, "cfg") and len(one) == 24
    others = [("fx", "ns", "p", 0, "cfg"), ("fp", "nt", "p", 0, "cfg"), ("fp", "ns", "q", 0, "cfg"),
              ("fp", "ns", "p", 1, "cfg"), ("fp", "ns", "p", 0, "cfh"), ("fpn", "s", "p", 0, "cfg")]  # fmt: skip
    assert len({one, *(memory_id(*other) for other in others)}) == 7


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**32), st.dictionaries(st.text("xyz"), json_values))
@settings(max_examples=40, deadline=None)
def test_portable_file_is_an_exact_round_trip(tokens, width, seed, provenance):
    rng = np.random.default_rng(seed)
    key = rng.standard_normal(width)
    one = memory(
        prompt=rng.standard_normal((tokens, width)).astype(np.float32),
        key=(key / np.linalg.norm(key)).astype(np.float32),
        provenance=provenance,
        problem="∑ 'quotes' \n and \t tabs",
    )
    assert same(from_safetensors(to_safetensors(one), trusted=True), one)
    assert to_safetensors(from_safetensors(to_safetensors(one), trusted=True)) == to_safetensors(one)


def test_imported_memory_is_a_candidate_with_empty_counters():
    one = from_safetensors(to_safetensors(memory()), namespace="theirs")
    assert (one.state, one.uses, one.agreed, one.helped, one.hurt) == (State.CANDIDATE, 0, 0, 0, 0)
    assert "active" in one.reason and one.namespace == "theirs" and one.fingerprint == "abc"
    assert one.sha256 == memory().sha256


def rewritten(change):
    """The portable file of a memory with its header changed by ``change(header)``."""
    data = to_safetensors(memory())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def test_hostile_files_are_refused():
    good = to_safetensors(memory())
    nan = bytearray(good)
    nan[-4:] = struct.pack("<f", float("nan"))

    def edited(change):
        def edit(header):
            whole = json.loads(header["__metadata__"]["tacit"])
            change(whole)
            header["__metadata__"]["tacit"] = json.dumps(whole)

        return rewritten(edit)

    cases = [
        b"", b"\x80\x04pickle", good[:-1], good[:40], b"\xff" * 64, bytes(nan),
        rewritten(lambda h: h["key"].update(dtype="I32")),
        rewritten(lambda h: h["key"].update(dtype="BF16")),
        rewritten(lambda h: h["key"].update(shape=[2**62, 4])),
        rewritten(lambda h: h.pop("__metadata__")),
        rewritten(lambda h: h["__metadata__"].update(tacit="[" * 100_000)),
        rewritten(lambda h: h["__metadata__"].update(tacit="[]")),
        edited(lambda w: w.update(format="other")),
        edited(lambda w: w.update(record=[])),
        edited(lambda w: w["record"].update(surprise=1)),
        edited(lambda w: w["record"].update(uses="many")),
        edited(lambda w: w["record"].pop("fingerprint")),
    ]  # fmt: skip
    for data in cases:
        with pytest.raises(MemoryFormatError):
            from_safetensors(data)


@given(st.integers(0, 2**16), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_never_escapes_as_another_error(place, value):
    data = bytearray(to_safetensors(memory()))
    data[place % len(data)] = value
    with contextlib.suppress(MemoryFormatError):
        from_safetensors(bytes(data))
