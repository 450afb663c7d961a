"""A source in one file: additions of a number, without end."""

from collections.abc import Iterator
from itertools import count

from tacit import Problem, register


@register("source", "sums")
def sums(rest: str, seed: int, limit: int | None) -> Iterator[Problem]:
    for number in count(seed + 11):
        yield Problem(f"sums-{rest}-{number}", f"compute {rest} + {number}", str(int(rest) + number))


sums.endless = True  # type: ignore[attr-defined]
