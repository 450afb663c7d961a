"""A task in one file: the last number is the answer."""

import re

from tacit import Task, register


@register("task", "numbers")
class Numbers(Task):
    def extract(self, text: str) -> str | None:
        found = re.findall(r"\d+", text)
        return found[-1] if found else None
