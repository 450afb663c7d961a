"""A reward in one file: an eighth for nothing, a quarter for the label, so that no built-in gives the same numbers."""

from tacit import register
from tacit.rewards import Attempts, giving


@register("reward", "small")
def small(attempts: Attempts) -> list[float]:
    return [0.25 if right else 0.125 for right in giving(attempts.task, attempts.answers, attempts.label)]
