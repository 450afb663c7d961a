"""From a client's messages to the turns that a chat template takes, those of tools among them.

Builds on schemas. No tool is ever called here; but a conversation in which another model called some has to be read on
from. A template that knows tools gets their turns as they are. Any other gets the same in words, in the form that
Qwen's own template writes: calls as JSON in the assistant's turn, results in the user's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tacit.model.prompts import Turn
from tacit.server.api.schemas import Message, ToolCall

ROLES = {"developer": "system"}


def turns_of(messages: Sequence[Message], template: str) -> list[Turn]:
    """The turns of a conversation.

    Args:
        messages: as they came.
        template: the source of the chat template, "" for none.
    """
    knows = "tool_calls" in template
    turns: list[Turn] = []
    after_tool = False
    for one in messages:
        is_tool = one.role == "tool"
        if is_tool and not knows:
            said = f"<tool_response>\n{one.text}\n</tool_response>"
            if after_tool:  # many templates refuse two turns of the user
                turns[-1]["content"] += f"\n{said}"
            else:
                turns.append({"role": "user", "content": said})
        else:
            turns.append({"role": ROLES.get(one.role, one.role), "content": one.text, **_besides(one, knows)})
        after_tool = is_tool
    return turns


def _besides(message: Message, knows: bool) -> Turn:
    """What the turn of a message with tools has besides, or in place of, its content."""
    if not knows:
        calls = [f"<tool_call>\n{json.dumps(_said(call))}\n</tool_call>" for call in message.tool_calls or ()]
        return {"content": "\n".join([*([message.text] if message.text else []), *calls])} if calls else {}
    more: Turn = {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    if message.role == "tool" and message.name:
        more["name"] = message.name
    if message.tool_calls:
        calls_ = [{"type": "function", "function": _said(call), **_id(call)} for call in message.tool_calls]
        more["tool_calls"] = calls_
    return more


def _id(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id} if call.id else {}


def _said(call: ToolCall) -> dict[str, Any]:
    """Name and arguments; those as an object where they are one, which is what templates write as JSON again."""
    arguments: Any = call.function.arguments
    with suppress(ValueError, RecursionError):
        arguments = json.loads(arguments)
    return {"name": call.function.name, "arguments": arguments}
