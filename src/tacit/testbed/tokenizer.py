"""The testbed's tokenizer: one token a word, one a digit; a chat template; decoding that joins digits again.

Builds on families and solutions (for their words). ``encode(decode(ids)) == ids`` for texts of the testbed, and texts
decode as they were written. A conversation renders as documents in a row, which is what the model was trained on, so
earlier turns serve as worked examples.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tacit.testbed.families import NAMES, STYLES, TEMPERS, THINGS

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


def vocabulary() -> list[str]:
    """All tokens in order of their ids."""
    words = [PAD, EOS, UNK, PROBLEM, SOLUTION, ANSWER, *"0123456789", *"+-*=,.?;:"]
    words += " ".join([*TEMPERS.values(), *STYLES.values(), *NAMES, *THINGS, _WORDS]).split()
    return list(dict.fromkeys(words))


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, in the standard wrapper."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    labels = "|".join((PROBLEM, SOLUTION, ANSWER))
    pieces = Regex(rf"{labels}|[0-9]|[A-Za-z]+|[^\sA-Za-z0-9]")
    core.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="removed", invert=True)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex("$"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex("(?<=[0-9]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r" (?=[?.,;:])"), ""),
            decoders.Replace(Regex(" $"), ""),
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
