r"""Find the answer in a response as real models write it.

Builds on cues, statements (answers after a cue), marks (what stands around one) and the pool. First, what of a response
counts: without what was thought, from the model's turn to its end, question by question. A response states its answer
in a box, in ``<answer>`` tags, as JSON, or after a cue ("Answer:", "the answer is", "答案是"); a statement wins over
later chatter about it ("I hope this answer is helpful", "the answer is in dollars"). What a response writes is hostile
input: every step is linear in its length, and only so many last cues are looked at.

    >>> extract("<think>\\boxed{3}?</think> The answer is 15. I hope this answer is helpful!")
    '15'
    >>> extract("**Final Answer**\n\n$$\n42\n$$")
    '42'
    >>> parts("Answer: 5\nQuestion: What is 2+2?\nAnswer: 4")[0]
    'Answer: 5\n'
    >>> extract("Put your final answer within \\boxed{answer}.") is None
    True
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

from tacit.answers import pool as answer_pool
from tacit.answers.cues import QUESTIONS
from tacit.answers.marks import is_nothing, tidy, valued
from tacit.answers.statements import candidates, phrase
from tacit.errors import ConfigError

_PATTERN_LIMIT = 1.0
"""CPU seconds for a task's pattern on one response."""
_PATTERN_TAIL = 20_000
"""A task's pattern sees this many last characters of a response."""


def extract(text: str, pattern: str | None = None) -> str | None:
    r"""The final answer in a response, or None. What was thought does not count, nor what a base model runs on into.
    The first of these that is there counts:

    1. the last ``<answer>...</answer>``;
    2. the last balanced ``\boxed{...}`` that is not empty and no placeholder (one cut by the token limit is none), or
       the boxes of one statement, joined by commas; unless a line after it says "Answer:" and a plain value;
    3. the last match of ``pattern`` (see ``by_pattern``);
    4. after the last cue that states an answer: the rest of the sentence, or the lines below.

    The letter of an option stands for it ("B) Paris" is B), a result for its calculation. The last number of a text is
    never taken for an answer, and digits that stand apart ("9 2") are not joined.
    """
    found = stated(text, pattern)
    return None if found is None else valued(found)


def stated(text: str, pattern: str | None = None) -> str | None:
    """The answer as the response states it, the text of an option included: for answers that are words."""
    text = cleaned(text)
    pieces = parts(text)
    if pattern is not None:
        marked = next((found for found in map(_marked, pieces) if found is not None), None)
        found = by_pattern(text, pattern) if marked is None else marked
        if found is not None:
            return found
    weak = None
    for piece in pieces:
        answer, sure = _in(piece)
        if sure:
            return answer
        weak = answer if weak is None else weak
    return weak


@lru_cache(maxsize=64)
def _checked(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"The answer pattern {pattern!r} is not a regular expression: {error}.") from error
    return pattern


def by_pattern(text: str, pattern: str) -> str | None:
    """The last match of a regular expression: its group 1, or all of it if it has no group. It runs in the answer
    worker, so that one that backtracks for ever costs a second."""
    reply = answer_pool.search(_checked(pattern), text[-_PATTERN_TAIL:], _PATTERN_LIMIT)
    return reply.value.strip() if isinstance(reply.value, str) else None


def _in(text: str) -> tuple[str | None, bool]:
    """The answer in one part of a response, and whether it is stated and not only likely."""
    marked = _marked(text)
    if marked is not None:
        return marked, True
    return phrase(text)


# ---------------------------------------------------------------- tags and boxes

_TAG = re.compile(
    r"(?P<open><(?:final[_ -]?)?(?:answer|ans|output|result)>|(?-i:\[ANSWER\])|<\|begin_of_box\|>)"
    r"|</(?:final[_ -]?)?(?:answer|ans|output|result)>|(?-i:\[/ANSWER\])|<\|end_of_box\|>",
    re.IGNORECASE,
)
# A double backslash is a line break, unless a box follows: some models escape twice; "\b" may have become a character.
_BOX_OR_BRACE = re.compile(
    r"(?:\\(?:boxed|fbox|framebox)|(?<![\\A-Za-z])(?:\x08oxed|boxed|fbox))[ \t\n]{0,8}\{"
    r"|\\\\(?!boxed|fbox|framebox)|\\[{}]|[{}]"
    r"|\\boxed[ \t]{0,8}(?P<bare>[-−+]?\d+(?:[.,/]\d+)*|[A-Z](?![A-Za-z]))"
)
_BETWEEN_BOXES = re.compile(
    r"(?:[\s,;$&、，]|[A-Za-z](?:_\w)? ?=|\\[()\[\],; ]|\*\*|(?:and|or|und|y|et|и|和|或)\b){0,12}"
)
_GAP = 40
"""Characters between boxes of one statement."""
_BOXES = 20
_TAGS = 50
_OPEN_TAG = 2_000
"""Characters after a tag that nothing closes."""
_AFTER_BOX = 30
"""Characters of a plain value."""


def _marked(text: str) -> str | None:
    """What stands in tags or boxes."""
    tagged = _tagged(text)
    if tagged is not None:
        return tagged
    boxed = _boxed(text)
    if boxed is None:
        return None
    answer, end = boxed
    if len(text) - end > 5:
        later = next((value for rank, value in candidates(text[end:], lines_only=True) if rank >= 3), None)
        if later is not None and len(later) <= _AFTER_BOX:
            return later
    return answer


def _tagged(text: str) -> str | None:
    end = None
    for tag in reversed(deque(_TAG.finditer(text), maxlen=_TAGS)):
        if tag["open"] is None:
            end = tag.start()
            continue
        inside = text[tag.end() : len(text) if end is None else end].strip()
        if inside and (end is not None or len(inside) < _OPEN_TAG):
            boxed = _boxed(inside)
            answer = boxed[0] if boxed else phrase(inside)[0] or tidy(inside)
            if answer and not is_nothing(answer):
                return answer
        end = tag.start()
    return None


def _boxed(text: str) -> tuple[str, int] | None:
    """What the last boxes that hold something say, and where they end."""
    if "box" not in text and "\x08oxed" not in text:
        return None
    joined: list[str] = []
    begin = end = -1
    for token, content, after in reversed(_boxes(text)):
        if joined and (begin - after > _GAP or not _BETWEEN_BOXES.fullmatch(text, after, begin) or is_nothing(content)):
            break
        if not is_nothing(content):
            begin, end = token, max(end, after)
            joined += [] if content in joined else [content]
    return (", ".join(reversed(joined)), end) if joined else None


def _boxes(text: str) -> list[tuple[int, str, int]]:
    """Boxes that are closed and not empty, outside others: where each begins, what it holds, where it ends."""
    stack: list[tuple[int, int]] = []  # where each open brace's content begins, and its box (-1 if it is none)
    found: list[tuple[int, int, int, int]] = []  # box, content, end of content, end
    for match in _BOX_OR_BRACE.finditer(text):
        token = match[0]
        if match["bare"] is not None:
            found.append((match.start(), *match.span("bare"), match.end()))
        elif token[-1] == "{" and token != "\\{":
            stack.append((match.end(), match.start() if len(token) > 1 else -1))
        elif token == "}" and stack:
            start, box = stack.pop()
            if box < 0 or start == match.start() or text[start : match.start()].isspace():
                continue
            content = start, match.start()
            if found and found[-1][0] == start and found[-1][3] == match.start():
                content = found[-1][1:3]  # a box in a box
            while found and found[-1][0] >= start:
                found.pop()
            found.append((box, *content, match.end()))
    return [(box, text[start:stop].strip(), end) for box, start, stop, end in found[-_BOXES:]]


# ---------------------------------------------------------------- what of a response counts

RUN_ON = ("\n\nProblem:", "\nQuestion:", "\nQ:", "\nUser:", "\nHuman:", "\n### Instruction", "\n### Question")
"""Stop strings for a base model, which runs on into a next question: for a task's ``stop``."""

_THOUGHTS = (
    "think(?:ing)?|thoughts?|thought_process|thinking_process|reason(?:ing)?|reflection|scratchpad|analysis|"
    "inner_monologue|internal_monologue|rationale|seed:think|longcat_think"
)
_THOUGHT = re.compile(
    rf"<(?P<close>/)?(?:{_THOUGHTS})(?: [^<>]{{0,60}})?>|\[(?P<c2>/)?(?:think|thinking|reasoning)\]|◁(?P<c3>/)?think▷"
    r"|<\|(?:begin|(?P<c4>end))_of_(?:thought|thinking)\|>|<unused(?:94>(?:thought)?|(?P<c5>95)>)"
    r"|\AThinking\.\.\.\n|^(?P<c6>\.\.\.done thinking\.)",
    re.IGNORECASE | re.MULTILINE,
)
_CHANNEL = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>\s*final[^<]{0,40}<\|message\|>|\Aanalysis(?=[A-Z\s])[\s\S]*assistantfinal")
# Tokens between turns. A box in tokens (<|begin_of_box|>) is an answer's mark, and no turn.
_TURN = re.compile(
    r"<[|｜](?!begin_of_box|end_of_box)[A-Za-z_▁]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|EOT|end_of_utterance)>"
    r"|</?(?:start|end)_of_turn>|\[/?INST\]|\[EOS\]"
)
_ROLE = re.compile(r"\s*(?:(?:assistant|model|bot)(?=\s|$))?\s*", re.IGNORECASE)
_QUESTION = re.compile(
    r"^[#*_>\[ \t]{0,6}(?:(?:(?:next |new )?(?:problem|question|exercise|task|query|puzzle)|q|user|human|student"
    rf"|instruction|{QUESTIONS}) ?(?:#? ?\d{{1,3}} ?)?[*_\]]{{0,3}}"
    r" ?[:：]|(?:problem|question|exercise) \d{1,3}[*_]{0,3}[.\n]"
    r"|#{2,4} ?(?:instruction|question|problem|input|user|human)s?[:\n])"
    r"|^\{\s?[\"']question[\"']|(?<=[.!?] )(?:Question|Problem) ?\d{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
_PARTS = 50


def unthought(text: str) -> str | None:
    """A response without what its model thought (``<think>`` and the tags and channels that usual models write);
    None if it ends while it is thinking. A closing tag that nothing opened ends a thought that the prompt opened."""
    if _CHANNEL in text or text.startswith("analysis"):
        final = deque(_FINAL.finditer(text), maxlen=1)
        if final:
            return text[final[0].end() :]
        if _CHANNEL in text or text[len("analysis") :][:1].isupper():
            return None
    kept: list[str] = []
    start, thinking = 0, False
    for tag in _THOUGHT.finditer(text):
        if any(tag[name] for name in ("close", "c2", "c3", "c4", "c5", "c6")):
            if not thinking:
                kept.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            kept.append(text[start : tag.start()])
            thinking = True
    return None if thinking else "".join([*kept, text[start:]])


def cleaned(text: str) -> str:
    """A response without thoughts, from the first word of the model's turn to the token that ends it; "" if it ended
    while it was thinking."""
    text = unthought(text) or ""
    start = end = 0
    for token in _TURN.finditer(text):
        end = token.start()
        if _ROLE.fullmatch(text, start, end) is None:
            break
        start = end = token.end()
    else:
        end = len(text)
    role = _ROLE.match(text, start, end) if start else None
    return text[role.end() if role else start : end]


def parts(text: str) -> list[str]:
    """A cleaned response, cut where a base model runs on into a next question; most responses are one part. One that
    opens with a first question takes its problem apart, and is one part."""
    starts = [0]
    first = _QUESTION.match(text, len(text) - len(text.lstrip()))
    if first is not None and re.search(r"1\D*$", first[0]):
        return [text]
    for question in _QUESTION.finditer(text):
        if question.start():
            starts.append(question.start())
        if len(starts) == _PARTS:
            break
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
