"""One canonical string per way of writing an answer: ``normalise``. Cheap, pure string work, no judgement of values.

Builds on nothing. Removes what is only typesetting (spacing, ``$``, ``\\left``, ``\\text``, ``\\dfrac``, markdown),
what is only convention (thousands separators, leading zeros, a final full stop, "Option (C)", the case of words) and
the two units that answers leave out at will: degrees and percent.

Rules run until nothing changes, so that normalising twice changes nothing; in the rare text that never settles, and
beyond ``MAX_LENGTH``, only white space is made canonical. Every rule is linear in the length of the text, or nearly so
on the little that ``MAX_LENGTH`` lets through.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 2000
"""Characters; a longer answer is compared as it stands."""
_ROUNDS = 8

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "＋": "+", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ",
        "÷": "/", "π": "\\pi ", "∞": "\\infty ", "≤": "\\leq ", "≥": "\\geq ", "≠": "\\neq ", "±": "\\pm ",
        "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "√": "\\sqrt ", "°": "^\\circ ", "²": "^2",
        "³": "^3", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "％": "%", "（": "(", "）": ")",
        "，": ",", "：": ":", "’": "'", "‘": "'", "“": '"', "”": '"', "\u200b": None, "\ufeff": None, "\0": " ",
    }
)  # fmt: skip

# TeX commands by what they become; a command that is not listed stays.
_COMMANDS = {
    **dict.fromkeys(("left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "bigg", "Bigg"), ""),
    **dict.fromkeys(("displaystyle", "textstyle", "limits", "quad", "qquad", "thinspace", "hspace", "nobreak"), " "),
    **dict.fromkeys((",", ";", ":", ">", " ", "/"), " "),
    **dict.fromkeys(("!", "(", ")", "[", "]", "$"), ""),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("mbox", "textbf", "textit", "textrm", "textsf", "texttt", "mathrm", "mathbf", "mathit"), "\\text"),
    "fbox": "\\boxed", "le": "\\leq", "leqslant": "\\leq", "ge": "\\geq", "geqslant": "\\geq", "ne": "\\neq",
    "lbrace": "\\{", "rbrace": "\\}", "varnothing": "\\emptyset", "%": "%", "degree": "^\\circ", "&": "&", "_": "_",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+|.)")
_THIN_SPACE_IN_NUMBER = re.compile(r"(?<=[0-9])(?:\\[,! ]|\{,\})[ ]?(?=[0-9]{3}(?![0-9]))")
_NEGATIVE_SPACE = re.compile(r"\\! ?")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_BARE_PI = re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])")
_BARE_INFINITY = re.compile(r"(?<![\\a-zA-Z])(?:infinity|infty)(?![a-zA-Z])")
_TRIGONOMETRY = re.compile(r"sin|cos|tan|cot|sec|csc")
_DEGREES = re.compile(r"(?<=[0-9})]) ?(?:\^ ?(?:\\circ(?![a-zA-Z])|\{ ?\\circ ?\})|degrees?(?= ?(?:$|[,)\]}])))")
_PERCENT = re.compile(r"(?<=[0-9})]) ?(?:%|percent(?:age)?)(?= ?(?:$|[,)\]}]))")
_AND = re.compile(r"(?:, ?| )(?:and|or) ")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
_NEEDLESS_SPACE = re.compile(r"(?<!\w) | (?!\w)|(?<=[0-9]) (?=[a-zA-Z](?![a-zA-Z]))")
_SPACE_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+) (?=[0-9])")
_COMMA = re.compile(r",(?! )")
_NUMBER = re.compile(r"([+-]?)0*([0-9]*)(?:\.([0-9]*))?")
_CHOICE = re.compile(r"(?:(?i:option|choice) )?(?:\(([A-Za-e])\)|([A-Z])\)|\[([A-Z])\])|(?i:option|choice) ([A-Za-z])")
_SMALL_INTEGER = re.compile(r"-?[1-9][0-9]{0,17}|0")
_SCRIPT_ARGUMENT = re.compile(r"\\[a-zA-Z]+|[0-9a-zA-Z]")


def normalise(answer: str) -> str:
    """The canonical string of an answer; "" when nothing is left."""
    if _SMALL_INTEGER.fullmatch(answer):  # by far the commonest, and already canonical
        return answer
    if len(answer) <= 4 * MAX_LENGTH:
        return _normalise(answer)
    return _collapse(answer)


def _collapse(text: str) -> str:
    return " ".join(text.translate(_CHARACTERS).split())


@lru_cache(maxsize=8192)
def _normalise(answer: str) -> str:
    plain = text = _collapse(answer)
    for _ in range(_ROUNDS):
        if len(text) > MAX_LENGTH:
            return plain
        before, text = text, _rewrite(text)
        if text == before:
            return text
    return plain


def _rewrite(text: str) -> str:
    """One round of all rules."""
    text = _typesetting(text)
    text = _edges(text)
    text = _units_and_words(text)
    text = _numbers(text)
    return _cased(" ".join(text.split()))


def _typesetting(text: str) -> str:
    if "\\" in text or "{,}" in text:
        text = _THIN_SPACE_IN_NUMBER.sub("", text)
        text = _NEGATIVE_SPACE.sub("", text)
        text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0]), text)
        text = _TEXT.sub(r" \1 ", text).strip()
        text = _inside_box(text)
    text = text.replace("$", "").replace("{,}", ",").replace("**", "^" if text.strip("*`") == text else "**")
    if "\\frac" in text or "\\sqrt" in text:
        text = _braced_arguments(text)
    return text


def _inside_box(text: str) -> str:
    if text.startswith("\\boxed{") and matching_braces(text).get(len("\\boxed")) == len(text) - 1:
        return text[len("\\boxed{") : -1]
    return text


def matching_braces(text: str) -> dict[int, int]:
    """Where each balanced, unescaped opening brace closes."""
    stack: list[int] = []
    match: dict[int, int] = {}
    escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "{":
            stack.append(position)
        elif char == "}" and stack:
            match[stack.pop()] = position
    return match


def _braced_arguments(text: str) -> str:
    """``\\frac12``, ``\\frac 59``, ``\\frac{1}2`` and ``\\sqrt2`` with all their braces."""
    closes = matching_braces(text)
    inserts: dict[int, str] = {}  # position -> braces to put before it
    for match in re.finditer(r"\\(frac|sqrt)(?![a-zA-Z])", text):
        position = match.end()
        for _ in range(2 if match[1] == "frac" else 1):
            while position < len(text) and text[position] == " ":
                position += 1
            if position in closes:
                position = closes[position] + 1
                continue
            argument = _SCRIPT_ARGUMENT.match(text, position)
            if argument is None or argument[0] in ("\\frac", "\\sqrt"):
                break  # \sqrt[3]{2} among others
            inserts[position] = inserts.get(position, "") + "{"
            position = argument.end()
            inserts[position] = "}" + inserts.get(position, "")
    if not inserts:
        return text
    pieces, last = [], 0
    for position in sorted(inserts):
        pieces += [text[last:position], inserts[position]]
        last = position
    return "".join([*pieces, text[last:]])


def _edges(text: str) -> str:
    """Without emphasis, quotes and punctuation around the answer."""
    text = text.strip(" *`")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text.rstrip(" .,;:").lstrip(" :=,;") if not text.endswith("\\") else text


def _units_and_words(text: str) -> str:
    text = _BARE_PI.sub(r"\\pi ", text)
    text = _BARE_INFINITY.sub(r"\\infty ", text)
    text = text.replace("\\{\\}", "\\emptyset")
    if not _TRIGONOMETRY.search(text):  # the cosine of 30 degrees is not that of 30
        text = _DEGREES.sub("", text)
    text = _PERCENT.sub("", text)
    return _AND.sub(", ", text)


def _numbers(text: str) -> str:
    if "," in text and not any(bracket in text for bracket in ("(", "[", "\\{")):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _NEEDLESS_SPACE.sub("", " ".join(text.split()))
    text = _SPACE_AFTER_COMMAND.sub(r"\1", text)
    text = _COMMA.sub(", ", text)
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3] or "0" in text):
        return text
    decimals = (match[3] or "").rstrip("0")
    value = (match[2] or "0") + (f".{decimals}" if decimals else "")
    return f"-{value}" if match[1] == "-" and value != "0" else value


def _cased(text: str) -> str:
    choice = _CHOICE.fullmatch(text)
    if choice is not None:
        return str(next(letter for letter in choice.groups() if letter)).upper()
    letters = text.replace(" ", "").replace("'", "").replace("-", "").replace(".", "").replace(",", "")
    return text.lower() if len(letters) > 1 and letters.isalpha() else text
