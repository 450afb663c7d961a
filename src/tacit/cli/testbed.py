"""``tacit testbed``: the small model trained from scratch: its problems, its card, its training.

Builds on testbed. The problems and the card need no torch.
"""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tacit.cli.common import at_least, console, emit, emit_json
from tacit.errors import ConfigError

if TYPE_CHECKING:
    from tacit.testbed.train import Progress, Step

app = typer.Typer(no_args_is_help=True, help="The testbed model: its problems, its card, its training.")

SeedOption = Annotated[int, typer.Option("--seed", metavar="S", help="Same seed, same result.")]


@app.command()
def problems(
    which: Annotated[
        str, typer.Option("--set", metavar="SET", help="A, B, AB, C, or C:text, C:choice, C:list.")
    ] = "AB",
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="How many; the stream itself has no end.")] = 20,
    seed: SeedOption = 0,
) -> None:
    """Print fresh problems as JSONL: id, problem, answer, family."""
    from tacit.testbed import problems as stream

    at_least("--limit", limit, 0)
    for id, text, answer, family in islice(stream(which, seed), limit):
        emit_json({"id": id, "problem": text, "answer": answer, "family": family}, indent=None)


@app.command()
def card() -> None:
    """Print the model card: what the testbed is, what it is not, and its measured figures."""
    from importlib.resources import files

    emit((files("tacit.testbed") / "card.md").read_text(encoding="utf-8").rstrip("\n"))


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the weights.")],
    seed: SeedOption = 0,
    which: Annotated[str, typer.Option("--set", metavar="AB|C", help="The model of which sets.")] = "AB",
) -> None:
    """Train a model from scratch, with that of A and B its reward model, as the shipped weights were (minutes)."""
    if which not in ("AB", "C"):
        raise ConfigError(f"--set is {which}; the testbed has a model of AB and one of C.")
    at_least("--seed", seed, 0)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; give the path of a new one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made a folder ({error.strerror}).") from None
    from tacit.testbed import reward
    from tacit.testbed import train as language
    from tacit.testbed.weights import seal

    folder = out / ("model-c" if which == "C" else "model")
    loss = language.train(folder, seed, _progress("language model"), which=which)
    emit(f"language model: loss {loss:.3f} at the end, in {folder}")
    if which == "AB":
        loss = reward.train(out / "reward", folder, seed, _progress("reward model"))
        emit(f"reward model: loss {loss:.3f} at the end, in {out / 'reward'}")
    seal(out)


def _progress(what: str) -> Progress:
    """A line on stderr every few seconds: step, loss, time left."""
    err = console()
    pause = 2.0 if err.is_terminal else 10.0
    last = time.monotonic()

    def tell(step: Step) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < pause and step.step < step.total:
            return
        last = now
        left = step.seconds / step.step * (step.total - step.step)
        err.print(f"{what}: step {step.step} of {step.total}, loss {step.loss:.3f}, about {left:.0f} s left")

    return tell
