"""``tacit doctor``: whether this machine can run Tacit, what it would run on, and what a model makes of a task.

Builds on options, backbone's libraries, testbed and bank, and on experiments.first_look for a model. A check that fails
says what to do; the command then exits 1. The last lines say what to do next.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tacit import __version__
from tacit.cli.common import JsonOption, at_least, console, emit_json, one_line, opened_bank, percent, show
from tacit.cli.options import Given, taking
from tacit.config import RunConfig
from tacit.errors import TacitError, install_hint

if TYPE_CHECKING:
    from tacit.experiments.first_look import Look

OF_A_MODEL = (
    *("model", "task", "data", "fields", "limit", "seed", "instruction", "system", "stop", "allow_code", "device"),
    *("dtype", "threads", "engine", "plugins", "samples", "temperature", "max_tokens"),
)
"""Settings of a run that a first look at a model takes."""

PACKAGES = ("torch", "transformers", "safetensors", "numpy", "math-verify", "peft", "sqlalchemy")


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is None for a plain fact."""

    name: str
    value: str
    ok: bool | None = None


@taking(RunConfig, only=OF_A_MODEL)
def doctor(
    given: Given,
    bank: Annotated[
        str | None, typer.Option("--bank", metavar="URL", envvar="TACIT_BANK", help="Also check this bank, whole.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check this installation and, with --bank, a bank; say what to do next; exits 1 on trouble.

    With --model it loads the model and asks it 8 problems (of --data, else made ones for its --task). It says what the
    model is; how fast it samples; how many responses have an answer; how many votes are clear; what to do next.
    """
    checks = [*_versions(), *_device(), _compiled(), _weights(), _answers()]
    if bank is not None:
        checks.append(_bank(bank))
    seen = _look(given)
    wrong = [check.name for check in checks if check.ok is False]
    advice = _next(wrong, bank) if wrong or seen is None else seen.next
    if json:
        more = {} if seen is None else {"model": asdict(seen)}
        emit_json({"ok": not wrong, "checks": [asdict(check) for check in checks], **more, "next": advice})
    else:
        _show(checks)
        if seen is not None:
            show("")
            _show(_model(seen))
        show("", *(f"next: {line}" for line in advice))
    if wrong:
        raise typer.Exit(1)


def _next(wrong: list[str], bank: str | None) -> tuple[str, ...]:
    """What to do now, by what was found of the installation and the bank."""
    if wrong:
        mend = f"mend what is marked with a cross ({', '.join(wrong)}), then run tacit doctor again"
        back = "a damaged bank goes back to a snapshot with: tacit memories restore FILE --bank ... --force"
        return (mend, back) if "bank" in wrong else (mend,)
    if bank is not None:
        from tacit.bank import shown_address

        return (f"tacit memories list --bank {shown_address(bank)}",)
    return ("tacit demo shows it at work, in minutes", "tacit doctor --model NAME looks at a model of your own")


def _show(checks: list[Check]) -> None:
    from rich.text import Text

    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, style = {None: (" ", ""), True: ("✓", "green"), False: ("✗", "bold red")}[check.ok]
        show(Text(f"{mark} {check.name:<{width}}  {check.value}", style=style))


def _look(given: Given) -> Look | None:
    """A first look at the model that was named, if one was."""
    said = {*given.flags, *given.file}
    if not said & {"model", "task", "data"}:
        return None
    from tacit.experiments.first_look import look, sample_data

    config = given.settings(RunConfig())
    at_least("--limit", config.limit, 1)
    if "data" not in said:
        config = given.settings(RunConfig(), data=sample_data(config.task, config.model))
    return look(config, console().print)


def _model(seen: Look) -> list[Check]:
    held: dict[str, Any] = seen.settings
    chat = "its chat template" if seen.chat_template else "no chat template, so plainly"
    told = f"with {held['instruction']!r}" if held["instruction"] else "without an instruction"
    answers = f"in {percent(seen.answered)} of {seen.problems * held['sampling']['samples']} responses"
    return [
        Check("model", seen.model),
        Check(
            "architecture", f"{seen.architecture}, {seen.parameters:,} parameters, {seen.bytes / 2**20:,.0f} MiB here"
        ),
        Check("context", "without a bound" if seen.context is None else f"{seen.context:,} tokens"),
        Check("fingerprint", seen.fingerprint),
        Check("asked by", f"{chat}, {told}"),
        Check("speed", f"{seen.tokens_per_second:,.0f} tokens a second, {seen.problems} problems together"),
        Check("task", f"{seen.task} on {seen.data}"),
        Check("answers", answers, seen.answered >= 0.9 or None),
        Check("votes", f"{percent(seen.confident)} of {seen.problems} are clear enough to learn from"),
        Check("settings", seen.preset),
    ]


def _versions() -> list[Check]:
    checks = [Check("tacit", __version__), Check("python", f"{platform.python_version()} on {platform.platform()}")]
    for name in PACKAGES:
        try:
            checks.append(Check(name, version(name), True))
        except PackageNotFoundError:
            checks.append(Check(name, f"not installed; {install_hint()}", False))
    return checks


def _device() -> list[Check]:
    try:
        import torch

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            name = torch.cuda.get_device_name()
            device = f"cuda: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        else:
            device = "cpu"
        threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    except Exception as error:  # a broken installation raises whatever it likes; that is the finding
        return [Check("device", f"torch cannot be used: {one_line(str(error))}; reinstall torch", False)]
    return [Check("device", device, True), Check("threads", threads)]


def _compiled() -> Check:
    """Compiled passes make models on the CPU faster, small ones two to three times; nothing needs them."""
    from tacit.model import fused

    if not fused.available():
        return Check("compiled passes", f"none; models on the CPU are faster with {install_hint('fast')}")
    return Check("compiled passes", "for float32 models on the CPU", True)


def _weights() -> Check:
    from tacit.testbed import reward_model_path, shipped
    from tacit.testbed.weights import MODELS

    try:
        folder = reward_model_path()
        for name in MODELS:
            shipped(name)
    except TacitError as error:
        return Check("testbed weights", one_line(str(error)), False)
    size = sum(path.stat().st_size for path in folder.parent.rglob("*") if path.is_file())
    return Check("testbed weights", f"as shipped (sha256), {size / 2**20:.1f} MiB", True)


def _answers() -> Check:
    """Answers are compared in a worker process; where none can be started, every vote would be by spelling."""
    from tacit.answers.equivalence import equivalent

    pair = r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"  # not to be told by spelling or arithmetic alone
    start = time.monotonic()
    try:
        same = equivalent(*pair)
    except Exception as error:
        return Check("answer worker", f"cannot be used: {one_line(str(error))}", False)
    took = time.monotonic() - start
    if not same:
        return Check("answer worker", f"does not find {pair[0]} equal to {pair[1]}; reinstall math-verify", False)
    return Check("answer worker", f"finds {pair[0]} = {pair[1]}, in {took:.1f} s", True)


def _bank(url: str) -> Check:
    from tacit.bank import shown_address

    try:
        with opened_bank(url) as bank:
            bank.check()
            revision = bank.revision()
    except TacitError as error:
        return Check("bank", one_line(str(error)), False)
    return Check("bank", f"{shown_address(url)}: opens, integrity verified, revision {revision}", True)
