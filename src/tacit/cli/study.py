"""``tacit study``: where memories carry over, where a model has signal to learn from, and which keys tell kinds apart.

Builds on options at import, on experiments.studies when called. Tables go to stdout and, with
all figures as JSON, into the folder of ``--out``.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from tacit.cli.common import Interrupted, at_least, console, emit
from tacit.cli.options import Given, taking
from tacit.config import LearnConfig, RecallConfig, RunConfig
from tacit.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    help="Measure where memories carry over, where a model has signal to learn from, and which keys tell kinds apart.",
)

OWN = ("out", "bank", "limit", "skip", "window", "strict", "namespace", "baselines", "tend", "keep")
"""Settings of a run that a study has of its own, or none of."""

OF_MEMORIES = (
    "verifier",
    "reward_model",
    *(part.name for kind in (LearnConfig, RecallConfig) for part in fields(kind)),
)
"""Settings of what makes, finds and judges memories."""

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figures, made if missing.")]


@app.command("quality", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def quality() -> None:
    """Has answered what it asked and has left (docs/log/)."""
    raise ConfigError("study quality has answered what it asked and has left (docs/log/); tacit 0.1.0 has it")


@app.command()
@taking(RunConfig, leave_out=OWN)
def transfer(
    given: Given,
    out: OutOption,
    memories: Annotated[int, typer.Option("--memories", metavar="N", help="Admitted memories per family.")] = 3,
    targets: Annotated[int, typer.Option("--targets", metavar="N", help="Problems answered per family.")] = 4,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Problems learned, and answered, per set.")] = 60,
    sets: Annotated[
        str, typer.Option("--sets", metavar="DATA,DATA", help="Data sources between which banks are carried.")
    ] = "testbed:A,testbed:B",
) -> None:
    """Let memories of each family answer every family, and banks of one data set another."""
    from tacit.experiments.studies.transfer import TransferConfig, study

    for name, value in (("--memories", memories), ("--targets", targets), ("--limit", limit)):
        at_least(name, value, 1)
    config = TransferConfig(
        run=given.settings(RunConfig(learn=LearnConfig(batch=16))),
        memories=memories,
        tries=2 * memories,
        targets=targets,
        sets=tuple(filter(None, (part.strip() for part in sets.split(",")))),
        learned=limit,
        answered=limit,
    )
    study(config, out, console().print)
    _show(out / "transfer.md")


@app.command()
@taking(RunConfig, leave_out=(*OWN, *OF_MEMORIES, "data"))
def signal(
    given: Given,
    out: OutOption,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="What is measured, as often as needed; a family without a level is all of its levels. "
            r"\[default: families]",
        ),
    ] = None,
    problems: Annotated[int, typer.Option("--problems", metavar="N", help="Asked of each family and level.")] = 12,
    low: Annotated[float, typer.Option("--low", metavar="X", help="Least pass@1 of what has signal.")] = 0.2,
    high: Annotated[float, typer.Option("--high", metavar="X", help="Most pass@1 of what has signal.")] = 0.5,
    lead: Annotated[float, typer.Option("--lead", metavar="X", help="Least lead of the vote over pass@1.")] = 0.1,
    every: Annotated[bool, typer.Option("--every", help="Harder levels too, where one is too hard.")] = False,
) -> None:
    """Find kinds of problems that a model solves now and then, and a vote of its samples more often."""
    from tacit.experiments.studies.signal import SignalConfig, study

    at_least("--problems", problems, 1)
    for name, value in (("--low", low), ("--high", high), ("--lead", lead)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value:g}; it is a share, from 0 to 1")
    if low > high:
        raise ConfigError(f"--low is {low:g} and --high {high:g}; no family can be between them")
    settings = SignalConfig(given.settings(RunConfig()), tuple(data or ("families",)), problems, low, high, lead, every)
    try:
        result = study(settings, out, console().print)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on") from None
    _show(out / "signal.md")
    for task, address in result["streams"].items():
        emit(f"--task {task} --data {address}")


@app.command()
@taking(RunConfig, leave_out=(*OWN, "verifier", "reward_model"))
def keys(
    given: Given,
    out: OutOption,
    kinds: Annotated[
        str, typer.Option("--kinds", metavar="KEY,KEY", help="Kinds of keys.")
    ] = "relative,last,hidden,input",
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", metavar="DATA", help="Problems of other kinds than the data's.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Problems, and at most of each --unlike.")] = 160,
) -> None:
    """See which kind of key finds memories of the right kind on a model, and refuses problems of other kinds."""
    from tacit.experiments.studies.keys import KeysConfig, study

    at_least("--limit", limit, 8)
    chosen = tuple(filter(None, (part.strip() for part in kinds.split(","))))
    study(KeysConfig(given.settings(RunConfig()), chosen, tuple(unlike or ()), limit), out, console().print)
    _show(out / "keys.md")


def _show(path: Path) -> None:
    emit(path.read_text(encoding="utf-8").rstrip("\n"))
    emit(f"\n{path.with_suffix('.json')}")
