"""Responses in which no answer was found: what share they are, and, where most are such, a line about what helps.

Builds on the responses, for their types alone. A task that does not fit what a model writes is the commonest reason why
a run learns nothing, and accuracies do not show it: no answer counts as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tacit.engines.base import Rollout
    from tacit.responses import Responses

MOST = 0.5
"""A larger share of responses without an answer is told."""

HELP = "another --task or --instruction, or, where responses are cut or run on, more --max-tokens or a --stop"
SHOWN = 100
"""Characters of a response that are shown, half of them from its end."""


def asked(row: Mapping[str, Any]) -> Sequence[str | None]:
    """The zero-shot answers in a row of a run, or a method's in one of a comparison; none where it was not asked, or
    failed."""
    if str(row.get("not_learned")).startswith("not asked") or row.get("failed"):
        return ()
    return row.get("zero_shot", row).get("answers") or ()


def counted(answers: Iterable[Sequence[str | None]]) -> dict[str, Any]:
    """``{responses, none, share}``: how many there are, how many have no answer, and their share (None of nothing)."""
    found = [answer is None for several in answers for answer in several]
    return {"responses": len(found), "none": sum(found), "share": sum(found) / len(found) if found else None}


def silent(responses: Iterable[Responses]) -> list[Rollout]:
    """The samples without an answer."""
    pairs = (pair for one in responses for pair in zip(one.samples, one.answers, strict=True))
    return [rollout for rollout, answer in pairs if answer is None]


def advice(rollouts: Sequence[Rollout]) -> str:
    """What helps against responses like these, none of which has an answer; with one of them, shortened."""
    cut = [rollout for rollout in rollouts if rollout.finish == "length"]
    mostly_cut = 2 * len(cut) > len(rollouts)
    text = " ".join((cut if mostly_cut else [one for one in rollouts if one.finish != "length"])[0].text.split())
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
    helps = "another --task or --instruction (tacit tasks lists tasks, tacit tasks try NAME shows what one finds)"
    if mostly_cut:
        helps = f"more --max-tokens, which cut most of them, a --stop where they run on, or {helps}"
    return f'for example "{text}"; try {helps}'


class Watch:
    """Counts the responses of a run, and tells once if most have no answer.

    Args:
        tell: gets the line, which holds what a model wrote: not every terminal should see it as it is.
        task: name of the task.
    """

    def __init__(self, tell: Callable[[str], None], task: str) -> None:
        self._tell, self._task = tell, task
        self._counts = [0, 0]
        self._told = False

    def rows(self, rows: Iterable[Mapping[str, Any]], responses: Iterable[Responses] = ()) -> None:
        """Count final rows; ``responses`` are what they were made of, where that is still known."""
        new = counted(map(asked, rows))
        self._counts = [self._counts[0] + new["none"], self._counts[1] + new["responses"]]
        none, every = self._counts
        examples = silent(responses)
        if examples and not self._told and none > MOST * every:
            self._told = True
            share = f"{none} of {every} responses so far ({100 * none / every:.1f} %)"
            self._tell(f"{share} have no answer that the task {self._task} can read, {advice(examples)}")
