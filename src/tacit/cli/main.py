"""The command line: ``tacit demo | run | ask | serve | compare | report | memories | bank | keys ...``.

Builds on everything, but imports it late: ``tacit --help`` must not wait for torch. The commands are thin (parse, call,
print) and live in the modules beside it; this file holds the entry point and what becomes of errors. A user's error is
one line on stderr and exit code 2; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from tacit import __version__
from tacit.cli import bank as cli_bank
from tacit.cli import compare as cli_compare
from tacit.cli import config as cli_config
from tacit.cli import doctor as cli_doctor
from tacit.cli import keys as cli_keys
from tacit.cli import memories as cli_memories
from tacit.cli import run as cli_run
from tacit.cli import serve as cli_serve
from tacit.cli import study as cli_study
from tacit.cli import tasks as cli_tasks
from tacit.cli import testbed as cli_testbed
from tacit.cli import tune as cli_tune
from tacit.cli.common import Interrupted, ReaderGone, emit, one_line, show_notes, show_summary, writing
from tacit.errors import ConfigError, TacitError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

# typer carries its own copy of click since 0.26 or so; the base of its errors is found without naming either.
_UsageError = cast(
    "type[Exception]", next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
)

app = typer.Typer(
    name="tacit",
    help="A frozen language model that learns from its own experience.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(cli_run.demo)
app.command("run")(cli_run.run)
app.command("ask")(cli_run.ask)
app.command("serve")(cli_serve.serve)
app.command("compare")(cli_compare.compare)
app.add_typer(cli_memories.app, name="memories")
app.add_typer(cli_bank.app, name="bank")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_study.app, name="study")
app.add_typer(cli_tasks.app, name="tasks")
app.add_typer(cli_testbed.app, name="testbed")
app.add_typer(cli_config.app, name="config")
app.command("tune")(cli_tune.tune)
app.command("doctor")(cli_doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"tacit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A frozen language model that learns from its own experience: latent memories, no labels, no weight updates."""


@app.command("report")
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run or a comparison.")]) -> None:
    """Write the report of a run or a comparison again: its figures as JSON, report.html, plots."""
    if (folder / "cells").is_dir():
        from tacit.experiments.report import comparison as comparison_report

        emit(comparison_report.as_text(comparison_report.rewrite(folder)))
    else:
        from tacit.experiments.report.run import write_report

        show_summary(write_report(folder))
    emit(f"{folder / 'report.html'}")


@app.command("consolidate", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def consolidate() -> None:
    """Did not pay and has left (docs/log/); `tacit bank tend` keeps a bank small."""
    raise ConfigError("consolidate did not pay and has left (docs/log/); `tacit bank tend BANK` keeps a bank small")


def main() -> None:
    """Entry point of the ``tacit`` command; exits with 0, 1 (doctor found something), 2 (user error) or 130."""
    show_notes()
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
        with writing():  # output may still be in the buffer: trouble is to be met here, not at exit
            sys.stdout.flush()
    except (TacitError, OSError) as error:
        where = getattr(error, "filename", None)
        if isinstance(error, OSError) and where is None:
            raise
        return _fail(f"{where} cannot be used ({error}); give another path" if where else str(error))
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return 2
        return _fail(error.format_message())  # type: ignore[attr-defined]
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except ReaderGone:
        _forget_output()
        return 141  # what a shell says of a program that SIGPIPE ended
    if code == INTERRUPTED:
        sys.stderr.write("interrupted\n")
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    sys.stderr.write(f"error: {one_line(message)}\n")
    return 2


def _forget_output() -> None:
    """What is still buffered for a stdout that cannot be written must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
