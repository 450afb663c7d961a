"""``tacit study``: what predicts a good memory, and where memories carry over.

Builds on config at import, on experiments.quality and experiments.transfer when called. Tables go to stdout and, with
all figures as JSON, into the folder of ``--out``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tacit.cli.common import at_least, console, emit
from tacit.config import LearnConfig, RunConfig
from tacit.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Measure what predicts a good memory, and where memories carry over.")

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figures, made if missing.")]
ModelOption = Annotated[str, typer.Option("--model", metavar="testbed|PATH|HUBID", help="A causal language model.")]
RewardModelOption = Annotated[
    str | None,
    typer.Option("--reward-model", metavar="PATH|HUBID", help="Process reward model; the testbed's for the testbed."),
]
VerifierOption = Annotated[
    str | None, typer.Option("--verifier", metavar="NAME", help="reward-model, vote, logprob or none.")
]


@app.command()
def quality(
    out: OutOption,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="S,S", help="Seeds on which admission rules are chosen.")
    ] = "201,202",
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="S,S", help="Other seeds, on which the chosen rules are judged.")
    ] = "203,204",
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Problems learned from, per seed.")] = 60,
    held_out: Annotated[
        int | None,
        typer.Option("--held-out", metavar="N", help="Further problems per seed, to measure on; default: 2 x --limit."),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", metavar="NAME", help="Whose vote: zero-shot, routed, verified, renewed.")
    ] = "zero-shot",
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="Where the problems come from.")] = "testbed",
    model: ModelOption = "testbed",
    verifier: VerifierOption = None,
    reward_model: RewardModelOption = None,
) -> None:
    """Learn memories, good and bad, measure what each does for held-out problems, and see which signals foretold it."""
    from tacit.experiments.studies.quality import QualityConfig, study

    at_least("--limit", limit, 2)
    at_least("--held-out", held_out, 1)
    run = RunConfig(
        model=model,
        data=data,
        verifier=verifier,
        reward_model=reward_model,
        learn=LearnConfig(label=label, batch=16),
    )
    chosen, judged = _seeds("--seeds", seeds), _seeds("--confirm", confirm)
    both = sorted(set(chosen) & set(judged))
    if both:
        raise ConfigError(f"seed {both[0]} is both in --seeds and in --confirm; rules must be confirmed on other seeds")
    config = QualityConfig(run, chosen, judged, limit, 2 * limit if held_out is None else held_out)
    study(config, out, console().print)
    _show(out / "quality.md")


@app.command()
def transfer(
    out: OutOption,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Same seed, same result.")] = 0,
    memories: Annotated[int, typer.Option("--memories", metavar="N", help="Admitted memories per family.")] = 3,
    targets: Annotated[int, typer.Option("--targets", metavar="N", help="Problems answered per family.")] = 4,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Problems learned, and answered, per set.")] = 60,
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="Problems with families, for the matrix.")] = (
        "testbed"
    ),
    sets: Annotated[
        str, typer.Option("--sets", metavar="DATA,DATA", help="Data sources between which banks are carried.")
    ] = "testbed:A,testbed:B",
    model: ModelOption = "testbed",
    verifier: VerifierOption = None,
    reward_model: RewardModelOption = None,
) -> None:
    """Let memories of each family answer every family, and banks of one data set another."""
    from tacit.experiments.studies.transfer import TransferConfig, study

    for name, value in (("--memories", memories), ("--targets", targets), ("--limit", limit)):
        at_least(name, value, 1)
    run = RunConfig(model=model, data=data, seed=seed, verifier=verifier, reward_model=reward_model)
    config = TransferConfig(
        run=replace(run, learn=replace(run.learn, batch=16)),
        memories=memories,
        tries=2 * memories,
        targets=targets,
        sets=tuple(filter(None, (part.strip() for part in sets.split(",")))),
        learned=limit,
        answered=limit,
    )
    study(config, out, console().print)
    _show(out / "transfer.md")


def _seeds(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{option} is {text!r}; give whole numbers of at least 0, separated by commas")
    return tuple(int(part) for part in parts)


def _show(path: Path) -> None:
    emit(path.read_text(encoding="utf-8").rstrip("\n"))
    emit(f"\n{path.with_suffix('.json')}")
