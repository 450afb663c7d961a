r"""An answer without what stands around it: marks, fillers, currency, sentences; and what is no answer at all.

Builds on cues. What gets here is a line or so of a response, never all of it.

    >>> tidy("**42** apples."), tidy("«8»"), tidy("$(1, 2)$ or $(2, 1)$"), tidy("€5.00")
    ('42 apples', '8', '(1, 2) or (2, 1)', '5.00')
    >>> valued("B) Paris"), valued("6 * 7 = 42"), valued("The total cost is $15"), tidy("5 (five)")
    ('B', '42', '15', '5')
"""

from __future__ import annotations

import re

from tacit.answers.cues import ENDINGS

_INSIDE = r"(?:[^$\n\\]|\\.)"
_MATHS = re.compile(
    r"\$\$(?!\s*\$)[^$]{1,2000}\$\$"
    rf"|(?<!\\)\$(?:(?! ){_INSIDE}{{0,999}}(?<!\s)\$(?!\d)| {_INSIDE}{{1,999}} \$)"
    r"|\\\((?:[^\\]|\\(?![()])){1,999}\\\)|\\\[(?:[^\\]|\\(?![\[\]])){1,2000}\\\]"
)
_DELIMITERS = {"\\(": 2, "\\[": 2, "$$": 2}
_BOLD = re.compile(r"(?<![\w)*])(\*\*|__)(?=[^\s*_])([^*\n]{0,999}?[^\s*])\1(?![A-Za-z0-9*])")
_STRAY_BOLD = re.compile(r"\*\*(?=\s|$)|(?<!\S)\*\*")
_QUOTES = "\"'“”‘’„‟«»‹›`"
_PAIRS = {
    "(": ")",
    "[": "]",
    "{": "}",
    "<": ">",
    "「": "」",
    "『": "』",
    "【": "】",
    "《": "》",
    "〈": "〉",
    "（": "）",
}
# Pictures, and what joins and varies them; never a degree sign or a card's suit alone.
_PICTURE = "[\\s\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0f\u200b-\u200f\u2060\ufeff]+"
_PICTURES = re.compile(rf"\A{_PICTURE}|{_PICTURE}\Z")
_CURRENCY = "$€£¥₹₽₩₫฿₪₺₴₦₱￥＄"
_MONEY = re.compile(rf"(?:US|CA|AU|NZ|HK|C|A|R)?\\?[{_CURRENCY}]\s?(?=[-−]?[\d.])|(?<=\d)\s?\\?[{_CURRENCY}](?!\w)")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?=$|[.]\d| [^\W\d]|[%°])")
_COMMA_SPACED = re.compile(r"\d{1,3}(?:, ?\d{3})*, 0\d\d(?:, ?\d{3})*(?![\d,])")
_HALF_DAY = re.compile(r"(?<=\d)\s?([ap])\. ?m\b\.?", re.IGNORECASE)
_GLOSS = re.compile(
    r"(?:(?<=[\d}%\]$]) \((?!mod\b|base\b)[^()]*[^\W\d_]{2,}|(?<=\w) \((?:it|because|since|which|this|the|not|or)\b)"
    r"[^()]*\)(?=\s|$)"
)
_BRACKETS = re.compile(r"[\[\](){}<>\s]+")
_TRAIL = re.compile(r"(?:\s*</[A-Za-z_]{1,20}>|\s+[-=]{2,20}){1,9}\s*$")
_FENCE = re.compile(r"```\w*\n?([\s\S]*?)\n?```")
_ENVIRONMENT = re.compile(
    r"\\begin\{(equation|aligned|align|gather|math|displaymath|center)(\*?)\}([\s\S]*)\\end\{\1\2\}"
)

_FILLER = re.compile(
    r"(?:(?:therefore|thus|then|simply|just|hence|equal to|given by|indeed|definitely|clearly|obviously|probably|likely"
    r"|certainly|actually|really|still|now|also|only|about|around|approximately|approx|roughly|nearly|almost|exactly"
    r"|precisely|close to|to be|(?:found|determined|calculated|estimated|going) to be|as follows|the following"
    r"|the (?:number|value|amount|option|choice)|a total of|of course|in fact|again"
    r"|donc|daher|somit|entonces|quindi|dunque|portanto|dus|więc|следовательно)\b\.?(?! of\b)"
    r"|(?:\\approx|\\colon)(?![a-zA-Z])|\.{2,3}|[:：,= \t…≈~≃→⇒|]|[*_]{1,3}(?=\s)){1,12}",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:(?:the|your|my|insert|final|correct|numeric(?:al)?|short|write|put|enter|fill in|some|in) |result|here|answer"
    r"|number|value|letter|option|choice|solution|expression|goes|is|blank|response|text|n/a|none given|nan|null"
    r"|tbd|todo|xx+|[\s_\-.?…:<>\[\](){}*/]|\\(?:[cl]?dots|square|quad|_|ldots|placeholder)"
    r"|[$](?:answer|letter|final_answer))*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i(?: am|['’]m)?|we|(?:it|this|that)(?: is|['’]s)?|the (?:answer|question|problem))?\s*"
    r"(?:sorry\b|unable to|can ?not\b|can['’]t|could ?n['’o]t|do(?:es)? ?n['’o]t (?:know|have)|don['’]t|apologi[sz]e|"
    r"unknown$|undetermined|not (?:sure|known|provided|given|available|enough|specified|able|possible to)|insufficient|"
    r"impossible to (?:determine|say|know|tell|answer)|(?:there is )?no (?:answer|idea|clue)|as an ai\b"
    r"|see (?:above|below)|(?:same )?as above)",
    re.IGNORECASE,
)
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|rm|it|sf)?|math(?:rm|bf|it|sf)|mbox|bf|rm)\b\s*\{([^{}]*)\}|\\(?:q?quad|[ ,;:!])|~"
)
_CHOICE = re.compile(
    r"(?:(?:option|choice) )?(?:\(([A-Ja-j])\)[.:]?\s*|([A-Ja-j])\)[.:]?\s*|([A-J])[.:]\s+(?!\w\.)"
    r"|([A-J])\s+[-–—]\s+(?=\w\w)|\[([A-J])\]\s+|([A-J]) (?=\())(?![,;&]|(?:and|or)\b)(?=\S)",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"(?<!\w)(?:\([a-j]\)|[a-j]\))(?=[\s,;.]|$)", re.IGNORECASE)
_SUM = r"(?:[\d\s.,$€£%(){}+\-−–*/×÷·^]|\\(?:times|cdot|div|[dt]?frac|sqrt)\b)*"
_WORKED = re.compile(rf"(?=[-−]?[$€£(\d\\]){_SUM}(?:={_SUM})*= *([-−]?[$€£]?\d.*)", re.DOTALL)
_SENTENCE = re.compile(
    r"[^\W\d_][^\\=]{1,120}?\s(?:is|are|was|were|equals|will be|would be|should be|has|have|had|costs?|gets?|makes?"
    r"|needs?|takes?|earns?|spent|sold|paid|left with)\s+"
    r"((?:(?:now|only|about|approximately|exactly|a total of|equal to)\s+)*)"
    r"([-−]?\\?[$€£]?\d[\d.,/]*(?:\.\d+)?%?|\$[^$]+\$)((?:\s+[^\W\d_]+)*)",
    re.IGNORECASE,
)
_UNIT_WORDS = 3


def spans(text: str) -> list[tuple[int, int]]:
    """Where mathematics between delimiters stands; ``$5 and $6`` is money."""
    return [match.span() for match in _MATHS.finditer(text)]


def filler(text: str) -> int:
    """How far words reach that lead to an answer without being of it: "therefore", "about"."""
    found = _FILLER.match(text)
    return found.end() if found else 0


def tidy(answer: str) -> str:
    """An answer without the marks around it; nothing of its own is touched."""
    if answer.isascii() and answer.isalnum():  # by far the commonest
        return answer
    answer = _HALF_DAY.sub(lambda half: f" {half[1].lower()}m", answer.strip())
    answer = _TRAIL.sub("", answer)
    fence = _FENCE.fullmatch(answer)
    answer = fence[1] if fence else answer
    pictured = answer
    answer = _PICTURES.sub("", answer)
    if not answer.strip(" .!*") or _BRACKETS.fullmatch(answer):
        return pictured.strip()
    for _ in range(6):
        before = answer
        answer = _edges(_undelimited(answer))
        if answer == before:
            break
    answer = _MONEY.sub("", answer)
    answer = _SPACED.sub(lambda number: re.sub(r"\s", "", number[0]), answer)
    if _COMMA_SPACED.fullmatch(answer):
        answer = answer.replace(", ", "").replace(",", "")
    answer = _GLOSS.sub("", answer)
    ending = ENDINGS.search(answer)
    return answer[: ending.start()] if ending and re.search(r"\d['’]?\s?$", answer[: ending.start()]) else answer


def _edges(answer: str) -> str:
    answer = answer.strip(" \t\r\n*`_")
    bare = answer.rstrip(".,;:!?。．！？،۔।")
    answer = answer if bare.endswith("\\") else bare.rstrip(" \t\r\n*`_")
    if answer[:1] in _QUOTES or answer[-1:] in _QUOTES:
        # The prime of f' and of 6' is no quote, unless one opens.
        answer = answer.strip(_QUOTES) if answer[:1] in _QUOTES else answer.rstrip('"“”»›`')
    for place, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        closer = answer[place : place + 1 or None]
        kinds = next((kinds for kinds in ("[]()", "{}") if closer and closer in kinds[1::2]), "")
        opened, closed = (sum(map(answer.count, kinds[first::2])) for first in (0, 1))
        if closed > opened and not answer.endswith("\\" + closer):
            answer = answer[rest]
    inside = answer[1:-1].strip()
    if (
        len(answer) > 2
        and _PAIRS.get(answer[0]) == answer[-1]
        and (
            answer[0] in "「『【《〈"
            or re.fullmatch(r"[-−]?\d[\d.]*", inside)
            or (answer[0] == "<" and "<" not in inside)
        )
    ):
        answer = inside
    if answer.startswith(("<<", ">>")):
        answer = answer.strip("<>")
    return answer


def _undelimited(answer: str) -> str:
    """Without dollar signs and the like around mathematics, and without emphasis."""
    answer = _BOLD.sub(r"\2", answer)
    if answer.count("**") == 1 and " ** " not in answer:
        answer = _STRAY_BOLD.sub("", answer)
    environment = _ENVIRONMENT.fullmatch(answer)
    if environment:
        answer = environment[3].replace("&", "").strip()
    pieces, last = [], 0
    for start, end in spans(answer):
        width = _DELIMITERS.get(answer[start : start + 2], 1)
        pieces += [answer[last:start], answer[start + width : end - width].strip()]
        last = end
    return "".join([*pieces, answer[last:]]) if pieces else answer


def plain(answer: str) -> str:
    r"""An answer without TeX's fonts and spaces: ``\textbf{(B)}\ 12`` is "(B) 12"."""
    return " ".join(_WRAPPER.sub(lambda match: match[1] if match[1] is not None else " ", answer).split())


def is_nothing(answer: str) -> bool:
    """Whether it is a placeholder ("[your answer]", "...", "N/A") or a refusal ("I cannot determine it")."""
    bare = plain(answer[:200]).strip("$*` \"'")
    if bare in ("/", "-", "*", "**") or _BRACKETS.fullmatch(bare):  # a sign, brackets of a puzzle
        return False
    return _NOTHING.fullmatch(bare) is not None or _REFUSAL.match(bare) is not None


def chosen(answer: str) -> str | None:
    """The letter of an option that is given with its text: "B) Paris", "(C) because", ``\\textbf{(B)}\\ 12``."""
    bare = plain(answer[:300])
    found = _CHOICE.match(bare)
    if found is None or found.end() == len(bare) or _OTHER_CHOICE.search(bare, found.end()):
        return None
    return next(letter for letter in found.groups() if letter).upper()


def valued(answer: str) -> str:
    """What an answer comes to: the letter of an option with its text; the right-hand side of a calculation; the
    quantity that a sentence ends in; other answers are what they are."""
    letter = chosen(answer)
    if letter is not None:
        return letter
    worked = _WORKED.fullmatch(answer)
    if worked is not None and re.search(r"\d\s*[-+*/×÷·^−–]|\\", answer[: worked.start(1)]):
        return tidy(worked[1])
    sentence = _SENTENCE.fullmatch(answer)
    if sentence is None:
        return answer
    words = sentence[3].split()
    return tidy(sentence[2] + (sentence[3] if len(words) <= _UNIT_WORDS else ""))
