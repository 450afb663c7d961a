r"""How answers are announced in the main written languages: a plain table, and the expressions made of it.

Builds on nothing. English has a grammar of its own below; every other language is a row of languages.toml.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from functools import lru_cache
from pathlib import Path

LANGUAGES: dict[str, tuple[str, str, str, str]] = {
    name: tuple(row)
    for name, row in tomllib.loads(Path(__file__).with_name("languages.toml").read_text(encoding="utf-8")).items()
}
"""Per language: words for "answer", what joins them to it, what may end its sentence, how a next question begins."""

JUDGED = re.compile(
    r"正确|正確|对的|對的|错|錯|以上|正しい|間違|정확|맞|틀|correct|corrett|corret|juste\b|faux|fausse|falsch|richtig|"
    r"верн|правильн|неверн|правилен|juist|goed|fout|poprawn|prawidł|doğru|yanlış|صحيح|خاطئ|सही|गलत|সঠিক|ভুল|benar|salah|"
    r"đúng|sai\b|ถูก|ผิด|sahihi|נכונ|שגוי|درست|σωστ|right|rätt|riktig",
    re.IGNORECASE,
)
"""What an answer is called where it is judged and not given."""

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _both_forms(words: str) -> list[str]:
    """Words as they are composed and decomposed: models write both."""
    found = [word for word in words.split("|") if word]
    return sorted({unicodedata.normalize(form, word) for word in found for form in ("NFC", "NFD")}, key=len)[::-1]


NOUNS = {name: _both_forms(row[0]) for name, row in LANGUAGES.items()}
ENDINGS = re.compile("(?: ?(?:{}))$".format("|".join(end for _, _, end, _ in LANGUAGES.values() if end)))
NAMES = [(noun.lower(), name) for name, nouns in NOUNS.items() for noun in nouns]
ASCII_NAMES = [(noun, name) for noun, name in NAMES if noun.isascii()]
"""Words for "answer", each with its language."""
QUESTIONS = "|".join(word for _, _, _, words in LANGUAGES.values() for word in _both_forms(words))


@lru_cache(maxsize=64)
def foreign(names: tuple[str, ...]) -> re.Pattern[str]:
    """The cues of these languages: noun and colon, noun and verb, or a noun that a figure follows."""
    rows = []
    for name in names:
        joins = _both_forms(LANGUAGES[name][1])
        spaced = not _UNSPACED.search(NOUNS[name][0])
        before, after = ("(?<![^\\W_])", "(?![^\\W\\d_])") if spaced else ("", "")
        joined = f"|{before}(?:{'|'.join(map(re.escape, joins))}){after}" if joins else ""
        adjective = r"(?:\s[^\W\d]{2,12})?" if name in ("Arabic", "Persian", "Urdu") else ""
        # Between the noun and what joins it: "La respuesta correcta es", "Câu trả lời cuối cùng là".
        between = rf"[^\n.:：,;!?。，\d$\\]{{0,{40 if spaced else 12}}}?"
        rows.append(
            f"{before if spaced and name not in ('Arabic', 'Hebrew') else ''}(?:{'|'.join(NOUNS[name])})"
            rf"(?:{between}(?:[:：=]|[-–—→](?=\s){joined})|{adjective}(?=[\s*_]{{0,4}}[-−+]?[\d$\\]))"
        )
    return re.compile(r"(?:{})[*_]{{0,3}}[ \t]{{0,8}}[:：]?".format("|".join(rows)), re.IGNORECASE)


# ---------------------------------------------------------------- English

_IS = (
    r"(?:is|are|was|were|equals?|becomes"
    r"|(?:should|would|must|will|has to|ought to|(?P<hedge>could|may|might|can))"
    r"(?: (?:therefore|then|thus|simply|just|only))? (?:be|equal)"
    r"|comes? (?:out )?to(?: be)?|(?:turns|works) out to be)"
)
_NOUN = (
    r"(?<![A-Za-z])(?P<noun>(?:answers?|answer\(s\)|(?:correct|best|right) (?:option|choice))"
    r"(?: (?:choice|option|key|letter))?(?![A-Za-z])|ans(?=[.:= *]))"
    # "Answer 1:", "Answer (in dollars):", "the answer to the question is", "the answer, in dollars, is"
    r"[\"'`)\]}]{0,2}[*_]{0,3}[ \t]{0,3}(?:#?\d{1,2}(?=[ ]?[:：]))?(?:\([^()\n]{1,40}\)[*_ ]{0,3})?"
    r"(?:(?:to|for|of|in|as|from|that|which|we|i|you)\b[^.:=?!\n]{1,80}?(?=[ :=])|,[^.:=?!\n,]{1,60},)?[*_ ]{0,4}"
)
ENGLISH = re.compile(
    r"(?:(?=[\"'\#])|(?<![A-Za-z])(?=[abcfirs])|^)"  # where a cue can begin: most places of a text are passed at once
    r"(?:(?P<json>[\"'](?:final[_ ]?|correct[_ ]?)?answer[\"'][ \t\n]{0,8}:)"
    r"|(?P<hash>(?<!\#)\#{4}(?!\#))"
    r"|(?P<reverse>\b(?:is|are) (?:(?:therefore|thus|indeed|hence) )?(?:the|our|my) (?:(?:final|correct|right|best) )*"
    r"(?:answer|option|choice)\b(?! is\b|[*_ ]{0,3}[:：=]))"
    rf"|{_NOUN}(?:(?P<is>{_IS}(?![A-Za-z])(?! not\b))|(?P<label>[:：]|={{1,2}}(?![=>])|(?<=ans)\.(?= )"
    r"|[-–—](?=[ ])|[-=]{1,2}>|[→⇒|])"
    r"|(?P<head>[*_\#=: \t]{0,8}(?=\n)))"
    r"|(?P<weak>^[^\w\n]{0,8}(?P<option>A|Solution|(?:Final )?Result|Output|Conclusion|Final)[*_ ]{0,3}[:：=]"
    r"|\b(?:result|solution(?: (?:to|of|for) [^.:=?!\n]{1,60}?)?|final (?:value|result))"
    r"[*_ ]{0,3} (?:is|are|:)(?![A-Za-z])))",
    re.IGNORECASE | re.MULTILINE,
)
"""What may announce an answer. ``label`` and ``head`` are "Answer:" and a heading, ``is`` is a sentence, ``reverse``
is "... is the answer", ``weak`` what often is no answer at all."""

LINE_OPENS = re.compile(
    r"[^\w\n]{0,12}(?:(?:the|my|our|final|correct|short|step \d{1,2}[.:]?)\s{1,2}){0,3}", re.IGNORECASE
)
"""What a line may open with before its "Answer:"."""

_ADJECTIVES = r"(?:(?:the|this|that|my|our|your|an?|final|correct|right|above|whole)\s+){0,3}$"
DOUBTED = re.compile(
    r"\b(?:if|whether|hop(?:e|ing)|unless|assum(?:e|ing)|suppose|verif\w+|(?:double-?)?check\w*|confirm\w*|make sure"
    r"|ensure|why|what|how|n['’]t think|n['’]t believe|in case|like|see|wrong|incorrect|previous|initial|other|not|no"
    rf"|neither|expected|(?:format|form|template)[:,]?)\s+(?:that\s+)?[\"'“*]{{0,2}}{_ADJECTIVES}",
    re.IGNORECASE,
)
"""What stands before an "answer" that is not given: "let me verify the answer", "I hope this answer"."""
SOUGHT = re.compile(
    r"\b(?:find|get|calculate|compute|determine|obtain|reach|this|that|an?|any|each|your|possible|finding|getting|give|be)"
    rf"\s+{_ADJECTIVES}",
    re.IGNORECASE,
)
"""What stands before an "answer" that may be given: "to get the answer: 5 * 3 = 15"."""
CHATTER = re.compile(
    r"(?:not|in|for|from|of|on|under|by|with|to|if|when|what|how|why|who|where|this|that|it|there|we|you|they|no longer"
    r"|based|less|given|found|shown|reached|as|because|since|so|well|very|quite|too|more|up|within|like|made|written"
    r"|known|worth|correct|right|wrong|incorrect|helpful|clear|obvious|reasonable|consistent|valid|invalid|verified"
    r"|accurate|inaccurate|simple|easy|complete|incomplete|useful|good|great|fine|ok|okay|sure|certain|unique|acceptable"
    r"|rounded|expressed|derived|obtained|straightforward|already|always|never|100 ?% (?:correct|right|sure))\b(?!['’])"
    r"|[a-z]+ed (?:to|on|in|as|by|with|from|using|for|above|below|here)\b",
    re.IGNORECASE,
)
"""What an answer is said to be where it is talked about: helpful, in dollars, rounded to."""
OPENS_WORK = re.compile(
    r"(?:let['’]?s?|to|first|we|since|because|given|step|if|when|here|now|okay|ok|well|i|in order|according|start"
    r"|consider)\b|\d{1,2}[.)]\s+[A-Za-z]{2}",
    re.IGNORECASE,
)
"""How a line begins that works an answer out."""
HEADING = re.compile(
    r"(?:step|part|final answer|answer|explanation|solution|reasoning|verification|conclusion|note)\b"
    r"|\d{1,2}[.):]\s+\w",
    re.IGNORECASE,
)
"""A heading of the fourth order, which looks like the ``####`` of GSM8K."""
