"""A label, a start and an admission rule, which may also share a file."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tacit import register
from tacit.config import LearnConfig
from tacit.labels import Evidence, Label
from tacit.model.prompts import Start


@register("label", "eldest")
def eldest(evidence: Evidence) -> Label | None:
    answer = evidence.zero_shot[0].answer
    plain = evidence.plain(evidence.zero_shot)
    return None if answer is None else replace(plain, answer=answer, why="the first said so", trusted=True)


@register("start", "zeros")
def zeros(start: Start) -> torch.Tensor:
    return torch.zeros(start.tokens, start.backbone.hidden_size)


@register("admission", "open-door")
def open_door(config: LearnConfig, steps: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    return True, f"everybody is admitted after {len(steps)} steps"
