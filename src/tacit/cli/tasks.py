"""``tacit tasks``: what kinds of problems there are, and ``tacit tasks try``: one of them on a few problems.

Builds on options and the registry at import, and on assembly, the responses and the scorer when called. Trying makes
no files: it is for looking at prompts, responses, answers and votes before anybody spends an hour.
"""

from __future__ import annotations

import inspect
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from tacit import registry
from tacit.cli.common import emit, one_line, percent
from tacit.cli.options import Given, settings_of, taking
from tacit.config import RunConfig
from tacit.errors import DataError

if TYPE_CHECKING:
    from tacit.problem import Problem
    from tacit.responses import Responses

app = typer.Typer(invoke_without_command=True, help="Kinds of problems: list them, or try one on a few problems.")

COLUMNS = 80
LIMIT = 5
REFERENCE = 50
"""Of a reference answer, so many characters are shown."""
LINES = 12
"""Of a prompt or a response, so many first and last lines are shown."""

LEFT_OUT = (
    *("skip", "tend", "keep"),
    *(name for name, setting in settings_of(RunConfig).items() if setting.table in ("learn", "recall")),
    *("task", "out", "bank", "window", "strict", "namespace", "baselines", "verifier", "reward_model"),
)
"""Settings of a run that have no say in what a task makes of responses."""


@app.callback()
def tasks(
    context: typer.Context,
    plugins: Annotated[list[str] | None, typer.Option("--plugin", metavar="FILE.py", help="Files with more.")] = None,
) -> None:
    """List the tasks, those of plug-ins too."""
    if context.invoked_subcommand is None:
        registry.load(plugins or ())
        parts = [(name, registry.get("task", name)) for name in registry.names("task")]
        forms = [getattr(part, "form", name) for name, part in parts]
        width = max(map(len, forms)) + 2
        for form, (_, part) in zip(forms, parts, strict=True):
            said = one_line((inspect.getdoc(part) or "").partition("\n\n")[0])
            emit(textwrap.fill(f"{form:{width}}{said}", COLUMNS, subsequent_indent=" " * width))


@app.command("try")
@taking(RunConfig, leave_out=LEFT_OUT)
def attempt(
    given: Given,
    task: Annotated[str, typer.Argument(metavar="NAME", help="One that `tacit tasks` lists, or a TOML file.")],
) -> None:
    """Show for a few problems the prompt, the responses, the answers found in them, and the vote. Makes no files."""
    from tacit import assembly
    from tacit.model import presets
    from tacit.responses import Responder
    from tacit.tasks.sources import load

    config = given.settings(RunConfig(limit=LIMIT), task=task)
    problems = load(config.data, seed=config.seed, limit=config.limit, fields=config.fields)
    assembly.set_threads(config)
    backbone = assembly.load_backbone(config)
    config = presets.fit(config, backbone)
    found, right, cut = [], [], 0
    with closing(assembly.open_engine(config, backbone)) as engine:
        responder = Responder(engine, config.sampling, config.seed, assembly.task_of(config))
        for place, problem in enumerate(problems, 1):
            ids = backbone.encode(problem.text)
            emit(f"{f'== problem {place} of {len(problems)}: {one_line(problem.id)} ':=<{COLUMNS}}")
            _show("prompt", backbone.tokenizer.decode(ids))
            if responder.room(len(ids)) < 0:
                emit("not asked: it does not fit the model's context with so long an answer (--max-tokens)")
                continue
            [responses] = responder.ask([problem.blind()])
            answered = _responses(responses)
            found += answered
            ends = (sample.finish == "length" for sample in responses.samples)
            cut += sum(end and not one for end, one in zip(ends, answered, strict=True))
            right += _vote(problem, responses)
    none = found.count(False)
    emit("=" * COLUMNS)
    emit(f"answers found in {len(found) - none} of {len(found)} responses")
    if right:
        emit(f"votes that are right: {sum(right)} of {len(right)} ({percent(sum(right) / len(right))})")
    if 2 * none > len(found):
        why = f" ({cut} of the {none} were cut by --max-tokens)" if cut else ""
        _wrapped(f"Most responses have no answer{why}: try another --instruction, more --max-tokens, or another task.")


def _responses(responses: Responses) -> list[bool]:
    """Shows them; whether each has an answer."""
    for number, (sample, answer) in enumerate(zip(responses.samples, responses.answers, strict=True), 1):
        cut = ", cut by --max-tokens" if sample.finish == "length" else ""
        _show(f"response {number} of {len(responses.samples)}{cut}", sample.text)
        emit(f"   answer: {'none' if answer is None else one_line(answer)}")
    return [answer is not None for answer in responses.answers]


def _vote(problem: Problem, responses: Responses) -> list[bool]:
    """Shows the vote; whether it is right, where the problem has a reference answer."""
    from tacit.experiments.scoring import Grader

    sizes = [len(group) for group in responses.task.group(responses.answers)]
    many = f"a tie of {sizes.count(sizes[0])}:" if sizes else ""  # a vote names two of those that tie
    _wrapped(f"vote: {one_line(responses.vote.why.replace('a tie:', many, 1))}")
    grader = Grader(problem, responses.task)
    try:
        marks = grader.rights([responses.vote.answer])
    except DataError as error:
        _wrapped(f"the reference answer cannot be read: {one_line(str(error))}")
        return []
    if marks is not None:
        said = textwrap.shorten(one_line(grader.head(0)["gold"]), REFERENCE, placeholder="...")
        verdict = "" if responses.vote.answer is None else f"; the vote is {'right' if marks[0] else 'wrong'}"
        _wrapped(f"reference answer: {said}{verdict}")
    return marks or []


def _wrapped(text: str) -> None:
    emit(textwrap.fill(text, COLUMNS, subsequent_indent="   "))


def _show(title: str, text: str) -> None:
    """A text of several lines, wrapped and indented; of a long one, both ends."""
    emit(f"-- {title}")
    wrapped: list[str] = []
    for line in text.expandtabs(4).strip("\n").split("\n"):
        indent = " " * min(len(line) - len(line.lstrip(" ")), COLUMNS // 2)
        wrapped += textwrap.wrap(indent + one_line(line), COLUMNS - 3, subsequent_indent=indent) or [""]
    left = len(wrapped) - 2 * LINES
    if left > 1:
        wrapped[LINES:-LINES] = [f"[{left} more lines]"]
    for line in wrapped:
        emit(f"   {line}".rstrip())
