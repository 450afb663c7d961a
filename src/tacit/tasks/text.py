"""Short free answers, compared as words: case, articles, punctuation and ways of writing letters aside.

Builds on stated, and on number, since "5" and "5.0" are the same short answer too.
"""

from __future__ import annotations

import copy
import re
import unicodedata

from tacit.answers.marks import is_nothing
from tacit.registry import register
from tacit.tasks import number
from tacit.tasks.stated import TAIL, Stated

WORDS = 12
"""Where no answer is stated, a last line or sentence of at most so many words is taken for one."""
LONGEST = 20 * WORDS
"""Most characters of such a sentence."""

_QUOTES = re.compile(r"[\"'`´‘’‚“”„«»*]|\.(?!\d)")
_MARKS = re.compile(r"[,;:!?…。、，；：！？]|(?<=[^\W\d])[-‐‑–—](?=[^\W\d])")
_ARTICLE = re.compile(r"(?<!\S)(?:[Tt]he|THE|[Aa]n|a|^A) (?=\S)")
_ENCLOSED = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]|\{([^{}]*)\}")
_SENTENCES = re.compile(r"\n|(?<=[.!?])\s+(?=[^\W\d_a-z])|(?<=[。！？])")
_CHATTER = re.compile(
    r"\b(?:hope|let me know|feel free|happy to|questions?|helpful|thank|please|you're welcome)\b|boxed", re.I
)
_YES_OR_NO = re.compile(r"[\s>#*_]*(yes|no|true|false)\b(?=[*_\s]*(?:[,;:!—–]|\.(?!\s*(?:of\b|\d))|$))", re.IGNORECASE)
# "The capital of France is Paris", "Capital of France: Paris", "It's Paris", "Paris is the answer".
_SAYS = re.compile(r"(?:['’]s| (?:is|are|was|were)|:) +", re.IGNORECASE)
_BESIDES = re.compile(r", (?:where|which|who|because|since|although|but)\b", re.IGNORECASE)
_REVERSED = re.compile(r" (?:is|are) (?:the|my) (?:(?:final|correct|right) )?answer\W*\Z", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['’]s\b")
_WHICH = frozenset("what which who whom whose where when how".split())
_WANTS = _WHICH | frozenset("many much is are was were do does did".split())
_IT = frozenset(("it", "this", "that"))
# A sentence that was cut: its end calls for more.
_UNFINISHED = re.compile(
    r"(?:[,:;(=+×*/]|(?:^|\s)(?:and|or|but|an|the|of|to|is|are|was|were|with|that|which|from|because|if|so|now|then|next"
    r"|thus|therefore|however|first))\s*\Z",
    re.IGNORECASE,
)
_EDGES = ' \t\r\n>#*_`"“”'
# What a text ends in that it quotes or prints bold, whether or not the mark is closed: a response may be cut before.
_QUOTED = re.compile(
    r"(?:^|(?<=[\s(:]))(?:[*_]{0,3}(?:[\"“”„«‹]|`{1,2}(?!`)|['‘](?!\d))|\*\*|__)(?=[^\s*_])"
    r"(?P<said>(?:[^\"“”„«»‹›`*'‘’\n]|(?<=\w)['’](?=\w)){1,240})(?P<closed>[\"“”„«»‹›`*_'‘’.,;:!?。\s]*)\Z"
)
_NAMES = re.compile(r"(?:\b(?:is|are|was|were|be|becomes?|called|simply|just|namely)|['’]s|[:=])\s*\Z", re.IGNORECASE)
_NAMES_NOT = re.compile(
    r"(?:\b(?:not|never|no|and|or|but|than|in|of|from|for|with|says?|said)|n['’]t|,)\s*\Z", re.IGNORECASE
)
_SILENT = frozenset(("", "no answer", "i dont know", "i do not know", "dont know", "unknown"))


def fold(text: str) -> str:
    """The words of a text, however written: Unicode forms, accents of Latin letters, case, quotation marks,
    punctuation between words and English articles are gone. Signs that change what is meant (C++, -5, 3.5) stay."""
    said = unicodedata.normalize("NFKC", text).strip()
    enclosed = _ENCLOSED.fullmatch(said)
    words = next(filter(None, enclosed.groups()), said) if enclosed else said
    words = _MARKS.sub(" ", _QUOTES.sub("", words)).replace("&", " and ")
    words = _ARTICLE.sub("", " ".join(words.split()))
    folded = " ".join(_unaccented(words.casefold()).split())
    return folded if any(map(str.isalnum, folded)) else "".join(said.split())


def _unaccented(text: str) -> str:
    if text.isascii():
        return text
    kept: list[str] = []
    base = ""
    for char in unicodedata.normalize("NFD", text):
        if not unicodedata.combining(char):
            base = char
        elif base.isascii() and base.isalpha():
            continue  # an accent of a Latin letter; in other scripts such marks are letters
        kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept))


def key(text: str) -> str:
    """What two short answers have in common if they are the same."""
    worth = number.value(text)
    return fold(text) if worth is None else number.spelled(worth)


def quoted(said: str, cut: bool = False) -> str:
    """What a sentence names at its end, in quotation marks or bold: asked, if it is that the word is "asked". Where the
    response was ``cut`` before the mark was closed, any words lead to it but those that name nothing."""
    found = _QUOTED.search(said)
    if found is None or not (lead := said[: found.start()]).strip():
        return said
    open_still = cut and not re.search(r"[^\s.,;:!?。]", found["closed"]) and not _NAMES_NOT.search(lead)
    return found["said"].strip() if open_still or _NAMES.search(lead) else said


@register("task", "text")
class Text(Stated):
    """A few words: the stated ones, else a last short sentence.

    Case, accents of Latin letters, articles, quotation marks and punctuation are left aside.
    """

    instruction = 'End with "The answer is" and the answer alone, in as few words as possible.'
    wanted = "an answer in words"

    asked: frozenset[str] = frozenset()
    """The words of the question that is answered."""
    offered: bool = False
    """Whether the question may name its answer, as in "larger, 3 or 5"."""

    def on(self, problem: str) -> Text:
        bound = copy.copy(self)
        question = _SENTENCES.split(problem[-TAIL:].rpartition("?")[0] or problem)[-1]
        words = frozenset(fold(_POSSESSIVE.sub("", question)).split())
        bound.asked = words if words & _WHICH else frozenset()
        bound.offered = bool(re.search(r"\bor\b|[:,;(]", question))
        return bound

    def read(self, phrase: str) -> str | None:
        said = _YES_OR_NO.match(phrase)
        answer = said[1] if said else self._told(quoted(phrase).strip(_EDGES).rstrip(".。").strip(_EDGES))
        return answer if fold(answer) not in _SILENT else None

    def _told(self, said: str) -> str:
        """What a sentence says that the question does not: Paris, if it is that the capital of France is Paris;
        nothing, if it only says the question again."""
        wanted = self.asked - _WANTS
        for match in _SAYS.finditer(said) if self.asked and len(said) <= LONGEST else ():
            about = {*fold(_POSSESSIVE.sub("", said[: match.start()])).split()}
            rest = _BESIDES.split(said[match.end() :])[0].strip(_EDGES)
            again = about <= self.asked and 2 * len(about & wanted) >= len(wanted)
            if (again or about <= _IT) and not {*fold(rest).split()} <= self.asked:
                return rest
        words = {*fold(_POSSESSIVE.sub("", said)).split()}
        if not self.offered and words <= self.asked and 2 * len(words & wanted) >= len(wanted) and _SAYS.search(said):
            return ""
        return said

    def unstated(self, text: str) -> str | None:
        if said := _YES_OR_NO.match(text):
            return said[1]
        sentences = [part.strip() for part in _SENTENCES.split(text) if part.strip() and not _CHATTER.search(part)]
        last = _REVERSED.sub("", sentences[-1]) if sentences else ""
        last = quoted(last, cut=len(last.split()) <= WORDS)
        if len(last.split()) > WORDS or len(last) > LONGEST or _UNFINISHED.search(last):
            return None
        if len(last.split()) > 2 and is_nothing(last):
            return None  # "I cannot answer this."
        return self.read(last)

    def same(self, one: str, other: str) -> bool:
        return key(one) == key(other)
