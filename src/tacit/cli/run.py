"""``tacit run``, ``tacit demo`` and ``tacit ask``: the commands that answer problems and learn from them.

Builds on options and config at import, and on assembly, the run and the agent when called. What a setting means, and
which values it can have, is said in config.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit.cli.common import BankOption, Interrupted, JsonOption, emit, emit_json, one_line, opened_bank, show_summary
from tacit.cli.options import Given, taking
from tacit.cli.progress import Progress
from tacit.config import RunConfig
from tacit.errors import ConfigError

if TYPE_CHECKING:
    from tacit.bank import Bank
    from tacit.responses import Responses

DEMO: dict[str, Any] = {
    "out": "runs/demo",
    "limit": 216,
    "window": 12,
    "baselines": ("icl", "random", "verified", "majority"),
}
"""The demonstration: enough problems for intervals, in minutes on two cores."""

OF_A_STREAM = ("data", "out", "limit", "window", "baselines")
"""Settings of a run that a single problem has no use for."""


@taking(RunConfig)
def run(given: Given) -> None:
    """Answer a stream of problems one after the other, learn a memory from each, and report.

    A run folder that is there is continued, with the settings it was begun with where they are not given again.
    """
    from tacit.experiments.run_folder import begun

    config = given.settings(begun(given.settings(RunConfig())))
    _run(config, f"{config.model} on {config.data}, seed {config.seed}")


@taking(RunConfig, only=("out", "seed", "limit", "window"))
def demo(given: Given) -> None:
    """See it work: the testbed model on fresh problems, beside in-context learning and controls."""
    from tacit.experiments.run_folder import begun

    config = given.settings(begun(given.settings(RunConfig(**DEMO))))
    _run(config, f"demo, seed {config.seed}")


@taking(RunConfig, leave_out=(*OF_A_STREAM, "bank"))
def ask(
    given: Given,
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="The problem's text, or - to read it from stdin.")],
    bank: BankOption,
    learn: Annotated[bool, typer.Option("--learn", help="Learn a memory from it, and store it.")] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Recall a memory, or do without.")] = True,
    json: JsonOption = False,
) -> None:
    """Answer one problem with what a bank remembers, and say which memory was used and why."""
    text = (sys.stdin.read() if problem == "-" else problem).strip()
    if not text:
        raise ConfigError("The problem is empty; give its text.")
    config = given.settings(RunConfig(), bank=bank)
    with opened_bank(bank, create=learn) as opened:
        from tacit.assembly import as_bound

        config = given.settings(as_bound(config, opened, [config.namespace]))
        facts = _ask(config, opened, text, use_memory=memory, learn=learn)
    if json:
        emit_json(facts)
    else:
        _show_answer(facts)


def _ask(config: RunConfig, bank: Bank, text: str, *, use_memory: bool, learn: bool) -> dict[str, Any]:
    """What ``tacit ask --json`` prints: the greedy answer that was returned, why, and both ways of answering."""
    from tacit.assembly import assembled
    from tacit.memory import State
    from tacit.problem import Problem

    kinds = sorted({info.key_kind for info in bank.find(config.namespace, states=[State.ACTIVE])})
    if use_memory and kinds and config.recall.key not in kinds:
        raise ConfigError(f"The memories of this bank have keys of kind {', '.join(kinds)}; give --key {kinds[0]}.")
    _quiet()
    problem = Problem(f"ask/{hashlib.sha256(text.encode()).hexdigest()[:16]}", text)
    learned = None
    with assembled(config, bank) as agent:
        [answered] = agent.answer([problem], use_memory=use_memory)
        if learn:
            [remembered] = agent.learn([answered])
            agent.remember([answered], [remembered])
            kept = remembered.memory
            reason = remembered.learned.reason if kept is None else kept.reason
            learned = {"memory_id": kept and kept.id, "state": kept and str(kept.state), "reason": reason}

    def arm(responses: Responses) -> dict[str, Any]:
        vote = responses.vote
        return {
            "greedy_answer": responses.greedy_answer,
            "answer": vote.answer,
            "share": vote.share,
            "why": vote.why,
            "answers": list(responses.answers),
            "text": responses.greedy.text,
        }

    hit = answered.hit
    return {
        "answer": answered.greedy_answer,
        "route": answered.greedy_route.name,
        "why": answered.greedy_route.why,
        "text": answered.greedy.text,
        "recalled": hit and {"id": hit.memory_id, "problem_id": hit.problem_id, "similarity": hit.similarity},
        "zero_shot": arm(answered.zero_shot),
        "memory": answered.memory and arm(answered.memory),
        "learned": learned,
        "tokens": answered.tokens,
    }


def _show_answer(facts: dict[str, Any]) -> None:
    lines = [("answer", facts["answer"] or "none was given"), ("route", f"{facts['route']}: {facts['why']}")]
    if facts["recalled"]:
        recalled = facts["recalled"]
        source = f"similarity {recalled['similarity']:.3f}, learned on {recalled['problem_id']}"
        lines.append(("memory", f"{recalled['id']}, {source}"))
    lines.append(("zero-shot", "{greedy_answer} greedy; {why}".format(**facts["zero_shot"])))
    if facts["memory"]:
        lines.append(("with memory", "{greedy_answer} greedy; {why}".format(**facts["memory"])))
    lines.append(("response", facts["text"]))
    if facts["learned"]:
        learned = facts["learned"]
        what = f"{learned['memory_id']} ({learned['state']})" if learned["memory_id"] else "nothing"
        lines.append(("learned", f"{what}: {learned['reason']}"))
    for name, value in lines:
        emit(f"{name:<12} {one_line(str(value))}")


def _run(config: RunConfig, title: str) -> None:
    """Run with live progress, then show the figures and where the report is."""
    from tacit.experiments import run as runner

    _quiet()
    results = Path(config.out) / "results.jsonl"
    try:
        earlier = results.read_bytes().count(b"\n") if results.exists() else 0
    except OSError:
        earlier = 0  # the run will say what is wrong with its folder
    try:
        with Progress(title, config.limit or 0, earlier=earlier, window=config.window) as progress:
            summary = runner.run(config, progress)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues the run") from None
    show_summary(summary)
    emit("")
    emit(f"report    {Path(config.out) / 'report.html'}")
    from tacit.bank import shown_address

    bank = shown_address(config.bank) if config.bank else Path(config.out) / "bank.sqlite"
    emit(f"memories  tacit memories list --bank {bank}")


def _quiet() -> None:
    """No bars for reading weights from the disk: they would tear the live display."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
