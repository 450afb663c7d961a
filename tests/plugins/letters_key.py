"""A key in one file: how often each letter occurs; its argument is the first letter that counts."""

import torch

from tacit import register
from tacit.model.backbone import Backbone


@register("key", "letters")
def letters(backbone: Backbone, text: str, argument: str) -> torch.Tensor:
    counted = [chr(code) for code in range(ord(argument or "a"), ord("z") + 1)]
    return torch.tensor([1.0 + text.count(letter) for letter in counted])
