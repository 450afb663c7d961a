"""How a problem or a conversation becomes a prompt: by the tokenizer's chat template, or plain where it has none.

Builds on errors and the registry. Nothing else knows the layout. So what a memory is learned on and what a server's
client asks are the same tokens: a conversation of one user message is the prompt of that problem. And how a memory
comes before it, and what it starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tacit import registry
from tacit.errors import ModelError
from tacit.registry import register
from tacit.tasks.maths import MATHS

if TYPE_CHECKING:
    from tacit.model.backbone import Backbone
    from tacit.model.presets import Preset

BOXED = MATHS.instruction

RUN_ON = ("\nProblem:",)
"""Where a model that is asked plainly goes on with a problem of its own making."""

Turn = dict[str, Any]
"""``role`` ("system", "user" or "assistant") and ``content`` of a message; what a conversation with tools has besides
(``role`` "tool", ``tool_calls``) is for chat templates that know it."""


@dataclass(frozen=True)
class Template:
    """How a problem becomes a prompt.

    Attributes:
        instruction: appended to the problem ("" for none).
        system: system message, for chat templates ("" for none).
        examples: worked (problem, solution) pairs shown before every problem.
        stop: strings that end a response.
        task: name of the task whose layout this is.
    """

    instruction: str = BOXED
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    stop: tuple[str, ...] = ()
    task: str = MATHS.name

    def asked(self, problem: str) -> str:
        """A problem as the user says it."""
        return f"{problem}\n{self.instruction}" if self.instruction else problem

    def turns(self, problem: str, examples: Sequence[tuple[str, str]] = ()) -> list[Turn]:
        """The conversation that asks for a problem, after worked (problem, solution) pairs."""
        turns = []
        for shown, solution in (*self.examples, *examples):
            turns += [{"role": "user", "content": self.asked(shown)}, {"role": "assistant", "content": solution}]
        return [*turns, {"role": "user", "content": self.asked(problem)}]


def token_ids(tokenizer: Any, turns: Sequence[Turn], system: str = "", *, continued: bool = False) -> list[int]:
    """Token ids of a conversation, ready for the assistant's turn; none where the tokenizer finds nothing in it.

    Args:
        tokenizer: a Hugging Face tokenizer.
        turns: the conversation, its instructions included.
        system: what a chat template gets as system message where the conversation has none ("" for nothing).
        continued: the last turn is the assistant's and not over; no new one is begun.

    Raises:
        ModelError: the chat template refuses these roles or their order.
    """
    if not getattr(tokenizer, "chat_template", None):
        text = "".join(map(_plain, turns))
        ids: list[int] = tokenizer(text.removesuffix("\n\n") if continued else text, verbose=False)["input_ids"]
        return ids
    if system and all(turn["role"] != "system" for turn in turns):
        turns = [{"role": "system", "content": system}, *turns]
    try:
        text = tokenizer.apply_chat_template(
            list(turns), add_generation_prompt=not continued, continue_final_message=continued, tokenize=False
        )
    except Exception as error:  # the template is a program of the model's makers, and raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the model's chat template refuses these messages: {reason}") from error
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _plain(turn: Turn) -> str:
    form = {"user": "Problem: {}\nSolution:", "assistant": " {}\n\n"}.get(turn["role"], "{}\n\n")
    return form.format(turn["content"])


@register("carrier", "prompt")
class Prompt:
    """The paper's carrier, which is how memories enter the model: rows [K, d] of input embeddings before the problem's.
    Others are made from it (model/carriers.py).

    Attributes:
        scale: standard deviation of the numbers among which a memory's stand; learning rates are relative to it.
        norm: mean norm of the rows among which a memory's stand; the cap on its rows is relative to it.
        rows: of a memory; None where learning may choose.
    """

    name = "prompt"
    called = "a soft prompt that is"
    among = "the inputs"

    def __init__(self, backbone: Backbone) -> None:
        self.rows: int | None = None
        self.scale, self.norm = backbone.embedding_std, backbone.embedding_norm

    def fits(self, preset: Preset) -> dict[str, Any]:
        """Settings of learning that suit memories of this kind, by the preset of the model."""
        return {"lr": preset.lr * self.scale}

    def fitting(self, backbone: Backbone, memory: Tensor) -> bool:
        """Whether a memory has the shape of one."""
        return memory.ndim == 2 and memory.shape[1] == backbone.hidden_size and self.rows in (None, len(memory))

    def start(self, name: str, start: Any) -> Tensor:
        """The memory [rows, d] that learning begins with, float32 on the CPU: what the registry's ``name`` makes of a
        ``Start``."""
        made: Tensor = registry.get("start", name)(start)
        return made

    def columns(self, memory: Any) -> int:
        """Positions that a memory [rows, d] takes in a sequence; 0 for None."""
        return 0 if memory is None else len(memory)

    def read(self, embeds: Tensor, memory: Tensor | None) -> Tensor:
        """What the model reads of a prompt [T, d] with a memory: [columns + T, d], in the model's dtype."""
        return embeds if memory is None else torch.cat([memory.to(embeds.device, embeds.dtype), embeds])

    def added(self, backbone: Backbone, memories: Sequence[Tensor | None]) -> Tensor | None:
        """What each row's memory adds to the residual stream after each layer, [R, layers, d]; None for nothing."""
        return None

    def adding(self, backbone: Backbone, added: Tensor | None) -> AbstractContextManager[None]:
        """A block in which passes through transformers' own layers add what ``added`` gave."""
        return nullcontext()


# -- what a soft prompt starts from -----------------------------------------------------------------------------------

EXAMPLE = 64
"""Most rows of a soft prompt that starts from a worked example."""


@dataclass(frozen=True)
class Start:
    """What a start is made of.

    Attributes:
        backbone: whose inputs it has to be.
        tokens: K, rows wanted.
        rng: for what is drawn.
        example: the problem and a response that gives its label, if there is one.
    """

    backbone: Backbone
    tokens: int
    rng: np.random.Generator
    example: tuple[str, str] | None = None


@register("start", "gaussian")
def gaussian(start: Start) -> Tensor:
    """Noise at the scale of the embeddings, float32 [K, d] on the CPU."""
    noise = start.rng.standard_normal((start.tokens, start.backbone.hidden_size), dtype=np.float32)
    return torch.from_numpy(noise) * start.backbone.embedding_std


@register("start", "vocabulary")
def vocabulary(start: Start) -> Tensor:
    """Embeddings of random tokens."""
    ids = torch.from_numpy(start.rng.integers(0, len(start.backbone.tokenizer), start.tokens))
    return start.backbone.embed(ids).detach().float().cpu().clone()


@register("start", "trace")
def trace(start: Start) -> Tensor:
    """Embeddings of the problem with its own response as a worked example, its last ``EXAMPLE`` tokens at most. So
    learning begins where in-context learning ends; else rows of random tokens."""
    ids = None if start.example is None else start.backbone.example_ids(*start.example)
    return vocabulary(start) if ids is None else start.backbone.embed(ids[-EXAMPLE:]).detach().float().cpu().clone()


trace.informed = True  # type: ignore[attr-defined]
