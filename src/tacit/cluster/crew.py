"""A crew of actors that does a list of things: whoever is idle takes the next piece, a dead one's piece is taken over.

Builds on errors and Ray (imported by connection, handed in). Pieces are handed out by stealing: none belongs to an
actor before it is idle. A piece whose actor died is halved and done again by whoever is idle next, while a replacement
starts; half a batch also needs half the memory, the commonest reason of such deaths. Nothing is ever done twice at the
same time, and every result is taken once. All items together are what one actor would make of them: a result does not
depend on what shares its batch (learning.py, engines/local.py).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tacit.cluster.actors import Facts
from tacit.errors import EngineError, TacitError

TRIES = 3
"""Actors that a piece may cost, and starts in a row that may fail, before the crew gives up."""

ROUNDS = 4
"""Most pieces an actor gets of one list where all are equally fast; more would balance better and batch worse."""

PATIENCE = 600.0
"""Seconds to wait for the first actor that is ready: loading a large model takes minutes."""


@dataclass(eq=False)
class _Piece:
    """Neighbouring items of one call of ``run``, ``at`` being the place of the first."""

    call: object
    at: int
    items: list[Any]
    deaths: int = 0

    def halves(self) -> list[_Piece]:
        """This piece again after its actor died, in two where there is more than one item."""
        middle = (len(self.items) + 1) // 2
        parts = [(self.at, self.items[:middle]), (self.at + middle, self.items[middle:])]
        return [_Piece(self.call, at, items, self.deaths + 1) for at, items in parts if items]


@dataclass(eq=False)
class _Member:
    """An actor, or the one that replaced it; what it is busy with, ``piece`` being None while it starts."""

    actor: Any
    ref: Any = None
    piece: _Piece | None = None
    failed_starts: int = 0


class Crew:
    """Actors of one kind. For one thread.

    Args:
        ray: the module, connected.
        what: what one is called in messages, "learner" or "engine".
        count: how many.
        start: makes one; it may still be starting when this returns.
        check: raises TacitError if an actor that says this of itself cannot be used.
        patience: seconds to wait while none is ready.
    """

    def __init__(
        self,
        ray: Any,
        what: str,
        count: int,
        start: Callable[[], Any],
        check: Callable[[Facts], None],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._ray, self._what, self._count = ray, what, count
        self._start, self._check, self._patience = start, check, patience
        self._idle: list[_Member] = []
        self._busy: dict[Any, _Member] = {}
        self.deaths = 0
        for _ in range(count):
            self._begin(_Member(start()))

    def run(self, method: str, items: Sequence[Any], weights: Sequence[int], *, good: int, most: int) -> list[Any]:
        """``method`` of the actors on all items; results in order.

        Args:
            method: takes a list of items, returns as many results.
            items: what to do.
            weights: how much work each is.
            good: weight from which a batch is well used: smaller pieces only where actors would be idle otherwise.
            most: items in a piece.

        Raises:
            TacitError: what an actor raised; the first of them.
            EngineError: a piece ended ``TRIES`` actors, or none can be started.
        """
        call = object()
        todo = deque(pieces(call, items, weights, self._count, good, most))
        results: list[Any] = [None] * len(items)
        owed = len(items)
        while owed:
            while todo and self._idle:
                member = self._idle.pop(0)
                member.piece = todo.popleft()
                member.ref = getattr(member.actor, method).remote(member.piece.items)
                self._busy[member.ref] = member
            for member in self._wait():
                ref, piece = member.ref, member.piece
                member.piece = None
                # What an abandoned call still waited for is nobody's gain or loss.
                ours = piece is not None and piece.call is call
                try:
                    outcome = self._outcome(ref)
                except Exception:
                    if piece is not None:
                        self._idle.append(member)
                    if piece is None or ours:
                        raise
                    continue
                if isinstance(outcome, Exception):
                    self._replace(member, piece is None, outcome)
                    if piece is not None and ours:
                        todo.extendleft(reversed(self._again(piece, outcome)))
                    continue
                if piece is None:
                    self._check(outcome)
                elif ours:
                    assert len(outcome) == len(piece.items)
                    results[piece.at : piece.at + len(piece.items)] = outcome
                    owed -= len(piece.items)
                member.failed_starts = 0
                self._idle.append(member)
        return results

    def _begin(self, member: _Member) -> None:
        member.ref = member.actor.prepare.remote()
        self._busy[member.ref] = member

    def _wait(self) -> list[_Member]:
        """Members that are done with something, or dead."""
        starting = all(member.piece is None for member in self._busy.values())
        done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=self._patience if starting else None)
        if not done:
            raise EngineError(
                f"no {self._what} was ready on Ray within {self._patience:.0f} s; see with `ray status` whether the "
                "cluster has room for one"
            )
        return [self._busy.pop(ref) for ref in done]

    def _outcome(self, ref: Any) -> Any:
        """What a call gave, or the error that its actor died of; what it raised is raised."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, TacitError):
                raise type(cause)(str(cause)) from None
            if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
                return cause
            raise
        except errors.RayError as error:
            return error

    def _again(self, piece: _Piece, error: Exception) -> list[_Piece]:
        if piece.deaths + 1 >= TRIES:
            raise EngineError(
                f"{TRIES} {self._what}s in a row ended while they did the same piece of work, the last one so: "
                f"{reason(error)}"
            )
        return piece.halves()

    def _replace(self, member: _Member, starting: bool, error: Exception) -> None:
        self.deaths += 1
        member.failed_starts += starting
        with contextlib.suppress(Exception):  # it may be alive but out of reach; then it must not go on
            self._ray.kill(member.actor)
        if member.failed_starts < TRIES:
            member.actor = self._start()
            self._begin(member)
        elif not self._busy and not self._idle:
            raise EngineError(f"no {self._what} can be started on Ray: {reason(error)}")


def pieces(
    call: object, items: Sequence[Any], weights: Sequence[int], actors: int, good: int, most: int
) -> list[_Piece]:
    """Items in order, in pieces of about equal weight: as many for every actor. At least one where there are enough
    items, and up to ``ROUNDS`` where each is still worth a batch."""
    total = sum(weights)
    rounds = max(1, min(ROUNDS, total // (actors * good)))
    wanted = min(len(items), rounds * actors)
    cut: list[_Piece] = []
    at = spent = 0
    for number in range(wanted):
        end = at
        share = total * (number + 1) / wanted
        # The item that crosses the border goes where more of it lies; one each, and one left for every later piece.
        while end < len(items) - (wanted - number - 1) and (end == at or spent + weights[end] / 2 <= share):
            spent += weights[end]
            end += 1
        cut += [_Piece(call, a, list(items[a : min(a + most, end)])) for a in range(at, end, most)]
        at = end
    return cut


def reason(error: Exception) -> str:
    """Why an actor died, in one sentence: Ray says it in many lines, of which the exit detail or the last one tells."""
    text = " ".join(str(error).split())
    for mark in ("Worker exit detail: ", "The actor is dead because "):
        if mark in text:
            text = text.split(mark, 1)[1]
            break
    else:
        text = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return text.split(" There are some potential root causes")[0].rstrip(".")[:400]
