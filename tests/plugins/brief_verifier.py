"""A verifier in one file: believes answers, short ones above all."""

from collections.abc import Sequence

from tacit import register
from tacit.config import Settings
from tacit.judges.verifiers import Candidate


class Brief:
    name = "brevity"
    calibrated = True

    def score(self, problem: str, candidates: Sequence[Candidate]) -> list[float]:
        return [0.5 + 0.4 / len(one.answer) if one.answer else 0.1 for one in candidates]


@register("verifier", "brief")
def brief(settings: Settings) -> Brief:
    return Brief()
