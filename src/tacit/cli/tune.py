"""``tacit tune``: settings that fit a model and its problems, found on a few of them, as a file for ``tacit run``.

Builds on options at import, on experiments.tuning when called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tacit.cli.common import Interrupted, emit, one_line, show, table
from tacit.cli.options import Given, taking
from tacit.config import RunConfig
from tacit.errors import ConfigError

LEFT_OUT = (
    *("out", "bank", "limit", "window", "strict", "namespace", "baselines", "skip", "tend", "keep"),
    *("ray", "learners", "engines"),
)
"""Settings of a run that a search has no use for."""


@taking(RunConfig, leave_out=LEFT_OUT)
def tune(
    given: Given,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.toml", help="The result.")] = Path("tuned.toml"),
    budget: Annotated[
        str, typer.Option("--budget", metavar="TOKENS|MINUTESm", help="How much to spend: 40000, 40k, or 15m.")
    ] = "80k",
) -> None:
    """Find learning rate, start, temperature and length of answers for a model, on a few problems, without labels.

    What is said is kept, and what is not is searched for. The same command goes on where it was interrupted.
    """
    from tacit.experiments.run_folder import write_atomically
    from tacit.experiments.trials import Budget, trials_file
    from tacit.experiments.tuning import as_toml, tune

    config, spend = given.settings(RunConfig()), Budget.read(budget)
    if out.is_dir() or (out.exists() and not trials_file(out).exists()):
        raise ConfigError(
            f"--out {out} is there already, and is no result of `tacit tune`; give the path of a new file"
        )
    try:
        tuned = tune(config, spend, out, lambda line: emit(one_line(line)))
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; the same command goes on ({trials_file(out)})") from None
    write_atomically(out, as_toml(config, tuned, spend))
    arms = table(("lr", "start", "problems", "without", "first", "last", "gained"), ("lr", "problems", *_FIGURES))
    for arm in tuned.arms:
        chosen = (arm["lr"], arm["init"]) == (tuned.lr, tuned.init)
        arms.add_row(*_row(arm), style="bold" if chosen else None)
    (tokens, seconds), seen = tuned.spent, len(tuned.problems)
    show(
        "",
        arms,
        "",
        f"chosen    lr {tuned.lr:g} from {tuned.init}, temperature {tuned.temperature:g}, {tuned.max_tokens} tokens an "
        f"answer; {tokens:,} tokens, {seconds / 60:.1f} min",
        f"settings  {out}" + (f", where the {seen} problems of this search are left out" if seen else ""),
        f"use them  tacit run --config {out} --out runs/tuned",
    )


_FIGURES = ("without", "first", "last", "gained")


def _row(arm: dict[str, Any]) -> list[str]:
    shares = [f"{arm[name]:+.2f}" if name == "gained" else f"{arm[name]:.2f}" for name in _FIGURES]
    return [f"{arm['lr']:g}", str(arm["init"]), str(arm["problems"]), *shares]
