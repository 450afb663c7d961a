"""What a value of a row means: options, the right one among them, a chat, a reference answer, a problem's text.

Builds on errors, answers (a boxed answer), problem and options. Which field a value is from says fields.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from tacit.errors import DataError
from tacit.problem import LONGEST
from tacit.tasks.options import MOST, letters, split, with_options

_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}$]+)")
_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:]+\s*(.*))?", re.DOTALL)


def choice(where: str, text: str, found: tuple[list[Any], list[str]], gold: Any) -> tuple[str, str | None]:
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
            f"{where}: the answer {short(gold)} is none of the {len(options)} options, neither by letter, number nor "
            "text; say which field it is with --field answer=NAME, or --field options= if those are no options"
        )
    return text, letter


def letter_of(gold: Any, given: list[Any], options: list[str], labels: list[str]) -> str | None:
    """The letter of the right option, however the data names it."""
    names = letters(len(options))
    text = " ".join(str(gold).split())
    if text in (labels or names):
        return names[[*(labels or names)].index(text)]
    numbered = any(label.isdigit() for label in labels)  # then a number is a label or nothing
    if isinstance(gold, int | float) and not isinstance(gold, bool) and gold not in given:
        return names[int(gold)] if gold in range(len(names)) and not numbered else None  # counted from 0
    same = [place for place, one in enumerate(options) if " ".join(one.split()).casefold() == text.casefold()]
    if same:
        return names[same[0]]
    said = _LETTER.fullmatch(text)  # "(C)", "C." or "C) the option's text"
    if said and (letter := said[1].upper()) in names:
        rest = (said[2] or "").casefold()
        return letter if rest in ("", options[names.index(letter)].casefold()) else None
    return names[int(text)] if text in map(str, range(len(names))) and not numbered else None


def chat(messages: list[Any]) -> tuple[str | None, str | None]:
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


def options_of(value: Any, where: str) -> tuple[list[Any], list[str]]:
    """Options and their labels, in any form that data has them; ([], []) where it holds something else."""
    if isinstance(value, str) and value.strip():
        value = split(value)[1] if (found := _list(value)) is None else found
        if value == []:
            return [], []
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list):
        labels = [str(one) for one in value.get("label") or []]
        return texts, labels if len(labels) == len(texts) else []
    if isinstance(value, dict):
        names = "".join(str(name).upper() for name in value)
        return ([*value.values()], [*names]) if len(names) >= 2 and letters(MOST).startswith(names) else ([], [])
    if not isinstance(value, list):
        return [], []
    value = [one for one in value if one is not None]
    if value and all(isinstance(one, dict) and "text" in one for one in value):
        labels = [str(one["label"]) for one in value if one.get("label") is not None]
        return [one["text"] for one in value], labels if len(labels) == len(value) else []
    return (value, []) if all(isinstance(one, str | int | float) for one in value) else ([], [])


def _list(text: str) -> Any:
    """A list that a table's cell holds as JSON or Python writes it; None if it is none."""
    if text.lstrip()[:1] in ("[", "{"):
        for reader in (json.loads, ast.literal_eval):
            try:
                return reader(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return None


def written(gold: Any, where: str) -> str | None:
    """A reference answer as a text."""
    if isinstance(gold, list):
        if not all(isinstance(one, str | int | float) for one in gold):
            raise DataError(f"{where}: the answer is a list of something else than strings and numbers")
        parts = [part for one in gold if (part := written(one, where)) is not None]
        plain = len(parts) == 1 or not any("," in part for part in parts)
        return (", ".join(parts) if plain else json.dumps(parts, ensure_ascii=False)) if parts else None
    if gold is not None and not isinstance(gold, str | int | float):
        raise DataError(f"{where}: the answer must be a string, a number or a list of them, not {type(gold).__name__}")
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)  # whole numbers are written as such: some sets keep them as floats
    return None if gold is None else final(gold) if isinstance(gold, str) else str(gold)


def final(text: str) -> str:
    """The answer at the end of a worked solution, boxed or after "#### "; the text itself if it has neither."""
    if "\\boxed" in text or "\\fbox" in text:
        from tacit.answers.vote import extract  # which commands that read no data do without

        return extract(_BARE_BOX.sub(r"\\boxed{\1}", text)) or text
    line = text.rstrip().rpartition("\n")[2]
    return line.rpartition("####")[2].strip() or text if "####" in line else text


def checked(text: str, where: str) -> str:
    """``text``, if a problem may be that.

    Raises:
        DataError: it is too long, or no text.
    """
    if len(text) > LONGEST:
        raise DataError(f"{where}: the problem has {len(text):,} characters; at most {LONGEST:,} are read")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: the problem holds a NUL or half a surrogate pair, which is no text; remove it")
    return text


def short(value: Any, quote: str = "'") -> str:
    """A value for a message."""
    text = " ".join(str(value).split())
    return f"{quote}{text if len(text) <= 60 else text[:57] + '...'}{quote}"
