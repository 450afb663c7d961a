"""The testbed's tokenizer: one token a word, one a digit; a chat template; decoding that joins digits again.

Builds on family, arithmetic and words (for their words). The model of sets A and B has one vocabulary, that of set C
another. The latter knows the end of a line and the label of an option. ``encode(decode(ids)) == ids`` for texts of the
testbed, and texts decode as they were written. A conversation renders as documents in a row, which is what the model
was trained on. So earlier turns serve as worked examples.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tacit.testbed import words
from tacit.testbed.arithmetic import NAMES, THINGS
from tacit.testbed.family import STYLES, TEMPERS

PROBLEM, SOLUTION, ANSWER = "Problem:", "Solution:", "Answer:"
PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
MAX_LENGTH = 1024

_WORDS = (
    "compute last digit of largest count over in has and how many all at most more loose boxes finds now before or "
    "check"
)

# A system message has no place in a document and is left out.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ 'Problem: ' + message['content'] | trim + ' Solution:' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ ' ' + message['content'] | trim + '<eos>' }}"
    "{%- endif -%}{%- endfor -%}"
)


def vocabulary(which: str = "AB") -> list[str]:
    """All tokens in order of their ids, of the model of sets "AB" or of set "C"."""
    known = [PAD, EOS, UNK, PROBLEM, SOLUTION, ANSWER]
    known += [*"0123456789", *"+-*=,.?;:"] if which == "AB" else [*words.LABELS, *"\n123456,.?;:", *words.tokens()]
    known += " ".join([*TEMPERS.values(), *STYLES.values()]).split()
    return list(dict.fromkeys(known + (" ".join([*NAMES, *THINGS, _WORDS]).split() if which == "AB" else [])))


def pieces(which: str = "AB") -> str:
    """A regular expression of what becomes a token."""
    labels = "|".join((PROBLEM, SOLUTION, ANSWER))
    return rf"{labels}|" + (r"[A-D]\)|\n|" if which == "C" else "") + r"[0-9]|[A-Za-z]+|[^\sA-Za-z0-9]"


def build(which: str = "AB") -> PreTrainedTokenizerFast:
    """The tokenizer, in the standard wrapper."""
    ids = {word: i for i, word in enumerate(vocabulary(which))}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pieces(which)), behavior="removed", invert=True)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex("$"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex("(?<=[0-9]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r" (?=[?.,;:])"), ""),
            decoders.Replace(Regex(" $"), ""),
            *([decoders.Replace(Regex(r" *\n *"), "\n")] if which == "C" else []),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prompt(text: str) -> str:
    """A problem as the model is asked it; what the chat template gives for one user turn."""
    return f"{PROBLEM} {text} {SOLUTION}"
