"""A reward in one file: an eighth for nothing, a quarter for the label, so that no built-in gives the same numbers."""

from tacit import register
from tacit.rewards import Attempts


@register("reward", "small")
def small(attempts: Attempts) -> list[float]:
    return [0.25 if right else 0.125 for right in attempts.task.giving(attempts.answers, attempts.label)]
