"""Counting, finding and paging memories: the database answers what Python would make of the whole list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from banks import FACTORIES, KINDS, make
from tacit.bank import Bank
from tacit.bank.base import SORTS, MemoryInfo
from tacit.errors import ConfigError, MemoryNotFound
from tacit.memory import State

PROBLEMS = ["Add 1 and 2", "add 100% of it", "what is a_b?", "ADD\\", "étude", "ÉTUDE", ""]


@pytest.fixture(params=KINDS, scope="module")
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """Forty memories of every state, with equal and missing values among them, and some of another namespace."""
    made = FACTORIES[request.param](tmp_path_factory.mktemp("listing")).open()
    states = list(State)
    for number in range(44):
        share: dict[str, Any] = {} if number % 5 == 0 else {"share": (number % 4) / 4}
        made.add(
            make(
                f"m{number}", "away" if number % 11 == 0 else "home", state=states[number % 3], provenance=share,
                problem=PROBLEMS[number % len(PROBLEMS)] or "?", created=float(number % 6), uses=number % 7,
                helped=number % 3, hurt=number % 2,
            )
        )  # fmt: skip
    yield made
    made.close()


def ascii_folded(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=some.none() | some.sets(some.sampled_from(State)),
    part=some.sampled_from(["", "add", "ADD", "%", "_", "\\", "étude", "É", "nothing"]),
    sort=some.sampled_from(SORTS),
    falling=some.booleans(),
    limit=some.integers(1, 50),
    offset=some.integers(0, 50),
)
def test_a_page_is_a_part_of_the_sorted_list(
    bank: Bank, states: set[State] | None, part: str, sort: str, falling: bool, limit: int, offset: int
) -> None:
    rows = [one for one in bank.find("home", states=states) if ascii_folded(part) in ascii_folded(one.problem)]

    def key(row: MemoryInfo) -> tuple[float, int]:
        return getattr(row, sort), row.position

    known = sorted((row for row in rows if getattr(row, sort) is not None), key=key, reverse=falling)
    unknown = sorted((row for row in rows if getattr(row, sort) is None), key=lambda r: r.position, reverse=falling)
    total, page = bank.page(
        "home", states=states, containing=part, sort=sort, falling=falling, limit=limit, offset=offset
    )
    assert total == len(rows) and page == [*known, *unknown][offset : offset + limit]


def test_counts_and_single_rows_are_those_of_the_list(bank: Bank) -> None:
    for namespace in ("home", "away", "nowhere"):
        rows = bank.find(namespace)
        assert bank.counts(namespace) == {state: sum(row.state is state for row in rows) for state in State}
        assert [bank.info(row.id, namespace) for row in rows] == rows
    with pytest.raises(MemoryNotFound, match="'home' has no memory 'm0'"):
        bank.info("m0", "home")  # it is another namespace's


@pytest.mark.parametrize("wrong", [{"sort": "key"}, {"limit": 0}, {"offset": -1}])
def test_what_cannot_be_listed_is_said(bank: Bank, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="created, uses, helped, hurt, share"):
        bank.page("home", **wrong)
