"""Python: a function is asked for, and two answers are the same if they behave the same.

Builds on answers' sandbox, code_text (the program in a response, the calls in a problem) and code_inputs (further
inputs). Behaviour is what a function gives on inputs that the problem shows, that the responses show, and others like
those: majority by behaviour, after execution-based voting (CodeT, arXiv 2207.10397; MBR-EXEC, arXiv 2204.11454).
Results that the problem itself shows tell candidates apart; no reference answer is read for that.
"""

from __future__ import annotations

import ast
import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tacit.answers import sandbox
from tacit.errors import ConfigError, DataError
from tacit.registry import register
from tacit.tasks import code_inputs, code_text
from tacit.tasks.base import Task

SHOWN, OWN = 12, 8
"""Most inputs from the problem, and from all responses."""


@register("task", "python")
class Python(Task):
    """A Python function, compared by what it does (--allow-code)."""

    instruction = "Write the function in Python. Give the function alone, in one ```python block."

    _wanted = code_text.wanted("")

    def permit(self, code: bool) -> None:
        """Refuse unless the operator allows that code of a model runs here, and the machine can confine it."""
        if not code:
            raise ConfigError(
                "the task python runs programs that a model writes; allow it with --allow-code (TACIT_ALLOW_CODE=1)"
            )
        sandbox.check()

    def on(self, problem: str) -> Python:
        bound = copy.copy(self)
        bound._wanted = code_text.wanted(problem)
        return bound

    def extract(self, text: str) -> str | None:
        return code_text.answer(text, self._wanted)

    def same(self, one: str, other: str) -> bool:
        codes = [code_text.parts(answer)[0] for answer in (one, other)]
        if codes[0] == codes[1]:
            return True
        calls = self._calls([one, other])
        first, second = (self._results(code, calls) for code in codes)
        return bool(calls) and first == second and _works(first)

    def group(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Indices of answers that behave the same, the largest group first. A program that works on no input is in no
        group; nor is one that meets fewer of the problem's results than another."""
        where: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                where.setdefault(code_text.parts(answer)[0], []).append(index)
        calls = self._calls([answer for answer in answers if answer is not None])
        behaviour = {code: self._results(code, calls) for code in where}
        met = {code: self._met(calls, results) for code, results in behaviour.items() if _works(results)}
        best = max(met.values(), default=0)
        groups: dict[tuple[str, ...], list[str]] = {}
        for code in sorted(code for code, count in met.items() if count == best):
            # Without a single input only the text says what a program does.
            groups.setdefault(behaviour[code] or (code,), []).append(code)
        found = [(sorted(index for code in codes for index in where[code]), codes) for codes in groups.values()]
        found.sort(key=lambda group: (-len(group[0]), min((len(code), code) for code in group[1])))
        return [indices for indices, _ in found]

    def gold(self, written: str) -> str:
        """Tests, as ``from_row`` writes them; or a program, or asserts, as they stand."""
        try:
            held = json.loads(written)
        except ValueError:
            held = None
        if isinstance(held, dict) and {"name", "prelude", "tests"} <= set(held):
            return written
        tree = code_text.parsed(written)
        if tree is not None and code_text.functions(tree):
            return code_text.answer(f"```\n{written}\n```", self._wanted) or written
        name = self._wanted.name or code_text.tested(written)
        if tree is not None and any(isinstance(node, ast.Assert) for node in ast.walk(tree)) and name:
            return _tests(name, self._wanted.prelude, written)
        raise DataError(
            f"the reference answer {written[:60]!r} is neither tests nor a program; give asserts, a function, "
            "or the fields test and entry_point, or test_list"
        )

    def right(self, answers: Sequence[str | None], gold: str) -> list[bool]:
        """Whether each answer passes the tests, or behaves as the program that the reference is."""
        marks: dict[str, bool] = {}
        for answer in answers:
            if answer is not None and answer not in marks:
                marks[answer] = self._passes(answer, gold)
        return [answer is not None and marks[answer] for answer in answers]

    def _passes(self, answer: str, gold: str) -> bool:
        if not gold.startswith("{"):
            return self.same(answer, gold)
        held = json.loads(gold)
        code, _ = code_text.parts(answer)
        return sandbox.passes(sandbox.Program(code, held["name"], held["prelude"]), held["tests"])

    def _calls(self, answers: Sequence[str]) -> list[str]:
        """The inputs that tell these answers apart, whatever their order."""
        shown = [example.call for example in self._wanted.examples][:SHOWN]
        parted = [code_text.parts(answer) for answer in answers]
        codes = sorted({code for code, _ in parted})
        counts = Counter(call for _, call in {(code, call) for code, calls in parted for call in calls})
        own = sorted(counts, key=lambda call: (-counts[call], len(call), call))[:OWN]
        known = list(dict.fromkeys((*shown, *own)))
        if known:
            return [*known, *code_inputs.like(shown or own)]
        heads = Counter(code_text.head(code, self._wanted.name) for code in codes)
        head = self._wanted.header or min(heads, key=lambda one: (-heads[one], one), default="")
        return code_inputs.annotated(head) or self._fitting(code_inputs.kinds(head), codes)

    def _fitting(self, kinds: list[list[str]], codes: Sequence[str]) -> list[str]:
        """Of several lists of calls the one on which most programs never fail; none where most do on each."""
        every = [call for calls in kinds for call in calls]
        works = [dict(zip(every, self._results(code, every), strict=True)) for code in codes]

        def count(calls: list[str]) -> int:
            return sum(sandbox.FAILED not in [given[call] for call in calls] for given in works)

        best = max(kinds, key=count, default=[])
        return best if 2 * count(best) > len(codes) else []

    def _results(self, code: str, calls: Sequence[str]) -> tuple[str, ...]:
        name = self._wanted.name or code_text.called(code)
        return sandbox.results(sandbox.Program(code, name, self._wanted.prelude), calls)

    def _met(self, calls: Sequence[str], results: Sequence[str]) -> int:
        given = dict(zip(calls, results, strict=True))
        return sum(given.get(example.call) == example.result for example in self._wanted.examples)


def _works(results: Sequence[str]) -> bool:
    """Whether a program gives anything on any of its inputs."""
    return not results or any(result != sandbox.FAILED for result in results)


def _tests(name: str, prelude: str, tests: str) -> str:
    return json.dumps({"name": name, "prelude": prelude, "tests": tests}, sort_keys=True)


def from_row(row: Mapping[str, Any], where: str = "a row") -> tuple[str, str] | None:
    """Problem and reference of a row whose layout is HumanEval's (prompt, entry_point, test) or MBPP's (text or prompt,
    test_list); None for any other.

    HumanEval: the problem is the prompt, a function's head with its docstring. MBPP: the words, and one call from the
    tests without its result, since the words name no function. The reference is what the tests are.

    Raises:
        DataError: such a layout whose tests cannot be read.
    """
    text = row.get("text") if isinstance(row.get("text"), str) else row.get("prompt")
    if isinstance(row.get("test"), str) and isinstance(row.get("entry_point"), str) and isinstance(text, str):
        name, tests = row["entry_point"], row["test"]
        prelude = code_text.wanted(text).prelude
        return text, _tests(name, prelude, f"{tests}\ncheck({name})\n" if "def check(" in tests else tests)
    listed = row.get("test_list")
    if isinstance(listed, str):  # CSV and parquet by way of JSON
        listed = listed.splitlines()
    if listed is None or not isinstance(text, str):
        return None
    asserts = [str(one) for one in listed]
    imports = row.get("test_imports")
    before = [str(row.get("test_setup_code") or ""), *map(str, imports if imports is not None else ())]
    name = code_text.tested("\n".join(asserts))
    if not name:
        raise DataError(f"{where}: test_list has no call of a function in it: {str(asserts[:1])[:80]}")
    example = next((found.source for found in code_text.calls("\n".join(asserts), name)), name)
    problem = f"{text.strip()}\n\nThe function is called like this: `{example}`"
    return problem, _tests(name, "\n".join(filter(None, before)), "\n".join(asserts))
