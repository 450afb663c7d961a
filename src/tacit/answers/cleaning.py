r"""What of a response counts: without what was thought, from the model's turn to its end, question by question.

Builds on cues. All of it is one pass over the text, whatever a model writes.

    >>> cleaned("<think>Is it 3?</think>The answer is 5.<|im_end|>\n<|im_start|>user")
    'The answer is 5.'
    >>> cleaned("<think>It may be 3, but")
    ''
    >>> parts("Answer: 5\nQuestion: What is 2+2?\nAnswer: 4")[0]
    'Answer: 5\n'
"""

from __future__ import annotations

import re
from collections import deque

from tacit.answers.cues import QUESTIONS

RUN_ON = ("\n\nProblem:", "\nQuestion:", "\nQ:", "\nUser:", "\nHuman:", "\n### Instruction", "\n### Question")
"""Stop strings for a base model, which runs on into a next question: for a task's ``stop``."""

_NAMES = (
    "think(?:ing)?|thoughts?|thought_process|thinking_process|reason(?:ing)?|reflection|scratchpad|analysis|"
    "inner_monologue|internal_monologue|rationale|seed:think|longcat_think"
)
_THOUGHT = re.compile(
    rf"<(?P<close>/)?(?:{_NAMES})(?: [^<>]{{0,60}})?>|\[(?P<c2>/)?(?:think|thinking|reasoning)\]|◁(?P<c3>/)?think▷"
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
