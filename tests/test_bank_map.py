"""The map of a bank: near keys lie near, kinds are told apart, and what cannot be drawn is said."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from banks import make
from tacit.bank import Bank, open_bank
from tacit.bank.tending import map as bank_map
from tacit.bank.tending.map import mapped
from tacit.bank.tending.stats import kinds
from tacit.errors import DataError
from tacit.experiments.report.bank_map import drawn
from tacit.memory import State

KINDS, EACH = 4, 6


def key(*numbers: float) -> np.ndarray:
    found = np.array(numbers)
    return (found / np.linalg.norm(found)).astype(np.float32)


@pytest.fixture
def filled(tmp_path: Path) -> Bank:
    """Four kinds of six at the corners of a square, all keys with a large part in common; one memory is out of use."""
    bank, rng = open_bank(str(tmp_path / "bank.sqlite")), np.random.default_rng(1)
    for kind, corner in enumerate([(1, 1), (1, -1), (-1, 1), (-1, -1)]):
        for number in range(EACH):
            made = key(*(np.array(corner) + 0.05 * rng.standard_normal(2)), *(0.01 * rng.standard_normal(5)), 5.0)
            uses = {"uses": number, "helped": int(number > 2), "hurt": int(number == 2)}
            bank.add(make(f"k{kind}-{number}", key=made, problem=f"What costs $5 and $6, kind {kind}?", **uses))
    bank.add(make("gone", key=key(*range(8)), state=State.QUARANTINED))
    bank.add(make("foreign", "work"))
    return bank


def test_near_keys_lie_near_and_kinds_are_told_apart(filled: Bank) -> None:
    found = mapped(filled, "home")
    assert found == mapped(filled, "home") and found.active == len(found.places) == KINDS * EACH
    assert found.shown > 0.95  # the rest is noise
    middles = {}
    for kind in range(KINDS):
        own = [place for place in found.places if place.kind == kind]
        assert len(own) == EACH and len({place.id[:2] for place in own}) == 1
        spots = np.array([[place.x, place.y] for place in own])
        middles[kind] = spots.mean(0)
        assert np.abs(spots - middles[kind]).max() < 20
    apart = [np.abs(middles[a] - middles[b]).max() for a in middles for b in middles if a < b]
    assert min(apart) > 50 and max(max(abs(place.x), abs(place.y)) for place in found.places) == 100
    judged = {place.id[3:]: place.benefit for place in found.places}
    assert judged == {"0": "not recalled", "1": "level", "2": "hurt", "3": "helped", "4": "helped", "5": "helped"}


def test_the_most_used_are_shown_where_there_are_many(filled: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_map, "MOST", 8)
    found = mapped(filled, "home")
    assert (len(found.places), found.active) == (8, KINDS * EACH)
    assert {place.id[3:] for place in found.places} == {"4", "5"}


def test_kinds_are_those_of_the_counts_the_largest_first(filled: Bank) -> None:
    filled.add(make("alone", key=key(1, -1, 0, 0, 9, 0, 0, 5)))
    places = mapped(filled, "home").places
    sizes = [sum(place.kind == kind for place in places) for kind in range(KINDS + 1)]
    assert sizes == [EACH] * KINDS + [1]
    found = {frozenset(one["memories"]) - {"gone"} for one in kinds(filled, "home")} - {frozenset()}
    assert found == {frozenset(p.id for p in places if p.kind == kind) for kind in range(KINDS + 1)}


def test_keys_that_cannot_be_compared_are_left_out(filled: Bank) -> None:
    filled.add(make("other", key_kind="last"))
    assert "other" not in {place.id for place in mapped(filled, "home").places}
    assert [place.id for place in mapped(filled, "work").places] == ["foreign"]
    assert mapped(filled, "nobody's").places == []


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-1, 1)))
def test_any_keys_have_places(keys: np.ndarray) -> None:
    keys = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-3)
    plane, shown = bank_map._plane(keys @ keys.T)
    assert len(plane) == len(keys) and all(-100 <= at <= 100 for place in plane for at in place)
    assert 0 <= shown <= 1 + 1e-9


def test_a_map_is_drawn_from_its_file(filled: Bank, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    assert drawn(file) == []
    file.write_text(json.dumps(asdict(mapped(filled, "work"))))
    assert drawn(file) == []  # one memory is no map
    file.write_text(json.dumps(asdict(mapped(filled, "home"))))
    [picture] = drawn(file)
    assert picture.png.startswith(b"\x89PNG") and picture == drawn(file)[0]
    assert "24 most used of 24" in picture.caption and "24 memories of 4 kinds" in picture.alt
    file.write_text('{"places": [1, 2, 3]}')
    with pytest.raises(DataError, match=r"map\.json is damaged; delete it"):
        drawn(file)
