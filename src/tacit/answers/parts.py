"""How an answer is put together: its name, and the elements of sets, tuples, intervals, unions and matrices.

Builds on normalisation and works on normalised strings.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tacit.answers.normalisation import normalise

_NAMED = re.compile(
    r"(\\?[a-zA-Z]+(?:_(?:[0-9a-zA-Z]|\{[0-9a-zA-Z]+\}))?(?:\([a-zA-Z](?:, [a-zA-Z])*\))?|\([a-z](?:, [a-z])+\))"
    r"(=|\\in(?![a-zA-Z]) ?)(?!=)(.+)"
)
_LETTER_RUN = re.compile(r"\\?[a-zA-Z]+")
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}|[(\[]\\begin\{array\}\{[clr|]*\}(.*)\\end\{array\}[)\]]")
_CODE = re.compile(r"^[0-9a-zA-Z]*[a-zA-Z][0-9][0-9a-zA-Z]*$|[0-9]['\"]|;")
_ASSIGNMENT = re.compile(r"([a-zA-Z](?:_[0-9a-zA-Z])?)=([^=<>]+)")

# Words that are mathematics; anything else of two letters or more between spaces is language.
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt max min gcd lcm mod pi inf det".split()
)


def name(text: str) -> tuple[str, str | None]:
    """Value and name of ``x = 5``, ``f(x) = ...`` and ``x \\in ...``; (text, None) of anything else."""
    match = _NAMED.fullmatch(text)
    if match is None or top_level(match[3], "=<>"):
        return text, None
    if top_level(match[3], ",") and "=" in match[3]:
        return text, None  # x=1, y=2
    return match[3].strip(), match[1]


def top_level(text: str, wanted: str) -> list[int]:
    """Positions of the characters in ``wanted`` outside all brackets."""
    depth, found = 0, []
    for position, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and char in wanted:
            found.append(position)
    return found


def _split(text: str, separator: str) -> list[str]:
    parts, start = [], 0
    for position in top_level(text, separator):
        parts.append(text[start:position].strip())
        start = position + 1
    return [*parts, text[start:].strip()]


@lru_cache(maxsize=4096)
def take_apart(text: str) -> tuple[str, list[str]]:
    """Kind and elements. Whatever is no tuple, interval, union or matrix is a set, of one element if need be."""
    matrix = _MATRIX.fullmatch(text)
    inner = (matrix[2] or matrix[3] or "") if matrix is not None else None
    rows: list[list[str]] = []
    if inner is not None and "\\begin" not in inner:
        rows = [_split(row, "&") for row in re.split(r"\\\\", inner.strip()) if row.strip()]
    elif text.startswith("[[") and _enclosed(text):
        lists = _split(text[1:-1], ",")
        if all(row.startswith("[") and row.endswith("]") and _enclosed(row) for row in lists):
            rows = [_split(row[1:-1], ",") for row in lists]
    if rows:
        return f"matrix {[len(row) for row in rows]}", [part for row in rows for part in row]
    if "\\cup" in text:
        pieces = re.split(r"\\cup(?![a-zA-Z]) ?", text)
        if len(pieces) > 1 and all(_enclosed(piece) for piece in pieces):
            return "union", pieces
    if text[0] in "([" and text[-1] in ")]" and _enclosed(text):
        parts = _split(text[1:-1], ",")
        if len(parts) > 1:
            return text[0] + text[-1], parts
    ratio = _split(text, ":")
    if len(ratio) > 1:
        return "ratio", ratio  # math-verify reads what is before the colon alone
    inside = _inside_braces(text)
    if inside != text and re.search(r"\\mid(?![a-zA-Z])|[:|]", inside):
        return "set", [text]  # set-builder notation
    elements = [form for part in _split(inside, ",") for form in _both_signs(part)] if inside else ["\\emptyset"]
    return "set", elements if inside == text else list(dict.fromkeys(elements))


def assignment(text: str) -> dict[str, str] | None:
    """``x=5, y=6`` as names and values; None of anything else, and where a name comes twice (that is a set)."""
    found = [_ASSIGNMENT.fullmatch(part) for part in _split(text, ",")] if text.count("=") > 1 else []
    named = {match[1]: match[2] for match in found if match is not None}
    return named if len(named) == len(found) > 1 else None


def _inside_braces(text: str) -> str:
    if text.startswith("\\{") and text.endswith("\\}") and _enclosed(text[1:-2] + "}"):
        return text[2:-2].strip()
    return text[1:-1].strip() if text[0] == "{" and text[-1] == "}" and _enclosed(text) else text


def _enclosed(text: str) -> bool:
    """Whether the first bracket closes at the end (kinds of brackets may differ: intervals)."""
    depth = 0
    for position, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return position == len(text) - 1 and position > 0
    return False


def _both_signs(text: str) -> list[str]:
    """``1 \\pm 2`` is two elements."""
    if len(re.findall(r"\\pm(?![a-zA-Z])", text)) != 1:
        return [text]
    return [normalise(re.sub(r"\\pm(?![a-zA-Z]) ?", sign, text)) for sign in "+-"]


def wordy(text: str) -> bool:
    """Whether the text is language and not mathematics: letters only, a code (B12, 6'2, 1;2), or some word between
    spaces."""
    if _CODE.search(text):
        return True
    letters = text.replace(" ", "").replace("'", "").replace("-", "").replace(".", "")
    if letters.isalpha() and len(letters) > 1 and text not in _FUNCTIONS:
        return True
    for match in _LETTER_RUN.finditer(text):
        word, before, after = match[0], text[: match.start()][-1:], text[match.end() :][:1]
        alone = before in ("", " ") and after in ("", " ")
        if len(word) > 2 and not word.startswith("\\") and word.lower() not in _FUNCTIONS and alone:
            return True
    return False
