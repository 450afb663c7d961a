"""From a request to token ids, and to the problem that memories are found by.

Builds on backbone and its prompts. ``M`` and ``M:tacit`` get the same prompt for the same request, so that switching
memory off changes nothing: the messages, after the worked examples of the task if it has any, with the template's
instruction (none unless the operator gave one) after the last user message. A ``context`` is that of the engine that
serves the request.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.errors import ModelError
from tacit.model.backbone import Backbone
from tacit.model.prompts import token_ids
from tacit.server.api.errors import Refused, invalid
from tacit.server.api.schemas import Message


def chat_ids(backbone: Backbone, messages: Sequence[Message], context: int) -> Tensor:
    """Token ids [T] (int64) of a conversation, ready for the assistant's turn.

    Raises:
        Refused: the last message is not the user's, the chat template refuses them, or there is no room for them.
    """
    roles = {"developer": "system"}
    turns = [{"role": roles.get(one.role, one.role), "content": one.text} for one in messages]
    if turns[-1]["role"] != "user":
        raise invalid("the last message must be the user's; end messages with one of role 'user'", "messages")
    turns[-1]["content"] = backbone.template.asked(turns[-1]["content"])
    opening = next(place for place, turn in enumerate(turns) if turn["role"] != "system")
    turns[opening:opening] = backbone.template.turns("")[:-1]  # the worked examples that memories were learned after
    _refuse_long(backbone, context, sum(len(turn["content"]) for turn in turns), "messages")
    try:
        ids = token_ids(backbone.tokenizer, turns, backbone.template.system)
    except ModelError as error:
        raise invalid(str(error), "messages") from error
    return _tensor(ids, "messages")


def problem_of(messages: Sequence[Message]) -> str:
    """What the conversation is about: the last user message."""
    return next(message.text for message in reversed(messages) if message.role == "user")


def is_one_question(messages: Sequence[Message]) -> bool:
    """Whether the last user message says it all, so that something can be learned from it alone."""
    return sum(message.role in ("user", "assistant") for message in messages) == 1


def prompt_ids(backbone: Backbone, prompt: str | list[int], context: int) -> Tensor:
    """Token ids [T] (int64) of a raw prompt.

    Raises:
        Refused: an id is not in the vocabulary, the text has no tokens, or there are more than there is room for.
    """
    if isinstance(prompt, str):
        _refuse_long(backbone, context, len(prompt), "prompt")
        return _tensor(backbone.tokenizer(prompt, verbose=False)["input_ids"], "prompt")
    if len(prompt) > context:  # before a million ids become a tensor and a text
        raise too_long(context, f"{len(prompt)} prompt tokens are too many", "prompt")
    if max(prompt) >= backbone.vocab_size:
        raise invalid(f"token id {max(prompt)} is not in the vocabulary of {backbone.vocab_size} tokens", "prompt")
    return torch.tensor(prompt, dtype=torch.int64)


def searchable(backbone: Backbone, problem: str, context: int) -> Tensor | None:
    """The prompt of a problem, if it can be read as a whole, which is how memories are found and learned."""
    if len(problem) > _most_characters(backbone, context):
        return None
    ids = backbone.encode(problem)
    return ids if len(ids) <= context else None


def new_tokens(context: int, length: int, wanted: int | None, default: int, kept_free: int) -> int:
    """How many tokens may be generated.

    Args:
        context: most tokens of a sequence.
        length: of the prompt.
        wanted: what the request asks for, None for the default.
        default: most tokens where the request names no number.
        kept_free: positions that a soft prompt may need besides, where the request leaves the choice to us.

    Raises:
        Refused: prompt and answer do not fit.
    """
    needed = 1 if wanted is None else wanted
    if length + needed > context:
        raise too_long(context, f"{length} prompt tokens and {needed} new ones do not fit", "messages")
    return wanted if wanted is not None else max(1, min(default, context - length - kept_free))


def too_long(context: int, what: str, param: str) -> Refused:
    """400, by the code that clients know."""
    return invalid(
        f"{what}: this model has room for {context} tokens; shorten the prompt or lower max_tokens",
        param,
        "context_length_exceeded",
    )


def _refuse_long(backbone: Backbone, context: int, characters: int, param: str) -> None:
    # Seen without tokenising: that alone would keep a core busy for seconds with a text of megabytes.
    if characters > _most_characters(backbone, context):
        raise too_long(context, f"{characters} characters of prompt are too many", param)


def _most_characters(backbone: Backbone, context: int) -> int:
    return context * (backbone.longest_token + 1)


def _tensor(ids: list[int], param: str) -> Tensor:
    if not ids:
        raise invalid("the prompt has no tokens; give some text", param)
    return torch.tensor(ids, dtype=torch.int64)
