"""From a request to token ids, and to the problem that memories are found by.

Builds on backbone. ``M`` and ``M:tacit`` get the same prompt for the same request, so that switching memory off changes
nothing: the chat template over the messages, with the template's instruction (none unless the operator gave one) after
the last user message. A conversation of one user message is then exactly the prompt that memories are learned on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.model.backbone import Backbone
from tacit.server.api.errors import Refused, invalid
from tacit.server.api.schemas import Message


def chat_ids(backbone: Backbone, messages: Sequence[Message]) -> Tensor:
    """Token ids [T] (int64) of a conversation, ready for the assistant's turn.

    Raises:
        Refused: there is no user message, or the last message is not the user's.
    """
    turns = [{"role": message.role, "content": message.text} for message in messages]
    if turns[-1]["role"] != "user":
        raise invalid("the last message must be the user's; end messages with one of role 'user'", "messages")
    if backbone.template.instruction:
        turns[-1]["content"] += f"\n{backbone.template.instruction}"
    if backbone.template.system and all(turn["role"] not in ("system", "developer") for turn in turns):
        turns.insert(0, {"role": "system", "content": backbone.template.system})
    _refuse_long(backbone, sum(len(turn["content"]) for turn in turns), "messages")
    if not getattr(backbone.tokenizer, "chat_template", None):
        return _ids(backbone, _plain(turns), "messages", special=True)
    for turn in turns:
        turn["role"] = "system" if turn["role"] == "developer" else turn["role"]
    try:
        text = backbone.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # the template is a program of the model's makers, and may refuse roles or their order
        reason = " ".join(str(error).split())[:200]
        raise invalid(f"the model's chat template refuses these messages: {reason}", "messages") from error
    return _ids(backbone, str(text), "messages", special=False)


def _plain(turns: Sequence[dict[str, str]]) -> str:
    """The form that models without a chat template are asked in (``Backbone.encode``)."""
    parts = []
    for turn in turns:
        if turn["role"] == "user":
            parts.append(f"Problem: {turn['content']}\nSolution:")
        elif turn["role"] == "assistant":
            parts.append(f" {turn['content']}\n\n")
        else:
            parts.append(f"{turn['content']}\n\n")
    return "".join(parts)


def problem_of(messages: Sequence[Message]) -> str:
    """What the conversation is about: the last user message."""
    return next(message.text for message in reversed(messages) if message.role == "user")


def is_one_question(messages: Sequence[Message]) -> bool:
    """Whether the last user message says it all, so that something can be learned from it alone."""
    return sum(message.role in ("user", "assistant") for message in messages) == 1


def prompt_ids(backbone: Backbone, prompt: str | list[int]) -> Tensor:
    """Token ids [T] (int64) of a raw prompt.

    Raises:
        Refused: an id is not in the vocabulary, the text has no tokens, or there are more than the model has room for.
    """
    if isinstance(prompt, str):
        _refuse_long(backbone, len(prompt), "prompt")
        return _ids(backbone, prompt, "prompt", special=True)
    if len(prompt) > backbone.context:  # before a million ids become a tensor and a text
        raise too_long(backbone, f"{len(prompt)} prompt tokens are too many", "prompt")
    if max(prompt) >= backbone.vocab_size:
        raise invalid(f"token id {max(prompt)} is not in the vocabulary of {backbone.vocab_size} tokens", "prompt")
    return torch.tensor(prompt, dtype=torch.int64)


def searchable(backbone: Backbone, problem: str) -> bool:
    """Whether the model can read a problem as a whole, which is how memories are found and learned."""
    return len(problem) <= _most_characters(backbone) and len(backbone.encode(problem)) <= backbone.context


def fitting(backbone: Backbone, ids: Tensor, wanted: int | None, default: int, kept_free: int) -> int:
    """How many tokens may be generated.

    Args:
        ids: the prompt [T].
        wanted: what the request asks for, None for the default.
        default: most tokens where the request names no number.
        kept_free: positions that a soft prompt may need besides, where the request leaves the choice to us.

    Raises:
        Refused: prompt and answer do not fit the model.
    """
    room = backbone.context - len(ids)
    needed = 1 if wanted is None else wanted
    if needed > room:
        raise too_long(backbone, f"{len(ids)} prompt tokens and {needed} new ones do not fit", "messages")
    return wanted if wanted is not None else max(1, min(default, room - kept_free))


def too_long(backbone: Backbone, what: str, param: str) -> Refused:
    """400, by the code that clients know."""
    return invalid(
        f"{what}: this model has room for {backbone.context} tokens; shorten the prompt or lower max_tokens",
        param,
        "context_length_exceeded",
    )


def _refuse_long(backbone: Backbone, characters: int, param: str) -> None:
    # Seen without tokenising: that alone would keep a core busy for seconds with a text of megabytes.
    if characters > _most_characters(backbone):
        raise too_long(backbone, f"{characters} characters of prompt are too many", param)


def _most_characters(backbone: Backbone) -> int:
    return backbone.context * (backbone.longest_token + 1)


def _ids(backbone: Backbone, text: str, param: str, *, special: bool) -> Tensor:
    ids = backbone.tokenizer(text, add_special_tokens=special)["input_ids"]
    if not ids:
        raise invalid("the prompt has no tokens; give some text", param)
    return torch.tensor(ids, dtype=torch.int64)
