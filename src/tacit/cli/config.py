"""``tacit config show``: the settings that ``tacit run`` would have, as a file that ``--config`` takes back.

Builds on options and the run folder at import, on the model's presets when called. Nothing is loaded and no file made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from tacit.cli.common import emit
from tacit.cli.options import Given, taking
from tacit.config import RunConfig
from tacit.experiments.run_folder import PARTS, begun, toml_value

app = typer.Typer(no_args_is_help=True, help="The settings in force, as a file for --config.")


@app.callback()
def config() -> None:
    """The settings in force, as a file for --config."""


@app.command("show")
@taking(RunConfig)
def show(given: Given) -> None:
    """Print the settings of `tacit run` as TOML: options, TACIT_ variables, --config, the run folder, defaults.

    What fits the model and nobody has said is marked: of the testbed with its value, of others it is known only once
    they are loaded. A password in the bank's address is not shown. Nothing is run.
    """
    emit(as_toml(given.settings(begun(given.settings(RunConfig())))))


def as_toml(config: RunConfig) -> str:
    """Settings of a run as a file for ``--config``; what has no value there is a comment."""
    from tacit.model.presets import known

    held, said = known(config).settings(), config.settings()
    tables = {name: held.pop(name) for name in PARTS}
    lines = [
        "# The settings of `tacit run`; --config takes this file.",
        *(_line(name, value, "not said") for name, value in held.items() if name != "bank"),
        *_bank(config.bank, held["bank"]),
    ]
    for table, values in tables.items():
        lines += ["", f"[{table}]"]
        for name, value in values.items():
            fits = "" if said[table][name] is not None else "what fits the model"
            lines.append(_line(name, value, f"{fits}, known once it is loaded", fits))
    return "\n".join(lines)


def _line(name: str, value: Any, unsaid: str, note: str = "") -> str:
    return f"# {name}: {unsaid}" if value is None else f"{name} = {toml_value(value)}" + f"  # {note}" * bool(note)


def _bank(url: str | None, shown: str | None) -> Iterator[str]:
    if url == shown:
        yield _line("bank", url, "not said, so a file in the run folder")
    else:
        yield f"# bank = {toml_value(shown)}, whose password is not shown: say it with --bank or TACIT_BANK"
