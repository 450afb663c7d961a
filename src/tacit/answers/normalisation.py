"""One canonical string per way of writing an answer: ``normalise``. Cheap, pure string work, no judgement of values.

Builds on characters, conventions and number_words. Removes what is only typesetting (spacing, ``$``, ``\\left``,
``\\text``, ``\\dfrac``, markdown) or convention (thousands separators, leading zeros, a final full stop, "Option (C)",
the case of words). Money, percent and degrees keep one sign of their unit, which units reads; numbers in words become
figures, repeating decimals fractions, bare functions (``sqrt(2)``) commands.

Rules run until nothing changes, so that normalising twice changes nothing; in the rare text that never settles, and
beyond ``MAX_LENGTH``, only white space is made canonical. Every rule is linear in the length of the text, or nearly so
on the little that ``MAX_LENGTH`` lets through.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tacit.answers import conventions
from tacit.answers.characters import plain
from tacit.answers.number_words import in_figures

MAX_LENGTH = 2000
"""Characters; a longer answer is compared as it stands."""
_ROUNDS = 8

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
    **dict.fromkeys(("dots", "ldots", "cdots", "dotsc"), "..."), "textdegree": "^\\circ", "operatorname": "\\text",
    "euro": "€", "pounds": "£", "yen": "¥", "div": "/",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+|.)")
_THIN_SPACE_IN_NUMBER = re.compile(r"(?<=[0-9])(?:\\[,! ]|\{,\})[ ]?(?=[0-9]{3}(?![0-9]))")
_NEGATIVE_SPACE = re.compile(r"\\! ?")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_BARE_PI = re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])")
_BARE_INFINITY = re.compile(r"(?<![\\a-zA-Z])(?:infinity|infty|inf|oo)(?![a-zA-Z])")
_PLUS_INFINITY = re.compile(r"(?:(?<=^)|(?<=[,(\[]))( ?)\+ ?(?=\\infty)")
_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|abs)"
    r"(?= ?[({\\0-9^_]| ?[a-zA-Z](?![a-zA-Z]))"
)
_BARE_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt ?([0-9]+(?:\.[0-9]+)?)")
_BARE_BASE = re.compile(r"(?<![\\a-zA-Z])log_?(2|10)(?= ?\()")
_NEGATIVE_POWER = re.compile(r"\^ ?(-[0-9]+)(?![0-9.])")  # TeX would raise the sign alone
_IMAGINARY = re.compile(r"(?<![a-zA-Z\\])I(?![a-zA-Z])")
_COMPLEX = re.compile(r"(?=.*[0-9]|[-+]I)(?:[-+*/()0-9.^I {}]|\\(?:sqrt|frac|pi|cdot|times)(?![a-zA-Z]))+")
_UNION = re.compile(r"(?<=[)\]}]) ?(?:U|union) ?(?=[(\[{\\])")
_OPEN_INTERVAL = re.compile(r"([\[\]])([^\[\](){}]+,[^\[\](){}]+)([\[\]])")
_ABOUT = re.compile(r"(?:\\approx|\\sim|approximately|approx\.?|about|roughly|~) ?(?=[-0-9.\\])", re.IGNORECASE)

_DEGREES = re.compile(r"(?<=[0-9})]) ?(?:\^ ?(?:\\circ(?![a-zA-Z])|\{ ?\\circ ?\})|degrees?(?= ?(?:$|[,)\]}])))")
_TEMPERATURE = re.compile(
    r"(?<=[0-9})]) ?(?:degrees? |\^ ?\\circ ?)(c|f)(?:elsius|entigrade|ahrenheit)?(?![a-z])", re.IGNORECASE
)
_PERCENT = re.compile(r"(?<=[0-9})]) ?(?:%|per ?cent(?![a-z])|percentage(?= ?(?:$|[,)\]}])))")
_MIXED = re.compile(r"-?[0-9]+ and (?:[0-9]+/[0-9]+|\\frac\{[0-9]+\}\{[0-9]+\})(?![-+*/=,0-9]| and| or)")
_AND = re.compile(r"(?:, ?| )(?:and|or) ")
_NEEDLESS_SPACE = re.compile(r"(?<!\w) | (?!\w)|(?<=[0-9]) (?=[a-zA-Z](?![a-zA-Z]))")
_SPACE_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+) (?=[0-9])")
_COMMA = re.compile(r",(?! )")
_NUMBER = re.compile(r"([+-]?)0*([0-9]*)(?:\.([0-9]*))?")
_CHOICE = re.compile(r"(?:(?i:option|choice) )?(?:\(([A-Za-e])\)|([A-Z])\)|\[([A-Z])\])|(?i:option|choice) ([A-Za-z])")
_LETTERED = re.compile(r"[A-H]\.(?=[^\W\d_]{2})")
_SMALL_INTEGER = re.compile(r"-?[1-9][0-9]{0,17}|0")
_SCRIPT_ARGUMENT = re.compile(r"\\[a-zA-Z]+|[0-9a-zA-Z]")


def normalise(answer: str) -> str:
    """The canonical string of an answer; "" when nothing is left."""
    if _SMALL_INTEGER.fullmatch(answer):  # by far the commonest, and already canonical
        return answer
    if len(answer) <= 4 * MAX_LENGTH:
        return _normalise(answer)
    return " ".join(answer.split())


@lru_cache(maxsize=8192)
def _normalise(answer: str) -> str:
    plainly = text = " ".join(plain(answer).split())
    for _ in range(_ROUNDS):
        if len(text) > MAX_LENGTH:
            return plainly
        before, text = text, _rewrite(text)
        if text == before:
            return text
    return plainly


def _rewrite(text: str) -> str:
    """One round of all rules."""
    text = _typesetting(text)
    text = _edges(text)
    text = _units_and_words(text)
    text = _numbers(text)
    return _cased(" ".join(text.split()))


def _typesetting(text: str) -> str:
    if "\\" in text or "{,}" in text:
        text = _NEGATIVE_SPACE.sub("", _THIN_SPACE_IN_NUMBER.sub("", text))
        text = conventions.money(text.replace("\\$", "¤"))
        text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0]), text)
        text = _TEXT.sub(r" \1 ", text).strip()
        text = _inside_box(text)
    text = conventions.money(text).replace("~", " ").replace("{,}", ",").replace("\\mathbb R", "\\mathbb{R}")
    text = text.replace("**", "^" if text.strip("*`") == text else "**")
    text = _functions(_NEGATIVE_POWER.sub(r"^{\1}", text))
    if "\\frac" in text or "\\sqrt" in text:
        text = _braced_arguments(text)
    return text


def _functions(text: str) -> str:
    """``sqrt(2)``, ``abs(x)`` and ``sin x`` in LaTeX; Sympy's ``I`` as i."""
    text = _FUNCTION.sub(r"\\\1 ", _BARE_BASE.sub(r"\\log_{\1}", _BARE_ROOT.sub(r"\\sqrt{\1}", text)))
    if "I" in text and _COMPLEX.fullmatch(text):
        text = _IMAGINARY.sub("i", text).replace("*i", "i")
    pieces, start = [], 0
    for match in re.finditer(r"\\(sqrt|abs) ?\(", text):
        end = _closing(text, match.end() - 1)
        inside = text[match.end() : end]
        if match.start() >= start and end > 0 and "\\sqrt" not in inside and "\\abs" not in inside:  # inner ones first
            opening, close = ("\\sqrt{", "}") if match[1] == "sqrt" else ("|", "|")
            pieces += [text[start : match.start()], opening, inside, close]
            start = end + 1
    return "".join([*pieces, text[start:]])


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return -1


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
    text = conventions.repeating(text).strip(" *`")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text.rstrip(" .,;:").lstrip(" :=,;") if not text.endswith("\\") else text


def _units_and_words(text: str) -> str:
    text = _BARE_PI.sub(r"\\pi ", text)
    text = _PLUS_INFINITY.sub(r"\1", _BARE_INFINITY.sub(r"\\infty ", text))
    text = _UNION.sub(r"\\cup ", text)
    text = _OPEN_INTERVAL.sub(_bracketed, text) if text.startswith("]") or text.endswith("[") else text
    text = _TEMPERATURE.sub(lambda match: f"^\\circ {match[1].upper()}", _DEGREES.sub(r"^\\circ", text))
    text = _PERCENT.sub("%", text)
    text = in_figures(_ABOUT.sub("", text, count=1) if _ABOUT.match(text) else text)
    return text if _MIXED.match(text) else _AND.sub(", ", text)


def _bracketed(match: re.Match[str]) -> str:
    """]1, 2[ is (1, 2)."""
    return f"{'[' if match[1] == '[' else '('}{match[2]}{']' if match[3] == ']' else ')'}"


def _numbers(text: str) -> str:
    text = conventions.thousands(text)
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
    if _LETTERED.match(text):  # B. Paris
        return text
    letters = text.replace(" ", "").replace("'", "").replace("-", "").replace(".", "").replace(",", "")
    text = text.lower() if len(letters) > 1 and letters.isalpha() else text
    return conventions.SAYINGS.get(text, text)
