"""What tending would take out of use, and why: harmful, useless and doubled memories, and what is over a budget.

Builds on base, schema and harm; changes nothing. In this order:

1. harmful: by the rule of quarantine (``harm``).
2. idle: never recalled while ``Rule.idle`` problems came; and candidates that were not admitted in that time.
3. near-duplicates: from the best memory to the worst, one that is near to a better one that stays is doubled. Better is
   who helped more often than it hurt; then who was used more; then who had the higher reward at the end of learning;
   then the older. Near is a distance (1 - cosine) of at most ``Rule.near`` times that which a quarter of all pairs are
   within: keys of every kind and model have a scale of their own, so a bank is measured by itself. All doubled ones
   go. Where there is a budget, as many as it asks for, the worst first: each is of some use.
4. budget: while there are too many memories or bytes, the one whose loss is expected to cost least goes: how often it
   is used (recalls a problem) times what it gains (helped less hurt, a use). Each has a prior weight, so that new
   memories are taken for average.

Age is counted in problems, as far as they are known: memories stored since, or recalls counted since the first tending
that saw the memory, whichever is more. Both are at most the problems that came. Everything is a function of what is
stored. Who is in use does not count where it would move a threshold: what has been done is not done again, until what
went is deleted. Then the bank is measured by what is left.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, select

from tacit.bank import schema
from tacit.bank.base import Bank, MemoryInfo
from tacit.bank.harm import harmful
from tacit.errors import ConfigError
from tacit.memory import State

CAUSES = ("harmful", "idle", "not admitted", "near-duplicate", "budget")
"""Why memories go, in the order in which it is looked at."""

SAMPLE, READ = 1000, 500
PRIOR, LEAST_GAIN = 4, 0.01
"""Uses that the average gain counts for in a memory's own, and the least that the average is taken for."""

_m, _k, _p = schema.memories.c, schema.keys.c, schema.payloads.c


@dataclass(frozen=True)
class Rule:
    """What tending keeps.

    Attributes:
        keep, keep_bytes: most active memories of a namespace, and most bytes of theirs (soft prompts, keys, provenance
            and problems); None for any.
        near: see the module.
        idle: problems that come without one recall of a memory, or its admission, until it goes.
        undo_days: days until what was taken out of use is deleted, by a later tending; until then it can be undone.
    """

    keep: int | None = None
    keep_bytes: int | None = None
    near: float = 0.15
    idle: int = 500
    undo_days: float = 7.0

    def __post_init__(self) -> None:
        for name in ("keep", "keep_bytes", "idle"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.near < 1:
            raise ConfigError(f"near is {self.near}; it is a share of a distance, from 0 to below 1")
        if not 0 <= self.undo_days < 36_500:
            raise ConfigError(f"undo_days is {self.undo_days}; it must be 0 or more, and fewer than 36,500")

    @property
    def bounded(self) -> bool:
        """Whether there is a budget."""
        return self.keep is not None or self.keep_bytes is not None

    def fits(self, count: int, size: int) -> bool:
        """Whether so many memories with so many bytes are within the budget."""
        return (self.keep is None or count <= self.keep) and (self.keep_bytes is None or size <= self.keep_bytes)


@dataclass(frozen=True)
class Gone:
    """A memory that should go: its state until now, one of ``CAUSES``, and the evidence in words."""

    id: str
    state: State
    cause: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What should go, and what the namespace has before and after it.

    Attributes:
        gone: in the order in which they should go.
        active, size: active memories, and their bytes, before and after.
        kept: share of the expected benefit (use times gain) of the memories before the budget that is left after it.
    """

    gone: tuple[Gone, ...]
    active: tuple[int, int]
    size: tuple[int, int]
    kept: float

    def causes(self) -> dict[str, int]:
        """How many go, by cause; only causes that there are."""
        counts = Counter(one.cause for one in self.gone)
        return {cause: counts[cause] for cause in CAUSES if counts[cause]}


@dataclass(frozen=True)
class _Row:
    info: MemoryInfo
    age: int
    loss: float
    size: int
    reward: float

    @property
    def said(self) -> str:
        one = self.info
        return f"helped {one.helped}, hurt {one.hurt}, used {one.uses} times, reward {self.reward:.2f}"

    @property
    def rank(self) -> tuple[float, ...]:
        """Best first."""
        one = self.info
        return (one.hurt - one.helped, -one.uses, -self.reward, one.position)


def planned(bank: Bank, namespace: str, rule: Rule, seen: Sequence[tuple[int, int]] = (), past: int = 0) -> Plan:
    """What tending of a namespace should do now.

    Args:
        seen: of earlier tendings, oldest first: the last position stored then, and the recalls counted until then.
        past: recalls of memories that have been deleted.
    """
    every = bank.find(namespace)
    rows = {row.info.id: row for row in rows_of(bank, namespace, every, seen, past)}
    active = [row for row in rows.values() if row.info.state is State.ACTIVE]
    held = dict.fromkeys(row.info.id for row in active)
    gone: list[Gone] = []

    def go(row: _Row, cause: str, why: str) -> None:
        gone.append(Gone(row.info.id, row.info.state, cause, f"{cause}: {why}"))
        held.pop(row.info.id, None)

    for harm in harmful(bank, namespace):
        if harm.id in held:
            go(rows[harm.id], "harmful", harm.said)
    for row in rows.values():
        one = row.info
        if one.state is State.CANDIDATE and row.age >= rule.idle:
            go(row, "not admitted", f"{row.age} problems came since, and {rule.idle} are enough")
        elif one.id in held and not one.uses and row.age >= rule.idle:
            go(row, "idle", f"never recalled while {row.age} problems came, and {rule.idle} are enough")
    best = sorted((rows[id] for id in held), key=lambda row: row.rank)
    twice: list[tuple[_Row, str]] = []
    for kind in sorted({row.info.key_kind for row in best}):
        near = near_by(bank, [one.position for one in every if one.key_kind == kind], rule.near)
        for one, other, distance in doubled(bank, [row.info for row in best if row.info.key_kind == kind], near):
            row, better = rows[one.id], rows[other.id]
            why = f"of {other.id}, at distance {distance:.4f} where {near:.4f} is near"
            twice.append((row, f"{why}; {row.said}; that one {better.said}"))
    size = sum(rows[id].size for id in held)
    for row, why in sorted(twice, key=lambda one: one[0].rank, reverse=True):
        if rule.bounded and rule.fits(len(held), size):
            break
        go(row, "near-duplicate", why)
        size -= row.size
    benefit = sum(max(0.0, rows[id].loss) for id in held)
    room = {"memories": rule.keep, "bytes": rule.keep_bytes}
    budget = " and ".join(f"{count:,} {what}" for what, count in room.items() if count is not None)
    for row in _over(rule, [rows[id] for id in held]):
        go(row, "budget", f"of {budget}; expected loss {row.loss:.2g} answers a problem; {row.said}")
    left = [rows[id] for id in held]
    return Plan(
        tuple(gone),
        (len(active), len(left)),
        (sum(row.size for row in active), sum(row.size for row in left)),
        sum(max(0.0, row.loss) for row in left) / benefit if benefit else 1.0,
    )


def rows_of(
    bank: Bank,
    namespace: str,
    every: Sequence[MemoryInfo],
    seen: Sequence[tuple[int, int]],
    past: int,
    states: Sequence[State] = (State.ACTIVE, State.CANDIDATE),
) -> Iterator[_Row]:
    """The memories that are in use, or may still be, with what is said of them."""
    infos = {one.position: (len(every) - number - 1, one) for number, one in enumerate(every)}
    recalls = past + sum(one.uses for one in every)
    net = sum(one.helped - one.hurt for one in every)
    usual = max(LEAST_GAIN, net / max(1, recalls - past))
    positions = [position for position, _ in seen]
    statement = (
        select(_m.position, func.length(_p.prompt).label("prompt"), func.length(_k.key).label("key"), _p.provenance)
        .join_from(schema.memories, schema.payloads)
        .join(schema.keys, _k.position == _m.position)
        .where(_m.namespace == namespace, _m.state.in_([state.value for state in states]))
        .order_by(_m.position)
    )
    with bank.connection() as connection:
        for row in connection.execution_options(yield_per=READ).execute(statement):
            if row.position not in infos:  # stored since
                continue
            age, one = infos[row.position]
            first = bisect_left(positions, one.position)
            if first < len(seen):
                age = max(age, recalls - seen[first][1])
            use = (one.uses + 1) / (age + len(every))
            gain = (one.helped - one.hurt + PRIOR * usual) / (one.uses + PRIOR)
            size = row.prompt + row.key + len(row.provenance) + len(one.problem)
            yield _Row(one, age, use * gain, size, _reward(row.provenance))


def _reward(provenance: str) -> float:
    """Mean reward of the last three steps of learning; 0 where there are none."""
    steps = json.loads(provenance).get("steps")
    last = steps[-3:] if isinstance(steps, list) else []
    rewards = [step.get("reward") for step in last if isinstance(step, dict)]
    found = [float(one) for one in rewards if isinstance(one, int | float) and 0 <= one <= 1]
    return sum(found) / len(found) if found else 0.0


def near_by(bank: Bank, positions: Sequence[int], share: float) -> float:
    """The distance at which memories are near, from up to ``SAMPLE`` of the kind, in use or not."""
    chosen = positions[:: -(-len(positions) // SAMPLE)]
    found = keys_at(bank, chosen)
    if len(found) < 2:
        return 0.0
    keys, pairs = np.stack(list(found.values())), np.triu_indices(len(found), 1)
    return share * max(0.0, float(np.quantile(1 - (keys @ keys.T)[pairs], 0.25)))


def doubled(bank: Bank, best: Sequence[MemoryInfo], near: float) -> Iterator[tuple[MemoryInfo, MemoryInfo, float]]:
    """Those of ``best`` (best first) that are near to a better one that stays, with that one and the distance."""
    kept: list[MemoryInfo] = []
    matrix: np.ndarray | None = None
    for start in range(0, len(best), READ):
        found = keys_at(bank, [one.position for one in best[start : start + READ]])
        block = [one for one in best[start : start + READ] if one.position in found]
        if not block:
            continue
        keys = np.stack([found[one.position] for one in block])
        matrix = keys[:0] if matrix is None else matrix
        before, among = keys @ matrix.T, keys @ keys.T
        fresh: list[int] = []
        for number, one in enumerate(block):
            similar = np.concatenate([before[number], among[number, fresh]])
            closest = int(similar.argmax()) if len(similar) else -1
            if closest >= 0 and 1 - similar[closest] <= near + 1e-6:  # equal keys differ by their rounding
                better = kept[closest] if closest < len(matrix) else block[fresh[closest - len(matrix)]]
                yield one, better, max(0.0, 1 - float(similar[closest]))
            else:
                fresh.append(number)
        kept += [block[number] for number in fresh]
        matrix = np.concatenate([matrix, keys[fresh]])


def _over(rule: Rule, rows: Sequence[_Row]) -> list[_Row]:
    """What a budget has no room for, least loss first; of equals, the younger."""
    count, size = len(rows), sum(row.size for row in rows)
    least = sorted(rows, key=lambda row: (row.loss, -row.info.position))
    number = 0
    while not rule.fits(count - number, size):
        size -= least[number].size
        number += 1
    return least[:number]


def keys_at(bank: Bank, positions: Sequence[int]) -> dict[int, np.ndarray]:
    """Their keys in float64, by position; without those of memories that are gone by now."""
    found = {}
    with bank.connection() as connection:
        for start in range(0, len(positions), READ):
            some = _k.position.in_(positions[start : start + READ])
            for row in connection.execute(select(_k.position, _k.key).where(some).order_by(_k.position)):
                found[row.position] = np.frombuffer(row.key, dtype="<f4").astype(np.float64)
    return found
