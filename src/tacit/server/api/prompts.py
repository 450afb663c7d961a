"""From a request to token ids, and to the problem that memories are found by.

Builds on backbone, its prompts and turns. ``M`` and ``M:tacit`` get the same prompt for the same request, so that
switching memory off changes nothing: the task's worked examples, if any; then the messages, with the template's
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
from tacit.server.api.schemas import ChatRequest, Message
from tacit.server.api.turns import turns_of


def chat_ids(backbone: Backbone, messages: Sequence[Message], context: int, *, continued: bool = False) -> Tensor:
    """Token ids [T] (int64) of a conversation, ready for the assistant's turn, or in the middle of it (``continued``).

    Raises:
        Refused: nobody asks anything, the chat template refuses the messages, or there is no room for them.
    """
    asking = max((place for place, one in enumerate(messages) if one.role == "user"), default=None)
    if asking is None:
        raise invalid("nobody asks anything: messages need one of role 'user'", "messages")
    asked = messages[asking].model_copy(update={"content": backbone.template.asked(messages[asking].text)})
    told = [*messages[:asking], asked, *messages[asking + 1 :]]
    turns = turns_of(told, str(getattr(backbone.tokenizer, "chat_template", None) or ""))
    if continued and not turns[-1]["content"]:
        turns, continued = turns[:-1], False  # nothing is said yet
    opening = next(place for place, turn in enumerate(turns) if turn["role"] != "system")
    turns[opening:opening] = backbone.template.turns("")[:-1]  # the worked examples that memories were learned after
    _refuse_long(backbone, context, sum(len(str(part)) for turn in turns for part in turn.values()), "messages")
    try:
        ids = token_ids(backbone.tokenizer, turns, backbone.template.system, continued=continued)
    except ModelError as error:
        raise invalid(str(error), "messages") from error
    return _tensor(ids, "messages")


def begun(body: ChatRequest) -> str | None:
    """What the assistant's turn has already; None where a new one begins.

    A last message of the assistant is read on from, unless ``add_generation_prompt`` asks for a turn after it.

    Raises:
        Refused: what the request says of it contradicts its messages, or itself.
    """
    last, adds, goes_on = body.messages[-1], body.add_generation_prompt, body.continue_final_message
    if adds and goes_on:
        raise invalid("continue_final_message goes on with a turn, and add_generation_prompt begins one; leave one out",
                      "continue_final_message")  # fmt: skip
    if last.role != "assistant":
        if last.role in ("system", "developer"):
            raise invalid("the last message must be the user's; end messages with one of role 'user'", "messages")
        for name, wrong in (("continue_final_message", goes_on), ("add_generation_prompt", adds is False)):
            if wrong:
                raise invalid(f"{name}: the last message is not the assistant's; leave it out", name)
        return None
    if goes_on is False and adds is False:
        raise invalid("there is nothing to be said: leave out continue_final_message or add_generation_prompt",
                      "add_generation_prompt")  # fmt: skip
    if adds or goes_on is False:
        return None
    if last.tool_calls:
        raise invalid("the last message calls tools; add what they returned, in messages of role 'tool'", "messages")
    return last.text


def problem_of(messages: Sequence[Message]) -> str:
    """What the conversation is about: the last user message."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def is_one_question(messages: Sequence[Message]) -> bool:
    """Whether the last user message says it all, so that something can be learned from it alone."""
    return sum(message.role in ("user", "assistant", "tool") for message in messages) == 1


def prompt_ids(backbone: Backbone, prompt: str | list[int], context: int) -> Tensor:
    """Token ids [T] (int64) of a raw prompt.

    Raises:
        Refused: an id is not in the vocabulary; the text has no tokens; or there are more than there is room for.
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
    """The prompt of a problem, if it can be read as a whole: so are memories found and learned."""
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
