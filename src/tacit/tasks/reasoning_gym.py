"""Questions of the library reasoning-gym, ``--data reasoning-gym:NAME``, and the task of the same name.

Builds on stated and text for answers, and on answers.pool, whose workers make the questions and score: the library's
scorers evaluate some answers as Python. ``score_answer`` is the scorer's alone; which answers are the same, a vote or a
reward knows from the answers.

A question is known by name, settings, seed and number, and its reference answer says them, as JSON.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import count
from typing import Any

from tacit.answers import pool
from tacit.errors import ConfigError, DataError, needed
from tacit.problem import Problem
from tacit.registry import register
from tacit.tasks import text as words
from tacit.tasks.fields import Read
from tacit.tasks.stated import ending, sentence, statement

NAME = "reasoning-gym"
CHUNK = 500
"""So many questions have one seed of the library's; that of the next ones is another."""
LIMIT = 20.0
"""CPU seconds for a question."""
SCORE_LIMIT = 5.0
"""CPU seconds for the score of an answer, the question's own included."""

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_KEYS = {"answer", "name", "config", "seed", "index"}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """What the library has questions of.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("reasoning_gym") is None:
        needed("gym", "the library reasoning-gym", "reasoning_gym")
    return tuple(pool.gym(LIMIT, call="names").value or ())


def known(name: str) -> str:
    """``name``, if there are questions of it.

    Raises:
        ConfigError: there are none; the message has the nearest names.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names())}"
        raise ConfigError(f"reasoning-gym has no questions {name!r}; {meant}")
    return name


@register("source", "reasoning-gym")
def questions(rest: str, seed: int, limit: int | None) -> Iterator[Read]:
    """Questions of a name, with settings of the library's after a colon: ``chain_sum:min_terms=2,max_terms=3``."""
    name, _, given = rest.partition(":")
    config = dict(map(_setting, filter(None, given.split(","))))
    known(name)
    for number in count():
        chunk, index = divmod(number, CHUNK)
        drawn = hashlib.sha256(f"{NAME} {rest} {seed} {chunk}".encode()).digest()
        spec = {"name": name, "config": config, "seed": int.from_bytes(drawn[:3]), "index": index}
        entry = pool.gym(LIMIT, call="ask", size=CHUNK, **spec).value
        if entry is None or "error" in entry:
            why = "it took too long" if entry is None else " ".join(entry["error"].split())[:200]
            raise ConfigError(f"{NAME}:{rest} gives no question {number}: {why}")
        gold = json.dumps({"answer": entry["answer"], **spec}, ensure_ascii=False)
        yield Read(Problem(f"{rest}/{seed}/{number}", entry["question"].strip(), gold, name), f"{NAME}:{name}")


questions.endless = True  # type: ignore[attr-defined]


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{NAME}: {text!r} is no setting; write it as in {NAME}:chain_sum:min_terms=2,max_terms=3")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


@register("task", "reasoning-gym")
class ReasoningGym(words.Text):
    """Questions of the library of that name.

    Answers stand in <answer> tags, else where those of text do.

    Args:
        name: of the questions, as the source has it.
    """

    form = f"{NAME}:NAME"
    instruction = "Think step by step, and give the final answer alone between <answer> and </answer>."

    def __init__(self, name: str) -> None:
        known(name.partition(":")[0])

    def extract(self, text: str) -> str | None:
        said = ending(text)
        if tagged := _TAG.findall(said):
            return tagged[-1].strip() or None
        phrase = statement(text)
        return self.unstated(said) if phrase is None else self.read(sentence(said, phrase))

    def same(self, one: str, other: str) -> bool:
        return one == other or _key(one) == _key(other)

    def gold(self, written: str) -> str:
        if _reference(written) is None:
            raise DataError(f"{written[:60]!r} names no question; this task is for --data {NAME}:NAME")
        return written

    def right(self, answers: Sequence[str | None], gold: str) -> list[bool]:
        spec = _reference(gold)
        marks = {answer: spec is not None and _right(answer, spec) for answer in {*answers} if answer is not None}
        return [answer is not None and marks[answer] for answer in answers]


def _reference(text: str) -> dict[str, Any] | None:
    """A reference answer; None of any other text."""
    try:
        value = json.loads(text) if text.startswith('{"answer": ') else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.keys() == _KEYS else None


def _key(answer: str) -> Hashable:
    """Lines of signs, as boards and matrices are, sign by sign; anything else as words or numbers."""
    spec = _reference(answer)
    said = answer if spec is None else str(spec["answer"])
    lines = said.casefold().splitlines()
    return words.key(said) if len(lines) < 2 else tuple(" ".join(line.split()) for line in lines)


def _right(answer: str, spec: dict[str, Any]) -> bool:
    reply = pool.gym(
        SCORE_LIMIT, call="score", size=CHUNK, said=answer, **{key: spec[key] for key in _KEYS - {"answer"}}
    )
    if reply.value is None:
        return False  # a limit ended it
    if reply.value.get("answer", spec) != spec["answer"]:
        raise DataError(f"{NAME}:{spec['name']} is another version here than that which made the problems; pin it")
    return bool(reply.value["score"] >= 1)
