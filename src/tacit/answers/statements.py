r"""What a response states in words: the answer after its cue, wherever it stands.

Builds on cues (how an answer is announced) and marks (what stands around one). ``candidates`` gives what follows the
last cues, with how good a statement each is; chatter about an answer ("the answer is in dollars", "I hope this answer
is helpful") states nothing. Every step is linear in the length of the text.

    >>> next(candidates("So the answer is 15.\n\n**Note:** the answer is in dollars."))
    (3.0, '15')
    >>> list(candidates("Let me verify the answer: 5*3=15."))
    []
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections import deque
from collections.abc import Iterator

from tacit.answers.cues import (
    ASCII_NAMES,
    CHATTER,
    DOUBTED,
    ENGLISH,
    HEADING,
    JUDGED,
    LINE_OPENS,
    NAMES,
    OPENS_WORK,
    SOUGHT,
    foreign,
)
from tacit.answers.marks import filler, is_nothing, spans, tidy, valued

_CUES = 100
"""So many last cues are looked at for one that states something."""
_LINE_LIMIT = 10_000
_SENTENCE_LIMIT = 2_000
_PROSE = 30
"""Words; what is longer is no answer."""
SURE = 2.0
"""From this on a statement counts as one; below stands what is only likely."""

_VALUE = re.compile(r"[\d\\=^√π∞½⅓¼¾%$]|\A\(?[A-Za-z]\)?\.?\Z|\A(?:yes|no|true|false|none)\b", re.IGNORECASE)
_STARTS_VALUE = re.compile(r"[-−+(\[{$\\]*(?:[\d√π∞]|[a-zA-Z]\b)|\\")
_REVERSED = re.compile(
    r"(?:^|[\s(,:])(\$[^$\n]{1,80}\$|\*\*[^*\n]{1,40}\*\*|\\\([^\n]{1,60}?\\\)|[-−]?[$€£]?\d(?:[\d,./]*\d)?%?"
    r"|(?:option |choice )?\(?\b[A-J]\)?)[*_ ]{0,3}$",
    re.IGNORECASE,
)
_ASKED = re.compile(r"\b(?:if|whether|what|which)\W+$", re.IGNORECASE)
_AGAIN = re.compile(r"(?:the |my )?(?:final |correct )?answer\b", re.IGNORECASE)
_TALKED = r"(?:confidence|explanation|reasoning)\b"
_GOES_ON = (
    r"|(?<=\byes),|(?<=\bno),|(?<=\btrue),|(?<=\bfalse),|,? and (?:we|so|this|that|it|hence|thus|therefore)\b"
    r"|, or (?:about|approximately|roughly|equivalently|simply)\b"
)
_SENTENCE_END = re.compile(
    rf"(?<!\\)[.!?](?=\s|$|\*|[\"'”’)])|[。！？।॥۔؟]|;|\s+\|\s|[,;(]?\s*\b(?:{_TALKED}|(?:because|since)\b)"
    r"|,? (?:so|which|as|where)\b"
    r"|, (?:the|an?|who|not|but|then|thus|therefore|hence|when|while|after|given|assuming|making|meaning)\b"
    r"|，(?!\d)|(?<=\d), (?!(?:and|or)\b)(?=[a-z]{3})" + _GOES_ON,
    re.IGNORECASE,
)
_LABEL_END = re.compile(
    rf"(?<!\\)[.!?](?=\s|$|\*|[\"'”’)])|[。！？।॥۔؟]|\s+\|\s|[,;(]?\s*\b{_TALKED}\s*[:=(\d]|,? because\b"
    r"|(?<=\d), (?:since|so|which|as|not|but|then|thus|therefore|hence|making)\b" + _GOES_ON,
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|prof|jr|sr|inc|co|vs|etc|approx|ft|sq|e\.g|i\.e|mt|rs|capt|gen|rev)"
    r"|\b[ap]\.\s?m|\.\s?[A-Za-z])$",
    re.IGNORECASE,
)
_INITIALS = re.compile(r"[A-Z]{2}\.")  # the first stop of "J. K. Rowling" is left out
_HALF_DAY = re.compile(r"[ap]\.m\.$", re.IGNORECASE)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|br|span|div|code|center|h[1-6])(?: [^<>]{0,80})?/?>", re.IGNORECASE)
# A line break that was escaped twice; \neq and \nu are mathematics.
_ESCAPED_LINE = re.compile(r"(?<!\\)\\n(?![a-z]|Rightarrow|Leftarrow|Leftrightarrow|V[Dd]ash)")
_MORE = re.compile(r"[^\n]*\n\s{0,99}\S")
_JSON_VALUE = re.compile(
    r"\s{0,8}(\"(?:[^\"\\]|\\.){0,2000}\"|'[^'\n]{0,500}'|[-\d.eE+]{1,100}|true|false|\[[^\[\]]{0,2000}\])"
)
_BULLET = re.compile(r"[-*•+▪‣>]\s+|\d{1,2}[.)]\s+(?=\S)")
_UNDERLINE = re.compile(r"\A[-=]{3,}[ \t]*\n")
_RULE = re.compile(r"[\s|:\-]*-[\s|:\-]*")
_WHOLE = re.compile(r"\$[^$]{1,100}\$|[-−]?[$€£]?\d[\d.,/ ]*%?|\(?[A-J]\)?")


def phrase(text: str) -> tuple[str | None, bool]:
    """The answer after the cue that states it best, and whether it is more than likely: a value wins over words, words
    over prose; among equals the last. A response that is one value and nothing else is that value."""
    best: tuple[float, str | None] = (0.0, None)
    for rank, answer in candidates(text):
        if rank > best[0]:
            best = rank, answer
        if rank >= 3:
            break
    if best[1] is None and len(text) < 200:
        whole = text.strip("*`. \t\r\n")
        alone = tidy(whole) if _WHOLE.fullmatch(whole) else ""
        return (None if is_nothing(alone) else alone), False
    return best[1], best[0] >= SURE


def candidates(text: str, lines_only: bool = False) -> Iterator[tuple[float, str]]:
    """Answers after the last cues, from the last to the first: 3 for a value, 2 for a few words, 1.5 for what may be
    none, 1 for prose. ``lines_only`` gives those alone whose label opens a line."""
    text = text.replace("\r\n", "\n")
    if "\\n" in text:
        text = _ESCAPED_LINE.sub("\n", text)
    if "</" in text or "<br" in text:
        text = _HTML.sub("", text)
    cues: list[re.Match[str]] = []
    lowered, nouns = text.lower(), ASCII_NAMES if text.isascii() else NAMES
    others = dict.fromkeys(name for noun, name in nouns if noun in lowered)
    for pattern in (ENGLISH, foreign(tuple(others))) if others else (ENGLISH,):
        cues += deque(pattern.finditer(text), maxlen=_CUES)
    fences = [fence.start() for fence in re.finditer("```", text)]
    for match in sorted(cues, key=lambda cue: cue.start(), reverse=True)[:_CUES]:
        kind = _Cue(text, match, in_code=bool(bisect(fences, match.start()) % 2))
        if kind.label_of_a_line or not lines_only:
            found = kind.stated()
            if found is not None:
                yield found


class _Cue:
    """One cue in a text."""

    def __init__(self, text: str, match: re.Match[str], in_code: bool) -> None:
        self.text, self.match, self.in_code = text, match, in_code
        self.named = match.groupdict()
        self.foreign = not self.named
        self.before = text[max(0, match.start() - 80) : match.start()].rpartition("\n")[2]
        self.opens = LINE_OPENS.fullmatch(self.before) is not None
        self.label = any(self.named.get(name) is not None for name in ("label", "json", "hash", "head"))
        # What is quoted is said, and says nothing about the answer.
        self.quoted = text[match.end() : match.end() + 3].lstrip(" *")[:1] in tuple("\"'“«`")
        if self.foreign:
            self.label = match[0].rstrip(" *_\t")[-1:] in (":", "：", "=")

    @property
    def label_of_a_line(self) -> bool:
        return self.label and (self.opens or bool(self.named.get("hash")))

    def stated(self) -> tuple[float, str] | None:
        """How good a statement of an answer it is, and which."""
        if self.named.get("reverse"):
            value = _REVERSED.search(self.before)
            if value is None or _ASKED.search(self.before[: value.start(1)]) or is_nothing(tidy(value[1])):
                return None
            return 3.0, tidy(value[1])
        if self._is_none():
            return None
        in_json = self.named.get("json") is not None
        answer = _json(self.text, self.match.end()) if in_json else _after(self.text, self.match, self.label)
        if not answer or "\\boxed" in answer or "\\fbox{" in answer or is_nothing(answer) or self._is_chatter(answer):
            return None  # a box that gets here was cut or is empty
        rank = self._rank(answer)
        return (rank, answer) if rank else None

    def _is_none(self) -> bool:
        if self.named.get("head") is not None and not self.opens:
            return True
        return bool(self.named.get("noun")) and not self.label_of_a_line and DOUBTED.search(self.before) is not None

    def _is_chatter(self, answer: str) -> bool:
        if self.label:
            return (HEADING.match(answer) if self.named.get("hash") else _AGAIN.match(answer)) is not None
        return not self.quoted and (JUDGED if self.foreign else CHATTER).match(answer) is not None

    def _rank(self, answer: str) -> float:
        rank = 3.0 if self.quoted and len(answer.split()) <= _PROSE else _rank(answer, self.label)
        if self.named.get("hash") and not _VALUE.search(answer) and _MORE.match(self.text, self.match.end()):
            return 0.0  # a heading
        if self.in_code and (self.named.get("label") or "").startswith("=") and not answer[:1].isdigit():
            return 1.0
        sought = self.named.get("noun") and not self.label_of_a_line and SOUGHT.search(self.before)
        if not (self.named.get("weak") or self.named.get("hedge") or sought):
            return rank
        # "A: 8" is an option if "B:" stands below it.
        option = (self.named.get("option") or "").upper() == "A" and re.search(r"^\W{0,3}B\W", self.text, re.MULTILINE)
        return 0.0 if rank < 3 or len(answer) > 40 or option else 1.5


def _rank(answer: str, label: bool) -> float:
    """3 for a value, or for a few words after a label; 2 for a few words; 1 for prose; 0 for what is no answer."""
    words = answer.split()
    article = words[0].lower() in ("a", "an", "the") and len(words) > 1
    value = _VALUE.search(answer) and (len(words) <= 4 or _STARTS_VALUE.match(answer)) and not article
    few = len(words) <= 5 and (label or (answer[0].isupper() and not article))
    if len(words) > _PROSE or (OPENS_WORK.match(answer) and len(words) > 2 and not value):
        return 0.0
    if value or few or valued(answer) != answer:
        return 3.0
    return 2.0 if len(words) <= 4 and not article else 1.0


def _json(text: str, start: int) -> str | None:
    value = _JSON_VALUE.match(text, start)
    if value is None:
        return None
    written = value[1]
    if written[0] == "[":
        try:
            written = ", ".join(map(str, json.loads(written)))
        except ValueError:
            return tidy(written)
    elif written[0] in "\"'":
        written = re.sub(r"\\([\\\"/])", r"\1", written[1:-1])  # models write "\frac" and "\\frac" alike
    return tidy(written)


def _after(text: str, match: re.Match[str], label: bool) -> str | None:
    """What follows a cue: the rest of its line or sentence, or what stands on the lines below."""
    rest = text[match.end() : match.end() + _LINE_LIMIT]
    line = rest.split("\n", 1)[0]
    if match[0][-1:] == "|":
        return _cell(text, match, rest)
    head = line.strip(" \t*_:：=|#.-")
    if head in ("", "\\[", "$$", "\\(") or head.startswith("```"):
        return _below(rest[len(line) - len(line.lstrip()) :] if head else rest[len(line) :])
    line = line[filler(line) :]
    return tidy(_sentence(line, label) if len(line) <= _SENTENCE_LIMIT else line)


def _below(rest: str) -> str | None:
    """The answer on the lines after its cue: mathematics, code, a table, a list or a line."""
    rest = _UNDERLINE.sub("", rest.lstrip(), count=1).lstrip(" \t\n*_=")
    if rest.startswith("\\begin{"):
        return tidy(rest.split("\n\n", 1)[0])
    for opener, closer in (("\\[", "\\]"), ("$$", "$$"), ("```", "```")):
        if rest.startswith(opener):
            end = rest.find(closer, len(opener))
            return None if end < 0 else tidy(rest[: end + len(closer)])
    lines = rest.split("\n", 50)[:50]
    if lines[0].startswith("|"):
        return _last_cell(lines, -1)
    if _BULLET.match(lines[0]):
        return _items(lines)
    line = lines[0] if re.match(r"\W*\d", lines[0]) else lines[0].lstrip("-_=* \t")
    line = line[filler(line) :]
    return tidy(_sentence(line[:_SENTENCE_LIMIT], True))


def _items(lines: list[str]) -> str:
    """A list of short items, joined; of long ones, the first."""
    items = []
    for line in lines:
        bullet = _BULLET.match(line.strip())
        if bullet is None:
            break
        items.append(tidy(line.strip()[bullet.end() :]))
    return ", ".join(items) if all(len(item) <= 40 for item in items) else items[0]


def _cell(text: str, match: re.Match[str], rest: str) -> str | None:
    """In a table: the last cell of the column that the cue heads, or the cell beside it."""
    lines = rest.split("\n", 50)[:50]
    if len(lines) > 1 and _RULE.fullmatch(lines[1][:200]):
        row = text[max(0, match.start() - 500) : match.start()].rpartition("\n")[2]
        return _last_cell(lines[2:], row.count("|") - row.lstrip().startswith("|"))
    beside = lines[0].split("|")[0].strip()
    return tidy(beside) if beside else None


def _last_cell(lines: list[str], column: int) -> str | None:
    found = None
    for line in lines:
        if "|" not in line:
            break
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not _RULE.fullmatch(line[:200]):
            found = cells[column] if column < len(cells) else cells[-1]
    return tidy(found) if found else None


def _sentence(line: str, label: bool) -> str:
    """A line up to where its sentence ends: not at a decimal point, an abbreviation, or within mathematics."""
    skipped = spans(line)
    starts = [start for start, _ in skipped]
    for end in (_LABEL_END if label else _SENTENCE_END).finditer(line):
        place = bisect(starts, end.start()) - 1
        within = place >= 0 and end.start() < skipped[place][1]
        if not within and line[: end.start()].strip(" *_(") and not (end[0] == "." and _is_short(line, end)):
            return line[: end.end() if end[0] == "." and _HALF_DAY.search(line[: end.end()]) else end.start()]
    return line


def _is_short(line: str, stop: re.Match[str]) -> bool:
    """Whether a full stop ends an abbreviation, with more to follow."""
    head, tail = line[max(0, stop.start() - 8) : stop.start()], line[stop.end() :].strip(" *\"'")
    numbered = head.lower() == "no" and tail[:1].isdigit()
    return bool(tail) and (
        bool(_ABBREVIATION.search(head)) or numbered or _INITIALS.match(head[-1:] + tail) is not None
    )
