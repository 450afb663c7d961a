"""``tacit doctor``: whether this machine can run Tacit, and what it would run on.

Builds on backbone's libraries, testbed and bank. A check that fails says what to do; the command then exits 1.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from tacit import __version__
from tacit.cli.common import JsonOption, emit_json, one_line, opened_bank, show
from tacit.errors import TacitError, install_hint

PACKAGES = ("torch", "transformers", "safetensors", "numpy", "math-verify", "peft", "sqlalchemy")


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is None for a plain fact."""

    name: str
    value: str
    ok: bool | None = None


def doctor(
    bank: Annotated[
        str | None, typer.Option("--bank", metavar="URL", envvar="TACIT_BANK", help="Also check this bank, whole.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check this installation and, with --bank, a bank; exits 1 on trouble."""
    checks = [*_versions(), *_device(), _compiled(), _weights(), _answers()]
    if bank is not None:
        checks.append(_bank(bank))
    healthy = all(check.ok is not False for check in checks)
    if json:
        emit_json({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        from rich.text import Text

        width = max(len(check.name) for check in checks)
        for check in checks:
            mark, style = {None: (" ", ""), True: ("✓", "green"), False: ("✗", "bold red")}[check.ok]
            show(Text(f"{mark} {check.name:<{width}}  {check.value}", style=style))
    if not healthy:
        raise typer.Exit(1)


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
    """Compiled passes make small models on the CPU two to three times as fast; nothing needs them."""
    from tacit.model import fused

    if not fused.available():
        return Check("compiled passes", f"none; small models on the CPU are faster with {install_hint('fast')}")
    return Check("compiled passes", "for small float32 models on the CPU", True)


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
