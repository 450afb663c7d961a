"""``tacit run``, ``tacit demo`` and ``tacit ask``: the commands that answer problems and learn from them; and the live
progress of a run: running accuracies side by side, memories by state, tokens, time left.

Builds on options and config at import, and on assembly, the run and the agent when called. What a setting means, and
which values it can have, is said in config.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from tacit.cli.common import (
    BankOption,
    Interrupted,
    JsonOption,
    console,
    counted,
    emit,
    emit_json,
    one_line,
    percent,
    show_summary,
    table,
)
from tacit.cli.options import Given, taking
from tacit.config import RunConfig
from tacit.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

    from tacit.bank import Bank
    from tacit.responses import Responses

DEMO: dict[str, Any] = {
    "out": "runs/demo",
    "limit": 216,
    "window": 12,
    "baselines": ("icl", "random", "verified", "majority"),
}
"""The demonstration: enough problems for intervals, in minutes on two cores."""

OF_A_STREAM = ("data", "fields", "out", "limit", "skip", "window", "strict", "baselines", "tend", "keep")
"""Settings of a run that a single problem has no use for."""


@taking(RunConfig)
def run(given: Given) -> None:
    """Answer a stream of problems one after the other, learn a memory from each, and report.

    A run folder that is there is continued, with its own settings where they are not given again.
    """
    from tacit.experiments.run_folder import begun

    config = given.settings(begun(given.settings(RunConfig())))
    _run(config, f"{config.model} on {config.data}, seed {config.seed}")


@taking(RunConfig, only=("out", "seed", "limit", "window"))
def demo(
    given: Given,
    real: Annotated[
        bool, typer.Option("--real", help="With real weights, SmolLM2-135M-Instruct, which are downloaded once.")
    ] = False,
) -> None:
    """See it work: the testbed model on fresh problems, beside in-context learning and controls."""
    from tacit.experiments.run_folder import begun

    if real:
        from tacit.experiments.real import demonstration

        config = given.settings(begun(given.settings(demonstration())))
    else:
        config = given.settings(begun(given.settings(RunConfig(**DEMO))))
    _run(config, f"demo{' on real weights' * real}, seed {config.seed}")


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
    from tacit.assembly import as_bound, check_engine
    from tacit.bank import bank_there, open_bank

    check_engine(config)
    with ExitStack() as stack:
        opened = bank_there(bank) if learn else open_bank(bank, create=False)
        if opened is not None:
            stack.enter_context(opened)
            config = given.settings(as_bound(config, opened, [config.namespace]))
        # As in a run, a new bank is made last.
        made = opened or (lambda: stack.enter_context(open_bank(bank)))
        facts = _ask(config, made, text, use_memory=memory, learn=learn)
    if json:
        emit_json(facts)
    else:
        _show_answer(facts)


def _ask(
    config: RunConfig, bank: Bank | Callable[[], Bank], text: str, *, use_memory: bool, learn: bool
) -> dict[str, Any]:
    """What ``tacit ask --json`` prints: the answer that was returned, why, and both ways of answering."""
    from tacit.assembly import assembled
    from tacit.experiments.scoring import MOST, advice, silent
    from tacit.judges.verifiers import VoteShare
    from tacit.memory import State
    from tacit.problem import Problem

    active = [] if callable(bank) else bank.find(config.namespace, states=[State.ACTIVE])
    kinds = sorted({info.key_kind for info in active})
    if use_memory and kinds and config.recall.key not in kinds:
        raise ConfigError(f"The memories of this bank have keys of kind {', '.join(kinds)}; give --key {kinds[0]}.")
    _quiet()
    problem = Problem(f"ask/{hashlib.sha256(text.encode()).hexdigest()[:16]}", text)
    learned = None
    with assembled(config, bank) as agent:
        [answered] = agent.answer([problem], use_memory=use_memory)
        votes = isinstance(agent.verifier, VoteShare)
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

    hit, none, every = answered.hit, silent([answered.zero_shot]), len(answered.zero_shot.samples)
    hint = f"{len(none)} of {every} responses have no answer, {advice(none)}" if len(none) > MOST * every else None
    decided, told = answered.told() if votes else (answered.greedy_route, answered.greedy)
    return {
        "answer": answered.zero_shot.task.extract(told.text),
        "route": decided.name,
        "why": decided.why,
        "text": told.text,
        "recalled": hit and {"id": hit.memory_id, "problem_id": hit.problem_id, "similarity": hit.similarity},
        "zero_shot": arm(answered.zero_shot),
        "memory": answered.memory and arm(answered.memory),
        "learned": learned,
        "tokens": answered.tokens,
        **({"hint": hint} if hint else {}),
    }


def _show_answer(facts: dict[str, Any]) -> None:
    lines = [("answer", facts["answer"] or "none was given"), ("route", f"{facts['route']}: {facts['why']}")]
    if facts["recalled"]:
        recalled = facts["recalled"]
        source = f"similarity {recalled['similarity']:.3f}, learned on {recalled['problem_id']}"
        lines.append(("memory", f"{recalled['id']}, {source}"))
    for name, arm in (("zero-shot", facts["zero_shot"]), ("with memory", facts["memory"])):
        if arm:
            lines.append((name, f"{arm['greedy_answer'] or 'none'} greedy; {arm['why']}"))
    lines.append(("response", facts["text"]))
    if facts["learned"]:
        learned = facts["learned"]
        what = f"{learned['memory_id']} ({learned['state']})" if learned["memory_id"] else "nothing"
        lines.append(("learned", f"{what}: {learned['reason']}"))
    if "hint" in facts:
        lines.append(("hint", facts["hint"]))
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
        with Progress(title, config.limit or 0, earlier=earlier) as progress:
            summary = runner.run(config, progress, progress.tell)
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


# -- progress ---------------------------------------------------------------------------------------------------------

ARMS = {"zero_shot": "zero-shot", "memory": "memory", "routed": "routed"}
RECENT = 50
"""Problems in the moving accuracy."""

PAUSE = 10.0
"""Seconds between lines where there is no terminal."""


class Tally:
    """Running figures of the rows so far: means per arm, sampled and greedy, over all and over the last ``RECENT``."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._recent: dict[str, deque[float]] = {arm: deque(maxlen=RECENT) for arm in ARMS}
        self.states: Counter[str] = Counter()
        self.tokens = 0
        self._found: Counter[bool] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row; where no memory was recalled, the memory arm has zero-shot's marks."""
        from tacit.experiments.scoring import asked

        for arm in ARMS:
            cell = row.get(arm) or row["zero_shot"]
            for key in ("correct", "greedy_correct"):
                if cell.get(key) is not None:
                    self._sums[arm, key] += cell[key]
                    self._counts[arm, key] += 1
            if cell.get("correct") is not None:
                self._recent[arm].append(float(cell["correct"]))
        learned = row.get("learned")
        if learned and learned.get("memory_id"):
            self.states[str(learned.get("state"))] += 1
        self.tokens += int(row.get("tokens") or 0)
        self._found.update(answer is not None for answer in asked(row))

    def mean(self, arm: str, key: str = "correct") -> float | None:
        """Share of right answers so far, None before the first mark."""
        count = self._counts[arm, key]
        return self._sums[arm, key] / count if count else None

    def recent(self, arm: str) -> float | None:
        """Share of right samples among the last ``RECENT`` problems."""
        values = self._recent[arm]
        return sum(values) / len(values) if values else None

    def unanswered(self) -> str:
        """The share of zero-shot responses without an answer, in words."""
        total = self._found.total()
        return f"{percent(self._found[False] / total if total else None)} without an answer"

    def memories(self) -> str:
        """How many memories in which states, in words."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return f"{counted(self.states.total(), 'memory', 'memories')}{f' ({states})' if states else ''}"


class Progress:
    """Shows a run as it goes. Call it with each final row, how many are done, and of how many.

    Args:
        title: of the run.
        total: problems in all, 0 if that is not known yet.
        earlier: how many rows an interrupted part of the run has left; they come first and at once.
    """

    def __init__(self, title: str, total: int, *, earlier: int = 0) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._earlier = earlier
        self._tally = Tally()
        self._begun = False  # this process has done a window: the first is slower (it compiles) and foretells nothing
        self._start = time.monotonic()
        self._work_start = self._start
        self._last_line = self._start
        self._told = 0  # problems done when the last line was written
        self._live: Live | None = None

    @cached_property
    def _console(self) -> Console:
        return console()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.live import Live

            # A refresh thread of its own: time goes on while a problem takes long.
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._done > self._told:
            self._console.print(self.line(), soft_wrap=True)

    def __call__(self, row: Mapping[str, Any], done: int, total: int) -> None:
        """A row is final."""
        if done == self._earlier:
            self._work_start = time.monotonic()  # what comes now takes its time
        self._done, self._total = done, total
        self._tally.add(row)
        now = time.monotonic()
        whole = done == row["position"] + 1
        if whole and done > self._earlier and not self._begun:
            self._begun, self._earlier, self._work_start = True, done, now
        if self._live is None and whole and now - self._last_line >= PAUSE:
            self._last_line, self._told = now, done
            self._console.print(self.line(), soft_wrap=True)

    def tell(self, text: str) -> None:
        """A line that stays, above what is redrawn; it may hold anything that a model wrote."""
        self._console.print(one_line(text), soft_wrap=True)

    def line(self) -> str:
        """Everything in one plain line."""
        figures = ", ".join(f"{name} {percent(self._tally.mean(arm))}" for arm, name in ARMS.items())
        return (
            f"{self._done} of {self._total} problems; {figures}; {self._tally.unanswered()}; "
            f"{self._tally.memories()}; {self._tally.tokens:,} tokens; {self._time()}"
        )

    def render(self) -> Group:
        """The block that is redrawn on a terminal."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._title, style="bold", no_wrap=True, overflow="ellipsis"),
            ProgressBar(total=max(1, self._total), completed=self._done, width=30),
            f"{self._done} / {self._total}",
            Text(self._time(), style="dim"),
        )
        shown, tally = table(("right answers", *ARMS.values()), ARMS.values()), self._tally
        shown.columns[list(ARMS).index("routed") + 1].style = "bold"
        shown.add_row("sampled", *(percent(tally.mean(arm)) for arm in ARMS))
        shown.add_row(f"the last {RECENT} problems", *(percent(tally.recent(arm)) for arm in ARMS))
        shown.add_row("greedy", *(percent(tally.mean(arm, "greedy_correct")) for arm in ARMS))
        below = f"{tally.memories()}; {tally.tokens:,} tokens; {tally.unanswered()}"
        return Group(head, shown, Text(below, style="dim"))

    def _time(self) -> str:
        elapsed = time.monotonic() - self._start
        new = self._done - self._earlier
        if (over := self._done >= self._total > 0) or not self._begun or new <= 0:
            return _clock(elapsed) + ("" if over or self._begun else ", starting")
        each = (time.monotonic() - self._work_start) / new
        return f"{_clock(elapsed)}, about {_clock(each * (self._total - self._done))} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
