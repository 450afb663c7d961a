"""Which field of a row is what: problems out of rows of data as people have them, whatever the fields are called.

Builds on errors, answers (a boxed answer), problem, options and code. Plain rows (``problem``, ``id``, ``answer``,
``family``) are read as they always were; what else is known by itself is listed in ``docs/data.md``. ``--field
problem=NAME`` says it for the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tacit.errors import ConfigError, DataError
from tacit.problem import LONGEST, Problem
from tacit.tasks.code import from_row
from tacit.tasks.options import MOST, find, letter_of, letters, options_of, split, with_options

ROLES = ("problem", "answer", "options", "id", "family")
TEXTS = ("problem", "question", "prompt", "text")
GOLDS = ("answer", "gold", "final_answer", "target")
IDS = ("id", "unique_id")
FAMILIES = ("family", "subject")
# In any case, and with "_" for spaces and dashes. These say more than the names above, or say it of other layouts.
MORE_TEXTS = ("question_stem", "ctx", "messages", "conversations")
LEADS = (("body", " "), ("passage", "\n\n"))
NUMBERS = ("answer_number",)
KEYS = ("answerkey", "answer_key", "correct_option", "correct_choice")
CHOICE_KEYS = (*KEYS, "correct", "correct_answer", "answer_index", "answer_idx", "label", "cop")
MORE_GOLDS = ("ground_truth", "reward_model.ground_truth", "expected_answer", "correct_answer", "reference_answer")
MORE_IDS = ("custom_id", "record_id", "question_id", "questionid")
MORE_FAMILIES = ("type", "category", "subdomain")
OPTIONS = ("options", "choices", "endings")
COLUMNS = ("option_", "option", "choice_", "choice", "op")
WRONG = re.compile(r"(incorrect_answer|incorrect|distractor|wrong_answer)_?\d+")

_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}$]+)")
_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


class Row(NamedTuple):
    """A row of data.

    Attributes:
        value: what it holds; a table of fields, if the data is sound.
        where: file and line, for messages.
        name: the problem's id where the data has none.
    """

    value: Any
    where: str
    name: str


class Read(NamedTuple):
    """A problem, and the task its row speaks for: "choice", "number", "python", "maths", or "" where it has none."""

    problem: Problem
    task: str


def mapping(fields: Sequence[str]) -> dict[str, str]:
    """What ``--field ROLE=NAME`` says, by role; a name may be a path, as in reward_model.ground_truth.

    Raises:
        ConfigError: something else than that, or a role that there is not.
    """
    found = {}
    for given in fields:
        role, equals, name = (part.strip() for part in given.partition("="))
        if not equals or role not in ROLES:
            raise ConfigError(f"--field is {given!r}; give it as {'=NAME, '.join(ROLES)}=NAME, as in problem=question")
        found[role] = name
    return found


def read(row: Row, named: Mapping[str, str], seed: int) -> Read:
    """The problem of a row.

    Args:
        row: of a file or data set.
        named: what ``mapping`` gave.
        seed: decides, with the problem's id, the order of options where the data has the right one apart.

    Raises:
        DataError: the row cannot be read as a problem; the message says where it is.
    """
    if not isinstance(row.value, dict):
        raise DataError(f"{row.where} is not a JSON object; give one with a field problem")
    fields = _Fields(row, named)
    tested = {"test", "test_list"} & row.value.keys() and not {"problem", "answer"} & {*named}
    if tested and (program := from_row(row.value, row.where)) is not None:
        text, gold = program
        problem = Problem(fields.identifier(), _checked(text, row.where), gold, fields.family())
        return Read(problem, "python")
    text, reference = fields.text()
    identifier, family = fields.identifier(), fields.family()
    options, labels, wrong = fields.options()
    gold, key = fields.answer(bool(options or wrong), reference)
    if wrong and gold is not None:
        options = sorted([gold, *wrong], key=lambda one: _shuffled(seed, identifier, str(one)))
    elif key and not options:
        text, options, labels = find(text)
    if options:
        text, letter = _choice(row.where, text, (options, labels), gold)
        return Read(Problem(identifier, _checked(text, row.where), letter, family), "choice")
    if isinstance(gold, bool) and fields.any("passage"):
        gold = "yes" if gold else "no"  # as BoolQ asks
    answer = _written(gold, row.where)
    return Read(Problem(identifier, _checked(text, row.where), answer, family), _task(text, answer))


def _shuffled(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="replace")).hexdigest()


class _Fields:
    """A row's values by name: as written, else in any case, with "_" for spaces and dashes, else as a path."""

    def __init__(self, row: Row, named: Mapping[str, str]) -> None:
        self.row, self.named = row, named
        value = row.value
        if isinstance(body := value.get("body"), dict):  # a request of OpenAI's batches
            value = {**body, **{name: one for name, one in value.items() if name != "body"}}
        if isinstance(stem := value.get("question"), dict) and "stem" in stem:
            value = {**value, **stem, "question": stem["stem"]}
        # What tables keep for an empty cell is nothing.
        self.value = {
            str(name): None if isinstance(one, float) and math.isnan(one) else one for name, one in value.items()
        }
        self.folded: dict[str, Any] = {}
        for name, one in self.value.items():
            self.folded.setdefault(_folded(name), one)
        batch = isinstance(row.value.get("body"), dict)
        self.plain = "problem" not in named and not batch and isinstance(self.exact(*TEXTS), str)

    def exact(self, *names: str) -> Any:
        """The first of these that there is, spelled so; None if there is none."""
        return next((self.value[name] for name in names if self.value.get(name) is not None), None)

    def any(self, *names: str) -> Any:
        """The first of these that there is, in any case or along a path; None if there is none."""
        return next((one for name in names if (one := self.path(name)) is not None), None)

    def path(self, name: str) -> Any:
        """The value of a field, or within it along dots; None if there is none."""
        if _folded(name) in self.folded or "." not in name:
            return self.folded.get(_folded(name))
        here: Any = self.folded
        for part in map(_folded, name.split(".")):
            inner = here.items() if isinstance(here, dict) else ()
            here = next((value for one, value in inner if _folded(str(one)) == part), None)
        return here

    def given(self, role: str) -> Any:
        """The value of the field that ``--field`` names for a role."""
        name = self.named[role]
        if not name or name in self.value:
            return self.value.get(name)
        if not {_folded(name), _folded(name.partition(".")[0])} & {*self.folded}:
            raise DataError(f"{self.row.where} has no field {name!r}, which --field {role}={name} names; {self.told()}")
        return self.path(name)

    def told(self) -> str:
        """The names of the fields, for messages."""
        names = ", ".join(_short(name, "") for name in list(self.value)[:20])
        return f"its fields are {names}" if names else "it has no fields"

    def text(self) -> tuple[str, str | None]:
        """What is asked, and in a chat the assistant's reply to it."""
        if "problem" in self.named:
            found = self.given("problem")
        elif (found := self.exact(*TEXTS)) is None:
            found = self.any(*TEXTS, *MORE_TEXTS)
        reference = None
        if isinstance(found, list):
            found, reference = _chat(found)
        if not isinstance(found, str) or not found.strip():
            raise DataError(
                f"{self.row.where} has no text in a field problem (or {', '.join(TEXTS[1:])}); {self.told()}; say "
                "which it is with --field problem=NAME"
            )
        for name, between in LEADS if "problem" not in self.named else ():  # the question alone says too little
            if isinstance(lead := self.folded.get(name), str) and lead.strip():
                found = lead.strip() + between + found
        return found, reference

    def identifier(self) -> str:
        if "id" in self.named:
            found = self.given("id")
        else:
            found = next((self.value[name] for name in IDS if name in self.value), self.row.name)
            if not self.plain and found == self.row.name:
                found = next((one for one in map(self.path, (*IDS, *MORE_IDS)) if one is not None), found)
        if not isinstance(found, str | int) or not str(found) or len(str(found)) > 500:
            raise DataError(f"{self.row.where}: the id must be a string of 1 to 500 characters or a number")
        return str(found)

    def family(self) -> str | None:
        if "family" in self.named:
            found = self.given("family")
        elif (found := self.exact(*FAMILIES)) is None:
            mathematics = "level" in self.value and "solution" in self.value  # MATH as it was published
            found = None if self.plain and not mathematics else self.any(*FAMILIES, *MORE_FAMILIES)
        return None if found is None else str(found)

    def options(self) -> tuple[list[Any], list[str], list[str]]:
        """Options in order, their labels where they have any, and wrong ones where the right one stands apart."""
        if "options" in self.named:
            return (*options_of(self.given("options")), [])
        found, labels = options_of(self.any(*OPTIONS))
        if found:
            return found, labels, []
        for prefix in COLUMNS:
            for names in (letters(MOST).lower(), "123456789"):
                if column := self._columns([f"{prefix}{name}" for name in names], self.folded):
                    return column, [name.upper() for name in names[: len(column)]], []
        column = self._columns([*letters(MOST)], self.value)
        if column and letter_of(self.answer(True, None)[0], column, [str(one) for one in column], []):
            return column, [], []
        wrong = [str(self.folded[name]) for name in sorted(self.folded) if WRONG.fullmatch(name) and self.folded[name]]
        return [], [], wrong

    @staticmethod
    def _columns(names: list[str], values: Mapping[str, Any]) -> list[Any]:
        gap = next((place for place, name in enumerate(names) if values.get(name) is None), len(names))
        return [values[name] for name in names[:gap]] if gap >= 2 else []

    def answer(self, choice: bool, reference: str | None) -> tuple[Any, bool]:
        """The reference answer as its data has it, None where there is none; and whether it names an option."""
        if "answer" in self.named:
            return self.given("answer"), choice
        if (found := self.any(*NUMBERS)) is not None and not choice:
            return found, False
        if (found := self.exact(*GOLDS)) is None:
            found = self.any(*GOLDS)
        if found is None and (key := self.any(*(CHOICE_KEYS if choice else KEYS))) is not None:
            return key, True
        if found is None:
            found = self.any(*MORE_GOLDS)
        if isinstance(found, str) and found.strip() in ("proof", "notfound"):  # what NuminaMath says of no answer
            return None, False
        if found is None:
            found = reference
        if found is None and isinstance(solution := self.any("solution"), str):
            last = _final(solution)
            found = last if last != solution or not re.search(r"\s", last.strip()) else None  # a text is no answer
        return found, False


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _task(text: str, gold: str | None) -> str:
    found = find(text)
    if found.options and (gold is None or letter_of(gold, found.options, found.options, found.labels)):
        return "choice"
    return "" if gold is None else "number" if _NUMBER.fullmatch(gold.strip()) else "maths"


# -- what a value means ------------------------------------------------------------------------------------------------


def _choice(where: str, text: str, found: tuple[list[Any], list[str]], gold: Any) -> tuple[str, str | None]:
    """The problem's text with its options, and the letter of the right one."""
    given, labels = found
    if not 2 <= len(given) <= MOST:
        raise DataError(f"{where} has {len(given)} options; a multiple-choice problem has 2 to {MOST}")
    options = [" ".join(str(one).split()) for one in given]
    unlabelled = split("\n".join(options))[1]
    if len(unlabelled) == len(options):  # as in "A)21": letters are ours to write
        options = unlabelled
    question, inside = split(text)
    text = with_options(question if inside == options else text, options)
    gold = gold[0] if isinstance(gold, list) and len(gold) == 1 else gold
    if gold is None or gold in ("", -1):  # as test sets hide it
        return text, None
    letter = letter_of(gold, given, options, labels)
    if letter is None:
        raise DataError(
            f"{where}: the answer {_short(gold)} is none of the {len(options)} options, neither by letter, number nor "
            "text; say which field it is with --field answer=NAME, or --field options= if those are no options"
        )
    return text, letter


def _chat(messages: list[Any]) -> tuple[str | None, str | None]:
    """The last message of the user, and the assistant's after it."""
    turns = [
        (str(one.get("role") or one.get("from")), _content(one.get("content", one.get("value"))))
        for one in messages
        if isinstance(one, dict)
    ]
    last = max((place for place, (role, _) in enumerate(turns) if role in ("user", "human")), default=None)
    if last is None:
        return None, None
    replies = [text for role, text in turns[last + 1 :] if role in ("assistant", "gpt", "model")]
    return turns[last][1], replies[0] if replies else None


def _content(value: Any) -> str | None:
    if isinstance(value, list):
        texts = [one.get("text") for one in value if isinstance(one, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return value if isinstance(value, str) else None


def _written(gold: Any, where: str) -> str | None:
    """A reference answer as a text."""
    if isinstance(gold, list):
        if not all(isinstance(one, str | int | float) for one in gold):
            raise DataError(f"{where}: the answer is a list of something else than strings and numbers")
        parts = [part for one in gold if (part := _written(one, where)) is not None]
        plain = len(parts) == 1 or not any("," in part for part in parts)
        return (", ".join(parts) if plain else json.dumps(parts, ensure_ascii=False)) if parts else None
    if gold is not None and not isinstance(gold, str | int | float):
        raise DataError(f"{where}: the answer must be a string, a number or a list of them, not {type(gold).__name__}")
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)  # whole numbers are written as such: some sets keep them as floats
    return None if gold is None else _final(gold) if isinstance(gold, str) else str(gold)


def _final(text: str) -> str:
    """The answer at the end of a worked solution, boxed or after "#### "; the text itself if it has neither."""
    if "\\boxed" in text or "\\fbox" in text:
        from tacit.answers.extraction import extract  # which commands that read no data do without

        return extract(_BARE_BOX.sub(r"\\boxed{\1}", text)) or text
    line = text.rstrip().rpartition("\n")[2]
    return line.rpartition("####")[2].strip() or text if "####" in line else text


def _checked(text: str, where: str) -> str:
    """``text``, if a problem may be that.

    Raises:
        DataError: it is too long, or no text.
    """
    if len(text) > LONGEST:
        raise DataError(f"{where}: the problem has {len(text):,} characters; at most {LONGEST:,} are read")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: the problem holds a NUL or half a surrogate pair, which is no text; remove it")
    return text


def _short(value: Any, quote: str = "'") -> str:
    """A value for a message."""
    text = " ".join(str(value).split())
    return f"{quote}{text if len(text) <= 60 else text[:57] + '...'}{quote}"
